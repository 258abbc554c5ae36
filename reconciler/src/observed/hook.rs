//! Commands that run in a container around the life of its first process.

use std::fmt;

use serde::{Deserialize, Serialize};

/// When a hook runs, under the name of its attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// After each start of the first process; until then it does not count as started.
    PostStart,
    /// Before the stop signal.
    PreStop,
}

/// The hook that runs, or is the next to run. Of a container that has ended: the one it did not get beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub moment: Moment,
    /// Its place in the list, from 1.
    pub number: u32,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Moment::PostStart => "post_start",
            Moment::PreStop => "pre_stop",
        })
    }
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} hook {}", self.moment, self.number)
    }
}
