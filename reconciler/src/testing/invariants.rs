//! What must hold whatever happens: the invariants, each a named check over the world, over what the loop
//! has decided, or over a host that has come to rest. How a driver calls them:
//!
//! ```text
//! let mut watch = Watch::new();
//! watch.agent_starts();                           before Engine::new; without it, nothing of L1, F1, U1
//! watch.wants(&desired);                          before Engine::desire (and Engine::new)
//! watch.hears(&hint), .asked(), .reported(&report)  before the engine is told; looked(&key): after a step
//! watch.after(&mut world)?;                       after each begin, advance, look or damage
//! watch.decided(&world, &round, now)?;            after each Engine::round, once its notes are kept
//! watch.settled(&mut world, &desired, &status, now)?;   faults are over, and nothing more is done
//! ```
//!
//! | name | what must hold | checked |
//! |---|---|---|
//! | V1 | A volume's data is changed by its service only, and goes by an operator's consent only. | world, decided |
//! | V2 | A service never starts on another volume than the one it had. | world, decided |
//! | P1 | One live container for each instance; two only while a start-first update is under way. | world |
//! | P2 | No signal to a process that is not of the instance it is meant for. | world |
//! | P3 | Who is not affected keeps its process, by an oracle of its own. | decided |
//! | N1 | No address, host port, subnet, MAC or id range is given to two at once. | world |
//! | N2 | Isolation is there before anything can be reached, and a published port leads to it. | world |
//! | N3 | What is somebody else's is never changed. | world |
//! | S1 | Records can be read, and are written before what they are about. | world |
//! | S2 | An agent that remembers nothing comes to the same plan. | settled |
//! | C1 | Once faults are over, everything wanted is there, and nothing else. | settled |
//! | C2 | Then nothing is done. | settled |
//! | C3 | What was done and is done again changes nothing. | settled |
//! | J1 | Who shares namespaces stands in those that are there, and joins none that go. | world, decided, settled |
//! | D1 | Dependencies are honoured: starts after them, stops before them. | decided |
//! | H1 | What runs before a service has succeeded for the version that starts, and once only. | decided |
//! | R1 | Restarts keep to the curve, are counted on, and are none for what an operator has stopped. | decided |
//! | G1 | What is carried out was once wanted as a whole; nothing goes for want of a readable manifest. | decided |
//! | L1 | What was heard of is looked at, but not while a step is at it; nothing is done where nothing is known. | decided |
//! | F1 | What fails is counted, forgiven and tried again as it should be. | decided |
//! | U1 | An update keeps its pace, stops where new ones fail, and hands over to what is ready. | decided |
//! | X1 | Nothing grows without bound. | world, decided |
//! | T1 | Status says what is true, and why it is not what is wanted. | decided, settled |

mod agent;
mod decisions;
mod hooks;
mod oracle;
mod rest;
mod restarts;
mod sharing;
mod state;
mod updates;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::types::{Project, Service};

use super::sim_host::{World, objects::Foreign};
use crate::{
    desired::{Desired, Wish},
    execute::Report,
    key::{InstanceKey, Key, ResourceKey},
    port::HostEvent,
    spec::ContainerSpec,
};

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// `V1`, `P3`, …
    pub invariant: &'static str,
    pub what: String,
}

/// What a container was last started from.
#[derive(Debug, Clone)]
struct Origin {
    project: Arc<Project>,
    spec: Box<ContainerSpec>,
    /// The services that it is restarted with, as they were known then: where from, and the digest.
    followed: BTreeMap<String, (Arc<Project>, String)>,
}

/// Everything the checks remember.
#[derive(Debug, Default)]
pub struct Watch {
    /// What is wanted now.
    desired: Desired,
    /// Every revision there was, by project.
    revisions: BTreeSet<(String, String)>,
    /// Services that were once to be replaced start-first.
    start_first: BTreeSet<(String, String)>,
    /// Services that once had several instances.
    several: BTreeSet<(String, String)>,
    /// What names led to, of two slots.
    served: BTreeSet<InstanceKey>,
    /// The agent that lives, where the driver tells of it.
    agent: Option<agent::Agent>,
    /// Where each container was last started from.
    origins: BTreeMap<InstanceKey, Origin>,
    /// And before that: a start that failed has changed nothing.
    earlier: BTreeMap<InstanceKey, Origin>,
    /// What a hook before a start was started for: its key and the revision of its service that it was given.
    prepared: BTreeMap<(InstanceKey, String), Box<Service>>,
    /// Identity and writes of each volume directory, by identity.
    written: BTreeMap<u64, u64>,
    /// The identity that services first had of a volume.
    mounted: BTreeMap<ResourceKey, u64>,
    /// Identities whose removal an operator agreed to.
    consented: BTreeSet<String>,
    foreign: Option<Foreign>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

impl std::error::Error for Violation {}

fn violated<T>(invariant: &'static str, what: impl Into<String>) -> Result<T, Violation> {
    let what = what.into();
    Err(Violation { invariant, what })
}

impl Watch {
    pub fn new() -> Self {
        Watch::default()
    }

    /// A new agent: it has been told nothing.
    pub fn agent_starts(&mut self) {
        self.agent = Some(agent::Agent::new());
    }

    /// The agent is told of this.
    pub fn hears(&mut self, hint: &HostEvent) {
        if let Some(agent) = &mut self.agent {
            agent.hears(hint);
        }
    }

    /// The agent is asked how it is now.
    pub fn asked(&mut self) {
        if let Some(agent) = &mut self.agent {
            agent.asked();
        }
    }

    /// After a step on `key` it is looked at.
    pub fn looked(&mut self, key: &Key) {
        if let Some(agent) = &mut self.agent {
            agent.looked(key);
        }
    }

    /// This comes back to the agent.
    pub fn reported(&mut self, report: &Report) {
        if let Some(agent) = &mut self.agent {
            agent.reported(report);
        }
    }

    /// This is wanted from now on.
    pub fn wants(&mut self, desired: &Desired) {
        if let Some(agent) = &mut self.agent {
            agent.wants(&self.desired, desired);
        }
        for (name, wish) in &desired.projects {
            if let Wish::Run { project, revision } = wish {
                self.revisions.insert((name.clone(), revision.clone()));
                for (service, definition) in &project.services {
                    if oracle::scale(definition) > 1 {
                        self.several.insert((name.clone(), service.clone()));
                    }
                    let deploy = definition.container.deploy.as_ref();
                    let update = deploy.and_then(|deploy| deploy.update_config.as_ref());
                    if update.is_some_and(|update| update.start_first) {
                        self.start_first.insert((name.clone(), service.clone()));
                    }
                }
            }
            if let Wish::Down { volumes: true } = wish {
                self.consented.insert(name.clone());
            }
        }
        self.desired = desired.clone();
    }

    /// The version of a project that is in force: the wanted one, or the last good one while that is barred.
    fn effective(&self, world: &World, name: &str) -> Option<Arc<Project>> {
        let Some(Wish::Run { project, revision }) = self.desired.projects.get(name) else {
            return None;
        };
        let barred = world.kept.barred.get(name);
        if barred.is_some_and(|barred| barred.revision == *revision)
            && let Some(good) = world.kept.good.get(name)
        {
            return Some(good.still().clone());
        }
        Some(project.clone())
    }
}
