//! What is mounted into a service.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A mount in long form. `target` is absolute and cleaned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Mount {
    /// `source` is a key of `Project::volumes`, or `None` for an anonymous volume.
    Volume {
        source: Option<String>,
        target: PathBuf,
        read_only: bool,
        nocopy: bool,
    },
    /// `source` is absolute; `create_host_path`: a missing source becomes a directory.
    Bind {
        source: PathBuf,
        target: PathBuf,
        read_only: bool,
        create_host_path: bool,
    },
    /// `size` in bytes; `mode` as permission bits.
    Tmpfs {
        target: PathBuf,
        size: Option<u64>,
        mode: Option<u32>,
    },
}

impl Mount {
    pub fn target(&self) -> &PathBuf {
        match self {
            Mount::Volume { target, .. } | Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => target,
        }
    }
}
