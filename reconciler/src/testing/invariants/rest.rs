//! What must hold once faults are over and nothing more is done.

use std::collections::BTreeSet;

use super::{
    super::sim_host::{Progress, World, objects::Run},
    Violation, Watch, oracle, violated,
};
use crate::{
    desired::{Desired, Wish},
    key::{InstanceKey, ResourceKey},
    memory::Memory,
    observed::{Fact, Observed},
    plan::{self, action::Action},
    port::Scope,
    spec::RestartPolicy,
    status::{ProjectState, Status},
    time::Now,
};

impl Watch {
    /// # Errors
    /// The first invariant that does not hold.
    pub fn settled(
        &mut self,
        world: &mut World,
        desired: &Desired,
        status: &Status,
        now: Now,
    ) -> Result<(), Violation> {
        self.after(world)?;
        if let Some(agent) = self
            .agent
            .as_ref()
            .filter(|_| !world.firewall.networks.is_empty())
        {
            agent.rests()?;
        }
        let mut whole = desired.incomplete.is_none();
        for (name, wish) in &desired.projects {
            let Some(told) = status.projects.get(name) else {
                whole &= !matches!(wish, Wish::Run { .. });
                continue;
            };
            if told.state == ProjectState::Converged {
                self.there(world, name)?;
            } else if told.waiting.is_empty() && told.failures.is_empty() {
                return violated("C1", format!("{name} is {:?}, and nobody says why", told.state));
            } else {
                whole = false;
            }
        }
        if whole {
            if let Some(step) = status.plan.steps.first() {
                return violated("C2", format!("everything is there, and yet {:?}", step.action));
            }
            self.nothing_else(world)?;
            self.remembering_nothing(world, desired, status, now)?;
        }
        self.twice(world, whole, now)
    }

    /// C1, T1: what a converged project wants is there.
    fn there(&self, world: &World, name: &str) -> Result<(), Violation> {
        let Some(project) = self.effective(world, name) else {
            return Ok(());
        };
        for (service, definition) in &project.services {
            for index in 1..=oracle::scale(definition) {
                let of_it =
                    |key: &&InstanceKey| key.project == name && key.service == *service && key.index == index;
                let stopped = oracle::intents(
                    &self.desired,
                    &InstanceKey {
                        project: name.to_owned(),
                        service: service.clone(),
                        index,
                        slot: crate::key::Slot::A,
                    },
                )
                .any(|intent| matches!(intent, crate::desired::Intent::Stop { .. }));
                let mut places = world.instances.iter().filter(|(key, _)| of_it(key));
                let running = places.clone().find(|(_, place)| {
                    let shim = place.shim.as_ref();
                    shim.is_some_and(|shim| matches!(shim.run, Run::Running { .. }))
                });
                if let Some((key, _)) = running {
                    self.stands(world, &project, key)?;
                }
                let mut runs = running.is_some();
                let rests = places.any(|(_, place)| {
                    let shim = place.shim.as_ref();
                    shim.is_some_and(|shim| {
                        matches!(
                            (&shim.run, definition.restart),
                            (Run::Exited { code: 0, .. }, RestartPolicy::OnFailure(_))
                                | (
                                    Run::Exited { .. },
                                    RestartPolicy::No | RestartPolicy::OnFailure(Some(_))
                                )
                        )
                    })
                });
                runs |= rests || world.ended.keys().any(|key| of_it(&key));
                if !runs && !stopped {
                    return violated("C1", format!("{name}/{service}/{index} does not run"));
                }
            }
        }
        Ok(())
    }

    /// C1, X1: nothing is left of what nobody wants.
    fn nothing_else(&self, world: &World) -> Result<(), Violation> {
        let mut networks: BTreeSet<ResourceKey> = BTreeSet::new();
        let mut instances: BTreeSet<(String, String, u32)> = BTreeSet::new();
        for name in self.desired.projects.keys() {
            if let Some(Wish::Hold { .. }) = self.desired.projects.get(name) {
                return Ok(());
            }
            let Some(project) = self.effective(world, name) else {
                continue;
            };
            for (service, definition) in &project.services {
                for index in 1..=oracle::scale(definition) {
                    instances.insert((name.clone(), service.clone(), index));
                }
                for key in definition.networks.keys() {
                    if let Some(network) = project.networks.get(key) {
                        networks.insert(ResourceKey {
                            project: name.clone(),
                            name: network.name.clone(),
                        });
                    }
                }
            }
        }
        let stray =
            |key: &&InstanceKey| !instances.contains(&(key.project.clone(), key.service.clone(), key.index));
        let kept = world
            .instances
            .keys()
            .chain(world.trees.keys())
            .chain(world.ended.keys());
        if let Some(key) = kept.clone().find(stray) {
            return violated("C1", format!("{key} is left, and nobody wants it"));
        }
        // Without its record a bridge says by name, alias and address what it is: with one of them gone, too, it
        // is nobody's.
        let bridges = world.bridges.iter();
        let told = bridges
            .filter(|(key, bridge)| {
                world.networks.contains_key(key)
                    || (bridge.alias && !bridge.renamed && !bridge.addresses.is_empty())
            })
            .map(|(key, _)| key);
        let left = world.networks.keys().chain(told).chain(world.zones.keys());
        let left = left.chain(world.firewall.networks.keys());
        if let Some(key) = left.clone().find(|key| !networks.contains(*key)) {
            return violated("C1", format!("network {key} is left, and nobody wants it"));
        }
        for (key, place) in &world.instances {
            let Some(shim) = &place.shim else {
                return violated("C1", format!("something of {key} is left without its supervisor"));
            };
            let pairs = place.netns.iter().flat_map(|netns| netns.pairs.keys());
            let endpoints = &shim.sandbox.endpoints;
            for interface in pairs {
                if !endpoints.iter().any(|endpoint| endpoint.interface == *interface) {
                    return violated("X1", format!("{interface} of {key} is left over"));
                }
            }
        }
        Ok(())
    }

    /// S2. What references stand for is taken as the loop has it: a tag that moved is seen when it is asked
    /// for again.
    fn remembering_nothing(
        &self,
        world: &mut World,
        desired: &Desired,
        status: &Status,
        now: Now,
    ) -> Result<(), Violation> {
        let mut observed = Observed::nothing_known();
        world.look(&Scope::all(), &mut observed);
        observed.images.clone_from(&status.observed.images);
        if observed
            .images
            .values()
            .any(|image| matches!(image, Fact::Unknown(_)))
        {
            return Ok(());
        }
        let memory = Memory {
            good: world.kept.good.clone(),
            barred: world.kept.barred.clone(),
            ..Memory::default()
        };
        let plan = plan::plan(desired, &observed, &memory, &Vec::new(), now);
        match plan.steps.first() {
            Some(step) => violated(
                "S2",
                format!("an agent that remembers nothing would do {:?}", step.action),
            ),
            None => Ok(()),
        }
    }

    /// C3; of a project that is left alone, or goes, what is damaged stays so.
    fn twice(&mut self, world: &mut World, whole: bool, now: Now) -> Result<(), Violation> {
        let runs = |project: &str| matches!(self.desired.projects.get(project), Some(Wish::Run { .. }));
        let mut actions: Vec<Action> = Vec::new();
        for key in world.bridges.keys().filter(|key| runs(&key.project)) {
            actions.extend(world.networks.whole(key).cloned().map(Action::EnsureNetwork));
        }
        for (_, place) in world
            .instances
            .iter()
            .filter(|(key, _)| runs(&key.project) && self.wanted(world, key))
        {
            let shim = place.shim.as_ref().filter(|shim| shim.silent.is_none());
            actions.extend(shim.map(|shim| Action::EnsureSandbox((*shim.sandbox).clone())));
        }
        for (network, zone) in world.zones.iter().filter(|(key, _)| runs(&key.project)) {
            actions.push(Action::SyncNames {
                network: network.clone(),
                zone: Some((**zone).clone()),
            });
        }
        // The note of forwarding that was never turned on may be all that is left.
        if whole && !world.rules_hurt && !world.firewall.networks.is_empty() {
            actions.push(Action::SyncFirewall(world.firewall.clone()));
        }
        world.take_touched();
        for action in actions {
            let Ok(mut work) = world.begin(action) else {
                continue;
            };
            if let Ok(Progress::Moved) = world.advance(&mut work, now) {
                return violated("C3", format!("done again, it changes something: {work:?}"));
            }
        }
        world.take_touched();
        Ok(())
    }
}
