//! What was done, for people and for the proof that the plan is what happens.

use serde::{Deserialize, Serialize};

use crate::{
    plan::step::{Cause, Class},
    time::Now,
};

/// One finished change or supervision step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Now,
    pub project: Option<String>,
    /// Text form of the key.
    pub key: String,
    /// The change that was completed; `None` for supervision (a restart after a crash).
    pub change: Option<Class>,
    pub cause: Cause,
    /// `None`: done. Otherwise why not.
    pub error: Option<String>,
}

/// Where entries go.
pub trait Journal: Send + Sync + 'static {
    fn record(&self, entry: Entry);
}
