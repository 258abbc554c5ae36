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
}

impl Behaviour {
    pub const ALL: [Behaviour; 6] = [
        Behaviour::Serve,
        Behaviour::Slow,
        Behaviour::Deaf,
        Behaviour::Sick,
        Behaviour::Job,
        Behaviour::Fail,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Behaviour::Serve => "serve",
            Behaviour::Slow => "slow",
            Behaviour::Deaf => "deaf",
            Behaviour::Sick => "sick",
            Behaviour::Job => "job",
            Behaviour::Fail => "fail",
        }
    }

    pub fn of(argv: &[String]) -> Behaviour {
        let word = argv.first().map(String::as_str);
        let known = Behaviour::ALL
            .into_iter()
            .find(|known| Some(known.word()) == word);
        known.unwrap_or(Behaviour::Serve)
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

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Service {
    pub name: String,
    pub image: &'static str,
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
    pub scale: u32,
    pub update: Option<Update>,
}

impl Service {
    /// How many hooks its start has. Those who end by themselves have none.
    pub fn hooks(&self) -> u8 {
        match self.behaviour {
            Behaviour::Job | Behaviour::Fail => 0,
            _ => self.env % 3,
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

    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }
}
