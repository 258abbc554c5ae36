//! What goes wrong with instances, as it is shown. Pure.

use reconciler::{
    key::{InstanceKey, Key},
    observed::{Fault, State, fault},
    status::Status,
    time::Now,
};

use super::boot_time;
use crate::api::wire;

/// Milliseconds after which one that was asked to end is named.
const RESISTS: u64 = 1_000;

pub fn row(fault: &Fault) -> wire::Fault {
    wire::Fault {
        fault: fault.word().to_owned(),
        ended: fault.is_end(),
        least: fault.least(),
        message: fault.to_string(),
    }
}

/// What goes wrong with instances of a project, by what is seen of them.
pub fn conditions(name: &str, status: &Status) -> Vec<wire::Condition> {
    let all = status.observed.instances.known().into_iter().flatten();
    let own = all.filter(|(key, _)| key.project == name);
    own.flat_map(|(key, instance)| {
        let again = matches!(instance.state, State::Running { .. });
        instance.faults.iter().map(move |fault| {
            let message = match fault.is_end() && again {
                true => format!("its last run was {fault}"),
                false => fault.to_string(),
            };
            condition(key, message, None)
        })
    })
    .collect()
}

/// Who was asked to end a while ago and has not. `status` is not published anew while nothing happens, so
/// the moment is given.
pub fn resisting(name: &str, status: &Status, now: Now) -> Vec<wire::Condition> {
    let own = status.stopping.iter().filter(|(key, _)| key.project == name);
    own.filter_map(|(key, since)| {
        let past = now.boot.saturating_sub(*since);
        let instance = status.observed.instances.known()?.get(key)?;
        let container = instance.container.as_ref()?;
        let runs = matches!(instance.state, State::Running { .. });
        (runs && past >= RESISTS).then(|| {
            let signal = fault::signal_name(container.stop_signal);
            let signal = match container.pre_stop.is_empty() {
                true => signal,
                false => format!("its `pre_stop` hooks and {signal}"),
            };
            let message = match past < container.stop_grace {
                true => format!(
                    "it has not ended on {signal} so far, and is killed after {} s (`stop_grace_period`)",
                    container.stop_grace.div_ceil(1000)
                ),
                false => format!("it has not ended on {signal}, and is being killed"),
            };
            condition(key, message, boot_time(*since, now))
        })
    })
    .collect()
}

fn condition(key: &InstanceKey, message: String, since: Option<String>) -> wire::Condition {
    wire::Condition {
        kind: "Fault".into(),
        status: true,
        reason: Key::Instance(key.clone()).to_string(),
        message,
        since,
    }
}

#[cfg(test)]
mod tests {
    use reconciler::{
        key::Slot,
        observed::{Fact, Instance, Observed},
        spec::ContainerSpec,
    };

    use super::*;

    fn key() -> InstanceKey {
        InstanceKey {
            project: "shop".into(),
            service: "web".into(),
            index: 1,
            slot: Slot::A,
        }
    }

    fn status(state: State, faults: Vec<Fault>) -> Status {
        let container = ContainerSpec {
            stop_signal: 15,
            stop_grace: 10_000,
            ..ContainerSpec::default()
        };
        let instance = Instance {
            state,
            faults,
            container: Some(container.into()),
            ..Instance::lost(&key())
        };
        let mut observed = Observed::nothing_known();
        observed.instances = Fact::Known([(key(), instance)].into());
        Status {
            observed: observed.into(),
            ..Status::before_the_first_look(Now::default())
        }
    }

    #[test]
    fn the_end_of_a_run_is_told_as_the_past_once_it_runs_again() {
        let memory = Fault::OutOfMemory {
            limit: Some(32 << 20),
            peak: None,
        };
        let said = |state| {
            let conditions = conditions("shop", &status(state, vec![memory.clone()]));
            conditions.into_iter().map(|one| one.message).collect::<Vec<_>>()
        };
        let ended = State::Exited { code: 137, at: 0 };
        assert_eq!(said(ended), ["killed: out of memory, limit 32 MiB"]);
        let again = State::Running { pid: 7 };
        assert_eq!(
            said(again),
            ["its last run was killed: out of memory, limit 32 MiB"]
        );
        assert!(conditions("other", &status(State::Created, vec![Fault::Unknown])).is_empty());
    }

    #[test]
    fn who_does_not_end_is_named_after_a_second() {
        let mut status = status(State::Running { pid: 7 }, Vec::new());
        status.stopping.insert(key(), 5_000);
        let said = |boot| {
            let now = Now { boot, wall: boot };
            let conditions = resisting("shop", &status, now);
            conditions.into_iter().map(|one| one.message).next()
        };
        assert_eq!(said(5_900), None);
        let first = said(6_000).unwrap_or_default();
        assert!(
            first.contains("not ended on SIGTERM") && first.contains("after 10 s"),
            "{first}"
        );
        let last = said(15_000).unwrap_or_default();
        assert!(last.contains("is being killed"), "{last}");
    }
}
