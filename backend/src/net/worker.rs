//! The one thread that visits other network namespaces, so that no other thread ever does.

use std::{
    fs::File,
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::mpsc,
};

use nix::sched::{CloneFlags, setns};

type Job = Box<dyn FnOnce(&File) -> bool + Send>;

/// Runs closures in the namespace it was started in ("the host"), or in another one.
///
/// What depends on the namespace of the running thread (new sockets, /proc/sys/net) goes through
/// here; a socket once made stays with its namespace and can be used by any thread.
#[derive(Debug)]
pub struct Worker {
    jobs: mpsc::Sender<Job>,
}

impl Worker {
    /// Starts the thread in the network namespace of the caller.
    ///
    /// # Errors
    /// No more threads, or /proc is not mounted.
    pub fn start() -> io::Result<Self> {
        let home = File::open("/proc/thread-self/ns/net")?;
        let (jobs, inbox) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || {
                for job in inbox {
                    // A thread that could not come home must do nothing more.
                    if !job(&home) {
                        return;
                    }
                }
            })?;
        Ok(Worker { jobs })
    }

    /// Runs `work` in the host's namespace.
    ///
    /// # Errors
    /// The thread is gone.
    pub fn at_home<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (answer, result) = mpsc::sync_channel(1);
        self.jobs
            .send(Box::new(move |_| {
                let _ = answer.send(work());
                true
            }))
            .map_err(|_| gone())?;
        result.recv().map_err(|_| gone())
    }

    /// Runs `work` in the network namespace `netns`.
    ///
    /// # Errors
    /// The namespace cannot be entered (setns(2)), or the thread is gone.
    pub fn inside<T: Send + 'static>(
        &self,
        netns: BorrowedFd<'_>,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<T> {
        let netns: OwnedFd = netns.try_clone_to_owned()?;
        let (answer, result) = mpsc::sync_channel(1);
        self.jobs
            .send(Box::new(move |home| {
                if let Err(errno) = setns(&netns, CloneFlags::CLONE_NEWNET) {
                    let _ = answer.send(Err(errno.into()));
                    return true;
                }
                let done = work();
                let came_home = setns(home, CloneFlags::CLONE_NEWNET).is_ok();
                let _ = answer.send(Ok(done));
                came_home
            }))
            .map_err(|_| gone())?;
        result.recv().map_err(|_| gone())?
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that visits network namespaces is gone; restart stead")
}
