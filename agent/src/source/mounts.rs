//! Tells when something is mounted or unmounted on this host: a directory that is mounted over is another
//! one, and inotify does not tell.

use std::{fs::File, io, os::fd::AsFd, thread};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use tokio::sync::mpsc;

/// One word for any number of changes since the last was taken.
///
/// # Errors
/// No /proc, or no thread to be had.
pub fn watch() -> io::Result<mpsc::Receiver<()>> {
    let (changes, change) = mpsc::channel(1);
    let mounts = File::open("/proc/self/mountinfo")?;
    thread::Builder::new().name("mounts".into()).spawn(move || {
        loop {
            let mut waited = [PollFd::new(mounts.as_fd(), PollFlags::POLLPRI)];
            match poll(&mut waited, PollTimeout::NONE) {
                Ok(_) if changes.is_closed() => return,
                Ok(_) => drop(changes.try_send(())),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(change)
}
