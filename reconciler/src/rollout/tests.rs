//! The rules of an update, one table each.

use std::sync::Arc;

use model::types::{Attachment, Device, Duration, Namespaces};

use super::*;
use crate::{
    key::{InstanceKey, Slot},
    spec::{ContainerSpec, RestartPolicy, SandboxSpec},
};

const ABSENT: Progress = Progress::Absent;
const OLD: Progress = Progress::Outdated { down: false };
const DOWN: Progress = Progress::Outdated { down: true };
const BUSY: Progress = Progress::Updating { until: None };
const NEW: Progress = Progress::Updated { since: 0 };

fn failed() -> Progress {
    Progress::Failed {
        why: "ended with 1".to_owned(),
    }
}

fn config() -> Config {
    Config::of(None)
}

fn decided(config: Config, all: &[Progress], now: u64) -> Decision {
    let progress = (1..).zip(all.iter().cloned()).collect();
    let input = Input {
        config,
        progress: &progress,
        can_return: true,
    };
    decide(input, now)
}

#[test]
fn without_update_config_one_is_stopped_and_started_after_the_other() {
    let expected = Config {
        parallelism: 1,
        delay: 0,
        monitor: 0,
        start_first: false,
        action: FailureAction::Pause,
        ratio: 0,
    };
    assert_eq!(Config::of(None), expected);
    assert_eq!(Config::of(Some(&UpdateConfig::default())), expected);
}

#[test]
fn a_rollback_goes_as_the_update_but_without_its_pauses_unless_it_says_so() {
    let update = UpdateConfig {
        parallelism: Some(2),
        delay: Some(Duration(5_000_000_000)),
        monitor: Some(Duration(5_000_000_000)),
        start_first: true,
        ..UpdateConfig::default()
    };
    let service = |rollback_config| {
        let mut service = Service::default();
        service.container.deploy = Some(model::types::Deploy {
            update_config: Some(update.clone()),
            rollback_config,
            ..model::types::Deploy::default()
        });
        service
    };
    let like_the_update = Config {
        parallelism: 2,
        start_first: true,
        action: FailureAction::Continue,
        ..config()
    };
    assert_eq!(Config::back(&service(None)), like_the_update);
    let own = UpdateConfig {
        parallelism: Some(0),
        ..UpdateConfig::default()
    };
    let at_once = Config {
        parallelism: 0,
        ..config()
    };
    assert_eq!(Config::back(&service(Some(own))), at_once);
}

#[test]
fn as_many_are_replaced_as_there_are_places() {
    let cases: &[(u32, &[Progress], &[u32])] = &[
        (1, &[OLD, OLD, OLD], &[1]),
        (2, &[OLD, OLD, OLD], &[1, 2]),
        (0, &[OLD, OLD, OLD], &[1, 2, 3]),
        (5, &[OLD, OLD, OLD], &[1, 2, 3]),
        (1, &[BUSY, OLD, OLD], &[]),
        (2, &[BUSY, OLD, OLD], &[2]),
        (0, &[BUSY, OLD, OLD], &[2, 3]),
        (1, &[NEW, OLD, OLD], &[2]),
        (1, &[NEW, NEW, NEW], &[]),
        // Who is down anyway comes first, and still takes a place.
        (1, &[OLD, OLD, DOWN], &[3]),
        (1, &[BUSY, OLD, DOWN], &[]),
        (2, &[OLD, DOWN, DOWN], &[2, 3]),
        // What is missing waits for nobody.
        (1, &[ABSENT, ABSENT, ABSENT], &[1, 2, 3]),
        (1, &[BUSY, ABSENT, OLD], &[2]),
    ];
    for (parallelism, progress, now) in cases {
        let config = Config {
            parallelism: *parallelism,
            ..config()
        };
        let decision = decided(config, progress, 1_000);
        assert_eq!(
            decision.now,
            BTreeSet::from_iter(now.iter().copied()),
            "{parallelism}: {progress:?}"
        );
        assert_eq!(decision.course, Course::On);
    }
}

#[test]
fn a_place_is_free_again_after_the_delay_since_the_last_has_settled() {
    let config = Config {
        delay: 5_000,
        ..config()
    };
    let settled = Progress::Updated { since: 10_000 };
    let early = decided(config, &[settled.clone(), OLD], 14_999);
    assert_eq!((early.now.len(), early.until), (0, Some(15_000)));
    let due = decided(config, &[settled.clone(), OLD], 15_000);
    assert_eq!((due.now, due.until), (BTreeSet::from([2]), None));
    // Of several places, the first that is free is told.
    let two = Config {
        parallelism: 2,
        ..config
    };
    let watched = Progress::Updating { until: Some(11_000) };
    let decision = decided(two, &[settled, watched, OLD, OLD], 12_000);
    assert_eq!((decision.now.len(), decision.until), (0, Some(15_000)));
    // Nobody waits: there is nothing to look for.
    let done = decided(config, &[Progress::Updated { since: 10_000 }], 11_000);
    assert_eq!(done.until, None);
}

#[test]
fn more_failures_than_tolerated_lead_to_the_failure_action() {
    use FailureAction::{Continue, Pause, Rollback};
    let paused = || Course::Paused("container 1 ended with 1".to_owned());
    let back = || Course::Back("container 1 ended with 1".to_owned());
    let cases = [
        (Pause, 0, true, paused(), 0),
        (Continue, 0, true, Course::On, 1),
        (Rollback, 0, true, back(), 0),
        // With nothing to go back to, it stays where it is.
        (Rollback, 0, false, paused(), 0),
        // One in four is a quarter: tolerated, and its place is free for the next.
        (Pause, 249, true, paused(), 0),
        (Pause, 250, true, Course::On, 1),
        (Rollback, 250, true, Course::On, 1),
        (Rollback, 1000, true, Course::On, 1),
    ];
    for (action, ratio, can_return, course, replaced) in cases {
        let config = Config {
            action,
            ratio,
            ..config()
        };
        let progress = (1..).zip([failed(), OLD, OLD, OLD]).collect();
        let input = Input {
            config,
            progress: &progress,
            can_return,
        };
        let decision = decide(input, 1_000);
        assert_eq!(decision.course, course, "{action:?} {ratio}");
        assert_eq!(decision.now.len(), replaced, "{action:?} {ratio}");
    }
}

#[test]
fn what_is_missing_starts_even_while_an_update_is_paused() {
    let decision = decided(config(), &[failed(), OLD, ABSENT], 1_000);
    assert_eq!(decision.now, BTreeSet::from([3]));
}

fn seen(state: State, health: Health) -> Instance {
    let key = InstanceKey {
        project: "shop".to_owned(),
        service: "web".to_owned(),
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
        container: Some(Arc::new(ContainerSpec::default())),
        state,
        drift: Vec::new(),
        broken: None,
        identity: String::new(),
        joined: None,
        restarts: 0,
        streak: 0,
        flaps: 0,
        started_at: Some(10_000),
        started_wall: None,
        health,
        hook: None,
        faults: Vec::new(),
    }
}

const RUNS: State = State::Running { pid: 7 };

#[test]
fn an_instance_has_settled_when_it_runs_healthy_and_has_been_watched() {
    let monitor = Config {
        monitor: 3_000,
        ..config()
    };
    let cases = [
        (
            RUNS,
            Health::None,
            None,
            12_999,
            Progress::Updating { until: Some(13_000) },
        ),
        (
            RUNS,
            Health::None,
            None,
            13_000,
            Progress::Updated { since: 13_000 },
        ),
        (RUNS, Health::Starting, None, 99_000, BUSY),
        (
            RUNS,
            Health::Healthy,
            Some(15_000),
            15_000,
            Progress::Updated { since: 15_000 },
        ),
        (
            RUNS,
            Health::Healthy,
            Some(11_000),
            12_000,
            Progress::Updating { until: Some(13_000) },
        ),
        (State::Created, Health::None, None, 99_000, BUSY),
        (State::Lost, Health::None, None, 99_000, BUSY),
        // A job that is done.
        (
            State::Exited { code: 0, at: 11_000 },
            Health::None,
            None,
            99_000,
            Progress::Updated { since: 11_000 },
        ),
    ];
    for (state, health, healthy, now, expected) in cases {
        let seen = seen(state, health);
        assert_eq!(
            progress(&seen, &monitor, healthy, true, now),
            expected,
            "{seen:?}"
        );
    }
}

#[test]
fn what_goes_wrong_counts_only_in_an_update() {
    let exited = seen(State::Exited { code: 1, at: 0 }, Health::None);
    let unhealthy = seen(RUNS, Health::Unhealthy);
    let restarted = Instance {
        restarts: 2,
        ..seen(RUNS, Health::None)
    };
    let mut forever = seen(State::Exited { code: 0, at: 0 }, Health::None);
    Arc::make_mut(forever.container.as_mut().unwrap()).restart = RestartPolicy::Always;
    let cases = [
        (&exited, "ended with 1", BUSY),
        (&unhealthy, "is unhealthy", BUSY),
        (
            &restarted,
            "had to be restarted 2 times",
            Progress::Updated { since: 10_000 },
        ),
        (&forever, "ended with 0", BUSY),
    ];
    for (seen, why, otherwise) in cases {
        let why = why.to_owned();
        assert_eq!(
            progress(seen, &config(), None, true, 20_000),
            Progress::Failed { why }
        );
        assert_eq!(progress(seen, &config(), None, false, 20_000), otherwise);
    }
}

#[test]
fn a_new_slot_is_ready_when_its_health_check_or_its_watched_time_says_so() {
    let monitor = Config {
        monitor: 3_000,
        ..config()
    };
    let crashed = Instance {
        streak: 1,
        ..seen(RUNS, Health::None)
    };
    let cases = [
        (seen(RUNS, Health::Healthy), 10_000, Ok(())),
        (seen(RUNS, Health::Starting), 99_000, Err(None)),
        (seen(RUNS, Health::Unhealthy), 99_000, Err(None)),
        (seen(RUNS, Health::None), 12_999, Err(Some(13_000))),
        (seen(RUNS, Health::None), 13_000, Ok(())),
        (crashed.clone(), 13_000, Err(Some(20_000))),
        (crashed, 20_000, Ok(())),
        (seen(State::Created, Health::None), 99_000, Err(None)),
        (
            seen(State::Exited { code: 0, at: 0 }, Health::None),
            99_000,
            Err(None),
        ),
    ];
    for (seen, now, expected) in cases {
        assert_eq!(ready(&seen, &monitor, now), expected, "{seen:?} at {now}");
    }
}

#[test]
fn healthy_since_is_kept_until_it_is_not_or_another_process_runs() {
    let now = Now {
        boot: 50_000,
        ..Now::default()
    };
    let healthy = seen(RUNS, Health::Healthy);
    let cases = [
        (&healthy, None, Some(50_000)),
        (&healthy, Some(20_000), Some(20_000)),
        (&healthy, Some(9_000), Some(50_000)),
        (&seen(RUNS, Health::Unhealthy), Some(20_000), None),
        (&seen(RUNS, Health::None), None, None),
        (&seen(State::Created, Health::Healthy), Some(20_000), None),
    ];
    for (seen, known, expected) in cases {
        assert_eq!(healthy_since(seen, known, now), expected);
    }
}

#[test]
fn what_only_one_can_have_forbids_a_second_one() {
    let plain = Service::default();
    let attached = |attachment| Service {
        networks: [("front".to_owned(), attachment)].into(),
        ..Service::default()
    };
    let mode = |mode: &str| Service {
        namespaces: Namespaces {
            network_mode: Some(mode.parse().unwrap()),
            ..Namespaces::default()
        },
        ..Service::default()
    };
    let mut named = Service::default();
    named.names.container_name = Some("shop".to_owned());
    let mut device = Service::default();
    device.security.devices = vec![Device {
        source: "/dev/snd".into(),
        target: "/dev/snd".into(),
        permissions: "rwm".to_owned(),
    }];
    let cases = [
        (plain.clone(), None),
        (attached(Attachment::default()), None),
        (mode("none"), None),
        (
            attached(Attachment {
                ipv4_address: Some("10.0.0.7".parse().unwrap()),
                ..Attachment::default()
            }),
            Some("its static address in front cannot be had twice"),
        ),
        (named, Some("its container_name shop cannot be had twice")),
        (device, Some("its devices cannot be had twice")),
        (mode("host"), Some("it has the ports of the host's own network")),
        (mode("service:db"), Some("it shares the network of db")),
    ];
    for (service, expected) in cases {
        let project = Project {
            services: [("web".to_owned(), service.clone())].into(),
            ..Project::default()
        };
        assert_eq!(alone(&project, "web", &service).as_deref(), expected);
    }
    let project = Project {
        services: [
            ("web".to_owned(), plain.clone()),
            ("sidecar".to_owned(), mode("service:web")),
        ]
        .into(),
        ..Project::default()
    };
    assert_eq!(
        alone(&project, "web", &plain).as_deref(),
        Some("sidecar shares its namespaces")
    );
}
