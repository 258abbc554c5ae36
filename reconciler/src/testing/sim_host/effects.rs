//! What each action does to the simulated host, in phases between which the agent may die, and the
//! orders that no correct plan gives.

use super::{SimError, World, error};
use crate::{
    key::Key,
    observed::{Fact, Health, Instance, Network, State, Volume},
    plan::action::Action,
    port::{ActionError, Retry},
    spec::SandboxSpec,
    time::Now,
};

impl World {
    /// One durable effect. `Err`: the agent died before it.
    fn phase(&mut self) -> Result<(), ActionError> {
        match &mut self.dies_after {
            Some(0) => Err(error(Retry::Again, SimError::Asked("the agent".to_owned()))),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn need(&mut self, there: bool, what: &Key, needs: &str) -> Result<(), ActionError> {
        if there {
            return Ok(());
        }
        let order = SimError::Order {
            what: what.to_string(),
            needs: needs.to_owned(),
        };
        self.violations.push(order.to_string());
        Err(error(Retry::Again, order))
    }

    fn ensure_sandbox(&mut self, spec: &SandboxSpec) -> Result<(), ActionError> {
        let key = Key::Instance(spec.key.clone());
        for endpoint in &spec.endpoints {
            let there = self.networks.contains_key(&endpoint.network);
            self.need(there, &key, "its network")?;
            let isolated = self
                .firewall
                .networks
                .get(&endpoint.network)
                .is_some_and(|network| network.endpoints.contains(&(endpoint.address, endpoint.mac)));
            self.need(isolated, &key, "its endpoint in the firewall")?;
        }
        for binding in &spec.ports {
            if self.foreign_ports.contains(&binding.published) {
                return Err(error(Retry::Again, SimError::PortTaken(binding.published)));
            }
            let free = self.instances.iter().all(|(other, instance)| {
                *other == spec.key
                    || !instance.sandbox.ports.iter().any(|held| {
                        (held.published, held.protocol) == (binding.published, binding.protocol)
                            && (held.host_ip == binding.host_ip
                                || held.host_ip.is_unspecified()
                                || binding.host_ip.is_unspecified())
                    })
            });
            self.need(free, &key, "a host port that another holds")?;
        }
        self.phase()?;
        self.id_bases.insert(spec.key.project.clone(), spec.id_base);
        self.phase()?;
        let fresh = Instance {
            sandbox: spec.clone(),
            container: None,
            state: State::Created,
            drift: Vec::new(),
            broken: None,
            restarts: 0,
            streak: 0,
            flaps: 0,
            started_at: None,
            started_wall: None,
            health: Health::None,
        };
        let instance = self.instances.entry(spec.key.clone()).or_insert(fresh);
        instance.sandbox = spec.clone();
        instance.drift.clear();
        Ok(())
    }

    pub(super) fn carry_out(&mut self, action: &Action, now: Now) -> Result<(), ActionError> {
        match action {
            Action::UnpackImage { reference, digest } => {
                self.phase()?;
                let no_image = || error(Retry::AfterChange, SimError::NoImage(reference.clone()));
                let image = self.images.get(reference).filter(|image| image.digest == *digest);
                let digest = image.ok_or_else(no_image)?.digest.clone();
                for image in self.images.values_mut().filter(|image| image.digest == digest) {
                    image.unpacked = true;
                }
            }
            Action::EnsureNetwork(spec) => {
                self.phase()?;
                let network = Network {
                    spec: spec.clone(),
                    drift: Vec::new(),
                };
                let before = self.networks.insert(spec.key.clone(), network);
                if before.is_none_or(|before| !before.drift.is_empty()) {
                    self.unset_bridges.insert(spec.key.clone());
                }
            }
            Action::RemoveNetwork(key) => {
                let used = self.instances.values().any(|instance| {
                    instance
                        .sandbox
                        .endpoints
                        .iter()
                        .any(|endpoint| endpoint.network == *key)
                });
                self.need(!used, &Key::Network(key.clone()), "that nobody is on it")?;
                self.phase()?;
                self.networks.remove(key);
                self.unset_bridges.remove(key);
            }
            Action::EnsureVolume(spec) => {
                self.phase()?;
                let volume = Volume { lost: None };
                self.volumes.entry(spec.key.clone()).or_insert(volume);
            }
            Action::RemoveVolume(key) => {
                self.phase()?;
                self.volumes.remove(key);
            }
            Action::EnsureSandbox(spec) => self.ensure_sandbox(spec)?,
            Action::RemoveSandbox(key) => {
                self.phase()?;
                if let Some(instance) = self.instances.get_mut(key) {
                    instance.state = State::Lost;
                }
                self.phase()?;
                self.instances.remove(key);
            }
            Action::StartContainer {
                key,
                spec,
                restarts,
                streak,
                flaps,
                ..
            } => {
                let object = Key::Instance(key.clone());
                let unpacked = self
                    .images
                    .values()
                    .any(|image| image.digest == spec.image_digest && image.unpacked);
                self.need(unpacked, &object, "its image")?;
                self.phase()?;
                self.next_pid += 1;
                let pid = self.next_pid;
                let Some(instance) = self.instances.get_mut(key) else {
                    return self.need(false, &object, "its sandbox");
                };
                if let State::Running { .. } | State::Lost = instance.state {
                    let text = format!("{key} was started while it was {:?}", instance.state);
                    self.violations.push(text);
                    return Ok(());
                }
                instance.container = Some((**spec).clone());
                instance.state = State::Running { pid };
                instance.restarts = *restarts;
                instance.streak = *streak;
                instance.flaps = *flaps;
                instance.started_at = Some(now.boot);
                instance.started_wall = Some(now.wall);
                instance.health = match spec.health {
                    Some(_) => Health::Starting,
                    None => Health::None,
                };
                self.starts.push((key.clone(), now.boot));
            }
            Action::StopContainer { key, .. } => {
                self.phase()?;
                if let Some(instance) = self.instances.get_mut(key)
                    && matches!(instance.state, State::Running { .. })
                {
                    instance.state = State::Exited {
                        code: 143,
                        at: now.boot,
                    };
                }
            }
            Action::UpdateContainer { key, spec } => {
                self.phase()?;
                if let Some(instance) = self.instances.get_mut(key) {
                    instance.container = Some((**spec).clone());
                }
            }
            Action::SyncFirewall(spec) => {
                self.phase()?;
                self.firewall = spec.clone();
                self.unset_bridges.retain(|key| !spec.networks.contains_key(key));
            }
            Action::SyncNames { network, zone } => {
                self.phase()?;
                match zone {
                    Some(zone) => self.zones.insert(network.clone(), zone.clone()),
                    None => self.zones.remove(network),
                };
            }
        }
        Ok(())
    }

    pub(super) fn read<T: Clone>(&self, part: &'static str, value: &T) -> Fact<T> {
        if self.unreadable.contains(part) {
            Fact::Unknown(format!("{part}: Input/output error"))
        } else {
            Fact::Known(value.clone())
        }
    }
}
