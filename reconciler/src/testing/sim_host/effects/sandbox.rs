//! Sandboxes: made, brought to what they shall be, removed.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{
        SimError, World, disk,
        disk::Content,
        error,
        objects::{Cgroup, Lives, MTU, Netns, Pair, Run, Shim},
        world::touch,
    },
    KILL_PATIENCE, Next, Work,
};
use crate::{
    key::{InstanceKey, Key},
    observed::Health,
    port::{ActionError, Retry},
    spec::{Endpoint, MountSpec, PortBinding, SandboxSpec, Space},
    time::Now,
};

/// Stages of [`World::ensure_sandbox`] after the record of the ids.
const FORK: u8 = 4;
const DIRECTORY: u8 = 5;
const ASSIGN: u8 = 6;
const RESOLVER: u8 = 7;
const UPDATE: u8 = 10;
const DETACH: u8 = 11;
const LIMITS: u8 = 12;
const STRAYS: u8 = 13;
const MOUNTS: u8 = 14;
const ATTACH: u8 = 20;
/// Per interface: the link, its setting, its inside.
const PER_ENDPOINT: u8 = 3;

impl World {
    /// 0.. ids · a new one: directory, assignment, resolver · an old one: update, what it leaves ·
    /// then one interface after the other.
    pub(super) fn ensure_sandbox(
        &mut self,
        spec: &SandboxSpec,
        work: &mut Work,
    ) -> Result<Next, ActionError> {
        let key = &spec.key;
        match work.stage {
            disk::WRITE if spec.spaces.host_ids => Ok(Next::To(FORK)),
            disk::WRITE => match self.id_bases.get(&key.project) {
                Some(Content::Torn) => Err(error(Retry::Again, SimError::Damaged(key.project.clone()))),
                Some(Content::Whole(_)) => Ok(Next::To(FORK)),
                None => self.record_ids(spec, 0),
            },
            stage if stage < disk::STAGES => self.record_ids(spec, stage),
            FORK => {
                self.check_ground(spec)?;
                let known = self.answers(key);
                Ok(Next::To(if known { UPDATE } else { DIRECTORY }))
            }
            DIRECTORY => {
                if self.trees.contains_key(key) {
                    return Ok(Next::To(ASSIGN));
                }
                self.room()?;
                self.trees.insert(key.clone(), Default::default());
                self.moved(touch::RECORDS);
                Ok(Next::Did(ASSIGN))
            }
            ASSIGN => self.assign(spec),
            RESOLVER => {
                if let Some(netns) = self.netns(key) {
                    netns.resolver = true;
                }
                self.moved(touch::INSTANCES);
                Ok(Next::Did(ATTACH))
            }
            UPDATE => self.update_sandbox(spec, work),
            DETACH => {
                let Some(endpoint) = work.leaving.pop() else {
                    return Ok(Next::To(LIMITS));
                };
                let netns = self.netns(key);
                if netns.is_none_or(|netns| netns.pairs.remove(&endpoint.interface).is_none()) {
                    return Ok(Next::To(DETACH));
                }
                self.moved(touch::INSTANCES);
                Ok(Next::Did(DETACH))
            }
            LIMITS | STRAYS | MOUNTS => Ok(self.mend_standing(key, work.stage)),
            stage => {
                let index = usize::from((stage - ATTACH) / PER_ENDPOINT);
                let Some(endpoint) = spec.endpoints.get(index) else {
                    return Ok(Next::End);
                };
                let way_out = spec
                    .endpoints
                    .iter()
                    .position(|endpoint| endpoint.gateway.is_some());
                self.attach(key, endpoint, way_out == Some(index), stage)
            }
        }
    }

    /// Limits, cgroup and mounts of a running container, as far as the process does not notice.
    fn mend_standing(&mut self, key: &InstanceKey, stage: u8) -> Next {
        let next = if stage == MOUNTS { ATTACH } else { stage + 1 };
        let whole = |world: &World, volume| world.lost(volume).is_none();
        let mut held = BTreeSet::new();
        let mut broken = false;
        if let Some(place) = self.instances.get(key)
            && let Some(container) = place.shim.as_ref().and_then(|shim| shim.container.as_ref())
        {
            for (index, mount) in container.mounts.iter().enumerate() {
                if matches!(mount, MountSpec::Volume { volume, .. } if !whole(self, volume)) {
                    held.insert(index);
                }
            }
            let tree = place.tree.as_ref();
            broken = tree.is_some_and(|tree| self.broken(key, tree, container).is_some());
        }
        let Some(place) = self.instances.get_mut(key) else {
            return Next::To(next);
        };
        let (Some(cgroup), Some(shim), Some(tree)) = (&mut place.cgroup, &place.shim, &mut place.tree) else {
            return Next::To(next);
        };
        let (Run::Running { .. }, Some(container)) = (&shim.run, &shim.container) else {
            return Next::To(next);
        };
        match stage {
            LIMITS if cgroup.limits != container.limits => cgroup.limits = container.limits.clone(),
            STRAYS if !cgroup.strayed.is_empty() => cgroup.strayed.clear(),
            MOUNTS if !broken => {
                let count = tree.mounts.len();
                let mounts = 0..container.mounts.len();
                tree.mounts.extend(mounts.filter(|index| !held.contains(index)));
                if count == tree.mounts.len() {
                    return Next::To(next);
                }
            }
            _ => return Next::To(next),
        }
        self.moved(touch::INSTANCES);
        Next::Did(next)
    }

    fn record_ids(&mut self, spec: &SandboxSpec, stage: u8) -> Result<Next, ActionError> {
        let project = spec.key.project.clone();
        self.record(0, stage, |world, stage| {
            world.id_bases.put(&project, &spec.id_base, stage)
        })
    }

    /// What a correct plan has seen to before.
    fn check_ground(&mut self, spec: &SandboxSpec) -> Result<(), ActionError> {
        let key = Key::Instance(spec.key.clone());
        for endpoint in &spec.endpoints {
            let there = self.networks.contains_key(&endpoint.network);
            self.need(there || self.records_hurt, &key, "its network")?;
            let isolated = self.isolated(endpoint) || self.rules_hurt;
            self.need(isolated, &key, "its endpoint in the firewall")?;
        }
        for binding in &spec.ports {
            let mut places = self.instances.iter();
            let free = places.all(|(other, place)| {
                *other == spec.key
                    || place
                        .shim
                        .as_ref()
                        .is_none_or(|shim| !shim.ports.iter().any(|held| clash(held, binding)))
            });
            self.need(free, &key, "a host port that another holds")?;
        }
        Ok(())
    }

    /// The firewall keeps everybody else from using this endpoint's address.
    pub fn isolated(&self, endpoint: &Endpoint) -> bool {
        let network = self.firewall.networks.get(&endpoint.network);
        network.is_some_and(|network| network.endpoints.contains(&(endpoint.address, endpoint.mac)))
    }

    /// A supervisor is there and answers.
    pub(in super::super) fn answers(&self, key: &InstanceKey) -> bool {
        let place = self.instances.get(key);
        place.is_some_and(|place| place.shim.as_ref().is_some_and(|shim| shim.silent.is_none()))
    }

    fn netns(&mut self, key: &InstanceKey) -> Option<&mut Netns> {
        self.instances.get_mut(key)?.netns.as_mut()
    }

    fn taken(&self, binding: &PortBinding) -> Result<(), ActionError> {
        let port = binding.published;
        if self.foreign_ports.contains(&port) {
            return Err(error(Retry::Again, SimError::PortTaken(port)));
        }
        Ok(())
    }

    /// One request to an idle supervisor: it goes on by itself, whatever becomes of the agent.
    fn assign(&mut self, spec: &SandboxSpec) -> Result<Next, ActionError> {
        let key = &spec.key;
        let lent = match &spec.spaces.of {
            Some(lender) => Some(self.lend(lender, spec)?),
            None => None,
        };
        let pid = self.pid();
        let of = |space, theirs: fn(&Lives) -> u32| match (&lent, space) {
            (Some((_, lives)), Space::Joined) => theirs(lives),
            _ => pid,
        };
        let lives = Lives {
            network: of(spec.spaces.network, |lives| lives.network),
            ipc: of(spec.spaces.ipc, |lives| lives.ipc),
            pid: of(spec.spaces.pid, |lives| lives.pid),
        };
        let place = self.instances.entry(key.clone()).or_default();
        if place.shim.is_some() || !place.processes.is_empty() {
            // It does not answer, or has left something behind: its leaf is in the way.
            return Err(error(Retry::Again, SimError::Silent(key.clone())));
        }
        place.cgroup = Some(Cgroup::default());
        self.moved(touch::INSTANCES);
        for binding in &spec.ports {
            // The cgroup stays behind.
            self.taken(binding)?;
        }
        if let Some(place) = self.instances.get_mut(key) {
            place.netns = (spec.spaces.network != Space::Joined).then(|| Netns {
                loopback: true,
                ..Netns::default()
            });
            place.held = true;
            place.shim = Some(Shim {
                pid,
                silent: None,
                sandbox: Arc::new(spec.clone()),
                container: None,
                ports: spec.ports.clone(),
                run: Run::Created,
                restarts: 0,
                streak: 0,
                flaps: 0,
                started_boot: None,
                started_wall: None,
                health: Health::None,
                hook: None,
                stops_at: None,
                died: None,
                exit_due: false,
                joined: lent.map(|(lender, _)| lender),
                lives,
                unpaused: false,
            });
        }
        Ok(Next::Did(RESOLVER))
    }

    /// Ports are reserved before any is given up: a refusal leaves all as it was.
    fn update_sandbox(&mut self, spec: &SandboxSpec, work: &mut Work) -> Result<Next, ActionError> {
        let silent = || error(Retry::Again, SimError::Silent(spec.key.clone()));
        let held = self
            .instances
            .get(&spec.key)
            .and_then(|place| place.shim.as_ref());
        let held = held.filter(|shim| shim.silent.is_none()).ok_or_else(silent)?;
        for binding in spec.ports.iter().filter(|binding| !held.ports.contains(binding)) {
            self.taken(binding)?;
        }
        let place = self.instances.get_mut(&spec.key);
        let shim = place.and_then(|place| place.shim.as_mut()).ok_or_else(silent)?;
        let old = shim.sandbox.endpoints.iter();
        work.leaving = old.filter(|old| !spec.endpoints.contains(old)).cloned().collect();
        if *shim.sandbox == *spec && shim.ports == spec.ports {
            return Ok(Next::To(DETACH));
        }
        shim.sandbox = Arc::new(spec.clone());
        shim.ports.clone_from(&spec.ports);
        self.moved(touch::INSTANCES);
        Ok(Next::Did(DETACH))
    }

    fn attach(
        &mut self,
        key: &InstanceKey,
        endpoint: &Endpoint,
        default_route: bool,
        stage: u8,
    ) -> Result<Next, ActionError> {
        let bridge = self
            .bridges
            .get(&endpoint.network)
            .filter(|bridge| bridge.is_bridge && !bridge.renamed);
        let missing = || error(Retry::Again, SimError::BridgeMissing(endpoint.network.clone()));
        let bridge = bridge.map(|bridge| bridge.index).ok_or_else(missing)?;
        let no_sandbox = || error(Retry::Again, SimError::NoSandbox(key.clone()));
        let place = self.instances.get_mut(key).filter(|place| place.shim.is_some());
        let netns = place
            .and_then(|place| place.netns.as_mut())
            .ok_or_else(no_sandbox)?;
        let pair = netns.pairs.get_mut(&endpoint.interface);
        let step = (stage - ATTACH) % PER_ENDPOINT;
        let next = match (step, pair) {
            (0, None) => {
                netns
                    .pairs
                    .insert(endpoint.interface.clone(), Pair::new(bridge, endpoint));
                Next::Did(stage + 1)
            }
            (0, Some(pair)) => {
                if pair.bridge == Some(bridge) && pair.up && pair.hairpin && pair.mtu == MTU {
                    Next::To(stage + 2)
                } else {
                    pair.bridge = Some(bridge);
                    pair.up = true;
                    pair.hairpin = true;
                    pair.mtu = MTU;
                    Next::Did(stage + 1)
                }
            }
            // The setting of IPv6 on a new host end.
            (1, _) => Next::Did(stage + 1),
            (_, None) => return Err(no_sandbox()),
            (_, Some(pair)) => {
                let address = (endpoint.address, endpoint.prefix);
                let way_out = endpoint.gateway.filter(|_| default_route);
                let inner = &mut pair.inner;
                let whole = inner.up
                    && inner.mac == endpoint.mac
                    && inner.mtu == MTU
                    && inner.addresses.contains(&address)
                    && (way_out.is_none() || inner.way_out == way_out)
                    && netns.loopback;
                if whole {
                    Next::To(stage + 1)
                } else {
                    netns.loopback = true;
                    inner.up = true;
                    inner.mac = endpoint.mac;
                    inner.mtu = MTU;
                    inner.addresses.insert(address);
                    if way_out.is_some() {
                        inner.way_out = way_out;
                    }
                    Next::Did(stage + 1)
                }
            }
        };
        if let Next::Did(_) = next {
            self.follow_ports();
            self.moved(touch::INSTANCES);
        }
        Ok(next)
    }

    /// 0 kill the container · 1 the supervisor leaves · 2 kill the rest · 3 wait · 4 namespace · 5 cgroup
    /// · 6 directory
    pub(super) fn remove_sandbox(
        &mut self,
        key: &InstanceKey,
        work: &mut Work,
        now: Now,
    ) -> Result<Next, ActionError> {
        let answers = self.answers(key);
        if work.stage == 0 {
            self.spares_dwellers(key);
            if let Some(place) = self.instances.get_mut(key) {
                place.leaving = true;
            }
        }
        let place = self.instances.get_mut(key);
        let stage = work.stage;
        match (stage, place) {
            (0, place) => {
                // Of what is lost, only the sandbox goes: how its container ended stays known.
                work.whole = place.as_ref().is_none_or(|place| place.shim.is_some());
                match place {
                    Some(place) if answers && !place.processes.is_empty() => {
                        let pids: Vec<u32> = place.processes.iter().map(|process| process.pid).collect();
                        place.kill();
                        place.connections = 0;
                        if place.processes.is_empty() {
                            place.tree = None;
                        }
                        self.signalled(key, &pids);
                        self.moved(touch::INSTANCES);
                        Ok(Next::Did(1))
                    }
                    _ => Ok(Next::To(1)),
                }
            }
            (1, Some(place)) => {
                let Some(pid) = place.shim.as_ref().map(|shim| shim.pid) else {
                    return Ok(Next::To(2));
                };
                self.signalled(key, &[pid]);
                self.shim_dies(key);
                Ok(Next::Did(2))
            }
            (2, Some(place)) => {
                let pids: Vec<u32> = place.processes.iter().map(|process| process.pid).collect();
                if !place.kill() {
                    return Ok(Next::To(3));
                }
                self.signalled(key, &pids);
                self.moved(touch::INSTANCES);
                Ok(Next::Did(3))
            }
            (3, Some(place)) => {
                if place.processes.is_empty() {
                    return Ok(Next::To(4));
                }
                match World::waited(work, now, KILL_PATIENCE) {
                    Err(wait) => Ok(wait),
                    Ok(()) => Err(error(Retry::Again, SimError::StillAlive(key.clone()))),
                }
            }
            (4, Some(place)) => {
                place.held = false;
                place.tree = None;
                if place.netns.is_none() {
                    return Ok(Next::To(5));
                }
                place.let_go();
                self.moved(touch::INSTANCES);
                Ok(Next::Did(5))
            }
            (5, Some(_)) => {
                self.instances.remove(key);
                self.moved(touch::INSTANCES);
                Ok(Next::Did(6))
            }
            (6, _) => {
                let exit = work.whole && self.ended.unlink(key);
                self.ended.sync(key);
                if self.trees.remove(key).is_none() && !exit {
                    return Ok(Next::End);
                }
                self.moved(touch::INSTANCES | touch::RECORDS);
                Ok(Next::Did(7))
            }
            (stage, None) if stage < 6 => Ok(Next::To(6)),
            _ => Ok(Next::End),
        }
    }

    /// Signals are sent under a descriptor of the process, or to a whole cgroup.
    pub(in super::super) fn signalled(&mut self, key: &InstanceKey, pids: &[u32]) {
        for pid in pids.iter().filter(|pid| self.foreign.processes.contains(*pid)) {
            self.violations
                .push(format!("{pid}, a foreign process, was signalled for {key}"));
        }
    }
}

/// The kernel gives both to nobody at once.
pub(in super::super) fn clash(one: &PortBinding, other: &PortBinding) -> bool {
    (one.published, one.protocol) == (other.published, other.protocol)
        && (one.host_ip == other.host_ip || one.host_ip.is_unspecified() || other.host_ip.is_unspecified())
}
