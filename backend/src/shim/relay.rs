//! A terminal here and a terminal in a container, joined.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
    },
    unistd::{read, write},
};

use crate::sys::process;

/// Raw mode for as long as it lives.
pub struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Option<Termios>,
}

impl<'a> Raw<'a> {
    /// Nothing happens when it is no terminal.
    pub fn enter(terminal: BorrowedFd<'a>) -> Self {
        let before = tcgetattr(terminal).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            let _ = tcsetattr(terminal, SetArg::TCSANOW, &raw);
        }
        Raw { terminal, before }
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let _ = tcsetattr(self.terminal, SetArg::TCSANOW, before);
        }
    }
}

/// From now on changes of the window size wait for [`relay`]. Before there is a second thread: they would be
/// lost to it.
///
/// # Errors
/// As sigprocmask(2).
pub fn hold_resizes() -> io::Result<()> {
    let mut resize = SigSet::empty();
    resize.add(Signal::SIGWINCH);
    Ok(resize.thread_block()?)
}

/// Until the far end hangs up. The window size follows `input`, where [`hold_resizes`] was called.
///
/// # Errors
/// As poll(2) and signalfd(2).
pub fn relay(input: BorrowedFd<'_>, output: BorrowedFd<'_>, master: &OwnedFd) -> io::Result<()> {
    let mut resize = SigSet::empty();
    resize.add(Signal::SIGWINCH);
    let signals = SignalFd::with_flags(&resize, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    let _ = process::copy_window_size(input, master.as_fd());
    let mut listening = true;
    let mut chunk = [0; 16 << 10];
    loop {
        let typed = if listening { input.as_raw_fd() } else { -1 };
        let wanted = [
            (master.as_raw_fd(), libc::POLLIN),
            (typed, libc::POLLIN),
            (signals.as_fd().as_raw_fd(), libc::POLLIN),
        ];
        let events = process::poll(&wanted, -1)?;
        if events[0] != 0 {
            match read(master, &mut chunk) {
                // EIO: the last process of the other end has closed it.
                Ok(0) | Err(Errno::EIO) => return Ok(()),
                Ok(count) => all(output, &chunk[..count])?,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if events[1] != 0 {
            match read(input, &mut chunk) {
                Ok(0) => {
                    // What a terminal sends for "end of input".
                    listening = false;
                    all(master.as_fd(), &[4])?;
                }
                Ok(count) => all(master.as_fd(), &chunk[..count])?,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(_) => listening = false,
            }
        }
        if events[2] != 0 {
            while let Ok(Some(_)) = signals.read_signal() {}
            let _ = process::copy_window_size(input, master.as_fd());
        }
    }
}

fn all(to: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
