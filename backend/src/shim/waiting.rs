//! What was forked into a container and is not its program yet.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};

use super::{
    joined,
    words::{Word, born, ended_without_a_word, hear, listen, outcome, words},
};
use crate::rootfs::{Step, StepError};

/// The first child, and what is heard of both.
pub struct Forked {
    pub child: i32,
    pub ear: OwnedFd,
}

impl Forked {
    /// Until the second has executed its program: its process id.
    ///
    /// `patience`: for children that the container can see and therefore stop (SIGSTOP): they must not hold up
    /// the shim.
    pub fn end(self, patience: Option<Duration>) -> Result<i32, StepError> {
        let mut text = Vec::new();
        let heard = hear(&self.ear, &mut text, patience);
        if heard.is_err() {
            let born = born(&text);
            for pid in born.into_iter().chain([self.child]) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            if let Some(born) = born {
                reap(born);
            }
        }
        reap(self.child);
        heard.step("start a process in", "the container, which may be frozen")?;
        outcome(&text, born(&text))
    }

    /// Until the second waits at its gate, which opens by a word on `gate`.
    pub fn waits(self, gate: OwnedFd) -> Result<Waiting, StepError> {
        let mut text = Vec::new();
        let waits = |text: &[u8]| words(text).any(|word| matches!(word, Word::Waits));
        // The second may be quicker to say that it waits than the first that it is born.
        let known = loop {
            if let Some(pid) = born(&text).filter(|_| waits(&text)) {
                break Some(pid);
            }
            if !listen(&self.ear, &mut text).is_ok_and(|count| count > 0) {
                break None;
            }
        };
        let Some((pid, pidfd)) = known.and_then(|pid| Some((pid, joined::pidfd(self.child).ok()?))) else {
            if let Some(born) = known {
                end(born);
            }
            reap(self.child);
            return Err(outcome(&text, born(&text))
                .err()
                .unwrap_or_else(ended_without_a_word));
        };
        Ok(Waiting {
            pid,
            maker: Some((self.child, pidfd)),
            ear: self.ear,
            gate,
        })
    }
}

/// A first process that is all but the program, and becomes it when it is told to.
#[derive(Debug)]
pub struct Waiting {
    pub pid: i32,
    /// The first child, until it is reaped: it ends while this one goes on, since its mounts take a while to go.
    maker: Option<(i32, OwnedFd)>,
    ear: OwnedFd,
    gate: OwnedFd,
}

impl Waiting {
    /// It becomes the program.
    ///
    /// # Errors
    /// The step that failed; nothing is left of it.
    pub fn go(mut self) -> Result<i32, StepError> {
        nix::unistd::write(&self.gate, b"g").step("wake", "the process that waits to be the container")?;
        let mut text = Vec::new();
        let heard = hear(&self.ear, &mut text, None).step("hear of", "the start of the container");
        self.reap_maker();
        heard?;
        outcome(&text, Some(self.pid))
    }

    /// It shall not be needed.
    pub fn end(mut self) {
        self.reap_maker();
        end(self.pid);
    }

    /// Readable when [`Waiting::reap_maker`] does not wait.
    pub fn maker(&self) -> Option<BorrowedFd<'_>> {
        self.maker.as_ref().map(|(_, pidfd)| pidfd.as_fd())
    }

    pub fn reap_maker(&mut self) {
        if let Some((pid, _)) = self.maker.take() {
            reap(pid);
        }
    }
}

/// Kills and reaps a child.
pub fn end(pid: i32) {
    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    reap(pid);
}

fn reap(pid: i32) {
    let _ = waitpid(Pid::from_raw(pid), Some(WaitPidFlag::__WALL));
}
