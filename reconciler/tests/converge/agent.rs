//! An agent on the simulated host, and what it has told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use reconciler::{
    converge::{self, Handle, Kept, Outside},
    desired::{Desired, Wish},
    journal::{Entry, Journal, Kind},
    key::{InstanceKey, ResourceKey, Slot},
    observed::{Instance, State},
    plan::step::Class,
    status::{ProjectState, Status},
    testing::{manifest, sim_host::SimHost},
};

#[derive(Default)]
pub struct Entries(pub Mutex<Vec<Entry>>);

impl Journal for Entries {
    fn record(&self, entry: Entry) {
        self.0.lock().unwrap().push(entry);
    }
}

impl Entries {
    pub fn changes(&self) -> Vec<(String, Class)> {
        let entries = self.0.lock().unwrap();
        entries
            .iter()
            .filter(|entry| entry.error.is_none())
            .filter_map(|entry| Some((entry.key.clone(), entry.change?)))
            .collect()
    }
}

pub struct Agent {
    pub host: SimHost,
    pub journal: Arc<Entries>,
    pub handle: Handle,
}

impl Agent {
    pub fn on(host: SimHost, desired: Desired) -> Self {
        let journal = Arc::new(Entries::default());
        let outside = Outside {
            backend: Arc::new(host.clone()),
            journal: journal.clone(),
            ledger: Arc::new(host.clone()),
        };
        let handle = converge::start(outside, Kept::default(), desired);
        Agent {
            host,
            journal,
            handle,
        }
    }

    pub fn new(desired: Desired) -> Self {
        let host = SimHost::with_runtime_clock();
        host.image("app:1", "sha256:aaaa", false);
        Agent::on(host, desired)
    }

    pub async fn until(&mut self, what: &str, mut holds: impl FnMut(&Status) -> bool) -> Arc<Status> {
        let mut end = self.handle.status.clone();
        let wait = end.wait_for(|status| holds(status));
        if let Ok(status) = tokio::time::timeout(Duration::from_secs(600), wait).await {
            return status.unwrap().clone();
        }
        let status = self.handle.status.borrow().clone();
        panic!("never {what}: {:?}\n{:?}", status.projects, status.plan)
    }

    pub async fn converged(&mut self, revision: &str) -> Arc<Status> {
        let host = self.host.clone();
        self.until("converged", |status| {
            let shop = status.projects.get("shop");
            shop.is_some_and(|shop| {
                shop.state == ProjectState::Converged && shop.applied.as_deref() == Some(revision)
            }) && host.pids().len()
                == status.observed.instances.known().map_or(0, |all| {
                    all.values()
                        .filter(|one| matches!(one.state, State::Running { .. }))
                        .count()
                })
        })
        .await
    }

    pub fn want(&self, desired: Desired) {
        self.handle.desired.send(Arc::new(desired)).unwrap();
    }
}

pub fn desired(revision: &str, text: &str) -> Desired {
    let wish = Wish::Run {
        project: Arc::new(manifest::project("shop", text).unwrap()),
        revision: revision.to_owned(),
    };
    Desired {
        projects: BTreeMap::from([("shop".to_owned(), wish)]),
        incomplete: None,
        intents: BTreeMap::new(),
    }
}

pub fn key(service: &str) -> InstanceKey {
    InstanceKey {
        project: "shop".to_owned(),
        service: service.to_owned(),
        index: 1,
        slot: Slot::A,
    }
}

pub fn network() -> ResourceKey {
    ResourceKey {
        project: "shop".to_owned(),
        name: "shop_default".to_owned(),
    }
}

/// What is seen of the first instance of `service`.
pub fn seen<'s>(status: &'s Status, service: &str) -> Option<&'s Instance> {
    status.observed.instances.known()?.get(&key(service))
}

impl Entries {
    /// `wanted shop`, `event container shop/web/1a it ended with status 1`: all but steps.
    pub fn told(&self) -> Vec<String> {
        let entries = self.0.lock().unwrap();
        let steps = [Kind::Started, Kind::Done];
        let told = entries.iter().filter(|entry| !steps.contains(&entry.kind));
        told.map(|entry| {
            let text = entry.cause.new.as_deref().unwrap_or_default();
            format!("{:?} {} {text}", entry.kind, entry.key).to_lowercase()
        })
        .collect()
    }
}
