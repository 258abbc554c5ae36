//! The agent's side of shims that are ready: a few are kept, and go with the agent.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::{
    event::{EventfdFlags, eventfd},
    process::{Pid, PidfdFlags, pidfd_open},
};

use super::{
    PROGRAM,
    client::{Client, ClientError},
    program,
};
use crate::{cgroup, names, sys::process};

/// Nobody has taken a shim for so long before the pool is filled again: the processors belong to what is
/// being started.
const CALM: Duration = Duration::from_millis(100);

/// After one could not be started.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps `ready` idle shims, refilled by a thread of its own.
pub struct Pool {
    shared: Arc<Shared>,
    refill: Option<JoinHandle<()>>,
}

struct Shared {
    program: PathBuf,
    /// What `program` leads to.
    _sealed: Option<OwnedFd>,
    idle: PathBuf,
    errors: Option<PathBuf>,
    wanted: usize,
    counter: AtomicU64,
    state: Mutex<State>,
    /// Written to when a shim was taken, or all is to end.
    changed: OwnedFd,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Client>,
    /// When a shim was last asked for.
    taken: Option<Instant>,
    /// To be reaped when they end, and their leaves removed.
    children: Vec<Started>,
    /// Of shims that were killed; what else lives there is about to end.
    left: Vec<PathBuf>,
    stop: bool,
}

struct Started {
    child: Child,
    /// Readable when it has ended.
    pidfd: OwnedFd,
    leaf: PathBuf,
}

impl Pool {
    /// `program`: what to execute, by default this very program. `errors`: where shims write what goes
    /// wrong before they can speak.
    ///
    /// # Errors
    /// There is no v2 tree.
    pub fn new(mark: &str, wanted: usize, program: Option<&Path>, errors: Option<&Path>) -> io::Result<Self> {
        let path = program.unwrap_or(Path::new(program::OWN));
        let sealed = program::sealed(path)
            .inspect_err(|error| tracing::warn!(%error, "supervisors run the program by its path"))
            .ok();
        let shared = Arc::new(Shared {
            program: match &sealed {
                Some(sealed) => format!("/proc/self/fd/{}", sealed.as_raw_fd()).into(),
                None => path.to_owned(),
            },
            _sealed: sealed,
            idle: cgroup::root()?.join(names::cgroup(mark)).join("idle"),
            errors: errors.map(Path::to_owned),
            wanted,
            counter: AtomicU64::new(0),
            state: Mutex::default(),
            changed: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        });
        let background = Arc::clone(&shared);
        let refill = std::thread::Builder::new()
            .name("shim-pool".into())
            .spawn(move || background.refill())?;
        Ok(Pool {
            shared,
            refill: Some(refill),
        })
    }

    /// A ready shim, or a new one when none is.
    ///
    /// # Errors
    /// A new one cannot be started.
    pub fn take(&self) -> Result<Client, ClientError> {
        let ready = {
            let mut state = self.shared.lock();
            state.taken = Some(Instant::now());
            // One that was killed while it waited is no use.
            state.ready.retain(|client| !client.hung_up());
            state.ready.pop_front()
        };
        self.shared.notify();
        match ready {
            Some(client) => Ok(client),
            None => self.shared.start(),
        }
    }
}

impl Drop for Pool {
    /// Idle shims end with their sockets; those that are assigned go on.
    fn drop(&mut self) {
        {
            let mut state = self.shared.lock();
            state.stop = true;
            state.ready.clear();
        }
        self.shared.notify();
        if let Some(thread) = self.refill.take() {
            let _ = thread.join();
        }
        self.shared.lock().reap();
        // Had the last to leave been killed, these would stay. Nobody is on the way into a leaf now.
        let _ = sweep_leaves(&self.shared.idle);
        let _ = fs::remove_dir(&self.shared.idle);
        if let Some(own) = self.shared.idle.parent() {
            let _ = fs::remove_dir(own);
        }
    }
}

impl State {
    /// A shim removes its leaf when it ends, unless it was killed. A leaf in use cannot be removed.
    fn reap(&mut self) {
        let left = &mut self.left;
        self.children.retain_mut(|started| {
            let lives = matches!(started.child.try_wait(), Ok(None));
            if !lives {
                left.push(std::mem::take(&mut started.leaf));
            }
            lives
        });
        left.retain(|leaf| {
            // Its namespace holder, which outlives it by a moment.
            let _ = cgroup::kill(leaf);
            let removed = fs::remove_dir(leaf);
            removed.is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves of an earlier agent's shims that were killed. Those of our own may be just in the making.
    fn sweep_foreign(&self) {
        let own = format!("{}-", std::process::id());
        for leaf in fs::read_dir(&self.idle).into_iter().flatten().flatten() {
            if leaf.file_type().is_ok_and(|kind| kind.is_dir())
                && !leaf.file_name().to_string_lossy().starts_with(&own)
            {
                // In use: refused.
                let _ = fs::remove_dir(leaf.path());
            }
        }
    }

    fn refill(&self) {
        let mut state = self.lock();
        while !state.stop {
            state.reap();
            if self.wanted > 0 {
                self.sweep_foreign();
            }
            state.ready.retain(|client| !client.hung_up());
            let calm = state.taken.map_or(CALM, |taken| taken.elapsed());
            if state.ready.len() < self.wanted && calm < CALM {
                state = self.wait(state, Some(CALM - calm));
                continue;
            }
            let mut patience = (!state.left.is_empty()).then_some(CALM);
            if state.ready.len() < self.wanted {
                drop(state);
                let started = self.start();
                state = self.lock();
                match started {
                    Ok(client) if !state.stop => {
                        state.ready.push_back(client);
                        continue;
                    }
                    Ok(_) => break,
                    Err(error) => {
                        tracing::warn!(%error, "no shim could be made ready");
                        patience = Some(RETRY);
                    }
                }
            }
            state = self.wait(state, patience);
        }
    }

    fn notify(&self) {
        // Full: it is readable already.
        let _ = rustix::io::write(&self.changed, &1_u64.to_ne_bytes());
    }

    /// Until a shim is taken or ends, or `at_most`: whoever waits for nothing else sleeps for ever.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, at_most: Option<Duration>) -> MutexGuard<'a, State> {
        // Numbers only: a child is reaped, and its descriptor closed, by this very thread.
        let mut wanted = vec![(self.changed.as_raw_fd(), libc::POLLIN)];
        wanted.extend(
            state
                .children
                .iter()
                .map(|started| (started.pidfd.as_raw_fd(), libc::POLLIN)),
        );
        drop(state);
        let timeout = at_most.map_or(-1, |time| time.as_millis() as i32 + 1);
        let _ = process::poll(&wanted, timeout);
        let _ = rustix::io::read(&self.changed, &mut [0_u8; 8]);
        self.lock()
    }

    fn start(&self) -> Result<Client, ClientError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let leaf = self.idle.join(format!("{}-{number}", std::process::id()));
        let (ours, theirs) = UnixStream::pair()?;
        let errors = match &self.errors {
            Some(path) => Stdio::from(File::options().create(true).append(true).mode(0o600).open(path)?),
            None => Stdio::null(),
        };
        let child = spawn(&self.program, &leaf, theirs, errors)?;
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(io::Error::from)?;
        self.lock().children.push(Started { child, pidfd, leaf });
        // It is waited for from now on.
        self.notify();
        let client = Client::new(ours)?;
        Ok(client)
    }
}

/// One idle shim whose descriptor 3 is `socket`: standard input carries it, since nothing but the three
/// standard descriptors passes a [`Command`]. Nothing is asked for that would need a fork of this whole
/// process, as a working directory does: a shim goes to "/" by itself.
fn spawn(program: &Path, leaf: &Path, socket: UnixStream, errors: Stdio) -> io::Result<Child> {
    Command::new(program)
        .arg0(PROGRAM)
        .arg("idle")
        .arg(leaf)
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(socket)))
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
}

/// Removes the idle leaves nobody lives in, left by shims that were killed.
///
/// # Errors
/// As rmdir(2), except that a leaf in use is left.
pub fn sweep(mark: &str) -> io::Result<()> {
    sweep_leaves(&cgroup::root()?.join(names::cgroup(mark)).join("idle"))
}

fn sweep_leaves(idle: &Path) -> io::Result<()> {
    let Ok(entries) = fs::read_dir(idle) else {
        return Ok(());
    };
    for entry in entries {
        match fs::remove_dir(entry?.path()) {
            // In use; a file of the cgroup itself; or its shim has just removed it on its way out.
            Err(error)
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::ENOTDIR | libc::ENOENT)
                ) =>
            {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}
