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

/// What was last known of the interfaces of a sandbox: whether they must be looked at.
#[derive(Debug, Default)]
pub struct Interfaces {
    /// That were heard of.
    changes: AtomicU64,
    /// When they were last set up or found in order, and after how many changes.
    sound: Mutex<Option<(Instant, u64)>>,
}

impl Interfaces {
    /// To be asked before a look at them.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    fn changed(&self) {
        self.changes.fetch_add(1, Ordering::AcqRel);
    }

    /// At `now`, after `changes`, they were in order, or `odd`.
    pub fn found(&self, changes: u64, now: Instant, odd: bool) {
        let sound = (!odd).then_some((now, changes));
        *self.sound.lock().unwrap_or_else(PoisonError::into_inner) = sound;
    }

    /// They were in order a moment ago, and nothing was heard of them since.
    pub fn are_sound(&self, now: Instant) -> bool {
        let sound = *self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        sound.is_some_and(|(at, changes)| now.duration_since(at) < SOUND && changes == self.changes())
    }
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
    pub interfaces: Interfaces,
    client: Mutex<Client>,
}

impl Sandbox {
    pub fn new(netns: OwnedFd, client: Client, links: Vec<String>) -> Self {
        Sandbox {
            netns,
            links,
            identity: identity(client.pid),
            namespace: OnceLock::new(),
            interfaces: Interfaces::default(),
            client: Mutex::new(client),
        }
    }

    /// From now on events of namespace `number`, and of its links here, are about this sandbox.
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
        sandbox.interfaces.changed();
        Some(key.clone())
    }

    pub fn keys(&self) -> Vec<InstanceKey> {
        self.lock().keys().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<InstanceKey, Arc<Sandbox>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces_are_taken_for_good_for_a_moment_and_only_after_a_good_look() {
        let interfaces = Interfaces::default();
        let now = Instant::now();
        assert!(!interfaces.are_sound(now), "nobody has looked");
        interfaces.found(interfaces.changes(), now, false);
        assert!(interfaces.are_sound(now + SOUND / 2));
        assert!(!interfaces.are_sound(now + SOUND), "long ago");
        // Damage that nobody told of, seen by a look at everything: whether its repair has helped is looked at.
        interfaces.found(interfaces.changes(), now, true);
        assert!(!interfaces.are_sound(now + SOUND / 2), "they were odd");
        let before = interfaces.changes();
        interfaces.changed();
        interfaces.found(before, now, false);
        assert!(!interfaces.are_sound(now), "changed while they were looked at");
    }
}
