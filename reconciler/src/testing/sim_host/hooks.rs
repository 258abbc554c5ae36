//! Hooks in the simulated containers, as their supervisors go through them by themselves: what comes after each,
//! also when no agent lives.

use super::{
    World,
    objects::{Manner, Run},
    world::touch,
};
use crate::{
    key::InstanceKey,
    observed::{Fault, Hook, Moment},
    spec::{ContainerSpec, HookSpec},
};

/// What SIGTERM makes of an obedient process, and SIGKILL of any.
const TERMINATED: i32 = 143;
const KILLED: i32 = 137;

fn list(moment: Moment, container: &ContainerSpec) -> &[HookSpec] {
    match moment {
        Moment::PostStart => &container.post_start,
        Moment::PreStop => &container.pre_stop,
    }
}

pub(super) fn first(moment: Moment, container: &ContainerSpec) -> Option<Hook> {
    let any = !list(moment, container).is_empty();
    any.then_some(Hook { moment, number: 1 })
}

impl World {
    /// `hook` of the container is over, with this status, if that is still the one that runs.
    pub fn hook_ends(&mut self, key: &InstanceKey, hook: Hook, status: i32, now: u64) {
        let shim = self.instances.get_mut(key).and_then(|place| place.shim.as_mut());
        let Some(shim) = shim.filter(|shim| shim.hook == Some(hook)) else {
            return;
        };
        let (Run::Running { .. }, Some(container)) = (&shim.run, &shim.container) else {
            return;
        };
        let next = Hook {
            number: hook.number + 1,
            ..hook
        };
        let grace = container.stop_grace;
        let more = list(hook.moment, container).len() >= next.number as usize;
        let next = more.then_some(next);
        match (hook.moment, status) {
            (Moment::PostStart, status) if status != 0 => {
                shim.died = Some(Fault::PostStart {
                    hook: hook.number,
                    status,
                    why: None,
                });
                shim.stops_at = Some(now + grace);
                self.signal(key, now);
            }
            (moment, _) => {
                shim.hook = next;
                if moment == Moment::PreStop && next.is_none() {
                    self.signal(key, now);
                }
            }
        }
        self.moved(touch::INSTANCES);
    }

    /// What runs is asked to stop: its hooks first, if it has any; its supervisor carries that to its end.
    pub(super) fn begin_stop(&mut self, key: &InstanceKey, now: u64) {
        let shim = self.instances.get_mut(key).and_then(|place| place.shim.as_mut());
        let Some(shim) = shim.filter(|shim| shim.stops_at.is_none()) else {
            return;
        };
        let Some(container) = &shim.container else {
            return;
        };
        shim.stops_at = Some(now + container.stop_grace);
        match first(Moment::PreStop, container) {
            Some(hook) => shim.hook = Some(hook),
            None => self.signal(key, now),
        }
        self.moved(touch::INSTANCES);
    }

    /// Those before the stop that are left, all at once.
    pub(super) fn skip_hooks(&mut self, key: &InstanceKey, now: u64) {
        let shim = self.instances.get(key).and_then(|place| place.shim.as_ref());
        if shim.is_some_and(|shim| shim.hook.is_some_and(|hook| hook.moment == Moment::PreStop)) {
            self.signal(key, now);
        }
    }

    fn signal(&mut self, key: &InstanceKey, now: u64) {
        let first = self.instances.get(key).and_then(|place| place.first()).cloned();
        let Some(first) = first else { return };
        self.signalled(key, &[first.pid]);
        if first.manner == Manner::Obedient {
            self.ended(key, TERMINATED, now);
        }
    }

    /// The grace of a stop that has begun is over.
    pub fn grace_ends(&mut self, key: &InstanceKey, now: u64) {
        let Some(place) = self.instances.get_mut(key) else {
            return;
        };
        let due = place.shim.as_ref().and_then(|shim| shim.stops_at);
        if due.is_none_or(|due| due > now) || !place.kill() {
            return;
        }
        if place.processes.is_empty() {
            self.ended(key, KILLED, now);
        }
        self.moved(touch::INSTANCES);
    }
}
