//! The doors of `backend` that the agent uses, one small function each.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use backend::{layout::Layout, shim::protocol::Exec};
use nix::fcntl::{Flock, FlockArg};
use reconciler::{key::InstanceKey, port::Backend};

/// Becomes a shim, and does not return, where this process was started as one.
pub fn dispatch_shim() {}

pub fn open(_layout: &Layout) -> anyhow::Result<Arc<dyn Backend>> {
    bail!("this build of stead has no Linux backend; build it from a released version")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line of `doctor`.
#[derive(Debug, Clone)]
pub struct Finding {
    pub name: String,
    pub ok: Verdict,
    pub detail: String,
    pub remedy: Option<String>,
}

pub fn check(_layout: &Layout) -> Vec<Finding> {
    let root = nix::unistd::geteuid().is_root();
    vec![Finding {
        name: "root".into(),
        ok: if root { Verdict::Ok } else { Verdict::Fail },
        detail: if root { "running as root" } else { "not running as root" }.into(),
        remedy: (!root).then(|| "run it with sudo".into()),
    }]
}

/// Held until dropped.
pub type Lock = Box<dyn Send>;

pub fn lock(layout: &Layout) -> anyhow::Result<Lock> {
    std::fs::create_dir_all(&layout.run).with_context(|| format!("cannot make {}", layout.run.display()))?;
    let path = layout.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let mut holder = String::new();
    let _ = file.read_to_string(&mut holder);
    let file = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        anyhow::anyhow!(
            "another agent holds {}: process {}; use it, stop it, or give this one another --root",
            path.display(),
            holder.trim()
        )
    })?;
    file.set_len(0)?;
    (&*file).write_all(format!("{}\n", std::process::id()).as_bytes())?;
    Ok(Box::new(file))
}

/// The control socket of the shim of an instance.
pub fn shim_socket(layout: &Layout, key: &InstanceKey) -> PathBuf {
    layout
        .shims()
        .join(format!("{}.sock", backend::names::short_hash(key.to_string().as_bytes())))
}

/// Runs a command inside an instance with our own standard streams; its exit status.
pub fn exec(_socket: &Path, _exec: Exec, _interactive: bool) -> io::Result<i32> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}
