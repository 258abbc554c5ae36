//! The sandboxes this agent knows: a connection to each shim and a descriptor of each network namespace.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
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

/// How long an interface that is as it should be is not looked at again, if nothing is heard of it.
const SOUND: Duration = Duration::from_secs(1);

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
    /// Changes of its interfaces that were heard of.
    changes: AtomicU64,
    /// When they were last set up or found in order, and after how many changes.
    sound: Mutex<Option<(Instant, u64)>>,
    client: Mutex<Client>,
}

impl Sandbox {
    pub fn new(netns: OwnedFd, client: Client, links: Vec<String>) -> Self {
        Sandbox {
            netns,
            links,
            identity: identity(client.pid),
            namespace: OnceLock::new(),
            changes: AtomicU64::new(0),
            sound: Mutex::new(None),
            client: Mutex::new(client),
        }
    }

    /// From now on events of namespace `number`, and of its links here, are about this sandbox.
    pub fn hear(&self, number: i32) {
        let _ = self.namespace.set(number);
    }

    /// To be asked before its interfaces are looked at, for [`Sandbox::is_sound`].
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// After `changes` its interfaces were in order.
    pub fn found_sound(&self, changes: u64) {
        *self.sound.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), changes));
    }

    /// Something about them is not.
    pub fn found_odd(&self) {
        *self.sound.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Its interfaces were in order a moment ago, and nothing was heard of them since.
    pub fn is_sound(&self) -> bool {
        let sound = *self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        sound.is_some_and(|(at, changes)| at.elapsed() < SOUND && changes == self.changes())
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

    /// A link has changed: whose it is, unless it is being made.
    pub fn link_changed(&self, link: &str) -> Option<InstanceKey> {
        self.changed(|sandbox| {
            sandbox.namespace.get().is_some() && sandbox.links.iter().any(|own| own == link)
        })
    }

    /// Something in a namespace has changed: whose it is.
    pub fn namespace_changed(&self, number: i32) -> Option<InstanceKey> {
        self.changed(|sandbox| sandbox.namespace.get() == Some(&number))
    }

    fn changed(&self, is_it: impl Fn(&Sandbox) -> bool) -> Option<InstanceKey> {
        let sandboxes = self.lock();
        let (key, sandbox) = sandboxes.iter().find(|(_, sandbox)| is_it(sandbox))?;
        sandbox.changes.fetch_add(1, Ordering::AcqRel);
        Some(key.clone())
    }

    pub fn keys(&self) -> Vec<InstanceKey> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceKey, Arc<Sandbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
