//! What must hold for the commands that run before a service: each version has its own success of them.

use std::collections::BTreeSet;

use model::types::{Project, Service};

use super::{
    super::sim_host::{World, objects::Run},
    Violation, Watch,
    decisions::Start,
    oracle, violated,
};
use crate::{desired::Intent, key::InstanceKey, spec::ContainerSpec};

/// What makes the containers of a service another version.
fn version(service: &Service) -> Box<Service> {
    Box::new(oracle::fixed(service))
}

fn given(spec: &ContainerSpec) -> String {
    spec.fields
        .get("pre_start_of.revision")
        .cloned()
        .unwrap_or_default()
}

impl Watch {
    /// What a hook is started for.
    pub(super) fn prepares(&mut self, project: &Project, start: &Start<'_>) {
        let services = &project.services;
        let own = services.get(&start.key.service);
        let of = own.and_then(|own| own.container.pre_start_of.as_ref());
        if let Some(of) = of.and_then(|of| services.get(of)) {
            let name = (start.key.clone(), given(start.spec));
            self.prepared.entry(name).or_insert_with(|| version(of));
        }
    }

    /// Somebody has it run once more.
    fn started_by_hand(&self, project: &str, service: &str) -> bool {
        let orders = self.desired.intents.iter();
        let mut own = orders.filter(|(target, _)| (&*target.project, &*target.service) == (project, service));
        own.any(|(_, intent)| matches!(intent, Intent::Run { .. }))
    }

    /// H1: what runs before this version of a service has come to its end, and well.
    pub(super) fn is_prepared(
        &self,
        world: &World,
        project: &Project,
        key: &InstanceKey,
    ) -> Result<(), Violation> {
        let Some(service) = project.services.get(&key.service) else {
            return Ok(());
        };
        for (name, runner) in &project.services {
            let asked = oracle::scale(runner) > 0 && !self.started_by_hand(&key.project, name);
            if runner.container.pre_start_of.as_ref() != Some(&key.service) || !asked {
                continue;
            }
            let of_it = |other: &InstanceKey| other.project == key.project && other.service == *name;
            let seen = world.instances.iter().filter(|(other, _)| of_it(other));
            let seen = seen.filter_map(|(other, place)| {
                let shim = place.shim.as_ref()?;
                let well = matches!(shim.run, Run::Exited { code: 0, .. });
                Some((other, given(shim.container.as_deref()?), well))
            });
            let ended = world.ended.keys().filter(|other| of_it(other));
            let ended = ended.filter_map(|other| {
                let ended = world.ended.whole(other)?;
                Some((other, given(&ended.container), ended.code == 0))
            });
            let all = seen.chain(ended).filter(|(other, revision, well)| {
                let version = self.prepared.get(&((*other).clone(), revision.clone()));
                *well && version.is_some_and(|known| *known == self::version(service))
            });
            let prepared: BTreeSet<u32> = all.map(|(other, _, _)| other.index).collect();
            if !(1..=oracle::scale(runner)).all(|index| prepared.contains(&index)) {
                return violated(
                    "H1",
                    format!("{key} is started, and {name} has not succeeded for it"),
                );
            }
        }
        Ok(())
    }
}
