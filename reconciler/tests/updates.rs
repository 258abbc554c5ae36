//! What must hold at every step of an update: generated services, edits, failures and deaths of the agent on
//! the simulated host. A failing seed is printed; `SEED=n` runs only that one.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use reconciler::{
    converge::{Engine, Kept, Note},
    desired::{Desired, Wish},
    execute::{Order, Report},
    key::{InstanceKey, Key, Slot},
    memory::Barred,
    observed::{Health, Instance, State},
    plan::{
        self,
        action::Action,
        step::{Cause, Class, Plan},
    },
    port::Backend,
    testing::{
        drive::Drive,
        manifest,
        seeds::each_seed,
        sim_host::{Random, SimHost, damage::Damage},
    },
};

/// How many seeds run by default; `SEEDS=n` for a longer sweep.
const SEEDS: u64 = 150;

/// One service, but for what an edit changes.
struct Shape {
    scale: u64,
    parallelism: u64,
    health: bool,
    text: String,
}

fn shape(random: &mut Random, order: &str) -> Shape {
    let scale = 1 + random.below(4);
    let parallelism = random.below(3);
    let health = random.chance(2);
    let mut text = format!("web\n  scale {scale}\n  port 80\n  port 53/udp\n");
    if scale == 1 {
        text.push_str("  port 8080:90\n");
    }
    if health {
        text.push_str("  health true\n");
    }
    if random.chance(3) {
        text.push_str("  net front www\n  net back\n");
    }
    let action = ["pause", "continue", "rollback"][random.below(3) as usize];
    text.push_str(&format!(
        "  update order {order} parallelism {parallelism} action {action} delay {}s monitor {}s\n",
        random.below(2) * 5,
        random.below(2) * 10
    ));
    Shape {
        scale,
        parallelism,
        health,
        text,
    }
}

fn drive(seed: u64) -> Drive {
    let drive = Drive::new(seed);
    drive.host.image("app:1", "sha256:aaaa", false);
    drive
}

/// Everything there is, as the agent sees it.
fn seen(drive: &Drive) -> BTreeMap<InstanceKey, Instance> {
    let observed = drive.host.observe_all(&BTreeSet::new());
    observed.instances.known().cloned().unwrap_or_default()
}

fn running(drive: &Drive) -> Vec<InstanceKey> {
    drive.pids().into_keys().collect()
}

fn all_healthy(drive: &Drive, shape: &Shape) {
    for key in running(drive).into_iter().filter(|_| shape.health) {
        drive.host.set_health(&key, Health::Healthy);
    }
}

/// Time passes and everything is well, until there is nothing to do and nothing to wait for.
fn finish(drive: &mut Drive, shape: &Shape) {
    for _ in 0..60 {
        let ended = drive.settle();
        ended.unwrap_or_else(|plan| panic!("does not end:\n{}", plan::render(&plan)));
        all_healthy(drive, shape);
        let plan = drive.plan();
        if plan == Plan::default() {
            return;
        }
        drive.host.advance(5_000);
    }
    panic!("does not end:\n{}", plan::render(&drive.plan()));
}

/// The addresses of those of `wanted` who run.
fn addresses(drive: &Drive, wanted: impl Fn(&InstanceKey) -> bool) -> BTreeSet<Ipv4Addr> {
    let seen = seen(drive);
    seen.iter()
        .filter(|(key, seen)| matches!(seen.state, State::Running { .. }) && wanted(key))
        .flat_map(|(_, seen)| seen.sandbox.endpoints.iter().map(|endpoint| endpoint.address))
        .collect()
}

fn published(drive: &Drive) -> BTreeSet<u16> {
    let world = drive.host.world();
    world.firewall.ports.keys().map(|key| key.published).collect()
}

/// Every host port and every name leads somewhere, and only to who runs.
fn assert_served(drive: &Drive, before: &BTreeSet<u16>) {
    let up = addresses(drive, |_| true);
    let world = drive.host.world();
    let text = || format!("{:#?}\n{:#?}\n{up:?}", world.firewall.ports, world.zones);
    for (key, target) in &world.firewall.ports {
        assert!(up.contains(&target.address), "{key:?} leads nowhere: {}", text());
    }
    let now: BTreeSet<u16> = world.firewall.ports.keys().map(|key| key.published).collect();
    assert!(now.is_superset(before), "{before:?} became {now:?}");
    for zone in world.zones.values() {
        let led = zone.get("web").cloned().unwrap_or_default();
        assert!(!led.is_empty(), "nobody is web: {}", text());
        assert!(led.is_subset(&up), "web leads to who does not run: {}", text());
    }
    assert_eq!(world.violations, Vec::<String>::new());
}

fn sorted(mut list: Vec<(Key, Class, Cause)>) -> Vec<(Key, Class, Cause)> {
    list.sort_by_key(|(key, class, cause)| (key.clone(), *class, format!("{cause:?}")));
    list
}

#[test]
fn start_first_never_leaves_a_port_or_a_name_without_who_answers() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0xF11F);
        let mut drive = drive(seed);
        let shape = shape(&mut random, "start-first");
        let file = |version: u64| format!("{}  env A {version}\n", shape.text);
        drive.file("shop", &file(0)).unwrap();
        finish(&mut drive, &shape);
        let ports = published(&drive);
        // Who was healthy in its life may be used; who was not, may not.
        let mut proven: BTreeSet<u32> = drive.pids().into_values().collect();
        for version in 0..4 {
            drive.file("shop", &file(random.below(2) + version % 2)).unwrap();
            for _ in 0..random.below(40) {
                let busy = match random.chance(12) {
                    true => {
                        drive.host.world().dies_after = Some(random.below(3) as u32);
                        let busy = drive.single();
                        drive.new_agent();
                        busy
                    }
                    false => drive.single(),
                };
                assert_served(&drive, &ports);
                if shape.health {
                    let pids = drive.pids();
                    let used = addresses(&drive, |key| !proven.contains(&pids[key]));
                    let world = drive.host.world();
                    let mut targets = world.firewall.ports.values();
                    assert!(targets.all(|target| !used.contains(&target.address)));
                    let mut names = world.zones.values().filter_map(|zone| zone.get("web"));
                    assert!(names.all(|led| led.is_disjoint(&used)));
                }
                if !busy {
                    drive.host.advance(1 + random.below(8_000));
                    for (key, pid) in drive.pids() {
                        if shape.health && !proven.contains(&pid) && random.chance(2) {
                            let well = !random.chance(4);
                            let health = if well { Health::Healthy } else { Health::Unhealthy };
                            drive.host.set_health(&key, health);
                            if well {
                                proven.insert(pid);
                            }
                        }
                    }
                }
            }
        }
        drive.file("shop", &file(7)).unwrap();
        finish(&mut drive, &shape);
        let last = seen(&drive);
        assert_eq!(last.len() as u64, shape.scale);
        for (key, seen) in &last {
            let spec = seen.container.as_ref().unwrap();
            assert_eq!(spec.environment["A"], "7", "{key}");
            let reserved: BTreeSet<u16> = seen.sandbox.ports.iter().map(|port| port.published).collect();
            assert!(
                ports.is_superset(&reserved) && !reserved.is_empty(),
                "{reserved:?}"
            );
        }
    });
}

#[test]
fn stop_first_never_stops_more_than_its_parallelism() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0x5F5F);
        let mut drive = drive(seed);
        let shape = shape(&mut random, "stop-first");
        drive.file("shop", &format!("{}  env A 0\n", shape.text)).unwrap();
        finish(&mut drive, &shape);
        drive.file("shop", &format!("{}  env A 1\n", shape.text)).unwrap();
        let most = match shape.parallelism {
            0 => shape.scale,
            most => most,
        };
        for _ in 0..60 {
            if !drive.single() {
                all_healthy(&drive, &shape);
                drive.host.advance(1_000);
            }
            if random.chance(6) {
                drive.new_agent();
            }
            let up = running(&drive).len() as u64;
            assert!(up + most >= shape.scale, "only {up} of {} run", shape.scale);
        }
        finish(&mut drive, &shape);
        assert_eq!(drive.host.world().violations, Vec::<String>::new());
    });
}

#[test]
fn what_an_update_does_is_what_was_printed_before_it() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0xAC7);
        let mut drive = drive(seed);
        let order = ["start-first", "stop-first"][random.below(2) as usize];
        let shape = shape(&mut random, order);
        drive.file("shop", &format!("{}  env A 0\n", shape.text)).unwrap();
        finish(&mut drive, &shape);
        drive.file("shop", &format!("{}  env A 1\n", shape.text)).unwrap();
        let plan = drive.plan();
        drive.executed.clear();
        finish(&mut drive, &shape);
        let printed = plan.changes.iter();
        let printed = printed.map(|change| (change.key.clone(), change.class, change.cause.clone()));
        assert_eq!(
            sorted(printed.collect()),
            sorted(drive.executed.clone()),
            "\n{}",
            plan::render(&plan)
        );
    });
}

#[test]
fn a_rollback_returns_all_that_was_changed_and_the_revision_stays_barred() {
    each_seed(SEEDS, |seed| {
        let mut random = Random(seed ^ 0xBAC);
        let mut drive = drive(seed);
        let order = ["start-first", "stop-first"][random.below(2) as usize];
        let mut shape = shape(&mut random, order);
        for action in ["action pause", "action continue"] {
            shape.text = shape.text.replace(action, "action rollback");
        }
        // Who is not watched is updated once it runs, whatever comes later.
        shape.text = shape.text.replace("monitor 0s", "monitor 10s");
        let file = |version: u64| format!("{}  env A {version}\napi\n  env A {version}\n", shape.text);
        drive.file("shop", &file(0)).unwrap();
        finish(&mut drive, &shape);
        drive.file("shop", &file(1)).unwrap();
        for _ in 0..random.below(12) {
            drive.single();
        }
        // Whoever is new ends.
        let mut tries = 0;
        let ended = loop {
            tries += 1;
            assert!(
                tries < 1000,
                "no new one starts:\n{}",
                plan::render(&drive.plan())
            );
            let new = running(&drive).into_iter().find(|key| {
                let all = seen(&drive);
                let spec = all[key].container.as_ref().unwrap();
                key.service == "web" && spec.environment["A"] == "1"
            });
            if let Some(key) = new {
                drive.host.exit(&key, 1);
                break key;
            }
            if !drive.single() {
                drive.host.advance(1_000);
            }
        };
        if random.chance(2) {
            drive.single();
            drive.new_agent();
        }
        finish(&mut drive, &shape);
        let why = format!("web container {} ended with 1", ended.index);
        assert_eq!(drive.memory.barred["shop"].why, why);
        for (key, seen) in &seen(&drive) {
            let spec = seen.container.as_ref().unwrap();
            assert_eq!(spec.environment["A"], "0", "{key}");
        }
        drive.file("shop", &file(2)).unwrap();
        finish(&mut drive, &shape);
        for seen in seen(&drive).values() {
            assert_eq!(seen.container.as_ref().unwrap().environment["A"], "2");
        }
        assert!(drive.memory.barred.is_empty());
    });
}

#[test]
fn what_was_taken_back_is_not_barred_any_more_once_its_manifest_changed_while_no_agent_was_there() {
    let barred = Barred {
        revision: "2".to_owned(),
        why: "it failed".to_owned(),
        images: Default::default(),
    };
    for (revision, clears) in [("2", false), ("3", true)] {
        let kept = Kept {
            barred: [("shop".to_owned(), barred.clone())].into(),
            ..Kept::default()
        };
        let wish = Wish::Run {
            project: Arc::new(manifest::project("shop", "web\n").unwrap()),
            revision: revision.to_owned(),
        };
        let desired = Desired {
            projects: [("shop".to_owned(), wish)].into(),
            ..Desired::default()
        };
        let mut engine = Engine::new(Arc::new(desired), kept);
        let notes = engine.round(SimHost::new().now()).notes;
        let cleared = |note: &Note| matches!(note, Note::Barred { barred: None, .. });
        assert_eq!(
            notes.iter().any(cleared),
            clears,
            "revision {revision}: {notes:?}"
        );
    }
}

#[test]
fn one_that_is_just_being_stopped_takes_its_place_whatever_its_image_has_become_meanwhile() {
    let mut drive = drive(1);
    let text = "web\n  scale 2\n  update parallelism 1\n";
    drive.file("shop", text).unwrap();
    drive.settle().unwrap();
    drive.host.image("app:1", "sha256:bbbb", true);
    let stops = |plan: &Plan, index| {
        let mut steps = plan.steps.iter();
        let step = steps
            .find(|step| matches!(&step.action, Action::StopContainer { key, .. } if key.index == index));
        step.cloned()
    };
    let second = loop {
        if let Some(step) = stops(&drive.plan(), 2) {
            break step;
        }
        assert!(drive.single(), "the second one is updated, too");
    };
    // The tag moves back: now it is the first one that is outdated.
    drive.host.image("app:1", "sha256:aaaa", true);
    assert!(stops(&drive.plan(), 1).is_some());
    assert_eq!(stops(&drive.plan_beside(&vec![second]), 1), None);
}

#[test]
fn a_repair_of_one_whose_restart_waits_is_not_the_beginning_of_that_restart() {
    let mut drive = drive(1);
    let text = "web\n  scale 2\n  update parallelism 1\n";
    drive.file("shop", text).unwrap();
    drive.settle().unwrap();
    let before = drive.pids();
    // The edit waits for an image that is out of reach; meanwhile both lose their network.
    drive.host.world().images.clear();
    drive.file("shop", &format!("{text}  env A 1\n")).unwrap();
    for key in before.keys() {
        let damage = Damage::VethDown(key.clone(), "eth0".to_owned());
        drive.host.world().damage(&damage);
    }
    assert!(drive.pass(), "they are repaired");
    let plan = drive.plan();
    let classes: Vec<Class> = plan.changes.iter().map(|change| change.class).collect();
    assert_eq!(classes, [Class::Restart; 2], "{}", plan::render(&plan));
    assert_eq!(drive.pids(), before);
    assert_eq!(drive.memory.begun, BTreeMap::new());
}

/// Carries out what a round orders, at once.
fn carry_out(host: &SimHost, order: Order) -> Report {
    let (scope, mut seen, step) = match order {
        Order::Look { scope, before } => (scope, before, None),
        Order::Step {
            step, scope, before, ..
        } => (scope, before, Some(step)),
    };
    let result = step.as_ref().map(|step| host.apply(&step.action));
    host.observe(&scope, &mut seen);
    match (step, result) {
        (Some(step), Some(result)) => Report::Step {
            key: step.key,
            result,
            scope,
            seen,
        },
        _ => Report::Look { scope, seen },
    }
}

#[test]
fn a_start_that_is_refused_after_its_file_is_gone_holds_up_no_removal() {
    let mut drive = Drive::new(0);
    let host = drive.host.clone();
    host.image("app:1", "sha256:aaaa", true);
    drive.file("shop", "web\n").unwrap();
    let web = InstanceKey {
        project: "shop".to_owned(),
        service: "web".to_owned(),
        index: 1,
        slot: Slot::A,
    };
    host.world().refused.insert(web);
    let mut engine = Engine::new(Arc::new(drive.desired.clone()), Kept::default());
    let mut gone = false;
    for _ in 0..100 {
        host.advance(1000);
        engine.timeout(host.now());
        let round = engine.round(host.now());
        let idle = round.orders.is_empty();
        for order in round.orders {
            // Its file goes while it is under way.
            let starts = matches!(&order, Order::Step { step, .. } if matches!(step.action, Action::StartContainer { .. }));
            if starts && !gone {
                gone = true;
                drive.desired.projects.remove("shop");
                engine.desire(Arc::new(drive.desired.clone()));
            }
            engine.report(carry_out(&host, order), host.now());
        }
        if idle && gone {
            break;
        }
    }
    assert!(gone);
    let left = host.observe_all(&BTreeSet::new());
    assert_eq!(left.instances.known().map(BTreeMap::len), Some(0));
    assert_eq!(left.networks.known().map(BTreeMap::len), Some(0));
}
