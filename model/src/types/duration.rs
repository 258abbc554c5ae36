//! A Compose duration: `1h5m30s20ms`, `1.5s`.

use serde::{Deserialize, Serialize};

/// Nanoseconds; serialised as Compose prints it (`1m30s`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Duration(pub u64);

impl Duration {
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}
