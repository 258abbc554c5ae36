//! The first process of a container with `init: true`: hands signals on and reaps.

use std::convert::Infallible;

use caps::Capability;
use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
};

use crate::{
    rootfs::{Step, StepError},
    sys::process,
};

/// The program may have become somebody else.
pub const CAPABILITIES: [Capability; 1] = [Capability::CAP_KILL];

/// Until `child` has ended, with its status; 128 and the number of the signal that ended it. Signals are
/// blocked since before it was made.
///
/// # Errors
/// The descriptors of the one it was forked from cannot be closed.
pub fn reap(child: i32) -> Result<Infallible, StepError> {
    // Whoever waits for the start waits for its end of the pipe, too.
    process::close_leaked_from(0).step("close", "descriptors")?;
    loop {
        match process::next_signal() {
            Ok(libc::SIGCHLD) => {}
            Ok(signal) => {
                let _ = process::send_signal(child, signal);
                continue;
            }
            Err(_) => continue,
        }
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid.as_raw() == child => process::exit(code),
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid.as_raw() == child => {
                    process::exit(128 + signal as i32)
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => break,
                _ => {}
            }
        }
    }
}
