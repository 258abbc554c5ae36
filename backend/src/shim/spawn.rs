//! The agent's side of shims that are ready: a few are kept, and go with the agent.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::unix::{fs::OpenOptionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    PROGRAM,
    client::{Client, ClientError},
};
use crate::{cgroup, names};

/// Nobody has taken a shim for so long before the pool is filled again: the processors belong to what is
/// being started.
const CALM: Duration = Duration::from_millis(100);

/// Keeps `ready` idle shims, refilled by a thread of its own.
pub struct Pool {
    shared: Arc<Shared>,
    refill: Option<JoinHandle<()>>,
}

struct Shared {
    program: PathBuf,
    idle: PathBuf,
    errors: Option<PathBuf>,
    wanted: usize,
    counter: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    ready: VecDeque<Client>,
    /// When a shim was last asked for.
    taken: Option<Instant>,
    /// To be reaped when they end, and their leaves removed.
    children: Vec<(Child, PathBuf)>,
    stop: bool,
}

impl Pool {
    /// `program`: what to execute, by default this very program. `errors`: where shims write what goes
    /// wrong before they can speak.
    ///
    /// # Errors
    /// There is no v2 tree.
    pub fn new(mark: &str, wanted: usize, program: Option<&Path>, errors: Option<&Path>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            program: program.unwrap_or(Path::new("/proc/self/exe")).to_owned(),
            idle: cgroup::root()?.join(names::cgroup(mark)).join("idle"),
            errors: errors.map(Path::to_owned),
            wanted,
            counter: AtomicU64::new(0),
            state: Mutex::default(),
            changed: Condvar::new(),
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
        self.shared.changed.notify_all();
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
        self.shared.changed.notify_all();
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
        self.children.retain_mut(|(child, leaf)| {
            let lives = matches!(child.try_wait(), Ok(None));
            if !lives {
                let _ = fs::remove_dir(leaf);
            }
            lives
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
                state = self.wait(state, CALM - calm);
                continue;
            }
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
                    Err(error) => tracing::warn!(%error, "no shim could be made ready"),
                }
            }
            // Woken by a take; children that ended are reaped now and then.
            state = self.wait(state, Duration::from_secs(1));
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, at_most: Duration) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, at_most);
        waited.unwrap_or_else(PoisonError::into_inner).0
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
        self.lock().children.push((child, leaf));
        let client = Client::new(ours)?;
        Ok(client)
    }
}

/// One idle shim whose descriptor 3 is `socket`: standard input carries it, since nothing but the three
/// standard descriptors passes a [`Command`].
fn spawn(program: &Path, leaf: &Path, socket: UnixStream, errors: Stdio) -> io::Result<Child> {
    Command::new(program)
        .arg0(PROGRAM)
        .arg("idle")
        .arg(leaf)
        .env_clear()
        .current_dir("/")
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
