//! A simulated host behind the [`Backend`] port: processes, networks, mounts, names, a firewall and a disk
//! in memory, a clock, and everything that can go wrong on request.
//!
//! What there is, is objects ([`objects`], [`World`]); what is seen is derived from them ([`observe`]) as
//! the Linux backend does it. An action is a row of mutations ([`World::advance`]): between any two the
//! agent may die, and another action may have its turn.

pub mod damage;
pub mod disk;
mod drift;
mod effects;
mod hooks;
mod namespaces;
pub mod objects;
mod observe;
pub mod registry;
mod restore;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    key::{InstanceKey, Key, ResourceKey},
    memory::{Barred, Good},
    observed::{Health, Hook, Image, ImageConfig, Observed},
    plan::action::Action,
    port::{ActionError, Ask, Backend, HostEvent, Ledger, Retry, Scope},
    time::Now,
};
pub use effects::{Progress, Work};
use objects::Layers;
pub use world::{World, touch};

/// splitmix64 (Steele, Lea, Flood 2014): a seed replays.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }

    pub fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }
}

/// What a simulated action fails with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SimError {
    #[error("{0} fails, as the test asked; ask again")]
    Asked(String),
    #[error("host port {0} is held by a program that is not ours; stop it or change `ports`")]
    PortTaken(u16),
    #[error("{what} needs {needs}, which is not there")]
    Order { what: String, needs: String },
    #[error("image {0} is not in the store")]
    NoImage(String),
    #[error("the registry of {0} does not answer; it is asked again")]
    NoRegistry(String),
    #[error("no space is left on the disk; make some")]
    DiskFull,
    #[error("the record of {0} is damaged; restore it, or remove it if the resource may be made again")]
    Damaged(String),
    #[error("volume {volume}: {why}; restore it, or give it up with `stead down --volumes`")]
    VolumeLost { volume: String, why: String },
    #[error("the bridge of {0} is missing; it is made again in the next pass")]
    BridgeMissing(ResourceKey),
    #[error("the subnet of {0} overlaps a route of the host; choose another or remove the route")]
    SubnetOverlap(ResourceKey),
    #[error("the link of {0} is not a bridge; remove it")]
    NotABridge(ResourceKey),
    #[error("{0} has no sandbox yet; it is made at the next attempt")]
    NoSandbox(InstanceKey),
    #[error("{lender} does not lend what {key} is to share; it is asked again")]
    NotLent { key: InstanceKey, lender: InstanceKey },
    #[error("the processes of {0} have no namespace any more; its sandbox is made anew in the next pass")]
    NamespaceGone(InstanceKey),
    #[error("the supervisor of {0} does not answer; it is asked again at the next look")]
    Silent(InstanceKey),
    #[error("{0} still has processes after they were killed")]
    StillAlive(InstanceKey),
    #[error("the supervisor of {0} refuses what it is to start; change what it names")]
    Refused(InstanceKey),
    #[error("the container of {0} runs already")]
    Runs(InstanceKey),
}

/// The simulated host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct SimHost {
    world: Arc<Mutex<World>>,
    /// With a runtime whose time is paused, the clock follows it.
    started: Option<tokio::time::Instant>,
}

impl Default for SimHost {
    fn default() -> Self {
        SimHost::new()
    }
}

impl SimHost {
    /// A host whose clock stands still until [`SimHost::advance`].
    pub fn new() -> Self {
        SimHost {
            world: Arc::new(Mutex::new(World::new())),
            started: None,
        }
    }

    /// A host whose clock is that of the runtime: paused time moves it.
    pub fn with_runtime_clock() -> Self {
        SimHost {
            started: Some(tokio::time::Instant::now()),
            ..SimHost::new()
        }
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn advance(&self, milliseconds: u64) {
        let mut world = self.world();
        world.boot += milliseconds;
        world.wall += milliseconds;
    }

    /// An image that is in reach, with `/app` as its command.
    pub fn image(&self, reference: &str, digest: &str, unpacked: bool) {
        let config = ImageConfig {
            command: vec!["/app".to_owned()],
            ..ImageConfig::default()
        };
        let image = Image::new(digest.to_owned(), false, config);
        let mut world = self.world();
        world.images.insert(reference.to_owned(), image);
        if unpacked {
            world.layers.insert(digest.to_owned(), Layers::Whole);
        }
    }

    /// The process of `key` ends.
    pub fn exit(&self, key: &InstanceKey, code: i32) {
        let at = self.now().boot;
        self.world().ended(key, code, at);
        self.tell(HostEvent::Instance(key.clone()));
    }

    /// `hook` of the container of `key` is over, with this status.
    pub fn end_hook(&self, key: &InstanceKey, hook: Hook, status: i32) {
        let at = self.now().boot;
        self.world().hook_ends(key, hook, status, at);
        self.tell(HostEvent::Instance(key.clone()));
    }

    /// The grace of a stop is over.
    pub fn end_grace(&self, key: &InstanceKey) {
        let at = self.now().boot;
        self.world().grace_ends(key, at);
        self.tell(HostEvent::Instance(key.clone()));
    }

    pub fn set_health(&self, key: &InstanceKey, health: Health) {
        let mut world = self.world();
        let place = world.instances.get_mut(key);
        if let Some(shim) = place.and_then(|place| place.shim.as_mut()) {
            shim.health = health;
        }
        world.moved(touch::INSTANCES);
        drop(world);
        self.tell(HostEvent::Instance(key.clone()));
    }

    /// The supervisor of `key` is killed; the process dies with it.
    pub fn lose_shim(&self, key: &InstanceKey) {
        self.world().shim_dies(key);
        self.tell(HostEvent::Instance(key.clone()));
    }

    /// Somebody deletes a bridge: its network differs, and every interface on it.
    pub fn delete_bridge(&self, key: &ResourceKey) {
        self.world().damage(&damage::Damage::BridgeDeleted(key.clone()));
    }

    /// Somebody flushes the ruleset.
    pub fn flush_firewall(&self) {
        self.world().damage(&damage::Damage::RulesFlushed);
    }

    /// Off and on: processes, networks, names and rules are gone; what is on the disk stays.
    pub fn reboot(&self) {
        self.world().reboot();
        self.tell(HostEvent::Lost);
    }

    pub fn tell(&self, event: HostEvent) {
        self.world().tell(&event);
    }

    /// What runs: pid by instance.
    pub fn pids(&self) -> BTreeMap<InstanceKey, u32> {
        self.world().pids()
    }

    /// Everything, as it is.
    pub fn observe_all(&self, references: &BTreeSet<String>) -> Observed {
        let mut observed = Observed::nothing_known();
        let scope = Scope {
            images: references
                .iter()
                .map(|name| (name.clone(), Ask::default()))
                .collect(),
            ..Scope::all()
        };
        self.observe(&scope, &mut observed);
        observed
    }
}

/// The object an action is about, as failures are asked for.
pub fn subject(action: &Action) -> String {
    let key = match action {
        Action::UnpackImage { reference, .. } | Action::PinImage { reference, .. } => {
            return format!("image {reference}");
        }
        Action::EnsureNetwork(spec) => Key::Network(spec.key.clone()),
        Action::RemoveNetwork(key) => Key::Network(key.clone()),
        Action::EnsureVolume(spec) => Key::Volume(spec.key.clone()),
        Action::RemoveVolume(key) => Key::Volume(key.clone()),
        Action::EnsureSandbox(spec) => Key::Instance(spec.key.clone()),
        Action::RemoveSandbox(key)
        | Action::StopContainer { key, .. }
        | Action::StartContainer { key, .. }
        | Action::UpdateContainer { key, .. } => Key::Instance(key.clone()),
        Action::SyncFirewall(_) => Key::Firewall,
        Action::SyncNames { network, .. } => Key::Names(network.clone()),
    };
    key.to_string()
}

fn error(retry: Retry, source: SimError) -> ActionError {
    let field = match &source {
        SimError::PortTaken(_) => Some("ports"),
        SimError::NoImage(_) => Some("image"),
        SimError::VolumeLost { .. } => Some("volumes"),
        _ => None,
    };
    ActionError {
        retry,
        field,
        source: Arc::new(source),
    }
}

impl Ledger for SimHost {
    fn good(&self, name: &str, good: &Good) {
        self.world().kept.good.insert(name.to_owned(), good.clone());
    }

    fn barred(&self, name: &str, barred: Option<&Barred>) {
        let mut world = self.world();
        match barred {
            Some(barred) => world.kept.barred.insert(name.to_owned(), barred.clone()),
            None => world.kept.barred.remove(name),
        };
    }
}

impl Backend for SimHost {
    fn observe(&self, scope: &Scope, observed: &mut Observed) {
        self.world().look(scope, observed);
    }

    /// The whole action at once: what it would wait for is over at once, too.
    fn apply(&self, action: &Action) -> Result<(), ActionError> {
        let now = self.now();
        let mut world = self.world();
        let mut work = world.begin(action.clone())?;
        loop {
            match world.advance(&mut work, now)? {
                Progress::Moved => {}
                Progress::Until(_) => work.impatient = true,
                Progress::Done => return Ok(()),
            }
        }
    }

    fn events(&self) -> mpsc::UnboundedReceiver<HostEvent> {
        let (listener, events) = mpsc::unbounded_channel();
        self.world().listeners.push(listener);
        events
    }

    fn now(&self) -> Now {
        let ran = self
            .started
            .map_or(0, |started| started.elapsed().as_millis() as u64);
        let world = self.world();
        Now {
            boot: world.boot + ran,
            wall: world.wall + ran,
        }
    }
}
