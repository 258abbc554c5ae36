//! What goes over the socket and comes out of `--json`: apart from the inner types, so that those may
//! change and these stay.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::orders;

/// How the message about a bad manifest ends where an earlier version of it runs on.
pub const LAST_GOOD: &str = "the last good version stays in force";

/// One entry of `ps --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub project: String,
    pub service: String,
    pub index: u32,
    pub name: String,
    /// `waiting created running exited backoff stopping failed`
    pub state: String,
    /// `none starting healthy unhealthy`
    pub health: String,
    pub pid: Option<u32>,
    pub exit_code: Option<i32>,
    pub restarts: u32,
    pub image: String,
    pub image_digest: Option<String>,
    /// RFC 3339.
    pub started_at: Option<String>,
    pub addresses: BTreeMap<String, Vec<String>>,
    pub ports: Vec<Port>,
    pub revision: Option<String>,
    /// What an operator has ordered for it: `stop`, or `start` until it was started.
    #[serde(default)]
    pub intent: Option<String>,
    /// What goes wrong with it, and how its last run was ended.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// The hook that runs: `post_start hook 1`.
    #[serde(default)]
    pub hook: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// `out-of-memory ignored-stop post-start-failed pre-stop-failed process-limit throttled zombies stuck
    /// output-lost`
    pub fault: String,
    /// It is about how the last run ended; else about what runs.
    pub ended: bool,
    /// How many there are at least: zombies, lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub least: Option<u64>,
    pub message: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    pub host_ip: String,
    pub published: u16,
    pub target: u16,
    pub protocol: String,
}

/// One entry of `status --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Project {
    pub project: String,
    pub source: Option<PathBuf>,
    /// `converged working waiting degraded`
    pub state: String,
    pub conditions: Vec<Condition>,
    pub revision: Revision,
    /// RFC 3339.
    pub next_attempt: Option<String>,
    pub diagnostics: Vec<Diagnostic>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: bool,
    pub reason: String,
    pub message: String,
    /// RFC 3339: when it last changed; not before the agent started.
    pub since: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub seen: Option<String>,
    pub tried: Option<String>,
    pub applied: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub file: PathBuf,
    pub line: u32,
    pub column: u32,
    pub severity: String,
    pub message: String,
    pub hint: Option<String>,
}

/// `POST /v1/plan`. Neither: everything.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PlanRequest {
    /// Absolute.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
    #[serde(default)]
    pub projects: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct PlanReply {
    pub hash: String,
    pub changes: usize,
    /// For people.
    pub text: String,
    /// The document of `plan --json`.
    pub plan: Value,
    /// Rendered; an error among them leaves its project out.
    pub diagnostics: Vec<String>,
    /// Nothing could be planned.
    pub failed: bool,
    /// A manifest has an error, and its last good version was planned.
    #[serde(default)]
    pub wrong: bool,
}

/// `POST /v1/apply`
#[derive(Debug, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// Absolute.
    pub paths: Vec<PathBuf>,
    /// Only if this is still the plan.
    #[serde(default)]
    pub plan: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReply {
    /// Project and revision.
    pub applied: BTreeMap<String, String>,
    /// Rendered warnings.
    pub diagnostics: Vec<String>,
}

/// `POST /v1/order`
#[derive(Debug, Serialize, Deserialize)]
pub struct OrderRequest {
    pub order: orders::Order,
    /// `PROJECT[/SERVICE[/INDEX]]`, or `SERVICE` where that is unambiguous.
    pub targets: Vec<String>,
}

/// An operator's order on record: an entry of `GET /v1/orders`, and of what `stop --json` and its kin print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ordered {
    /// `PROJECT/SERVICE[/INDEX]`
    pub target: String,
    /// `stop` or `start`; `None`: nothing is on record, it is as was ordered.
    pub intent: Option<String>,
    /// RFC 3339.
    pub at: Option<String>,
    pub done: bool,
}

/// `POST /v1/end`: the projects of `up` go, nothing is recorded.
#[derive(Debug, Serialize, Deserialize)]
pub struct EndRequest {
    pub projects: Vec<String>,
}

/// `POST /v1/down`
#[derive(Debug, Serialize, Deserialize)]
pub struct DownRequest {
    pub projects: Vec<String>,
    #[serde(default)]
    pub volumes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownReply {
    /// What was done about each manifest, for people.
    pub notes: Vec<String>,
}

/// `GET /v1/present?project=`: what the host still has of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Present {
    /// `None`: not known right now.
    pub objects: Option<Vec<String>>,
}

/// `GET /v1/instances?project=`: where `exec` finds the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub project: String,
    pub service: String,
    pub index: u32,
    pub running: bool,
    pub socket: PathBuf,
    pub logs: PathBuf,
}

/// The body of every answer that is not 200.
#[derive(Debug, Serialize, Deserialize)]
pub struct Problem {
    pub error: String,
    /// Rendered.
    #[serde(default)]
    pub diagnostics: Vec<String>,
}
