//! A simulated host behind the [`Backend`] port: processes, networks, names and a firewall in memory,
//! a clock, and everything that can go wrong on request.

mod effects;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    converge::Kept,
    key::{InstanceKey, Key, ResourceKey},
    memory::{Barred, Good},
    observed::{
        Ended, Fact, Firewall, Health, Image, ImageConfig, Instance, Network, Observed, State, Volume,
    },
    plan::action::Action,
    port::{ActionError, Backend, HostEvent, Ledger, Retry, Scope},
    spec::{FirewallSpec, Subnet, Zone},
    time::Now,
};

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
}

/// The whole host; tests look into it and break it.
#[derive(Debug, Default)]
pub struct World {
    pub boot_id: String,
    pub images: BTreeMap<String, Image>,
    pub networks: BTreeMap<ResourceKey, Network>,
    pub volumes: BTreeMap<ResourceKey, Volume>,
    pub instances: BTreeMap<InstanceKey, Instance>,
    /// Exit records of containers without a sandbox.
    pub ended: BTreeMap<InstanceKey, Ended>,
    pub firewall: FirewallSpec,
    pub zones: BTreeMap<ResourceKey, Zone>,
    /// Bridges that are newer than the settings the firewall keeps on bridges.
    pub unset_bridges: BTreeSet<ResourceKey>,
    pub id_bases: BTreeMap<String, u32>,
    pub routes: BTreeSet<Subnet>,
    /// Host ports of programs that are not ours.
    pub foreign_ports: BTreeSet<u16>,
    /// Next failures by text form of a key: how often still, and how.
    pub failing: BTreeMap<String, (u32, Retry)>,
    /// Parts that cannot be read now: `networks`, `volumes`, `instances`, `firewall`, `zones`.
    pub unreadable: BTreeSet<&'static str>,
    /// After so many phases of actions the agent is dead: nothing it does has an effect any more.
    pub dies_after: Option<u32>,
    /// Every action that had its effect, in order.
    pub done: Vec<Action>,
    /// What the agent keeps of its own.
    pub kept: Kept,
    /// Starts, with the moment.
    pub starts: Vec<(InstanceKey, u64)>,
    /// What must never happen and did.
    pub violations: Vec<String>,
    next_pid: u32,
    boot: u64,
    listeners: Vec<mpsc::UnboundedSender<HostEvent>>,
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
        let world = World {
            boot_id: "boot-1".to_owned(),
            next_pid: 100,
            boot: 1_000_000,
            ..World::default()
        };
        SimHost {
            world: Arc::new(Mutex::new(world)),
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
        self.world().boot += milliseconds;
    }

    /// An image that is in reach, with `/app` as its command.
    pub fn image(&self, reference: &str, digest: &str, unpacked: bool) {
        let config = ImageConfig {
            command: vec!["/app".to_owned()],
            ..ImageConfig::default()
        };
        let image = Image {
            digest: digest.to_owned(),
            unpacked,
            config,
        };
        self.world().images.insert(reference.to_owned(), image);
    }

    /// The process of `key` ends.
    pub fn exit(&self, key: &InstanceKey, code: i32) {
        let at = self.now().boot;
        if let Some(instance) = self.world().instances.get_mut(key) {
            instance.state = State::Exited { code, at };
            instance.health = Health::None;
        }
        self.tell(HostEvent::Instance(key.clone()));
    }

    pub fn set_health(&self, key: &InstanceKey, health: Health) {
        if let Some(instance) = self.world().instances.get_mut(key) {
            instance.health = health;
        }
        self.tell(HostEvent::Instance(key.clone()));
    }

    /// The supervisor of `key` is killed; the process dies with it.
    pub fn lose_shim(&self, key: &InstanceKey) {
        if let Some(instance) = self.world().instances.get_mut(key) {
            instance.state = State::Lost;
        }
        self.tell(HostEvent::Instance(key.clone()));
    }

    /// Somebody deletes a bridge: its network and every interface on it differ.
    pub fn delete_bridge(&self, key: &ResourceKey) {
        let mut world = self.world();
        if let Some(network) = world.networks.get_mut(key) {
            network.drift = vec!["bridge is missing".to_owned()];
        }
        for instance in world.instances.values_mut() {
            for endpoint in &instance.sandbox.endpoints {
                if endpoint.network == *key {
                    instance.drift = vec![format!("{} is not on its bridge", endpoint.interface)];
                }
            }
        }
        drop(world);
        self.tell(HostEvent::Network(key.clone()));
    }

    /// Somebody flushes the ruleset.
    pub fn flush_firewall(&self) {
        self.world().firewall = FirewallSpec::default();
        self.tell(HostEvent::Firewall);
    }

    /// Power off and on: processes, networks, names and rules are gone; records and volumes stay.
    pub fn reboot(&self) {
        let mut world = self.world();
        world.boot_id.push('+');
        world.instances.clear();
        world.networks.clear();
        world.zones.clear();
        world.firewall = FirewallSpec::default();
        drop(world);
        self.tell(HostEvent::Lost);
    }

    pub fn tell(&self, event: HostEvent) {
        self.world()
            .listeners
            .retain(|listener| listener.send(event.clone()).is_ok());
    }

    /// What runs: pid by instance.
    pub fn pids(&self) -> BTreeMap<InstanceKey, u32> {
        self.world()
            .instances
            .iter()
            .filter_map(|(key, instance)| match instance.state {
                State::Running { pid } => Some((key.clone(), pid)),
                _ => None,
            })
            .collect()
    }

    /// Everything, as it is.
    pub fn observe_all(&self, references: &BTreeSet<String>) -> Observed {
        let mut observed = Observed::nothing_known();
        let scope = Scope {
            images: references.clone(),
            ..Scope::all()
        };
        self.observe(&scope, &mut observed);
        observed
    }
}

/// The object an action is about, as failures are asked for.
pub fn subject(action: &Action) -> String {
    let key = match action {
        Action::UnpackImage { reference, .. } => return format!("image {reference}"),
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
    ActionError {
        retry,
        field: None,
        source: Arc::new(source),
    }
}

fn replace<K: Ord + Clone, V: Clone>(
    have: &mut Fact<BTreeMap<K, V>>,
    now: Fact<BTreeMap<K, V>>,
    keys: &BTreeSet<K>,
    all: bool,
) {
    let now = match (all, now) {
        (true, now) => return *have = now,
        (false, _) if keys.is_empty() => return,
        (false, Fact::Unknown(why)) => return *have = Fact::Unknown(why),
        (false, Fact::Known(now)) => now,
    };
    if let Fact::Known(have) = have {
        for key in keys {
            match now.get(key) {
                Some(value) => have.insert(key.clone(), value.clone()),
                None => have.remove(key),
            };
        }
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
        let world = self.world();
        let all = scope.all;
        for reference in &scope.images {
            let image = match world.images.get(reference) {
                Some(image) => Fact::Known(image.clone()),
                None => Fact::Unknown("there is no such image; put it there or change `image`".to_owned()),
            };
            observed.images.insert(reference.clone(), image);
        }
        let networks = world.read("networks", &world.networks);
        replace(&mut observed.networks, networks, &scope.networks, all);
        let volumes = world.read("volumes", &world.volumes);
        replace(&mut observed.volumes, volumes, &scope.volumes, all);
        let instances = world.read("instances", &world.instances);
        replace(&mut observed.instances, instances, &scope.instances, all);
        let ended = world.read("instances", &world.ended);
        replace(&mut observed.ended, ended, &scope.instances, all);
        if all || scope.firewall {
            let kept = world.firewall.networks.keys();
            let unset = kept.filter(|key| world.unset_bridges.contains(*key));
            let firewall = Firewall {
                spec: world.firewall.clone(),
                drift: unset
                    .map(|key| format!("route_localnet is off on {key}"))
                    .collect(),
            };
            observed.firewall = world.read("firewall", &firewall);
        }
        if all || scope.zones {
            observed.zones = world.read("zones", &world.zones);
        }
        if all {
            observed.boot_id = world.boot_id.clone();
            observed.routes = Fact::Known(world.routes.clone());
            observed.id_bases = Fact::Known(world.id_bases.clone());
        }
    }

    fn apply(&self, action: &Action) -> Result<(), ActionError> {
        let now = self.now();
        let mut world = self.world();
        let subject = subject(action);
        if let Some((left, retry)) = world.failing.get_mut(&subject)
            && *left > 0
        {
            *left -= 1;
            return Err(error(*retry, SimError::Asked(subject)));
        }
        world.carry_out(action, now)?;
        world.done.push(action.clone());
        Ok(())
    }

    fn events(&self) -> mpsc::UnboundedReceiver<HostEvent> {
        let (listener, events) = mpsc::unbounded_channel();
        self.world().listeners.push(listener);
        events
    }

    fn now(&self) -> Now {
        let set = self.world().boot;
        let ran = self
            .started
            .map_or(0, |started| started.elapsed().as_millis() as u64);
        let boot = set + ran;
        Now {
            boot,
            wall: 1_700_000_000_000 + boot,
        }
    }
}
