//! What an operator has ordered of an instance, over what its manifest says.

use super::{Course, Verdict, supervisor_gone};
use crate::{
    key::InstanceKey,
    observed::{Instance, State},
    plan::{step::Class, wanted},
};

/// The field and the reason of what an operator has ordered.
pub const OPERATOR: &str = "operator";
pub(super) const ASKED: &str = "asked for by an operator";

/// An operator has ordered that it stops.
pub(super) fn stop(verdict: &mut Verdict<'_>, key: &InstanceKey, one: bool, seen: Option<&Instance>) {
    let InstanceKey {
        project,
        service,
        index,
        ..
    } = key;
    let index = if one { format!("/{index}") } else { String::new() };
    verdict.stopped = Some(format!(
        "stopped by an operator; `stead start {project}/{service}{index}`"
    ));
    // One that must be made anew is not brought to its specification.
    verdict.sandbox &= verdict.course != Course::Rebuild;
    // Nothing of it is going to be made.
    verdict.change.take_if(|(class, _)| *class == Class::Create);
    verdict.course = match seen.map(|seen| &seen.state) {
        Some(State::Running { .. }) => Course::Stop,
        Some(State::Lost) => {
            verdict.change = Some((Class::Remove, wanted::noun("shim", Some("is gone".to_owned()))));
            verdict.sandbox = false;
            Course::Clear
        }
        Some(State::Created | State::Exited { .. }) => Course::Rest,
        None => {
            verdict.sandbox = false;
            Course::Rest
        }
    };
}

/// An operator has ordered that it starts again, and it was not started since.
pub(super) fn run(verdict: &mut Verdict<'_>, seen: Option<&Instance>) {
    match (&verdict.course, seen) {
        (
            Course::Rest | Course::Later { .. } | Course::Starting { .. } | Course::Again { .. },
            Some(seen),
        ) if seen.container.is_some() => {
            verdict.course = Course::Again {
                restarts: seen.restarts,
                streak: 0,
                flaps: 0,
                reason: ASKED.to_owned(),
            };
        }
        (Course::Rest, _) if verdict.ended.is_some() => {
            verdict.course = Course::Start;
            verdict.sandbox = true;
        }
        (Course::Clear, _) => {
            verdict.change = Some((Class::Recreate, supervisor_gone()));
            verdict.course = Course::Rebuild;
            verdict.sandbox = true;
        }
        _ => {}
    }
}
