//! The doors of `backend` that the agent uses, one small function each.

use std::{
    os::fd::AsFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use backend::{
    LinuxBackend,
    copy::{self, CopyError, Warnings},
    layout::Layout,
    lock::{self, Lock},
    registry::Settings,
    shim::{self, protocol::Exec},
};
use reconciler::{key::InstanceKey, port::Backend};
use tokio::sync::Notify;

use crate::registries;

pub use backend::{
    copy::{Options as CopyOptions, Place},
    doctor::{Finding, USER_NAMESPACES, Verdict, abilities, check},
    image::Progress,
    logs::{
        ELSEWHERE,
        reader::{Line as LogLine, Reader as LogReader},
    },
    shim::{
        attach::{Attach, End as AttachEnd, Keys, hold_signals},
        client::ClientError as ExecError,
        relay::hold_resizes,
    },
    usage::{Process, Source, Usage},
};

/// Becomes a shim or the far side of `cp`, and does not return, where this process was started as one.
pub fn dispatch() {
    shim::dispatch();
    copy::dispatch();
}

/// The transfers of images that are under way.
pub type Pulls = Arc<dyn Fn() -> Vec<Progress> + Send + Sync>;

/// The host, and what is told of its images beside what the loop asks for.
pub struct Opened {
    pub backend: Arc<dyn Backend>,
    pub pulls: Pulls,
    /// Told whenever an image was brought into the store.
    pub brought: Arc<Notify>,
}

/// For the holder of the root's lock.
pub fn open(layout: &Layout) -> anyhow::Result<Opened> {
    let backend = Arc::new(LinuxBackend::open(layout)?.with_registries(settings(layout)));
    let pulling = Arc::clone(&backend);
    Ok(Opened {
        brought: backend.brought(),
        pulls: Arc::new(move || pulling.pulls()),
        backend,
    })
}

/// To look only: changes nothing, needs no lock.
pub fn open_to_look(layout: &Layout) -> anyhow::Result<Arc<dyn Backend>> {
    Ok(Arc::new(
        LinuxBackend::open_to_look(layout)?.with_registries(settings(layout)),
    ))
}

/// What the operator says of registries, read anew for each pull.
pub fn settings(layout: &Layout) -> Settings {
    let layout = layout.clone();
    Settings::new(move || registries::of(&layout).map_err(|error| format!("{error:#}")))
}

/// Held until dropped.
pub fn lock(layout: &Layout) -> anyhow::Result<Lock> {
    Ok(lock::acquire(layout)?)
}

/// The control socket of the shim of an instance.
pub fn shim_socket(layout: &Layout, key: &InstanceKey) -> PathBuf {
    let name = backend::names::short_hash(key.to_string().as_bytes());
    layout.shims().join(format!("{name}.sock"))
}

/// Attaches our own standard streams to an instance, until the end.
///
/// # Errors
/// As the shim refused, or why it cannot be asked.
pub fn attach(socket: &Path, how: &Attach) -> Result<AttachEnd, ExecError> {
    shim::attach::attach(socket, how, std::io::stdin().as_fd())
}

/// From `source` to `destination`, of which one is of the container whose shim listens on `socket`.
///
/// # Errors
/// What could not be copied, and why.
pub fn copy(
    socket: &Path,
    source: &Place,
    destination: &Place,
    how: CopyOptions,
) -> Result<Warnings, CopyError> {
    let mut worker = copy::Worker::start(socket)?;
    match (source, destination) {
        (Place::Host(from), Place::Container { path, .. }) => copy::copy_in(&mut worker, from, path, how),
        (Place::Container { path, .. }, Place::Host(to)) => copy::copy_out(&mut worker, path, to, how),
        (Place::Stream, Place::Container { path, .. }) => {
            let input = std::io::stdin().as_fd().try_clone_to_owned()?;
            copy::stream_in(&mut worker, input, path, how)
        }
        (Place::Container { path, .. }, _) => {
            let output = std::io::stdout().as_fd().try_clone_to_owned()?;
            copy::stream_out(&mut worker, path, output, how)
        }
        _ => Err(CopyError::Path("one side must be of a container".into())),
    }
}

/// What an instance uses now.
///
/// # Errors
/// It has ended, or its shim does not answer.
pub fn usage(socket: &Path) -> Result<Usage, ExecError> {
    let state = shim::client::Client::connect(socket)?.state()?;
    Ok(backend::usage::usage(&state.record)?)
}

/// # Errors
/// As [`usage`].
pub fn processes(socket: &Path) -> Result<Vec<Process>, ExecError> {
    let state = shim::client::Client::connect(socket)?.state()?;
    Ok(backend::usage::processes(&state.record)?)
}

/// Runs a command inside an instance with our own standard streams (`interactive`: also the input);
/// its exit status.
///
/// # Errors
/// As the shim refused, or why it cannot be asked.
pub fn exec(socket: &Path, exec: Exec, interactive: bool) -> Result<i32, ExecError> {
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let null = std::fs::File::open("/dev/null")?;
    let input = if interactive { stdin.as_fd() } else { null.as_fd() };
    shim::client::exec(socket, exec, [input, stdout.as_fd(), stderr.as_fd()])
}
