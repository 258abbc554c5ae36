//! The agent's side of shims that are ready: a few are kept, and go with the agent.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::{
    client::{Client, ClientError},
    program,
    seed::{Seed, Started},
};
use crate::{cgroup, names, sys::process};

/// Nobody has taken a shim for so long before the pool is filled again: the processors belong to what is
/// being started.
const CALM: Duration = Duration::from_millis(100);
/// A timer that is set to no time never runs out.
const AT_ONCE: Duration = Duration::from_nanos(1);

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
    /// What shims are forked from, once there was one.
    seed: Mutex<Option<Arc<Seed>>>,
    state: Mutex<State>,
    /// When the pool is looked after next: a while after a shim was taken, or at once.
    due: TimerFd,
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
            seed: Mutex::default(),
            state: Mutex::default(),
            due: TimerFd::new(
                ClockId::CLOCK_MONOTONIC,
                TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK,
            )?,
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
        self.shared.wake_after(CALM);
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
        self.shared.wake_after(AT_ONCE);
        if let Some(thread) = self.refill.take() {
            let _ = thread.join();
        }
        if let Some(seed) = self.shared.lock_seed().take() {
            self.shared.lock().children.extend(seed.finish());
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
            let ended = waitid(
                WaitId::PidFd(started.pidfd.as_fd()),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
            let lives = matches!(ended, Ok(None));
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

    fn lock_seed(&self) -> MutexGuard<'_, Option<Arc<Seed>>> {
        self.seed.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// In place of what was set before. Not at once after a shim was taken: who takes it needs the processor.
    fn wake_after(&self, time: Duration) {
        let when = Expiration::OneShot(TimeSpec::from_duration(time));
        let _ = self.due.set(when, TimerSetTimeFlags::empty());
    }

    /// Until it is due, a shim ends, or `at_most`: whoever waits for nothing else sleeps for ever.
    fn wait<'a>(&'a self, state: MutexGuard<'a, State>, at_most: Option<Duration>) -> MutexGuard<'a, State> {
        // Numbers only: a child is reaped, and its descriptor closed, by this very thread.
        let children = state.children.iter().map(|started| started.pidfd.as_raw_fd());
        let mut wanted: Vec<_> = children.chain([self.due.as_fd().as_raw_fd()]).collect();
        drop(state);
        let seed = self.lock_seed().clone();
        wanted.extend(seed.as_ref().map(|seed| seed.poll_fd()));
        let wanted: Vec<_> = wanted.into_iter().map(|fd| (fd, libc::POLLIN)).collect();
        let timeout = at_most.map_or(-1, |time| time.as_millis() as i32 + 1);
        let events = process::poll(&wanted, timeout).unwrap_or_default();
        let _ = rustix::io::read(&self.due, &mut [0_u8; 8]);
        let Some(seed) = seed else {
            return self.lock();
        };
        if events.last().is_some_and(|event| event & libc::POLLHUP != 0) {
            self.forget(&seed);
        }
        let mut state = self.lock();
        state.children.extend(seed.forked());
        state
    }

    fn start(&self) -> Result<Client, ClientError> {
        let seed = self.seed()?;
        self.ask(&seed).or_else(|_| {
            // The seed was killed, or stands still: one more, by another.
            self.give_up(&seed);
            let other = self.seed()?;
            self.ask(&other)
        })
    }

    fn ask(&self, seed: &Seed) -> Result<Client, ClientError> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let (ours, theirs) = UnixStream::pair()?;
        seed.ask(&format!("{}-{number}", std::process::id()), theirs.as_fd())?;
        drop(theirs);
        Client::new(ours)
    }

    /// The one there is, or a new one.
    fn seed(&self) -> io::Result<Arc<Seed>> {
        let mut seed = self.lock_seed();
        if let Some(seed) = &*seed {
            return Ok(Arc::clone(seed));
        }
        let errors = match &self.errors {
            Some(path) => Stdio::from(File::options().create(true).append(true).mode(0o600).open(path)?),
            None => Stdio::null(),
        };
        let (new, started) = Seed::new(&self.program, &self.idle, errors)?;
        self.keep(started);
        Ok(Arc::clone(seed.insert(Arc::new(new))))
    }

    fn give_up(&self, seed: &Arc<Seed>) {
        self.forget(seed);
        seed.end();
        self.lock().children.extend(seed.finish());
    }

    /// Unless it is another already.
    fn forget(&self, seed: &Arc<Seed>) {
        self.lock_seed().take_if(|current| Arc::ptr_eq(current, seed));
    }

    /// It is waited for from now on.
    fn keep(&self, started: Started) {
        self.lock().children.push(started);
        self.wake_after(AT_ONCE);
    }
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
