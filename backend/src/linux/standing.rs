//! What a running container stands on, compared with what it was given, and put right where it can be
//! without the process noticing.

use std::collections::BTreeMap;

use reconciler::{
    key::InstanceKey,
    spec::{Limits, MountSpec},
};

use super::{LinuxBackend, error::ApplyError};
use crate::{
    cgroup,
    shim::{
        ground,
        protocol::{Request, Run, SandboxState},
        remount,
    },
};

/// What differs.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Without what hangs on a root that is gone: that comes back with the start, and not before the stop.
    pub drift: Vec<String>,
    pub broken: Option<String>,
}

impl LinuxBackend {
    pub(super) fn standing(&self, key: &InstanceKey, state: &SandboxState) -> Standing {
        let mut standing = Standing::default();
        let (Run::Running { pid }, Some(container)) = (&state.run, &state.record.container) else {
            return standing;
        };
        let cgroup = self.instance_cgroup(key);
        standing.drift = self.controllers().drift(&cgroup, &container.limits, *pid);
        if cgroup::devices::is_missing(
            &cgroup.join("payload"),
            container,
            state.record.assignment.sandbox.spaces.host_ids,
        ) {
            standing.drift.push("its devices are not limited".to_owned());
        }
        // One that ends just now is told by its shim.
        for stray in cgroup::strays(&cgroup.join("payload"), *pid).unwrap_or_default() {
            standing
                .drift
                .push(format!("process {stray} was moved out of its cgroup"));
        }
        if let Some(shim) = self.stray_shim(key) {
            standing
                .drift
                .push(format!("its supervisor {shim} was moved out of its cgroup"));
        }
        let Ok(missing) = ground::missing(*pid, &state.record.ground) else {
            return standing;
        };
        if missing.broken.is_some() {
            standing.broken = missing.broken;
            return standing;
        }
        for point in missing.mounts {
            let spec = container
                .mounts
                .iter()
                .find(|spec| remount::point(spec).as_ref() == Some(&point));
            let text = format!("{} is not mounted any more", point.display());
            match spec {
                // Held: what is wrong with the volume is told there.
                Some(MountSpec::Volume { volume, .. }) if !self.volumes.is_whole(volume) => {}
                Some(_) => standing.drift.push(text),
                None if remount::is_generated(&point) => standing.drift.push(text),
                None => standing.broken = standing.broken.or(Some(text)),
            }
        }
        standing
    }

    /// The supervisor where it is no longer to be found: adoption looks for it in the cgroups of its root.
    fn stray_shim(&self, key: &InstanceKey) -> Option<u32> {
        let shim = self.sandboxes.get(key)?.client().pid;
        (cgroup::lives_with(shim, &self.layout.mark) == Some(false)).then_some(shim)
    }

    /// Gives limits to what runs.
    pub(super) fn limit(&self, key: &InstanceKey, limits: &Limits) -> Result<(), ApplyError> {
        let cgroup = self.instance_cgroup(key);
        let controllers = self.controllers();
        controllers.apply(&cgroup, limits)?;
        controllers.gather(&cgroup).map_err(|source| ApplyError::Path {
            path: cgroup.clone(),
            source,
        })
    }

    /// Limits, cgroups and mounts of a running container as they should be.
    pub(super) fn mend(&self, key: &InstanceKey) -> Result<(), ApplyError> {
        let state = self.state(key)?;
        let (Run::Running { pid }, Some(container)) = (&state.run, &state.record.container) else {
            return Ok(());
        };
        let cgroup = self.instance_cgroup(key);
        let payload = cgroup.join("payload");
        let shim = self.stray_shim(key);
        let strays = cgroup::strays(&payload, *pid).unwrap_or_default();
        let homes = shim.into_iter().map(|pid| (pid, cgroup.join("shim")));
        for (stray, home) in homes.chain(strays.into_iter().map(|pid| (pid, payload.clone()))) {
            let enter = cgroup::create(&home).and_then(|()| cgroup::enter(&home, stray));
            enter.map_err(|source| ApplyError::Path { path: home, source })?;
        }
        self.limit(key, &container.limits)?;
        let host_ids = state.record.assignment.sandbox.spaces.host_ids;
        if cgroup::devices::is_missing(&payload, container, host_ids) {
            cgroup::devices::limit(&payload, container, host_ids)?;
        }
        let missing = ground::missing(*pid, &state.record.ground).unwrap_or_default();
        if missing.broken.is_some() || missing.mounts.is_empty() {
            return Ok(());
        }
        let volumes: BTreeMap<_, _> = container
            .mounts
            .iter()
            .filter_map(|spec| match spec {
                MountSpec::Volume { volume, .. } if self.volumes.is_whole(volume) => {
                    Some((volume.name.clone(), self.volumes.data(volume)))
                }
                _ => None,
            })
            .collect();
        self.ask(key, &Request::Remount { volumes }).map(drop)
    }
}
