//! What was asked, done, waited for and refused: for people, and for the proof that the plan is what happens.

mod difference;
pub mod transitions;

pub use difference::differences;

use serde::{Deserialize, Serialize};

use crate::{
    plan::step::{Cause, Class},
    time::Now,
};

/// What an entry tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Something else is wanted of a project: the revisions are the cause, the fields `differences`.
    Wanted,
    /// A step was started.
    Started,
    /// A step has ended well.
    #[default]
    Done,
    /// A step has ended otherwise.
    Failed,
    /// Something cannot be done yet; `until` when it is looked at again by itself.
    Waiting,
    /// What was waited for is there.
    Opened,
    /// Something happened on the host that no step did: an end, a verdict of health, drift.
    Event,
    /// What was asked is not done: a bad manifest, a plan that is no longer the plan.
    Refused,
    /// An operator's order, given or cleared.
    Intent,
    /// A revision was taken back.
    Rollback,
}

/// One line of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Now,
    /// `None`: it is about the whole host.
    pub project: Option<String>,
    /// Text form of the key; the project's name where it is about no part of it, `PROJECT/SERVICE[/INDEX]` of an
    /// operator's order.
    pub key: String,
    #[serde(default)]
    pub kind: Kind,
    /// Of a step that completes one: the change. A restart after a crash completes none.
    pub change: Option<Class>,
    /// Why, or what: the field that differs, or a short noun with its text as `new`.
    pub cause: Cause,
    /// Why a step failed.
    pub error: Option<String>,
    /// Of a step: what it does, as `Action` is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Of a step that ended: milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<u64>,
    /// Wall-clock milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<Cause>,
    /// It happened so often in a row; those between this entry and the one before it are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u64>,
}

impl Entry {
    pub fn new(at: Now, kind: Kind, project: Option<&str>, key: impl Into<String>, cause: Cause) -> Self {
        Entry {
            at,
            project: project.map(str::to_owned),
            key: key.into(),
            kind,
            change: None,
            cause,
            error: None,
            action: None,
            took: None,
            until: None,
            differences: Vec::new(),
            times: None,
        }
    }
}

/// Where entries go.
pub trait Journal: Send + Sync + 'static {
    fn record(&self, entry: Entry);
}
