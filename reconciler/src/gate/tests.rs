//! Which state of a dependency opens which gate.

use super::*;
use crate::{
    key::{InstanceKey, Slot},
    observed::{Hook, Moment},
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
            spaces: Default::default(),
        }
        .into(),
        container: None,
        state,
        drift: Vec::new(),
        broken: None,
        identity: String::new(),
        joined: None,
        restarts: 0,
        streak: 0,
        flaps: 0,
        started_at: None,
        started_wall: None,
        health,
        hook: None,
        faults: Vec::new(),
    }
}

fn dependency(seen: Option<&Instance>) -> Dependency<'_> {
    Dependency {
        project: "shop",
        name: "db",
        seen,
        changing: false,
        last: false,
        hooked: false,
        ended: None,
        stopped: None,
        failed: None,
    }
}

fn word(gate: &Gate) -> &'static str {
    match gate {
        Gate::Open => "open",
        Gate::OnStart => "on start",
        Gate::Shut => "shut",
        Gate::Stuck(_) => "stuck",
    }
}

#[test]
fn each_condition_has_its_state() {
    use Condition::*;
    let running = State::Running { pid: 1 };
    let exited = |code| State::Exited { code, at: 0 };
    // The last word: what it is when nothing starts the dependency again.
    let cases = [
        (
            Started,
            Some((running.clone(), Health::Unhealthy)),
            "open",
            "open",
        ),
        (Started, Some((exited(1), Health::None)), "open", "open"),
        (
            Started,
            Some((State::Created, Health::None)),
            "on start",
            "on start",
        ),
        (Started, Some((State::Lost, Health::None)), "on start", "on start"),
        (Started, None, "on start", "on start"),
        (Healthy, Some((running.clone(), Health::Healthy)), "open", "open"),
        (Healthy, Some((running.clone(), Health::Starting)), "shut", "shut"),
        (
            Healthy,
            Some((running.clone(), Health::Unhealthy)),
            "stuck",
            "stuck",
        ),
        (Healthy, Some((exited(0), Health::None)), "shut", "stuck"),
        (Healthy, None, "shut", "shut"),
        (
            CompletedSuccessfully,
            Some((exited(0), Health::None)),
            "open",
            "open",
        ),
        (
            CompletedSuccessfully,
            Some((exited(1), Health::None)),
            "shut",
            "stuck",
        ),
        (
            CompletedSuccessfully,
            Some((running, Health::Healthy)),
            "shut",
            "shut",
        ),
        (CompletedSuccessfully, None, "shut", "shut"),
    ];
    for (condition, seen, expected, at_last) in cases {
        let seen = seen.map(|(state, health)| instance(state, health));
        let dependency = dependency(seen.as_ref());
        let found = gate(condition, dependency);
        assert_eq!(word(&found), expected, "{condition:?} {seen:?}");
        let last = Dependency {
            last: true,
            ..dependency
        };
        let found = gate(condition, last);
        assert_eq!(word(&found), at_last, "{condition:?} {seen:?}, for good");
    }
}

#[test]
fn a_service_has_started_once_its_hooks_are_done() {
    use Condition::*;
    let gates = |state: &State, hook, last| {
        let seen = Instance {
            hook,
            ..instance(state.clone(), Health::Healthy)
        };
        let dependency = Dependency {
            hooked: true,
            last,
            ..dependency(Some(&seen))
        };
        [Started, Healthy].map(|condition| word(&gate(condition, dependency)))
    };
    let (up, down) = (Moment::PostStart, Moment::PreStop);
    let hook = |moment| Some(Hook { moment, number: 1 });
    let running = State::Running { pid: 1 };
    let exited = State::Exited { code: 3, at: 0 };
    assert_eq!(gates(&running, hook(up), true), ["shut", "shut"]);
    assert_eq!(gates(&running, None, true), ["open", "open"]);
    assert_eq!(gates(&running, hook(down), true), ["open", "open"]);
    assert_eq!(gates(&exited, hook(up), false), ["shut", "shut"]);
    assert_eq!(gates(&exited, hook(up), true), ["stuck", "stuck"]);
    assert_eq!(gates(&exited, None, true)[0], "open");
    // A start of this pass is not the end of its hooks.
    let hooked = Dependency {
        hooked: true,
        ..dependency(None)
    };
    assert_eq!(gate(Started, hooked), Gate::Shut);
}

#[test]
fn what_is_about_to_be_replaced_opens_nothing() {
    let seen = instance(State::Running { pid: 1 }, Health::Healthy);
    let changing = Dependency {
        changing: true,
        ..dependency(Some(&seen))
    };
    assert_eq!(gate(Condition::Started, changing), Gate::OnStart);
    assert_eq!(gate(Condition::Healthy, changing), Gate::Shut);
    let seen = instance(State::Exited { code: 0, at: 0 }, Health::None);
    let changing = Dependency {
        seen: Some(&seen),
        ..changing
    };
    assert_eq!(gate(Condition::CompletedSuccessfully, changing), Gate::Shut);
}

#[test]
fn what_has_ended_counts_when_nothing_else_is_left_of_it() {
    use Condition::*;
    for (condition, code, expected) in [
        (Started, 0, "open"),
        (Started, 3, "open"),
        (CompletedSuccessfully, 0, "open"),
        (CompletedSuccessfully, 3, "stuck"),
        (Healthy, 0, "stuck"),
    ] {
        let ended = Dependency {
            ended: Some(code),
            last: true,
            ..dependency(None)
        };
        let found = gate(condition, ended);
        assert_eq!(word(&found), expected, "{condition:?} after {code}");
    }
}

#[test]
fn what_does_not_open_by_itself_says_what_to_do() {
    use Condition::*;
    let unhealthy = instance(State::Running { pid: 1 }, Health::Unhealthy);
    let exited = instance(State::Exited { code: 3, at: 0 }, Health::None);
    let stopped = Dependency {
        stopped: Some("stopped by an operator"),
        ..dependency(Some(&exited))
    };
    let failed = Dependency {
        failed: Some("the port is taken"),
        ..dependency(None)
    };
    let last = Dependency {
        last: true,
        ..dependency(Some(&exited))
    };
    for (condition, dependency, expected) in [
        (
            Healthy,
            dependency(Some(&unhealthy)),
            "db is unhealthy; see `stead logs shop db`",
        ),
        (
            Healthy,
            last,
            "db exited with 3 and must be healthy; see `stead logs shop db`",
        ),
        (
            CompletedSuccessfully,
            last,
            "db exited with 3 and must complete successfully; see `stead logs shop db`",
        ),
        (Started, stopped, "db is stopped by an operator"),
        (Healthy, failed, "db cannot start: the port is taken"),
    ] {
        assert_eq!(
            gate(condition, dependency),
            Gate::Stuck(expected.to_owned()),
            "{condition:?}"
        );
    }
    let finished = instance(State::Exited { code: 0, at: 0 }, Health::None);
    let finished = Dependency {
        stopped: Some("stopped by an operator"),
        ..dependency(Some(&finished))
    };
    assert_eq!(gate(CompletedSuccessfully, finished), Gate::Open);
}
