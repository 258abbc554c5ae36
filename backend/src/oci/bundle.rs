//! The bundle that hooks are told of: `config.json`, and where the root of the container is.
//!
//! On the host it is the directory of the container, which is root's alone. Hooks that run as root of the container
//! find it by the same path: in their mount namespace something open to them lies over what is closed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::stat::{Mode, umask},
};
use serde_json::json;

use super::{Hooks, VERSION};
use crate::rootfs::{Step, StepError};

const CONFIG: &str = "config.json";
/// The root in the bundle. On the host it is an empty directory.
const ROOT: &str = "rootfs";

impl Hooks<'_> {
    pub(super) fn root(&self) -> PathBuf {
        self.bundle.join(ROOT)
    }

    /// What hooks look for, and no more: arguments and environment may be secret.
    pub(super) fn write(&self) -> Result<(), StepError> {
        let config = json!({
            "ociVersion": VERSION,
            "root": { "path": self.root(), "readonly": self.read_only },
            "hostname": self.hostname,
        });
        let (path, root) = (self.bundle.join(CONFIG), self.root());
        fs::create_dir_all(&root).step("make", root.display())?;
        fs::write(&path, config.to_string()).step("write", path.display())
    }

    /// Makes the bundle in a mount namespace of its own, where it hides what of the host only root may enter. Where
    /// the root of the container is to be hung.
    ///
    /// # Errors
    /// As mount(2).
    pub fn lay(&self) -> Result<PathBuf, StepError> {
        let cover = match self.host_ids {
            true => None,
            false => closed(&self.bundle)?,
        };
        let cover = cover.unwrap_or(&self.bundle);
        umask(Mode::from_bits_truncate(0o022));
        let (tmpfs, flags) = (Some("tmpfs"), MsFlags::empty());
        mount(tmpfs, cover, tmpfs, flags, Some("mode=755")).step("mount a tmpfs on", cover.display())?;
        self.write()?;
        Ok(self.root())
    }
}

/// The uppermost directory on the way to `path` that is not open to everybody.
fn closed(path: &Path) -> Result<Option<&Path>, StepError> {
    let way: Vec<&Path> = path.ancestors().collect();
    for directory in way.into_iter().rev() {
        let metadata = fs::metadata(directory).step("look at", directory.display())?;
        if metadata.mode() & 0o001 == 0 {
            return Ok(Some(directory));
        }
    }
    Ok(None)
}
