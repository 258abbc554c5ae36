//! The sandboxes this agent knows: a connection to each shim and a descriptor of each network namespace.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError},
};

use reconciler::key::InstanceKey;

use crate::{
    names,
    shim::{client::Client, record},
};

/// What the host ends of an instance's interfaces are called.
pub fn links(mark: &str, key: &InstanceKey) -> Vec<String> {
    let link = |index| names::veth(mark, key, &format!("eth{index}"));
    (0..MAX_INTERFACES).map(link).collect()
}

/// How many interfaces of a sandbox are told apart in hints; more are still repaired by the slow look.
pub const MAX_INTERFACES: u32 = 8;

/// What tells a sandbox from the one before it: its supervisor, by process id and time of its start.
pub fn identity(shim: u32) -> String {
    let started = record::start_ticks(shim as i32).unwrap_or_default();
    format!("{shim}.{started}")
}

/// One live sandbox. The agent holds the network namespace too, so that its links outlive the shim
/// until they are taken down in order.
pub struct Sandbox {
    pub netns: OwnedFd,
    /// Of this one and no later one of the same key.
    pub identity: String,
    /// See [`links`]: looked up for every event, made once.
    links: Vec<String>,
    /// The number of that namespace, once its events are to be heard.
    namespace: OnceLock<i32>,
    client: Mutex<Client>,
}

impl Sandbox {
    pub fn new(netns: OwnedFd, client: Client, links: Vec<String>) -> Self {
        Sandbox {
            netns,
            links,
            identity: identity(client.pid),
            namespace: OnceLock::new(),
            client: Mutex::new(client),
        }
    }

    /// From now on events of namespace `number` are about this sandbox.
    pub fn hear(&self, number: i32) {
        let _ = self.namespace.set(number);
    }

    /// One conversation at a time.
    pub fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: somebody else has one.
    pub fn try_client(&self) -> Option<MutexGuard<'_, Client>> {
        match self.client.try_lock() {
            Ok(client) => Some(client),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

#[derive(Default)]
pub struct Sandboxes(Mutex<BTreeMap<InstanceKey, Arc<Sandbox>>>);

impl Sandboxes {
    pub fn get(&self, key: &InstanceKey) -> Option<Arc<Sandbox>> {
        self.lock().get(key).cloned()
    }

    pub fn insert(&self, key: InstanceKey, sandbox: Sandbox) -> Arc<Sandbox> {
        let sandbox = Arc::new(sandbox);
        self.lock().insert(key, Arc::clone(&sandbox));
        sandbox
    }

    pub fn remove(&self, key: &InstanceKey) -> Option<Arc<Sandbox>> {
        self.lock().remove(key)
    }

    /// Whose link this is.
    pub fn owner(&self, link: &str) -> Option<InstanceKey> {
        let sandboxes = self.lock();
        let mut all = sandboxes.iter();
        all.find(|(_, sandbox)| sandbox.links.iter().any(|own| own == link))
            .map(|(key, _)| key.clone())
    }

    /// Whose namespace this is.
    pub fn in_namespace(&self, number: i32) -> Option<InstanceKey> {
        let sandboxes = self.lock();
        let mut all = sandboxes.iter();
        all.find(|(_, sandbox)| sandbox.namespace.get() == Some(&number))
            .map(|(key, _)| key.clone())
    }

    pub fn keys(&self) -> Vec<InstanceKey> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceKey, Arc<Sandbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
