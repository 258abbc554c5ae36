//! Whom a target names, what an order makes of those before it, and when it is carried out.

use std::{path::PathBuf, sync::Arc};

use model::types::{Container, Project, Service};
use reconciler::{
    observed::{Fact, Health},
    spec::SandboxSpec,
};

use super::*;
use crate::intake::Seen;

fn report() -> Report {
    let project = |name: &str, services: &[(&str, u32)], down| {
        let services = services.iter().map(|(service, scale)| {
            let container = Container {
                scale: Some(*scale),
                ..Container::default()
            };
            let service_of = Service {
                container,
                ..Service::default()
            };
            ((*service).to_owned(), service_of)
        });
        let project = Project {
            name: name.into(),
            services: services.collect(),
            ..Project::default()
        };
        let seen = Seen {
            source: PathBuf::new(),
            manifest: None,
            revision: None,
            project: Some(Arc::new(project)),
            diagnostics: Vec::new(),
            down,
        };
        (name.to_owned(), seen)
    };
    Report {
        projects: [
            project("shop", &[("web", 3), ("db", 1)], false),
            project("blog", &[("web", 1), ("shop", 1)], false),
            project("old", &[("cron", 1)], true),
        ]
        .into(),
        ..Report::default()
    }
}

fn target(text: &str) -> Target {
    let mut parts = text.split('/');
    let mut next = || parts.next().map(str::to_owned);
    Target {
        project: next().unwrap(),
        service: next().unwrap(),
        index: next().map(|index| index.parse().unwrap()),
    }
}

#[test]
fn a_target_is_a_project_a_service_or_one_of_its_instances() {
    for (text, want) in [
        ("shop", "shop/db shop/web"),
        ("shop/web", "shop/web"),
        ("shop/web/3", "shop/web/3"),
        ("db", "shop/db"),
        ("web", "in several projects (blog, shop); write PROJECT/web"),
        ("shop/web/4", "there is no `shop/web/4`"),
        ("shop/web/0", "count from 1"),
        ("shop/web/x", "count from 1"),
        ("shop/api", "there is no service `shop/api`"),
        ("a/b/c/d", "write PROJECT/SERVICE"),
        ("nothing", "there is no project or service `nothing`"),
        ("old", "nothing of old is to run"),
        ("cron", "there is no project or service"),
    ] {
        let told = match targets(text, &report()) {
            Ok(found) => {
                let found = found.iter().map(ToString::to_string);
                found.collect::<Vec<_>>().join(" ")
            }
            Err(error) => error.to_string(),
        };
        assert!(told.contains(want), "{text}: {told}");
    }
}

/// `web` with three instances; `state` by index: `r` runs since 100, `x` has ended, `-` is not there.
fn host(states: &str) -> Observed {
    let instance = |key: InstanceKey, state, started_at| Instance {
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
        restarts: 0,
        streak: 0,
        flaps: 0,
        started_at: Some(started_at),
        started_wall: None,
        health: Health::None,
        hook: None,
        faults: Vec::new(),
        broken: None,
        identity: String::new(),
        joined: None,
    };
    let mut observed = Observed::nothing_known();
    observed.boot_id = "now".into();
    let mut all = BTreeMap::new();
    for (index, state) in (1..).zip(states.chars()) {
        let key = InstanceKey {
            project: "shop".into(),
            service: "web".into(),
            index,
            slot: Slot::A,
        };
        match state {
            'r' => all.insert(key.clone(), instance(key, State::Running { pid: 1 }, 100)),
            'x' => all.insert(key.clone(), instance(key, State::Exited { code: 0, at: 50 }, 10)),
            _ => None,
        };
    }
    observed.instances = Fact::Known(all);
    observed
}

#[test]
fn the_last_order_counts_for_those_it_names() {
    use Order::*;
    // Orders one after the other, what the host shows, and what is on record then.
    type Case<'a> = (&'a [(Order, &'a str)], &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (&[(Stop, "shop/web")], "rrr", "web stop"),
        (&[(Stop, "shop/web"), (Start, "shop/web")], "xxx", "web run"),
        (&[(Start, "shop/web")], "rrr", ""),
        (&[(Start, "shop/web")], "rxr", "web/2 run"),
        (&[(Start, "shop/web")], "xxx", "web run"),
        (&[(Start, "shop/web")], "--", "web run"),
        (&[(Start, "shop/web/1")], "rrr", ""),
        (&[(Restart, "shop/web")], "rrr", "web run"),
        (&[(Stop, "shop/web/2")], "rrr", "web/2 stop"),
        (&[(Stop, "shop/web/2"), (Stop, "shop/web")], "rrr", "web stop"),
        (&[(Stop, "shop/web/2"), (Restart, "shop/web")], "rxr", "web run"),
        (
            &[(Stop, "shop/web"), (Start, "shop/web/2")],
            "xxx",
            "web/1 stop, web/2 run, web/3 stop",
        ),
        (
            &[(Stop, "shop/web"), (Restart, "shop/web/1")],
            "xxx",
            "web/1 run, web/2 stop, web/3 stop",
        ),
        (&[(Stop, "shop/web"), (Start, "shop/web")], "rrr", "web run"),
    ];
    for (orders, states, want) in cases {
        let observed = host(states);
        let mut intents = Intents::new();
        for (order, named) in *orders {
            intents = give(
                *order,
                &target(named),
                3,
                &intents,
                &observed,
                "now",
                Now::default(),
            );
        }
        let told: Vec<String> = intents
            .iter()
            .map(|(target, intent)| {
                let name = target.to_string().replace("shop/", "");
                let word = if matches!(intent, Intent::Stop { .. }) {
                    "stop"
                } else {
                    "run"
                };
                format!("{name} {word}")
            })
            .collect();
        assert_eq!(told.join(", "), *want, "{orders:?} {states}");
    }
}

#[test]
fn an_order_is_done_when_the_host_shows_it() {
    let at = |boot| Now { boot, wall: 0 };
    let run = |boot_id: &str, since| Intent::Run {
        boot_id: boot_id.into(),
        at: at(since),
    };
    let stop = || Intent::Stop { at: at(0) };
    let report = report();
    let done = |order: &str, intent: &Intent, observed: &Observed| {
        let target = target(order);
        let intents = Intents::from([(target.clone(), intent.clone())]);
        is_done(&target, &intents, project(&report, &target), observed)
    };
    for (states, order, intent, want) in [
        ("rrr", "shop/web", stop(), false),
        ("xxx", "shop/web", stop(), true),
        ("x-", "shop/web", stop(), true),
        ("xrr", "shop/web/1", stop(), true),
        ("rrr", "shop/web", run("now", 100), true),
        ("rrr", "shop/web", run("now", 101), false),
        ("rrx", "shop/web", run("now", 50), false),
        ("rr", "shop/web", run("now", 50), false),
        ("rr", "shop/web/2", run("now", 50), true),
        ("rrr", "shop/web", run("before", 1000), true),
        ("rrr", "shop/gone", run("now", 1000), true),
    ] {
        assert_eq!(
            done(order, &intent, &host(states)),
            want,
            "{states} {order} {intent:?}"
        );
    }
    let unknown = Observed::nothing_known();
    assert!(!done("shop/web", &stop(), &unknown), "unknown is not absent");
}

#[test]
fn a_start_is_done_when_those_who_follow_were_started_too() {
    let mut shop = (**report().projects["shop"].project.as_ref().unwrap()).clone();
    let follows = |restart| model::types::Dependency {
        condition: model::types::Condition::Started,
        required: true,
        restart,
    };
    let web = target("shop/web");
    let at = Now { boot: 50, wall: 0 };
    let run = Intent::Run {
        boot_id: "now".into(),
        at,
    };
    for (restart, stopped, want) in [(false, false, true), (true, false, false), (true, true, true)] {
        let db = shop.services.get_mut("db").unwrap();
        db.depends_on = [("web".to_owned(), follows(restart))].into();
        let mut intents = Intents::from([(web.clone(), run.clone())]);
        if stopped {
            intents.insert(target("shop/db"), Intent::Stop { at });
        }
        assert_eq!(
            is_done(&web, &intents, Some(&shop), &host("rrr")),
            want,
            "{restart} {stopped}"
        );
    }
}
