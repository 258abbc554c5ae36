//! Which state of a dependency opens which gate.

use super::*;
use crate::{
    key::{InstanceKey, Slot},
    spec::SandboxSpec,
};

fn instance(state: State, health: Health) -> Instance {
    let key = InstanceKey {
        project: "shop".to_owned(),
        service: "db".to_owned(),
        index: 1,
        slot: Slot::A,
    };
    Instance {
        sandbox: SandboxSpec {
            key,
            id_base: 0,
            endpoints: Vec::new(),
            ports: Vec::new(),
        },
        container: None,
        state,
        drift: Vec::new(),
        broken: None,
        restarts: 0,
        streak: 0,
        flaps: 0,
        started_at: None,
        started_wall: None,
        health,
    }
}

#[test]
fn each_condition_has_its_state() {
    use Condition::*;
    let running = State::Running { pid: 1 };
    let exited = |code| State::Exited { code, at: 0 };
    let cases = [
        (Started, Some((running.clone(), Health::Unhealthy)), "open"),
        (Started, Some((exited(1), Health::None)), "open"),
        (Started, Some((State::Created, Health::None)), "on start"),
        (Started, Some((State::Lost, Health::None)), "on start"),
        (Started, None, "on start"),
        (Healthy, Some((running.clone(), Health::Healthy)), "open"),
        (Healthy, Some((running.clone(), Health::Starting)), "shut"),
        (Healthy, Some((running.clone(), Health::Unhealthy)), "stuck"),
        (Healthy, Some((exited(0), Health::Healthy)), "shut"),
        (Healthy, None, "shut"),
        (CompletedSuccessfully, Some((exited(0), Health::None)), "open"),
        (CompletedSuccessfully, Some((exited(1), Health::None)), "stuck"),
        (CompletedSuccessfully, Some((running, Health::Healthy)), "shut"),
        (CompletedSuccessfully, None, "shut"),
    ];
    for (condition, seen, expected) in cases {
        let seen = seen.map(|(state, health)| instance(state, health));
        let dependency = Dependency {
            seen: seen.as_ref(),
            changing: false,
        };
        let found = match gate("db", condition, dependency) {
            Gate::Open => "open",
            Gate::OnStart => "on start",
            Gate::Shut => "shut",
            Gate::Stuck(_) => "stuck",
        };
        assert_eq!(found, expected, "{condition:?} {seen:?}");
    }
}

#[test]
fn what_is_about_to_be_replaced_opens_nothing() {
    let seen = instance(State::Running { pid: 1 }, Health::Healthy);
    let dependency = Dependency {
        seen: Some(&seen),
        changing: true,
    };
    assert_eq!(gate("db", Condition::Started, dependency), Gate::OnStart);
    assert_eq!(gate("db", Condition::Healthy, dependency), Gate::Shut);
}
