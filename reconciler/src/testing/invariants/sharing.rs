//! What must hold for those who live in the namespaces of another: whose these are, said once more.

use model::types::{Namespace, Namespaces, Project};

use super::{
    super::sim_host::{
        World,
        objects::{Lives, Shim},
    },
    Violation, Watch, oracle, violated,
};
use crate::{
    key::{InstanceKey, Key},
    observed::{Instance, Observed, State},
    plan::action::Action,
    spec::{SandboxSpec, Space, Spaces},
    status::Status,
};

/// Who made the namespace of one kind.
type Owner = fn(&Lives) -> u32;

/// What an instance shall live in, and lend.
#[derive(Debug, PartialEq)]
struct Shares<'s> {
    with: Option<&'s str>,
    network: bool,
    ipc: bool,
    pid: bool,
    lends_ipc: bool,
    lends_pid: bool,
}

fn with(space: &Option<Namespace>) -> Option<&str> {
    match space {
        Some(Namespace::Service(other)) => Some(other),
        _ => None,
    }
}

fn asked<'p>(project: &'p Project, key: &InstanceKey) -> Option<Shares<'p>> {
    let own = &project.services.get(&key.service)?.namespaces;
    let [network, ipc, pid] = [&own.network_mode, &own.ipc, &own.pid].map(with);
    let borrowed = |of: fn(&Namespaces) -> &Option<Namespace>| {
        let mut services = project.services.values();
        key.index == 1 && services.any(|other| with(of(&other.namespaces)) == Some(&key.service))
    };
    let shareable = own.ipc == Some(Namespace::Shareable);
    Some(Shares {
        with: network.or(ipc).or(pid),
        network: network.is_some(),
        ipc: ipc.is_some(),
        pid: pid.is_some(),
        lends_ipc: ipc.is_none() && (shareable || borrowed(|other| &other.ipc)),
        lends_pid: pid.is_none() && borrowed(|other| &other.pid),
    })
}

fn given(spaces: &Spaces) -> Shares<'_> {
    let joined = |space| space == Space::Joined;
    Shares {
        with: spaces.of.as_ref().map(|of| of.service.as_str()),
        network: joined(spaces.network),
        ipc: joined(spaces.ipc),
        pid: joined(spaces.pid),
        lends_ipc: spaces.lends_ipc.is_some(),
        lends_pid: spaces.lends_pid,
    }
}

/// The one whose namespaces `seen` has joined is there as it was then.
fn present<'o>(observed: &'o Observed, seen: &Instance) -> Option<&'o Instance> {
    let lender = observed
        .instances
        .known()?
        .get(seen.sandbox.spaces.of.as_ref()?)?;
    (seen.joined.as_ref() == Some(&lender.identity)).then_some(lender)
}

impl Watch {
    /// Whether the sandbox of `key` cannot stay: it lives in, or lends, other namespaces than it shall.
    pub(super) fn moves(&self, project: &Project, observed: &Observed, key: &InstanceKey) -> bool {
        let seen = observed.instances.known().and_then(|all| all.get(key));
        let (Some(seen), Some(asked)) = (seen, asked(project, key)) else {
            return true;
        };
        let spaces = &seen.sandbox.spaces;
        let lends = spaces.lends_pid || spaces.lends_ipc.is_some();
        let written = |project: &Project| {
            let service = project.services.get(&key.service);
            service.map(|service| service.namespaces.clone())
        };
        let origin = self.origins.get(key);
        let edited = origin.is_some_and(|origin| written(&origin.project) != written(project));
        let gone = seen.state == State::Lost || (lends && seen.identity.is_empty());
        if gone || edited || asked != given(spaces) {
            return true;
        }
        spaces
            .of
            .as_ref()
            .is_some_and(|of| present(observed, seen).is_none() || self.moves(project, observed, of))
    }

    /// J1, of an order: nobody joins what is not there, does not lend that, or goes.
    pub(super) fn joins(&self, world: &World, spec: &SandboxSpec, status: &Status) -> Result<(), Violation> {
        let place = world.instances.get(&spec.key);
        let there = place.is_some_and(|place| place.shim.is_some());
        let (Some(of), false) = (&spec.spaces.of, there) else {
            return Ok(());
        };
        let Some(all) = status.observed.instances.known() else {
            return Ok(());
        };
        let key = &spec.key;
        let Some(lender) = all.get(of).filter(|lender| !lender.identity.is_empty()) else {
            return violated(
                "J1",
                format!("{key} joins namespaces of {of}, which is not there"),
            );
        };
        let (wants, has) = (given(&spec.spaces), given(&lender.sandbox.spaces));
        if (wants.pid && !has.pid && !has.lends_pid) || (wants.ipc && !has.ipc && !has.lends_ipc) {
            return violated("J1", format!("{key} joins what {of} does not lend"));
        }
        let object = Key::Instance(of.clone());
        let going = self.agent.as_ref().is_some_and(|agent| agent.removes(&object));
        let mut steps = status.plan.steps.iter().map(|step| &step.action);
        match going || steps.any(|action| matches!(action, Action::RemoveSandbox(other) if other == of)) {
            true => violated("J1", format!("{key} joins namespaces of {of}, which goes")),
            false => Ok(()),
        }
    }

    /// J1, of an order: nothing is started in namespaces of a sandbox that is another by now, unless there is
    /// none to be had.
    pub(super) fn starts_in(
        &self,
        project: &Project,
        key: &InstanceKey,
        observed: &Observed,
    ) -> Result<(), Violation> {
        let seen = observed.instances.known().and_then(|all| all.get(key));
        let Some((seen, of)) = seen.and_then(|seen| Some((seen, seen.sandbox.spaces.of.as_ref()?))) else {
            return Ok(());
        };
        let lender = project.services.get(&of.service);
        let to_be_had = lender.is_some_and(|lender| oracle::scale(lender) > 0);
        match to_be_had && present(observed, seen).is_none() {
            true => violated(
                "J1",
                format!("{key} is started in namespaces of a {of} that is gone"),
            ),
            false => Ok(()),
        }
    }

    /// J1, at rest: what runs stands in the namespaces that its manifest names.
    pub(super) fn stands(
        &self,
        world: &World,
        project: &Project,
        key: &InstanceKey,
    ) -> Result<(), Violation> {
        let shim = |key: &InstanceKey| world.instances.get(key).and_then(|place| place.shim.as_ref());
        let (Some(own), Some(asked)) = (shim(key), asked(project, key)) else {
            return Ok(());
        };
        let lender = asked.with.and_then(|name| {
            let of_it = |other: &&InstanceKey| {
                (&other.project, other.service.as_str(), other.index) == (&key.project, name, 1)
            };
            world.instances.keys().find(of_it).and_then(shim)
        });
        let kinds: [(bool, Owner); 3] = [
            (asked.network, |lives| lives.network),
            (asked.ipc, |lives| lives.ipc),
            (asked.pid, |lives| lives.pid),
        ];
        for (joined, of) in kinds {
            let whose = match joined {
                true => lender.map(|lender| of(&lender.lives)),
                false => Some(own.pid),
            };
            if whose != Some(of(&own.lives)) {
                return violated("J1", format!("{key} does not stand in the namespaces it shall"));
            }
        }
        match lender.is_some_and(|lender: &Shim| lender.unpaused) {
            true => violated("J1", format!("{key} shares what nobody holds any more")),
            false => Ok(()),
        }
    }
}
