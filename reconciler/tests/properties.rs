//! What must hold whatever happens: generated projects and accidents on the simulated host. A failing
//! seed is printed; `SEED=n` runs only that one.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    desired::Wish,
    key::{InstanceKey, Key, ResourceKey},
    observed::{Health, State},
    plan::{
        self,
        action::Action,
        step::{Cause, Class, Plan, Step},
    },
    port::Retry,
    spec::MountSpec,
    testing::{drive::Drive, seeds::each_seed, sim_host::Random},
};

/// How many seeds run by default; `SEEDS=n` for a longer sweep.
const SEEDS: u64 = 60;

/// A project of up to five services; a service depends only on earlier ones.
fn manifest(random: &mut Random) -> String {
    let mut text = String::new();
    let count = 1 + random.below(5);
    for number in 0..count {
        text.push_str(&format!("s{number}\n  env A {}\n", random.below(2)));
        if random.chance(3) {
            text.push_str("  image db:1\n");
        }
        if random.chance(2) {
            text.push_str("  restart always\n");
        }
        if random.chance(3) {
            text.push_str("  net front www\n");
        }
        if random.chance(4) {
            text.push_str("  net back\n");
        }
        // Only one of several could have a fixed port.
        if random.chance(3) {
            text.push_str(&format!("  port 80{number}{}:80\n", random.below(2)));
        } else if random.chance(3) {
            text.push_str(&format!("  scale {}\n", random.below(4)));
        }
        if random.chance(4) {
            text.push_str(&format!("  memory {}\n", (1 + random.below(2)) << 26));
        }
        if random.chance(6) {
            text.push_str("  ipc host\n");
        }
        if random.chance(4) {
            text.push_str("  port 53/udp\n");
        }
        if random.chance(3) {
            text.push_str("  volume data:/data\n");
        }
        if random.chance(4) {
            text.push_str(&format!("  label x {}\n", random.below(2)));
        }
        if number > 0 && random.chance(2) {
            let how = ["", " restart", " optional"][random.below(3) as usize];
            text.push_str(&format!("  needs s{}{how}\n", random.below(number)));
        }
    }
    if random.chance(3) {
        text.push_str("net back internal\n");
    }
    text
}

fn drive(seed: u64) -> Drive {
    let drive = Drive::new(seed);
    drive.host.image("app:1", "sha256:aaaa", false);
    drive.host.image("db:1", "sha256:dddd", true);
    drive
}

fn sorted(mut list: Vec<(Key, Class, Cause)>) -> Vec<(Key, Class, Cause)> {
    list.sort_by_key(|(key, class, cause)| (key.clone(), *class, format!("{cause:?}")));
    list
}

fn printed(plan: &Plan) -> Vec<(Key, Class, Cause)> {
    let list = plan.changes.iter();
    list.map(|change| (change.key.clone(), change.class, change.cause.clone()))
        .collect()
}

/// Settles, whole passes or one step and a plan at a time.
fn settle(drive: &mut Drive, seed: u64) {
    if seed.is_multiple_of(2) {
        drive
            .settle()
            .unwrap_or_else(|plan| panic!("does not end:\n{}", plan::render(&plan)));
    } else {
        let steps = (0..1000).take_while(|_| drive.single()).count();
        assert!(steps < 1000, "does not end:\n{}", plan::render(&drive.plan()));
    }
    let plan = drive.plan();
    assert!(plan.steps.is_empty(), "{}", plan::render(&plan));
    assert_eq!(drive.host.world().violations, Vec::<String>::new());
}

#[test]
fn it_converges_the_printed_plan_is_what_is_done_and_a_second_plan_is_empty() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed);
        let mut drive = drive(seed);
        for _ in 0..4 {
            match random.below(5) {
                0 => {
                    drive.desired.projects.remove("shop");
                }
                1 => drive.host.flush_firewall(),
                3 => {
                    let networks: Vec<_> = drive.host.world().networks.keys().cloned().collect();
                    networks
                        .first()
                        .into_iter()
                        .for_each(|key| drive.host.delete_bridge(key));
                }
                2 => {
                    let keys: Vec<InstanceKey> = drive.pids().into_keys().collect();
                    if !keys.is_empty() {
                        drive
                            .host
                            .lose_shim(&keys[random.below(keys.len() as u64) as usize]);
                    }
                }
                _ => {}
            }
            let name = if random.chance(3) { "other" } else { "shop" };
            // Ports of two projects may clash: then one waits, and the plan is not empty.
            let text = match name {
                "other" => manifest(&mut random).replace("port 80", "port 90"),
                _ => manifest(&mut random),
            };
            drive.file(name, &text).unwrap();
            let plan = drive.plan();
            assert!(plan.waiting.is_empty() || !plan.steps.is_empty());
            drive.executed.clear();
            settle(&mut drive, seed);
            assert_eq!(
                sorted(printed(&plan)),
                sorted(drive.executed.clone()),
                "\n{}",
                plan::render(&plan)
            );
            let second = drive.plan();
            assert_eq!(printed(&second), Vec::new());
            assert_eq!(second.waiting, Vec::new());
        }
    });
}

#[test]
fn what_is_under_way_is_neither_done_again_nor_built_on() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0x5A5A);
        let mut drive = drive(seed);
        for _ in 0..3 {
            drive.file("shop", &manifest(&mut random)).unwrap();
            let other = manifest(&mut random).replace("port 80", "port 90");
            drive.file("other", &other).unwrap();
            for _ in 0..random.below(20) {
                let plan = drive.plan();
                let first = plan.steps.into_iter().filter(|step| step.after.is_empty());
                let under_way: Vec<Step> = first.filter(|_| random.chance(2)).collect();
                let wanted = drive.desired.projects.get("shop").cloned();
                if random.chance(2) {
                    drive.desired.projects.remove("shop");
                }
                built_on(&under_way, &drive.plan_beside(&under_way), &drive);
                drive
                    .desired
                    .projects
                    .extend(wanted.map(|wish| ("shop".to_owned(), wish)));
                drive.single();
            }
        }
    });
}

/// No step of `plan` that could go at once touches what is under way, or what that needs.
fn built_on(under_way: &[Step], plan: &Plan, drive: &Drive) {
    let making = |key: &ResourceKey| {
        let volume = Key::Volume(key.clone());
        under_way.iter().any(|step| step.key == volume)
    };
    let observed = drive.host.observe_all(&BTreeSet::new());
    let seen = observed.instances.known().unwrap();
    for step in &plan.steps {
        let twice = under_way.iter().find(|other| other.key == step.key);
        assert_eq!(twice.map(|other| &other.action), None, "again: {:?}", step.action);
        if !step.after.is_empty() {
            continue;
        }
        if let Action::UnpackImage { digest, .. } = &step.action {
            let unpacking = |other: &Step| matches!(&other.action, Action::UnpackImage { digest: other, .. } if other == digest);
            assert!(!under_way.iter().any(unpacking), "{digest} is being unpacked");
        }
        if let Action::StartContainer { spec, .. } = &step.action {
            for mount in &spec.mounts {
                if let MountSpec::Volume { volume, .. } = mount {
                    assert!(!making(volume), "{} starts on {volume}", step.key);
                }
            }
        }
        for other in under_way {
            let (key, spec) = match &other.action {
                Action::StartContainer { key, spec, .. } | Action::UpdateContainer { key, spec } => {
                    (key, spec)
                }
                _ => continue,
            };
            match &step.action {
                Action::SyncFirewall(firewall) => {
                    for endpoint in &seen[key].sandbox.endpoints {
                        let network = firewall.networks.get(&endpoint.network);
                        let kept = network.is_some_and(|network| {
                            network.endpoints.contains(&(endpoint.address, endpoint.mac))
                        });
                        assert!(
                            kept,
                            "{key} is starting, and {} is without rules",
                            endpoint.address
                        );
                    }
                }
                Action::StopContainer { key: stopped, .. } => {
                    let field = format!("depends_on.{}.", stopped.service);
                    let depends = spec.fields.keys().any(|name| name.starts_with(&field));
                    let gone = key.project == "shop" && !drive.desired.projects.contains_key("shop");
                    let depends = depends && stopped.project == key.project;
                    assert!(
                        !gone || !depends,
                        "{stopped} goes before {key}, which is starting"
                    );
                }
                _ => {}
            }
        }
    }
}

#[test]
fn an_unaffected_service_keeps_its_process() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0xABCD);
        let mut drive = drive(seed);
        drive.file("shop", &manifest(&mut random)).unwrap();
        settle(&mut drive, seed);
        let before = drive.pids();
        drive.file("shop", &manifest(&mut random)).unwrap();
        let touched: BTreeSet<Key> = drive
            .plan()
            .changes
            .iter()
            .filter(|change| change.class != Class::Live)
            .map(|change| change.key.clone())
            .collect();
        settle(&mut drive, seed);
        let after = drive.pids();
        for (key, pid) in before {
            if !touched.contains(&Key::Instance(key.clone())) {
                assert_eq!(after.get(&key), Some(&pid), "{key}");
            }
        }
    });
}

#[test]
fn unknown_never_causes_a_removal_and_no_volume_goes_without_consent() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0x1234);
        let mut drive = drive(seed);
        drive.file("shop", &manifest(&mut random)).unwrap();
        settle(&mut drive, seed);
        let volumes = drive.host.world().volumes.clone();
        let part = ["networks", "volumes", "instances", "firewall", "zones"][random.below(5) as usize];
        drive.host.world().unreadable.insert(part);
        match random.below(3) {
            0 => drive.file("shop", &manifest(&mut random)).unwrap(),
            1 => {
                drive.desired.projects.remove("shop");
            }
            _ => {
                drive
                    .desired
                    .projects
                    .insert("shop".to_owned(), Wish::Down { volumes: false });
            }
        }
        for step in drive.plan().steps {
            let wrong = match step.action {
                Action::RemoveSandbox(_) | Action::StopContainer { .. } => part == "instances",
                Action::RemoveNetwork(_) => part == "networks" || part == "instances",
                Action::RemoveVolume(_) => true,
                Action::EnsureSandbox(_) | Action::StartContainer { .. } => part == "instances",
                Action::EnsureNetwork(_) => part == "networks",
                _ => false,
            };
            assert!(!wrong, "{part} is unknown, and yet {:?}", step.key);
        }
        drive.host.world().unreadable.clear();
        settle(&mut drive, seed);
        let now = drive.host.world().volumes.clone();
        assert!(volumes.keys().all(|key| now.contains_key(key)));
        drive
            .desired
            .projects
            .insert("shop".to_owned(), Wish::Down { volumes: true });
        settle(&mut drive, seed);
        assert!(drive.host.world().volumes.is_empty());
    });
}

#[test]
fn failures_delay_but_never_break_the_order() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0x77);
        let mut drive = drive(seed);
        for _ in 0..2 {
            drive.file("shop", &manifest(&mut random)).unwrap();
            for step in drive.plan().steps {
                if random.chance(3) {
                    let times = 1 + random.below(3) as u32;
                    let key = step.key.to_string();
                    drive.host.world().failing.insert(key, (times, Retry::Again));
                }
            }
            for _ in 0..60 {
                drive.pass();
                drive.host.advance(2_000);
            }
            settle(&mut drive, seed);
            assert_eq!(printed(&drive.plan()), Vec::new());
        }
    });
}

#[test]
fn an_agent_that_dies_anywhere_leaves_what_the_next_one_completes() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0x5555);
        let mut drive = drive(seed);
        drive.file("shop", &manifest(&mut random)).unwrap();
        settle(&mut drive, seed);
        let next = manifest(&mut random);
        for dies_after in 0..40 {
            let before = drive.pids();
            drive.file("shop", &next).unwrap();
            drive.host.world().dies_after = Some(dies_after % 7);
            let touched: BTreeSet<Key> = drive
                .plan()
                .changes
                .into_iter()
                .map(|change| change.key)
                .collect();
            drive.pass();
            drive.new_agent();
            for (key, pid) in &before {
                if !touched.contains(&Key::Instance(key.clone())) {
                    assert_eq!(drive.pids().get(key), Some(pid), "{key}");
                }
            }
            assert_eq!(drive.host.world().violations, Vec::<String>::new());
        }
        settle(&mut drive, seed);
        assert_eq!(printed(&drive.plan()), Vec::new());
    });
}

#[test]
fn restarts_are_drawn_from_the_curve_and_nothing_else_starts() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0x9999);
        let mut drive = drive(seed);
        drive.file("shop", "web\n  restart always\ndb\n").unwrap();
        settle(&mut drive, seed);
        let web = InstanceKey {
            project: "shop".to_owned(),
            service: "web".to_owned(),
            index: 1,
            slot: reconciler::key::Slot::A,
        };
        let mut streak = 0;
        for _ in 0..8 {
            let ran = if random.chance(4) {
                10_000
            } else {
                random.below(9_000)
            };
            drive.host.advance(ran);
            if ran >= 10_000 {
                streak = 0;
            }
            drive.host.exit(&web, 1);
            let delay = reconciler::backoff::delay(&web.to_string(), streak);
            let plan = drive.plan();
            assert_eq!(plan.changes, Vec::new(), "supervision is no change");
            assert!(plan.steps.is_empty());
            drive.host.advance(delay - 1);
            assert!(drive.plan().steps.is_empty());
            drive.host.advance(1);
            settle(&mut drive, seed);
            streak += 1;
            let seen = drive.host.observe_all(&BTreeSet::new());
            let web = &seen.instances.known().unwrap()[&web];
            assert_eq!(web.streak, streak);
            assert!(matches!(web.state, State::Running { .. }));
        }
    });
}

#[test]
fn a_closed_gate_lets_nothing_start_and_an_open_one_everything() {
    each_seed(SEEDS, |seed| {
        let mut drive = drive(seed);
        let text =
            "db\n  health true\nweb\n  needs db healthy\njob\n  needs web\nend\n  needs job completed\n";
        drive.file("shop", text).unwrap();
        let first = drive.plan();
        assert_eq!(
            first
                .changes
                .iter()
                .filter(|change| change.gate.is_some())
                .count(),
            3
        );
        settle(&mut drive, seed);
        let names =
            |drive: &Drive| -> Vec<String> { drive.pids().into_keys().map(|key| key.service).collect() };
        assert_eq!(names(&drive), ["db"]);
        let keys: BTreeMap<String, InstanceKey> = drive
            .host
            .world()
            .instances
            .keys()
            .map(|key| (key.service.clone(), key.clone()))
            .collect();
        drive.host.set_health(&keys["db"], Health::Healthy);
        settle(&mut drive, seed);
        assert_eq!(names(&drive), ["db", "job", "web"]);
        drive.host.exit(&keys["job"], 0);
        settle(&mut drive, seed);
        assert_eq!(names(&drive), ["db", "end", "web"]);
        assert_eq!(sorted(printed(&first)), sorted(drive.executed.clone()));
    });
}

#[test]
fn nothing_is_planned_for_a_thousand_unchanged_services() {
    let mut drive = drive(1);
    for project in 0..50 {
        let services: String = (0..20)
            .map(|number| {
                format!(
                    "s{number}\n  env A 1\n  env B 2\n  port {}:80\n",
                    10_000 + project * 20 + number
                )
            })
            .collect();
        drive.file(&format!("p{project:02}"), &services).unwrap();
    }
    settle(&mut drive, 0);
    let observed = drive.host.observe_all(&BTreeSet::from(["app:1".to_owned()]));
    let plan = plan::plan(
        &drive.desired,
        &observed,
        &drive.memory,
        &Vec::new(),
        Default::default(),
    );
    assert_eq!(plan, Plan::default());
}
