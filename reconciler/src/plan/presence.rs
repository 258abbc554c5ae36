//! Who is on which network, and who is about to leave: what names and firewall are made from.

use std::collections::BTreeSet;

use super::{allocate::Allocation, draft::Draft, spaces::Within, verdict::Verdict, wanted::Wants};
use crate::{
    key::{InstanceKey, Key},
    observed::{Instance, State},
    spec::{Endpoint, PortBinding, SandboxSpec},
};

/// One sandbox that is there or about to be.
pub struct Present<'a> {
    pub key: &'a InstanceKey,
    pub seen: Option<&'a Instance>,
    /// Where it is wanted; `None`: it is not.
    pub place: Option<usize>,
    /// What it shall be; `None`: it leaves, is left alone, or cannot be decided now.
    pub spec: Option<&'a SandboxSpec>,
    /// Not wanted any more, and still running.
    pub lingering: bool,
    /// New, and not ready: neither names nor host ports lead to it.
    pub waits: bool,
    /// Names and host ports are this one's now.
    replaced_by: Option<InstanceKey>,
    /// All host ports that it shall have; some may still be reserved by the slot whose place it takes.
    ports: &'a [PortBinding],
    /// It stays as it is for now.
    held: bool,
    /// Those that lead to it already.
    led: &'a [PortBinding],
}

/// Everything that has an address. `None`: the instances could not be read.
pub fn present<'a>(
    draft: &Draft<'a>,
    wants: &'a Wants<'a>,
    allocation: &'a Allocation<'_>,
    verdicts: &[Verdict<'_>],
    within: &Within<'_>,
) -> Option<Vec<Present<'a>>> {
    draft.observed.instances.known()?;
    let mut present = Vec::new();
    for &(key, instance) in &wants.others {
        let alone = wants.left_alone(&key.project);
        let running = matches!(instance.state, State::Running { .. }) || draft.starting(key).is_some();
        let lingering = !alone && running;
        // Others are on its networks with it.
        let lent = within.of(key).any(|(_, kinds)| kinds.network);
        if alone || lingering || lent {
            present.push(Present {
                key,
                seen: Some(instance),
                place: None,
                spec: None,
                lingering: lingering && !wants.replaced.contains_key(key),
                waits: false,
                replaced_by: wants.replaced.get(key).cloned(),
                ports: &[],
                held: false,
                led: &[],
            });
        }
    }
    for (place, (member, verdict)) in wants.instances.iter().zip(verdicts).enumerate() {
        let (key, instance) = (&member.key, member.seen);
        let spec = allocation.sandbox(place);
        let whole = allocation.taking_over.get(key).or(spec);
        // One that cannot be made now takes no part yet.
        let coming = verdict.starts()
            && verdict.stopped.is_none()
            && verdict.target.is_ok()
            && draft
                .memory
                .held(&Key::Instance(key.clone()), draft.now)
                .is_none();
        if instance.is_some() || (coming && spec.is_some()) {
            present.push(Present {
                key,
                seen: instance,
                place: Some(place),
                spec,
                lingering: false,
                waits: wants.pairs.get(key).is_some_and(|pair| !pair.flipped),
                replaced_by: None,
                ports: whole.map_or(&[], |spec| &spec.ports),
                held: wants.held.contains_key(key),
                led: instance.map_or(&[], |instance| allocation.led(&instance.sandbox)),
            });
        }
    }
    Some(present)
}

impl<'a> Present<'a> {
    /// With what it still has; without, once it is what it shall be.
    pub fn endpoints(&self, settled: bool) -> impl Iterator<Item = &'a Endpoint> + Clone + use<'a> {
        let have = self.seen.map_or(&[][..], |seen| &seen.sandbox.endpoints);
        let (have, shall) = match self.spec {
            None => (have, &[][..]),
            // The same need not be told twice.
            Some(spec) if settled || have == spec.endpoints => (&[][..], &spec.endpoints[..]),
            Some(spec) => (have, &spec.endpoints[..]),
        };
        have.iter().chain(shall)
    }

    /// Host ports that lead to it: only once something was started in it, and never one that its
    /// sandbox has not reserved, unless this pass does both (`starting`), or it takes them over from the
    /// slot beside it (`flipping`), which has them reserved until it goes.
    pub fn ports(
        &self,
        starting: &BTreeSet<&InstanceKey>,
        flipping: &BTreeSet<&InstanceKey>,
    ) -> Vec<&'a PortBinding> {
        let replaced = self
            .replaced_by
            .as_ref()
            .is_some_and(|new| flipping.contains(new));
        if self.waits || replaced {
            return Vec::new();
        }
        if flipping.contains(self.key) {
            return self.ports.iter().collect();
        }
        let started = self.seen.filter(|seen| seen.container.is_some());
        // Edited in mid-flip, it serves on what the other slot has reserved.
        let lent = |spec: &'a SandboxSpec| {
            let led = self.led.iter().filter(|_| self.held);
            led.filter(|led| !spec.ports.contains(led))
        };
        match (self.spec, started) {
            (Some(spec), _) if starting.contains(self.key) => spec.ports.iter().chain(lent(spec)).collect(),
            (Some(spec), Some(seen)) => spec
                .ports
                .iter()
                .filter(|binding| seen.sandbox.ports.contains(binding) || self.led.contains(binding))
                .chain(lent(spec))
                .collect(),
            (None, Some(seen)) => seen.sandbox.ports.iter().collect(),
            (_, None) => Vec::new(),
        }
    }
}
