//! From desired and observed to changes (the whole way) and steps (this pass).

pub mod action;
pub mod step;

use crate::{desired::Desired, memory::Memory, observed::Observed, time::Now};
use step::{Plan, Step};

/// Steps that were started and have not ended.
pub type InFlight = Vec<Step>;

/// What is to be done. Pure and total: asks nobody, reads no clock, never panics.
pub fn plan(
    _desired: &Desired,
    _observed: &Observed,
    _memory: &Memory,
    _in_flight: &InFlight,
    _now: Now,
) -> Plan {
    Plan::default()
}

/// What `plan HASH` prints: over the changes that manifests cause in `project` (`None`: all), never
/// over supervision, times or pids.
pub fn hash(_plan: &Plan, _project: Option<&str>) -> String {
    String::new()
}
