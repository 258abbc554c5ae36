//! The file tree a container sees: layers, mounts, devices, masks.
//!
//! Two halves. [`stage`] runs as the host's root and turns every source into a detached mount, the root itself in a
//! mount namespace of its own; [`attach`] runs as the container's root and hangs them into the tree.
//! No path of an image or a container reaches a system call but through [`tree`].

pub mod attach;
pub mod bare;
pub mod binds;
pub mod devices;
pub mod etc;
pub mod files;
pub mod fill;
pub mod stage;
pub mod tree;

use std::io;

use serde::{Deserialize, Serialize};

use crate::{cgroup::limits::LimitError, shim::protocol::Reason};

/// A step of a start that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct StepError {
    /// What was tried, on which path, why it failed, what to do.
    pub message: String,
    pub errno: Option<i32>,
    pub reason: Reason,
}

impl StepError {
    /// The manifest or the image must change.
    pub fn spec(message: impl Into<String>) -> Self {
        StepError {
            message: message.into(),
            errno: None,
            reason: Reason::Spec,
        }
    }

    /// A system call failed on `path`.
    pub fn system(step: &str, path: impl std::fmt::Display, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        StepError {
            message: format!("cannot {step} {path}: {error}"),
            errno: error.raw_os_error(),
            reason: Reason::System,
        }
    }
}

impl From<LimitError> for StepError {
    fn from(error: LimitError) -> Self {
        let source = std::error::Error::source(&error).map(|source| format!(": {source}"));
        StepError {
            message: format!("{error}{}", source.unwrap_or_default()),
            errno: None,
            // What the host lacks now it may have later, and nobody tells of it.
            reason: Reason::System,
        }
    }
}

/// Adds step and path to the error of a system call.
pub trait Step<T> {
    /// # Errors
    /// The given one, as [`StepError::system`].
    fn step(self, step: &str, path: impl std::fmt::Display) -> Result<T, StepError>;
}

impl<T, E: Into<io::Error>> Step<T> for Result<T, E> {
    fn step(self, step: &str, path: impl std::fmt::Display) -> Result<T, StepError> {
        self.map_err(|error| StepError::system(step, path, error))
    }
}
