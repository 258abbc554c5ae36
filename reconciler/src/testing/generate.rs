//! Projects drawn from a seed, small enough to be read and mean enough to hurt: what a file may ask for,
//! and how it is edited. Valid always; what cannot be met (ports that clash, gates that never open, images
//! that are not there) is part of it.

mod edit;
mod render;

use super::sim_host::Random;

/// What the simulated host has of images: references that resolve, with their digests.
pub const IMAGES: &[(&str, &str)] = &[
    ("app:1", "sha256:aaaa"),
    ("app:2", "sha256:bbbb"),
    ("db:1", "sha256:dddd"),
];
/// A reference that resolves only while the host has it for a time.
pub const RARE_IMAGE: (&str, &str) = ("rare:1", "sha256:eeee");

/// Names of a registry whose tags move among [`TAGGED`].
pub const TAGS: [&str; 2] = ["hub/app:1", "hub/app:2"];
pub const TAGGED: [&str; 3] = ["sha256:1111", "sha256:2222", WORSE];
/// Whatever serves from this image falls ill, because of its entry point.
pub const WORSE: &str = "sha256:3333";
pub const WORSENS: &str = "worse";

/// What may be drawn beyond what every agent knows.
#[derive(Debug, Clone, Copy)]
pub struct Repertoire {
    pub scale: bool,
    pub rollout: bool,
    pub intents: bool,
}

impl Repertoire {
    pub const ALL: Repertoire = Repertoire {
        scale: true,
        rollout: true,
        intents: true,
    };
}

/// What a process does once it runs. The first word of its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Behaviour {
    /// Runs until it is told to stop.
    Serve,
    /// Likewise; takes long to become healthy.
    Slow,
    /// Likewise; stops at SIGKILL only.
    Deaf,
    /// Likewise; is never healthy.
    Sick,
    /// Ends with 0.
    Job,
    /// Ends with 1.
    Fail,
    /// Ends with 0, or with 1, by chance.
    Flaky,
}

impl Behaviour {
    pub const ALL: [Behaviour; 7] = [
        Behaviour::Serve,
        Behaviour::Slow,
        Behaviour::Deaf,
        Behaviour::Sick,
        Behaviour::Job,
        Behaviour::Fail,
        Behaviour::Flaky,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Behaviour::Serve => "serve",
            Behaviour::Slow => "slow",
            Behaviour::Deaf => "deaf",
            Behaviour::Sick => "sick",
            Behaviour::Job => "job",
            Behaviour::Fail => "fail",
            Behaviour::Flaky => "flaky",
        }
    }

    pub fn of(argv: &[String]) -> Behaviour {
        let word = argv.first().map(String::as_str);
        if let (Some(WORSENS), Some(rest)) = (word, argv.get(1..)) {
            return Behaviour::of(rest).worse();
        }
        let known = Behaviour::ALL
            .into_iter()
            .find(|known| Some(known.word()) == word);
        known.unwrap_or(Behaviour::Serve)
    }

    /// The same command in [`WORSE`].
    pub fn worse(self) -> Behaviour {
        match self {
            Behaviour::Serve | Behaviour::Slow | Behaviour::Deaf => Behaviour::Sick,
            other => other,
        }
    }

    fn draw(random: &mut Random) -> Behaviour {
        match random.below(16) {
            0 => Behaviour::Slow,
            1 => Behaviour::Deaf,
            2 => Behaviour::Sick,
            3 | 4 => Behaviour::Job,
            5 => Behaviour::Fail,
            _ => Behaviour::Serve,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Restart {
    No,
    Always,
    UnlessStopped,
    OnFailure(Option<u32>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    Started,
    Healthy,
    Completed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Need {
    pub on: String,
    pub condition: Condition,
    pub required: bool,
    pub restart: bool,
}

/// A published port: `first-last` of the host, `None`: any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Port {
    pub published: Option<(u16, u16)>,
    pub target: u16,
    pub udp: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnFailure {
    Pause,
    Continue,
    Rollback,
}

/// `pull_policy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Policy {
    None,
    Never,
    Missing,
    Always,
    EveryMinute,
}

impl Policy {
    pub fn follows(self) -> bool {
        matches!(self, Policy::Always | Policy::EveryMinute)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Update {
    pub parallelism: Option<u32>,
    /// Milliseconds.
    pub delay: u64,
    pub start_first: bool,
    pub on_failure: Option<OnFailure>,
    /// Milliseconds.
    pub monitor: u64,
}

/// Commands around the life of a service: each a `Job`, `Fail` or `Flaky`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Hooks {
    pub post_start: Vec<Behaviour>,
    pub pre_stop: Vec<Behaviour>,
    pub pre_start: Vec<Behaviour>,
    /// One of `pre_start` for each instance.
    pub per_replica: bool,
}

/// Namespaces of another service that a service lives in, at least one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Sharing {
    pub with: String,
    pub network: bool,
    pub ipc: bool,
    pub pid: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    pub name: String,
    pub image: &'static str,
    pub policy: Policy,
    pub behaviour: Behaviour,
    pub env: u8,
    pub label: u8,
    pub restart: Restart,
    pub health: bool,
    pub ports: Vec<Port>,
    /// Keys of named volumes.
    pub volumes: Vec<&'static str>,
    /// Keys of networks; none: `default`.
    pub networks: Vec<&'static str>,
    pub needs: Vec<Need>,
    /// Milliseconds.
    pub grace: Option<u64>,
    /// Others may join its IPC: another answer asks for a new sandbox.
    pub shared: bool,
    /// Of a service before it, so that nobody shares in a circle.
    pub sharing: Option<Sharing>,
    pub hooks: Hooks,
    pub scale: u32,
    pub update: Option<Update>,
}

impl Service {
    /// It has no network of its own, and so no ports.
    pub fn joins_a_network(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.network)
    }

    /// What it waits for, as the language has it: who shares namespaces waits for who lends them.
    pub fn all_needs(&self) -> Vec<Need> {
        let mut needs = self.needs.clone();
        if let Some(sharing) = &self.sharing
            && !needs.iter().any(|need| need.on == sharing.with)
        {
            needs.push(Need {
                on: sharing.with.clone(),
                condition: Condition::Started,
                required: true,
                restart: true,
            });
        }
        needs
    }

    /// The hooks of its start. Those who end by themselves have none.
    pub fn post_start(&self) -> &[Behaviour] {
        match self.behaviour {
            Behaviour::Job | Behaviour::Fail | Behaviour::Flaky => &[],
            _ => &self.hooks.post_start,
        }
    }

    /// No start of it comes to its end, because of a hook.
    pub fn never_starts(&self) -> bool {
        self.post_start().contains(&Behaviour::Fail)
    }

    /// Some starts of it fail, because of a hook.
    pub fn may_not_start(&self) -> bool {
        self.post_start().iter().any(|hook| *hook != Behaviour::Job)
    }

    /// The services that run before it, each after the one before: it, with another command, reached by nobody.
    fn runners(&self) -> Vec<Service> {
        let mut runners: Vec<Service> = Vec::new();
        for (number, behaviour) in self.hooks.pre_start.iter().enumerate() {
            let mut needs = self.all_needs();
            needs.iter_mut().for_each(|need| need.restart = false);
            needs.extend(runners.last().map(Service::completed));
            runners.push(Service {
                name: format!("{}.pre_start-{}", self.name, number + 1),
                behaviour: *behaviour,
                label: 0,
                restart: match self.restart {
                    Restart::No => Restart::No,
                    _ => Restart::OnFailure(None),
                },
                health: false,
                ports: Vec::new(),
                needs,
                shared: false,
                scale: match self.hooks.per_replica {
                    true => self.scale,
                    false => self.scale.min(1),
                },
                update: None,
                hooks: Hooks::default(),
                ..self.clone()
            });
        }
        runners
    }

    fn completed(&self) -> Need {
        Need {
            on: self.name.clone(),
            condition: Condition::Completed,
            required: true,
            restart: false,
        }
    }
}

/// One project as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape {
    pub services: Vec<Service>,
    /// The network `back` leads nowhere.
    pub internal: bool,
}

impl Shape {
    /// A new project.
    pub fn draw(random: &mut Random, repertoire: Repertoire) -> Shape {
        let count = 1 + random.below(3) + u64::from(random.chance(4)) * random.below(3);
        let mut shape = Shape {
            services: Vec::new(),
            internal: random.chance(4),
        };
        for _ in 0..count {
            shape.add(random, repertoire);
        }
        shape
    }

    /// The same text for the same project, as a revision is.
    pub fn revision(&self) -> String {
        use std::hash::{Hash, Hasher};
        let mut hasher = crate::testing::simulate::trace::Fnv::default();
        self.hash(&mut hasher);
        format!("{:012x}", hasher.finish() & 0xffff_ffff_ffff)
    }

    /// With the services that run before others.
    pub fn expanded(&self) -> Shape {
        let mut services = Vec::new();
        for service in &self.services {
            let runners = service.runners();
            let mut service = service.clone();
            service.needs = service.all_needs();
            service.needs.extend(runners.last().map(Service::completed));
            services.extend(runners);
            services.push(service);
        }
        Shape {
            services,
            internal: self.internal,
        }
    }

    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}
