//! What goes wrong with instances, as it is shown. Pure.

use std::sync::Arc;

use reconciler::{
    key::{InstanceKey, Key},
    observed::{Fact, Fault, State, fault},
    port::Attention,
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

/// `status`, with what its supervisors have said since: it is not published anew for an instance that a step is
/// about.
pub fn told(status: &Arc<Status>, attention: Attention) -> Arc<Status> {
    let Some(seen) = status.observed.instances.known() else {
        return Arc::clone(status);
    };
    let news: Vec<_> = attention
        .faults
        .into_iter()
        .filter_map(|(key, mut faults)| {
            let before = &seen.get(&key)?.faults;
            faults.extend(before.iter().filter(|fault| fault.is_end()).cloned());
            (faults != *before).then_some((key, faults))
        })
        .collect();
    if news.is_empty() {
        return Arc::clone(status);
    }
    let mut status = Status::clone(status);
    if let Fact::Known(instances) = &mut Arc::make_mut(&mut status.observed).instances {
        for (key, faults) in news {
            instances
                .entry(key)
                .and_modify(|instance| instance.faults = faults);
        }
    }
    Arc::new(status)
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
        observed::{Instance, Observed},
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
    fn what_supervisors_say_just_now_takes_the_place_of_what_was_seen() {
        let memory = Fault::OutOfMemory {
            limit: None,
            peak: None,
        };
        let (few, many) = (Fault::Zombies { least: 10 }, Fault::Zombies { least: 100 });
        let running = || State::Running { pid: 7 };
        // Seen, said, and what is shown: how the last run was ended nobody says again.
        let cases = [
            (vec![], vec![few.clone()], vec![few.clone()]),
            (vec![few.clone()], vec![many.clone()], vec![many]),
            (vec![few.clone()], vec![], vec![]),
            (vec![memory.clone()], vec![few.clone()], vec![few, memory.clone()]),
            (vec![memory.clone()], vec![], vec![memory]),
        ];
        let shown = |status: &Status| status.observed.instances.known().unwrap()[&key()].faults.clone();
        for (seen, said, expected) in cases {
            let status = Arc::new(status(running(), seen.clone()));
            let attention = Attention {
                faults: [(key(), said)].into(),
                suspected: None,
            };
            let told = told(&status, attention);
            assert_eq!(shown(&told), expected, "{seen:?}");
            assert_eq!(Arc::ptr_eq(&told, &status), seen == expected, "{seen:?}");
        }
        // One that has not answered, and one that nobody has seen.
        let zombies = Arc::new(status(running(), vec![Fault::Zombies { least: 10 }]));
        let stranger = InstanceKey { index: 2, ..key() };
        let attention = Attention {
            faults: [(stranger, vec![Fault::Unknown])].into(),
            suspected: None,
        };
        assert!(Arc::ptr_eq(&told(&zombies, attention), &zombies));
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
        assert_eq!(said(3_000), None, "it drains");
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
