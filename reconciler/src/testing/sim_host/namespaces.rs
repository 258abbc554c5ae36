//! Namespaces that are shared: lent, held by a process that outlives the container, and gone with it.

use super::{
    SimError, World, error,
    objects::{Lives, Place, Run, Shim},
};
use crate::{
    key::InstanceKey,
    port::{ActionError, HostEvent, Retry},
    spec::{SandboxSpec, Space, Spaces},
};

/// What SIGKILL makes of a process.
const KILLED: i32 = 137;

/// There is something in it that outlives its container.
pub(super) fn lends(spaces: &Spaces) -> bool {
    spaces.lends_pid || spaces.lends_ipc.is_some()
}

impl World {
    /// The supervisor of `lender`, and what `spec` may join there: a process namespace and an IPC of its own only
    /// where they outlive the container.
    pub(super) fn lend(
        &mut self,
        lender: &InstanceKey,
        spec: &SandboxSpec,
    ) -> Result<(u32, Lives), ActionError> {
        if self.instances.get(lender).is_some_and(|place| place.leaving) {
            let text = format!("{} joins the namespaces of {lender}, which goes", spec.key);
            self.violations.push(text);
        }
        let shim = self.instances.get(lender).and_then(|place| place.shim.as_ref());
        let shim = shim.filter(|shim| shim.silent.is_none());
        let none = || error(Retry::Again, SimError::NoSandbox(lender.clone()));
        let shim = shim.ok_or_else(none)?;
        let (asked, theirs) = (&spec.spaces, &shim.sandbox.spaces);
        let lent = (asked.pid != Space::Joined || theirs.pid == Space::Joined || theirs.lends_pid)
            && (asked.ipc != Space::Joined || theirs.ipc == Space::Joined || theirs.lends_ipc.is_some());
        if !lent {
            let (key, lender) = (spec.key.clone(), lender.clone());
            return Err(error(Retry::Again, SimError::NotLent { key, lender }));
        }
        Ok((shim.pid, shim.lives))
    }

    /// The first process of a process namespace that is lent is gone: the kernel ends all others.
    pub(super) fn pause_ends(&mut self, owner: u32) {
        let others = self.instances.iter().filter_map(|(key, place)| {
            let shim = place.shim.as_ref()?;
            (shim.lives.pid == owner && !place.processes.is_empty()).then(|| key.clone())
        });
        let others: Vec<InstanceKey> = others.collect();
        for key in others {
            if let Some(place) = self.instances.get_mut(&key) {
                place.kill();
                if place.processes.is_empty() {
                    self.ended(&key, KILLED, self.boot);
                }
            }
            self.tell(&HostEvent::Instance(key));
        }
    }

    /// Those who live in the process namespace of `key` were stopped before it goes.
    pub(super) fn spares_dwellers(&mut self, key: &InstanceKey) {
        let shim = self.instances.get(key).and_then(|place| place.shim.as_ref());
        let lent = shim.filter(|shim| shim.sandbox.spaces.lends_pid && !shim.unpaused);
        let Some(owner) = lent.map(|shim| shim.pid) else {
            return;
        };
        let lives = |place: &Place| {
            let shim = place.shim.as_ref();
            shim.is_some_and(|shim| shim.lives.pid == owner && matches!(shim.run, Run::Running { .. }))
        };
        let mut others = self.instances.iter().filter(|(other, _)| *other != key);
        if let Some((other, _)) = others.find(|(_, place)| lives(place)) {
            let text = format!("{other} ends with the namespaces of {key}, without its grace");
            self.violations.push(text);
        }
    }

    /// What its container lives in is there: no process can be made in a process namespace that has ended.
    pub(super) fn has_processes(&self, shim: &Shim) -> bool {
        let spaces = &shim.sandbox.spaces;
        if !spaces.lends_pid && spaces.pid != Space::Joined {
            return true;
        }
        let mut shims = self.instances.values().filter_map(|place| place.shim.as_ref());
        shims.any(|owner| owner.pid == shim.lives.pid && !owner.unpaused)
    }

    /// What holds the namespaces that `key` lends is killed, if there is such a process.
    pub(super) fn kill_pause(&mut self, key: &InstanceKey) {
        let place = self.instances.get_mut(key);
        let shim = place.and_then(|place| place.shim.as_mut());
        let Some(shim) = shim.filter(|shim| lends(&shim.sandbox.spaces)) else {
            return;
        };
        shim.unpaused = true;
        if shim.sandbox.spaces.lends_pid {
            let owner = shim.pid;
            self.pause_ends(owner);
        }
    }
}
