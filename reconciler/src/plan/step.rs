//! The plan as data: what will change and why, and what of it is done in this pass.

use std::collections::{BTreeMap, BTreeSet};

use model::diagnostic::Span;
use serde::{Deserialize, Serialize};

use super::action::Action;
use crate::key::{InstanceKey, Key};

/// What a change does to what runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    Create,
    /// Same process.
    Live,
    /// Same sandbox and address, new process.
    Restart,
    /// New sandbox.
    Recreate,
    Remove,
}

/// Why: the field that differs, and where it stands in which file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// `services.web.environment.A`, or for drift and removals a short noun (`bridge`, `manifest`).
    pub field: String,
    pub old: Option<String>,
    pub new: Option<String>,
    #[serde(flatten)]
    pub span: Option<Span>,
}

/// One object's way from what is to what shall be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub key: Key,
    pub class: Class,
    pub cause: Cause,
    /// What must be true first, for people (`after db is healthy`).
    pub gate: Option<String>,
}

/// One backend call of this pass. `after` names steps of this pass that must be done before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub id: u32,
    pub key: Key,
    pub action: Action,
    pub cause: Cause,
    /// The change this step completes; `None` for a step on the way and for supervision.
    pub completes: Option<Class>,
    pub after: Vec<u32>,
}

impl Step {
    /// The container that it brings to an end.
    pub fn stops(&self) -> Option<&InstanceKey> {
        match &self.action {
            Action::StopContainer { key, .. } | Action::RemoveSandbox(key) => Some(key),
            _ => None,
        }
    }

    /// Milliseconds until that is asked to end.
    pub fn drain(&self) -> u64 {
        match &self.action {
            Action::StopContainer { drain, .. } => *drain,
            _ => 0,
        }
    }
}

/// Something that cannot be done in this pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub key: Key,
    pub why: String,
    /// Boot-clock milliseconds at which to look again; `None`: an event will tell.
    pub until: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub changes: Vec<Change>,
    pub steps: Vec<Step>,
    pub waiting: Vec<Waiting>,
    /// Revisions that have failed and are to be taken back: the next pass plans for the last good one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rollbacks: Vec<Rollback>,
    /// Projects with something that is not as it shall be, also where there is nothing to be said of it.
    #[serde(skip)]
    pub restless: BTreeSet<String>,
}

impl Plan {
    /// The action on the same key that waits for `step`.
    pub fn next(&self, step: &Step) -> Option<&Action> {
        let follows = |other: &&Step| other.key == step.key && other.after.contains(&step.id);
        self.steps.iter().find(follows).map(|next| &next.action)
    }
}

/// A revision that its own `failure_action: rollback` has refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    pub project: String,
    /// The one that is barred until the manifest changes.
    pub revision: String,
    /// By reference: what tags had moved to. Where the revision is the last good one, these alone are taken back.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub images: BTreeMap<String, String>,
    /// What failed, for people.
    pub why: String,
}
