//! What the two children of a launch send back: a line of JSON per [`Word`], on a pipe that exec closes.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant},
};

use nix::{
    sys::wait::{WaitPidFlag, waitpid},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use super::protocol::Reason;
use crate::{rootfs::StepError, sys::process};

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// The second child, as the host counts.
    Born(i32),
    /// It is in its tree, and waits at the gate.
    Waits,
    Failed(StepError),
}

pub struct Pipe(pub OwnedFd);

impl Pipe {
    pub fn say(&self, word: &Word) {
        if let Ok(mut line) = serde_json::to_vec(word) {
            line.push(b'\n');
            let _ = nix::unistd::write(&self.0, &line);
        }
    }
}

/// The process id of the second child, once the first has said it.
pub fn born(text: &[u8]) -> Option<i32> {
    words(text).find_map(|word| match word {
        Word::Born(pid) => Some(pid),
        Word::Waits | Word::Failed(_) => None,
    })
}

/// What all the words say. A second child that failed is reaped.
pub fn outcome(text: &[u8], born: Option<i32>) -> Result<i32, StepError> {
    let failed = words(text).find_map(|word| match word {
        Word::Failed(error) => Some(error),
        Word::Born(_) | Word::Waits => None,
    });
    match (failed, born) {
        (None, Some(pid)) => Ok(pid),
        (failed, born) => {
            if let Some(pid) = born {
                let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL));
            }
            Err(failed.unwrap_or_else(ended_without_a_word))
        }
    }
}

/// What is to be said where nothing was.
pub fn ended_without_a_word() -> StepError {
    StepError {
        message: "the start ended without a word (killed?); it is tried again".into(),
        errno: None,
        reason: Reason::System,
    }
}

/// Those that are whole.
pub fn words(text: &[u8]) -> impl Iterator<Item = Word> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
}

/// Reads to the end, which is the exec of the last child or its death.
pub fn hear(ear: &OwnedFd, text: &mut Vec<u8>, patience: Option<Duration>) -> io::Result<()> {
    let end = patience.map(|patience| Instant::now() + patience);
    loop {
        if let Some(end) = end {
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            let ready = process::poll(&[(ear.as_raw_fd(), libc::POLLIN)], left as i32)?;
            if ready[0] == 0 && Instant::now() >= end {
                return Err(io::ErrorKind::TimedOut.into());
            }
            if ready[0] == 0 {
                continue;
            }
        }
        if listen(ear, text)? == 0 {
            return Ok(());
        }
    }
}

/// Reads once. 0: the end.
pub fn listen(ear: &OwnedFd, text: &mut Vec<u8>) -> io::Result<usize> {
    let mut chunk = [0; 4096];
    loop {
        match nix::unistd::read(ear, &mut chunk) {
            Ok(count) => {
                text.extend_from_slice(&chunk[..count]);
                return Ok(count);
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
