//! `plan` of a thousand services that are as they should be: the pure function, on a host in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use reconciler::{
    desired::{Desired, Wish},
    memory::Memory,
    observed::{Fact, Firewall, Health, Image, ImageConfig, Instance, Network, Observed, State, Volume},
    plan::{self, action::Action, step::Plan},
    time::Now,
};

use crate::{ROUNDS, Spread};

const PROJECTS: usize = 50;
const SERVICES: usize = 20;

/// Milliseconds of each of [`ROUNDS`] plans.
pub fn plans() -> Spread {
    let desired = desired();
    let mut observed = nothing_there();
    let mut memory = Memory::default();
    let plan = |observed: &Observed, memory: &Memory| {
        plan::plan(&desired, observed, memory, &Vec::new(), Now { boot: 1, wall: 1 })
    };
    // Carried out until nothing is left to do: then everything is unchanged.
    loop {
        let next = plan(&observed, &memory);
        let ready: Vec<_> = next.steps.iter().filter(|step| step.after.is_empty()).collect();
        if ready.is_empty() {
            break;
        }
        for step in ready {
            memory.begin(&next, step);
            carry_out(&mut observed, &step.action);
            memory.done(step);
        }
    }
    let times = (0..=ROUNDS).map(|_| {
        let start = Instant::now();
        assert_eq!(plan(&observed, &memory), Plan::default(), "nothing is left to do");
        start.elapsed().as_secs_f64() * 1000.0
    });
    Spread::of(times.skip(1).collect())
}

fn desired() -> Desired {
    let projects = (0..PROJECTS).map(|project| {
        let mut text = String::from("services:\n");
        for number in 0..SERVICES {
            let port = 10_000 + project * SERVICES + number;
            text.push_str(&format!(
                "  s{number}: {{ image: \"builtin:hello\", environment: {{ A: \"1\", B: \"2\" }}, ports: [\"{port}:80\"] }}\n"
            ));
        }
        let file = PathBuf::from(format!("/srv/p{project:02}.yaml"));
        let sources = BTreeMap::from([(file.clone(), text.into_bytes())]);
        let options = model::load::Options {
            directory: "/srv".into(),
            fallback_name: format!("p{project:02}"),
            ..Default::default()
        };
        let loaded = model::load::load(&sources, &[file], &options);
        let project = Arc::new(loaded.project.expect("a project without errors"));
        let revision = "1".to_owned();
        (project.name.clone(), Wish::Run { project, revision })
    });
    Desired {
        projects: projects.collect(),
        incomplete: None,
        intents: BTreeMap::new(),
    }
}

fn nothing_there() -> Observed {
    let image = Image {
        digest: "sha256:00".to_owned(),
        unpacked: true,
        config: ImageConfig {
            command: vec!["/app".to_owned()],
            ..ImageConfig::default()
        },
    };
    Observed {
        boot_id: "boot".to_owned(),
        images: BTreeMap::from([("builtin:hello".to_owned(), Fact::Known(image))]),
        networks: Fact::Known(BTreeMap::new()),
        volumes: Fact::Known(BTreeMap::new()),
        instances: Fact::Known(BTreeMap::new()),
        ended: Fact::Known(BTreeMap::new()),
        remains: Fact::Known(BTreeSet::new()),
        firewall: Fact::Known(Firewall {
            spec: Default::default(),
            drift: Vec::new(),
        }),
        zones: Fact::Known(BTreeMap::new()),
        routes: Fact::Known(BTreeSet::new()),
        id_bases: Fact::Known(BTreeMap::new()),
    }
}

/// What the host shows after `action`: of each, what the action itself says.
fn carry_out(observed: &mut Observed, action: &Action) {
    match action {
        Action::EnsureNetwork(spec) => {
            let network = Network {
                spec: spec.clone(),
                drift: Vec::new(),
            };
            put(&mut observed.networks, spec.key.clone(), network);
        }
        Action::EnsureVolume(spec) => put(&mut observed.volumes, spec.key.clone(), Volume { lost: None }),
        Action::EnsureSandbox(spec) => {
            put(&mut observed.id_bases, spec.key.project.clone(), spec.id_base);
            let instance = Instance {
                sandbox: spec.clone(),
                container: None,
                state: State::Created,
                drift: Vec::new(),
                broken: None,
                restarts: 0,
                streak: 0,
                flaps: 0,
                started_at: None,
                started_wall: None,
                health: Health::None,
            };
            put(&mut observed.instances, spec.key.clone(), instance);
        }
        Action::StartContainer { key, spec, .. } => {
            if let Fact::Known(instances) = &mut observed.instances
                && let Some(instance) = instances.get_mut(key)
            {
                instance.container = Some((**spec).clone());
                instance.state = State::Running { pid: 1 };
                instance.started_at = Some(1);
                instance.started_wall = Some(1);
            }
        }
        Action::SyncFirewall(spec) => {
            observed.firewall = Fact::Known(Firewall {
                spec: spec.clone(),
                drift: Vec::new(),
            });
        }
        Action::SyncNames {
            network,
            zone: Some(zone),
        } => put(&mut observed.zones, network.clone(), zone.clone()),
        other => unreachable!("a first start does not need {other:?}"),
    }
}

fn put<K: Ord, V>(fact: &mut Fact<BTreeMap<K, V>>, key: K, value: V) {
    if let Fact::Known(map) = fact {
        map.insert(key, value);
    }
}
