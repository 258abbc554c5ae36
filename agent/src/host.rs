//! The doors of `backend` that the agent uses, one small function each.

use std::{
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use backend::{
    LinuxBackend,
    layout::Layout,
    lock::{self, Lock},
    shim::{self, protocol::Exec},
};
use reconciler::{key::InstanceKey, port::Backend};

pub use backend::doctor::{Finding, Verdict, check};

/// Becomes a shim, and does not return, where this process was started as one.
pub fn dispatch_shim() {
    shim::dispatch();
}

/// For the holder of the root's lock.
pub fn open(layout: &Layout) -> anyhow::Result<Arc<dyn Backend>> {
    Ok(Arc::new(LinuxBackend::open(layout)?))
}

/// To look only: changes nothing, needs no lock.
pub fn open_to_look(layout: &Layout) -> anyhow::Result<Arc<dyn Backend>> {
    Ok(Arc::new(LinuxBackend::open_to_look(layout)?))
}

/// One agent to a root; held until dropped.
pub fn lock(layout: &Layout) -> anyhow::Result<Lock> {
    std::fs::create_dir_all(&layout.run).with_context(|| format!("cannot make {}", layout.run.display()))?;
    Ok(lock::acquire(layout)?)
}

/// The control socket of the shim of an instance.
pub fn shim_socket(layout: &Layout, key: &InstanceKey) -> PathBuf {
    layout
        .shims()
        .join(format!("{}.sock", backend::names::short_hash(key.to_string().as_bytes())))
}

/// Runs a command inside an instance with our own standard streams; its exit status. Without
/// `interactive` the command reads from /dev/null.
pub fn exec(socket: &Path, exec: Exec, interactive: bool) -> anyhow::Result<i32> {
    let nothing = std::fs::File::open("/dev/null").context("cannot open /dev/null")?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let input = if interactive { stdin.as_fd() } else { nothing.as_fd() };
    Ok(shim::client::exec(socket, exec, [input, stdout.as_fd(), stderr.as_fd()])?)
}
