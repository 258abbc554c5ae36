//! Time as an input: nothing in this crate reads a clock.

use serde::{Deserialize, Serialize};

/// One moment on both clocks. Delays and ages use `boot`; `wall` is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Now {
    /// Milliseconds of CLOCK_BOOTTIME.
    pub boot: u64,
    /// Milliseconds since the epoch.
    pub wall: u64,
}
