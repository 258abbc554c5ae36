//! The restart policy of a service.

use serde::{Deserialize, Serialize};

/// `restart:` of Compose. Serialised as written there (`on-failure:3`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    UnlessStopped,
    /// At most so many restarts in a row; `None`: no limit.
    OnFailure(Option<u32>),
}
