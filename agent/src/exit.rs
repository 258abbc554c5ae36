//! Exit statuses, and the error that carries one.

use std::fmt;

pub const FAILED: u8 = 1;
/// `plan` and `doctor`: there is something to do.
pub const SOMETHING: u8 = 2;
/// sysexits.h EX_USAGE.
pub const USAGE: u8 = 64;
/// sysexits.h EX_UNAVAILABLE: no agent answers.
pub const NO_AGENT: u8 = 69;
/// As timeout(1).
pub const TIMEOUT: u8 = 124;
/// 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// An error with a status of its own; anything else is [`FAILED`].
#[derive(Debug)]
pub struct Failure {
    pub status: u8,
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

pub fn usage(message: impl Into<String>) -> anyhow::Error {
    with(USAGE, message)
}

pub fn with(status: u8, message: impl Into<String>) -> anyhow::Error {
    Failure {
        status,
        message: message.into(),
    }
    .into()
}

/// The status an error ends the program with.
pub fn status(error: &anyhow::Error) -> u8 {
    error
        .downcast_ref::<Failure>()
        .map_or(FAILED, |failure| failure.status)
}
