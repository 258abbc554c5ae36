//! What is mounted in a container.

use std::path::PathBuf;

use model::types::{Propagation, Recursive};
use serde::{Deserialize, Serialize};

use crate::key::ResourceKey;

/// A mount with its source decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum MountSpec {
    /// A named volume; filled from the image when new, unless `nocopy`.
    Volume {
        volume: ResourceKey,
        target: PathBuf,
        read_only: bool,
        nocopy: bool,
        /// Below the volume's root, which it must not lead out of.
        #[serde(default)]
        subpath: Option<String>,
    },
    Bind {
        source: PathBuf,
        target: PathBuf,
        read_only: bool,
        create_host_path: bool,
        #[serde(default)]
        propagation: Propagation,
        #[serde(default)]
        recursive: Recursive,
    },
    /// `size` in bytes, `mode` as permission bits, ids as in the container.
    Tmpfs {
        target: PathBuf,
        size: Option<u64>,
        mode: Option<u32>,
        #[serde(default)]
        uid: Option<u32>,
        #[serde(default)]
        gid: Option<u32>,
        /// Programs on it may be run.
        #[serde(default)]
        exec: bool,
    },
}

impl MountSpec {
    /// Where it is in the container.
    pub fn target(&self) -> &PathBuf {
        let (MountSpec::Volume { target, .. }
        | MountSpec::Bind { target, .. }
        | MountSpec::Tmpfs { target, .. }) = self;
        target
    }
}
