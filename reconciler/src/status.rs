//! What the outside may see of the loop.

pub(crate) mod project;

use std::{collections::BTreeMap, sync::Arc};

use model::diagnostic::Span;
use serde::{Deserialize, Serialize};

use crate::{
    key::InstanceKey,
    observed::Observed,
    plan::step::{Plan, Waiting},
    time::Now,
};

/// Published after every pass and whenever a step ends.
#[derive(Debug, Clone)]
pub struct Status {
    pub projects: BTreeMap<String, ProjectStatus>,
    pub observed: Arc<Observed>,
    pub plan: Arc<Plan>,
    /// What a step that runs is stopping, and since when it is asked to end: later than now while it drains
    /// (boot-clock milliseconds).
    pub stopping: BTreeMap<InstanceKey, u64>,
    /// Counts passes; a caller that waits for an effect of its own request waits for a later one.
    pub pass: u64,
    pub at: Now,
}

impl Status {
    /// Before anything was looked at.
    pub fn before_the_first_look(at: Now) -> Self {
        Status {
            projects: BTreeMap::new(),
            observed: Arc::new(Observed::nothing_known()),
            plan: Arc::default(),
            stopping: BTreeMap::new(),
            pass: 0,
            at,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProjectState {
    Converged,
    Working,
    Waiting,
    Degraded,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectStatus {
    pub state: ProjectState,
    /// The revision the last pass planned for, and the last one that was converged.
    pub tried: Option<String>,
    pub applied: Option<String>,
    pub waiting: Vec<Waiting>,
    /// Failures that stand, newest first.
    pub failures: Vec<Failure>,
    /// Boot-clock milliseconds.
    pub next_attempt: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Text form of the key.
    pub key: String,
    pub message: String,
    /// Where in the manifest it stands what failed.
    pub span: Option<Span>,
    pub at: Now,
    pub attempts: u32,
}
