//! Every path of one root, derived here and nowhere else.

use std::path::{Path, PathBuf};

use reconciler::key::InstanceKey;

/// The directories of one instance of stead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// `/etc/stead/manifests`, or `ROOT/manifests`.
    pub manifests: PathBuf,
    /// `/var/lib/stead`, or `ROOT/state`: images, volumes, upper directories, records, logs.
    pub state: PathBuf,
    /// `/run/stead`, or `ROOT/run`: sockets, zones, the lock.
    pub run: PathBuf,
    /// Six hexadecimal digits derived from the root: the mark every kernel name carries.
    pub mark: String,
}

impl Layout {
    /// `root`: `None` for the system's own instance. The path must exist or be creatable; it is made
    /// absolute so that the mark does not depend on where the command was typed.
    ///
    /// # Errors
    /// The path cannot be made absolute.
    pub fn new(root: Option<&Path>) -> std::io::Result<Self> {
        let (manifests, state, run, identity) = match root {
            None => (
                PathBuf::from("/etc/stead/manifests"),
                PathBuf::from("/var/lib/stead"),
                PathBuf::from("/run/stead"),
                PathBuf::from("/"),
            ),
            Some(root) => {
                let root = std::fs::canonicalize(root).or_else(|_| std::path::absolute(root))?;
                (root.join("manifests"), root.join("state"), root.join("run"), root)
            }
        };
        let mark = crate::names::short_hash(identity.as_os_str().as_encoded_bytes());
        Ok(Layout {
            manifests,
            state,
            run,
            mark,
        })
    }

    /// The API socket of the agent.
    pub fn agent_socket(&self) -> PathBuf {
        self.run.join("stead.sock")
    }

    /// Names the holder of the lock of this root, see [`crate::lock`].
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// `…/state/records/<kind>/<name>.json`
    pub fn records(&self) -> PathBuf {
        self.state.join("records")
    }

    pub fn images(&self) -> PathBuf {
        self.state.join("images")
    }

    /// `…/state/volumes/<full name>/{data,identity}`
    pub fn volumes(&self) -> PathBuf {
        self.state.join("volumes")
    }

    /// `…/state/containers/<project>/<service>-<n><slot>/{upper,work,hosts,…}`
    pub fn container(&self, key: &InstanceKey) -> PathBuf {
        self.state
            .join("containers")
            .join(&key.project)
            .join(instance_name(key))
    }

    /// `…/state/logs/<project>/<service>-<n><slot>/current.log`, older ones `.1`, `.2`
    pub fn logs(&self, key: &InstanceKey) -> PathBuf {
        self.state
            .join("logs")
            .join(&key.project)
            .join(instance_name(key))
    }

    /// One sorted file per network.
    pub fn zones(&self) -> PathBuf {
        self.run.join("zones")
    }

    /// Shim sockets, named by short hashes.
    pub fn shims(&self) -> PathBuf {
        self.run.join("shims")
    }
}

/// `web-1a`
pub fn instance_name(key: &InstanceKey) -> String {
    format!("{}-{}{}", key.service, key.index, key.slot)
}
