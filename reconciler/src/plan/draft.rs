//! The plan while it is made: steps that wait for each other, and those that nothing can start now.

use std::{collections::BTreeSet, mem::discriminant};

use super::{
    InFlight,
    action::Action,
    step::{Cause, Change, Class, Plan, Step, Waiting},
};
use crate::{
    key::{InstanceKey, Key, ResourceKey},
    memory::{Again, Failed, Memory},
    observed::{Observed, State},
    spec::{ContainerSpec, FirewallSpec, SandboxSpec},
    time::Now,
};

/// Whether something that others need is there, or will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    Now,
    /// When this step of the pass is done.
    After(u32),
    /// Not in this pass.
    Blocked,
}

pub struct Draft<'a> {
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub now: Now,
    pub plan: Plan,
    in_flight: BTreeSet<&'a Key>,
    orders: &'a InFlight,
    waiting: BTreeSet<Key>,
}

impl<'a> Draft<'a> {
    pub fn new(observed: &'a Observed, memory: &'a Memory, in_flight: &'a InFlight, now: Now) -> Self {
        Draft {
            observed,
            memory,
            now,
            plan: Plan::default(),
            in_flight: in_flight.iter().map(|step| &step.key).collect(),
            orders: in_flight,
            waiting: BTreeSet::new(),
        }
    }

    pub fn change(&mut self, key: Key, class: Class, cause: &Cause, gate: Option<String>) {
        self.plan.changes.push(Change {
            key,
            class,
            cause: cause.clone(),
            gate,
        });
    }

    /// One entry a key: the first reason that was found.
    pub fn wait(&mut self, key: Key, why: impl Into<String>, until: Option<u64>) -> Ready {
        if self.waiting.insert(key.clone()) {
            let why = why.into();
            self.plan.waiting.push(Waiting { key, why, until });
        }
        Ready::Blocked
    }

    /// Whether an action on `key` is under way.
    pub fn busy(&self, key: &Key) -> bool {
        self.in_flight.contains(key) && !planted!("same-key-twice")
    }

    /// Whether that volume is being made or removed right now.
    pub fn making_volume(&self, key: &ResourceKey) -> bool {
        let mut volumes = self.in_flight.iter().filter_map(|key| match key {
            Key::Volume(key) => Some(key),
            _ => None,
        });
        volumes.any(|other| other == key) && !planted!("same-key-twice")
    }

    /// Sandboxes that are being made or changed right now, whether or not they are still wanted.
    pub fn making_sandboxes(&self) -> impl Iterator<Item = &'a SandboxSpec> {
        self.orders.iter().filter_map(|step| match &step.action {
            Action::EnsureSandbox(spec) => Some(spec),
            _ => None,
        })
    }

    /// Whether its sandbox is being removed right now.
    pub fn removing(&self, key: &InstanceKey) -> bool {
        self.orders
            .iter()
            .any(|step| matches!(&step.action, Action::RemoveSandbox(other) if other == key))
    }

    /// What is being started of it right now: it may run although it is not seen to.
    pub fn starting(&self, key: &InstanceKey) -> Option<&'a ContainerSpec> {
        self.orders.iter().find_map(|step| match &step.action {
            Action::StartContainer { key: other, spec, .. } if other == key => Some(&**spec),
            _ => None,
        })
    }

    /// What container is being made of it right now, by a start or while it runs.
    pub fn becoming(&self, key: &InstanceKey) -> Option<&'a ContainerSpec> {
        self.orders.iter().find_map(|step| match &step.action {
            Action::StartContainer { key: other, spec, .. }
            | Action::UpdateContainer { key: other, spec }
                if other == key =>
            {
                Some(&**spec)
            }
            _ => None,
        })
    }

    /// What the firewall is being made right now.
    pub fn making_firewall(&self) -> Option<&'a FirewallSpec> {
        self.orders.iter().find_map(|step| match &step.action {
            Action::SyncFirewall(spec) => Some(spec),
            _ => None,
        })
    }

    /// Whether this image is being unpacked right now, under whatever reference.
    pub fn unpacking(&self, digest: &str) -> bool {
        self.orders.iter().any(|step| match &step.action {
            Action::UnpackImage { digest: other, .. } => other == digest,
            _ => false,
        })
    }

    /// Whether a bridge is being made or repaired right now.
    pub fn making_a_network(&self) -> bool {
        self.in_flight.iter().any(|key| matches!(key, Key::Network(_)))
    }

    /// Orders `action` after `needs`, unless `key` is in flight, has failed too recently, or needs
    /// something that is not to be had in this pass.
    pub fn step(
        &mut self,
        key: &Key,
        action: Action,
        cause: &Cause,
        completes: Option<Class>,
        needs: &[Ready],
    ) -> Ready {
        if self.busy(key) {
            return Ready::Blocked;
        }
        if !planted!("failure-not-waited-for")
            && let Some(failed) = self.memory.held(key, self.now)
            && !self.repairs(&action, failed)
        {
            let until = match failed.again {
                Again::At(until) => Some(until),
                Again::AfterChange | Again::Never => None,
            };
            let why = failed.message.clone();
            return self.wait(key.clone(), why, until);
        }
        if needs.contains(&Ready::Blocked) && !planted!("blocked-counts-as-ready") {
            return Ready::Blocked;
        }
        let mut after: Vec<u32> = needs
            .iter()
            .filter_map(|need| match need {
                Ready::After(id) => Some(*id),
                _ => None,
            })
            .collect();
        after.sort_unstable();
        after.dedup();
        let id = self.plan.steps.len() as u32 + 1;
        self.plan.steps.push(Step {
            id,
            key: key.clone(),
            action,
            cause: cause.clone(),
            completes,
            after,
        });
        Ready::After(id)
    }

    /// A sandbox that is there is put right also while something else fails on it, which may go on for ever.
    fn repairs(&self, action: &Action, failed: &Failed) -> bool {
        let Action::EnsureSandbox(spec) = action else {
            return false;
        };
        let there = self
            .observed
            .instances
            .known()
            .and_then(|seen| seen.get(&spec.key));
        there.is_some_and(|seen| seen.state != State::Lost)
            && failed.action.is_some_and(|failed| failed != discriminant(action))
    }
}
