//! Who is started again, when, and what is worth an alert.

use super::*;
use crate::{key::Slot, spec::SandboxSpec};

fn rules(policy: RestartPolicy) -> Rules {
    Rules {
        policy,
        attempts: None,
        delay: None,
        window: STEADY,
        unhealthy: false,
    }
}

fn exit(rules: Rules, code: i32, streak: u32) -> Exit<'static> {
    Exit {
        key: "shop/web/1a",
        rules,
        code,
        streak,
        started_at: Some(1_000),
        at: 2_000,
        died: None,
    }
}

fn key() -> InstanceKey {
    InstanceKey {
        project: "shop".to_owned(),
        service: "web".to_owned(),
        index: 1,
        slot: Slot::A,
    }
}

fn instance(state: State, streak: u32, flaps: u32, health: Health) -> Instance {
    Instance {
        sandbox: SandboxSpec {
            key: key(),
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
        restarts: streak,
        streak,
        flaps,
        started_at: Some(1_000),
        started_wall: None,
        health,
        hook: None,
        faults: Vec::new(),
    }
}

#[test]
fn the_policy_decides_who_is_started_again() {
    use RestartPolicy::*;
    let attempts = |policy, attempts| Rules {
        attempts: Some(attempts),
        ..rules(policy)
    };
    let unhealthy = Rules {
        unhealthy: true,
        ..rules(No)
    };
    let cases = [
        (rules(No), 0, 0, "never"),
        (rules(No), 1, 0, "never"),
        (rules(No), 137, 0, "never"),
        (rules(Always), 0, 0, "again"),
        (rules(Always), 137, 50, "again"),
        (rules(UnlessStopped), 0, 0, "again"),
        (rules(OnFailure(None)), 0, 0, "never"),
        (rules(OnFailure(None)), 1, 1000, "again"),
        (rules(OnFailure(Some(3))), 1, 2, "again"),
        (rules(OnFailure(Some(3))), 1, 3, "used up"),
        (rules(OnFailure(Some(3))), 0, 3, "never"),
        (rules(OnFailure(Some(0))), 1, 0, "used up"),
        (attempts(Always, 2), 0, 1, "again"),
        (attempts(Always, 2), 0, 2, "used up"),
        (attempts(OnFailure(Some(5)), 2), 1, 2, "used up"),
        (attempts(No, 2), 1, 0, "never"),
        (unhealthy, 1, 0, "never"),
        (unhealthy, 137, 0, "again"),
    ];
    for (rules, code, streak, expected) in cases {
        let decision = decide(exit(rules, code, streak), u64::MAX);
        let found = match decision {
            Decision::Now { .. } => "again",
            Decision::At { .. } => "later",
            Decision::Never { .. } => "never",
            Decision::UsedUp { .. } => "used up",
        };
        assert_eq!(found, expected, "{rules:?}, exit {code}, streak {streak}");
        assert_eq!(rules.ends(code), expected == "never", "{rules:?}, exit {code}");
    }
}

#[test]
fn a_start_whose_hooks_failed_has_failed_however_long_they_took() {
    let failed = Fault::PostStart {
        hook: 1,
        status: 3,
        why: None,
    };
    let always = rules(RestartPolicy::Always);
    let late = Exit {
        at: 1_000 + 2 * STEADY,
        died: Some(&failed),
        ..exit(always, 3, 6)
    };
    let streak = |exit| match decide(exit, u64::MAX) {
        Decision::Now { streak, .. } => streak,
        other => panic!("{other:?}"),
    };
    assert_eq!(streak(late), 7);
    assert_eq!(streak(Exit { died: None, ..late }), 1);
    // Where it is not tried again, somebody must look.
    let seen = Instance {
        faults: vec![failed],
        ..instance(State::Exited { code: 3, at: 2_000 }, 0, 0, Health::None)
    };
    let told = alert(&key(), rules(RestartPolicy::No), &seen, 9_000);
    let told = told.unwrap_or_default();
    assert!(
        told.starts_with("web stopped: post_start hook 1 failed with status 3; restart is \"no\""),
        "{told}"
    );
}

#[test]
fn the_delay_counts_from_the_end_and_grows_with_the_streak() {
    for streak in [0, 1, 5, 20, u32::MAX] {
        let until = 2_000 + backoff::delay("shop/web/1a", streak);
        let always = rules(RestartPolicy::Always);
        let early = decide(exit(always, 1, streak), until - 1);
        assert!(
            matches!(early, Decision::At { until: at, .. } if at == until),
            "{early:?}"
        );
        let due = decide(exit(always, 1, streak), until);
        assert!(
            matches!(due, Decision::Now { streak: next, .. } if next == streak.saturating_add(1)),
            "{due:?}"
        );
    }
}

#[test]
fn a_delay_of_the_service_is_the_same_before_each_restart() {
    let slow = Rules {
        delay: Some(5_000),
        ..rules(RestartPolicy::Always)
    };
    for streak in [0, 7, 30] {
        assert!(matches!(
            decide(exit(slow, 1, streak), 6_999),
            Decision::At { until: 7_000, .. }
        ));
        assert!(matches!(
            decide(exit(slow, 1, streak), 7_000),
            Decision::Now { .. }
        ));
    }
}

#[test]
fn running_for_the_window_forgets_earlier_crashes() {
    for window in [STEADY, 60_000] {
        let rules = Rules {
            window,
            ..rules(RestartPolicy::OnFailure(Some(2)))
        };
        let steady = Exit {
            at: 1_000 + window,
            ..exit(rules, 1, 2)
        };
        assert!(matches!(
            decide(steady, u64::MAX),
            Decision::Now { streak: 1, .. }
        ));
        let short = Exit {
            at: 999 + window,
            ..steady
        };
        assert!(matches!(decide(short, u64::MAX), Decision::UsedUp { .. }));
    }
}

#[test]
fn the_rules_are_what_the_service_says() {
    use model::types::{Deploy, Duration};
    let mut service = Service::default();
    assert_eq!(Rules::of(&service), rules(RestartPolicy::No));
    service.restart = RestartPolicy::Always;
    service.container.on_unhealthy = Some(OnUnhealthy::Restart);
    service.container.deploy = Some(Deploy {
        restart_delay: Some(Duration(5_000_000_000)),
        restart_window: Some(Duration(0)),
        restart_attempts: Some(3),
        ..Deploy::default()
    });
    let expected = Rules {
        attempts: Some(3),
        delay: Some(5_000),
        unhealthy: true,
        ..rules(RestartPolicy::Always)
    };
    assert_eq!(Rules::of(&service), expected);
}

#[test]
fn an_unhealthy_one_gets_longer_each_time_and_is_left_alone_after_five() {
    let mut before = 0;
    for flaps in 0..FLAPS {
        let wait = backoff::delay("shop/web/1a", flaps + 7);
        assert!(wait > 10_000 && (flaps > 3 || wait > before), "{flaps}: {wait}");
        before = wait;
        let until = 1_000 + wait;
        let early = unhealthy("shop/web/1a", flaps, Some(1_000), until - 1);
        assert!(
            matches!(early, Flap::At { until: at, .. } if at == until),
            "{early:?}"
        );
        let due = unhealthy("shop/web/1a", flaps, Some(1_000), until);
        assert!(
            matches!(due, Flap::Now { flaps: next, .. } if next == flaps + 1),
            "{due:?}"
        );
    }
    let tired = unhealthy("shop/web/1a", FLAPS, Some(1_000), u64::MAX);
    assert_eq!(tired, Flap::LeftAlone);
}

#[test]
fn ten_minutes_forget_earlier_restarts_for_being_unhealthy() {
    let count = |now| match unhealthy("shop/web/1a", 4, Some(1_000), now) {
        Flap::Now { flaps, .. } => flaps,
        other => panic!("{other:?}"),
    };
    assert_eq!(count(1_000 + CALM - 1), 5);
    assert_eq!(count(1_000 + CALM), 1);
}

#[test]
fn what_keeps_going_wrong_is_told_with_what_to_do() {
    use RestartPolicy::*;
    let watched = Rules {
        unhealthy: true,
        ..rules(No)
    };
    let exited = |code, streak| instance(State::Exited { code, at: 2_000 }, streak, 0, Health::None);
    let running = |streak, flaps, health| instance(State::Running { pid: 1 }, streak, flaps, health);
    let cases: [(Rules, Instance, u64, Option<&str>); 13] = [
        (rules(Always), exited(1, 4), 2_000, None),
        (
            rules(Always),
            exited(1, 6),
            2_000,
            Some(
                "web keeps ending: exited with 1, 7 times in a row; next try in 6 s; see `stead logs shop web`",
            ),
        ),
        (
            rules(Always),
            exited(1, 6),
            50_000,
            Some(
                "web keeps ending: exited with 1, 7 times in a row; next try now; see `stead logs shop web`",
            ),
        ),
        (rules(No), exited(1, 0), 2_000, None),
        (rules(OnFailure(None)), exited(0, 6), 2_000, None),
        (rules(OnFailure(Some(3))), exited(1, 2), 2_000, None),
        (
            rules(OnFailure(Some(3))),
            exited(1, 3),
            2_000,
            Some(
                "web exited with 1, and its limit of 3 restarts is used up; see `stead logs shop web`, change the \
                 service, or `stead start shop/web`",
            ),
        ),
        (rules(Always), running(4, 0, Health::None), 2_000, None),
        (
            rules(Always),
            running(5, 0, Health::None),
            2_000,
            Some("web keeps ending: restarted 5 times in a row; see `stead logs shop web`"),
        ),
        (rules(Always), running(5, 0, Health::None), 11_000, None),
        (rules(Always), running(0, 5, Health::Unhealthy), 2_000, None),
        (watched, running(0, 5, Health::Healthy), 2_000, None),
        (
            watched,
            running(0, 5, Health::Unhealthy),
            2_000,
            Some(
                "web is unhealthy after 5 restarts for that, and is left alone; see `stead logs shop web`, then \
                 `stead restart shop/web`",
            ),
        ),
    ];
    for (rules, seen, now, expected) in cases {
        assert_eq!(
            alert(&key(), rules, &seen, now).as_deref(),
            expected,
            "{rules:?} {seen:?}"
        );
    }
}
