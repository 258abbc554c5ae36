//! Containers: started, stopped, brought to other policies.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    super::{
        SimError, World, error, hooks,
        objects::{Manner, Process, Run, Tree, UNKNOWN},
        world::touch,
    },
    KILL_PATIENCE, Next, Work,
};
use crate::{
    key::{InstanceKey, Key},
    observed::{Health, Moment},
    port::{ActionError, Retry},
    spec::{ContainerSpec, MountSpec},
    time::Now,
};

const KILLED: i32 = 137;

pub(super) struct Start<'a> {
    pub spec: &'a ContainerSpec,
    pub fresh: bool,
    pub restarts: u32,
    pub streak: u32,
    pub flaps: u32,
}

impl World {
    /// One request: the supervisor goes on by itself, whatever becomes of the agent.
    pub(super) fn start(
        &mut self,
        key: &InstanceKey,
        start: &Start<'_>,
        work: &mut Work,
        now: Now,
    ) -> Result<Next, ActionError> {
        if work.stage > 0 {
            return Ok(Next::End);
        }
        let object = Key::Instance(key.clone());
        let digest = &start.spec.image_digest;
        if !self.unpacked(digest) {
            let was_there = self.layers_hurt.contains(digest);
            self.need(was_there, &object, "its image")?;
            return Err(error(Retry::Again, SimError::NoImage(digest.clone())));
        }
        let Some(place) = self.instances.get(key) else {
            return Err(error(Retry::Again, SimError::NoSandbox(key.clone())));
        };
        let Some(shim) = &place.shim else {
            if !place.processes.is_empty() {
                let text = format!("{key} was started while something of it still lives");
                self.violations.push(text);
            }
            return Err(error(Retry::Again, SimError::NoSandbox(key.clone())));
        };
        if shim.silent.is_some() {
            return Err(error(Retry::Again, SimError::Silent(key.clone())));
        }
        if let Run::Running { .. } = shim.run {
            self.violations.push(format!("{key} was started while it runs"));
            return Err(error(Retry::Again, SimError::Runs(key.clone())));
        }
        if self.refused.contains(key) {
            return Err(error(Retry::AfterChange, SimError::Refused(key.clone())));
        }
        if !self.has_processes(shim) {
            return Err(error(Retry::Again, SimError::NamespaceGone(key.clone())));
        }
        // A leaf that is not empty cannot be made anew: nothing starts beside a survivor.
        if !place.processes.is_empty() {
            return Err(error(Retry::Again, SimError::StillAlive(key.clone())));
        }
        let mut volumes = BTreeMap::new();
        for mount in &start.spec.mounts {
            if let MountSpec::Volume { volume, .. } = mount {
                let identity = self.volumes.whole(volume).copied();
                self.need(
                    identity.is_some() || self.records_hurt || self.volumes.torn().is_some(),
                    &object,
                    "its volume",
                )?;
                if let Some(lost) = self.lost(volume) {
                    let (why, volume) = (lost.of(volume), volume.to_string());
                    return Err(error(Retry::AfterChange, SimError::VolumeLost { volume, why }));
                }
                let directory = self.directories.get(&volume.name);
                let found = directory.and_then(|directory| directory.identity);
                volumes.insert(volume.clone(), found.unwrap_or(UNKNOWN));
            }
        }
        self.room()?;
        let pid = self.pid();
        let upper = self.number();
        let base = self.id_bases.whole(&key.project).copied().unwrap_or_default();
        let directory = self.trees.entry(key.clone()).or_default();
        directory.base = base;
        if start.fresh {
            directory.upper = None;
        }
        let upper = *directory.upper.get_or_insert(upper);
        directory.work = true;
        self.ended.unlink(key);
        self.ended.sync(key);
        for volume in volumes.keys() {
            if let Some(directory) = self.directories.get_mut(&volume.name) {
                directory.written += 1;
            }
        }
        let manner = self
            .manners
            .get(&key.service)
            .copied()
            .unwrap_or(Manner::Obedient);
        if let Some(place) = self.instances.get_mut(key) {
            place.processes = vec![Process {
                pid,
                manner,
                doomed: false,
            }];
            place.tree = Some(Tree {
                overlay: true,
                upper,
                mounts: (0..start.spec.mounts.len()).collect::<BTreeSet<_>>(),
                volumes,
            });
            if let Some(cgroup) = &mut place.cgroup {
                cgroup.limits = start.spec.limits.clone();
                cgroup.strayed.clear();
            }
            if let Some(shim) = &mut place.shim {
                shim.container = Some(Arc::new(start.spec.clone()));
                shim.run = Run::Running { pid };
                shim.restarts = start.restarts;
                shim.streak = start.streak;
                shim.flaps = start.flaps;
                shim.started_boot = Some(now.boot);
                shim.started_wall = Some(now.wall);
                shim.exit_due = false;
                shim.hook = hooks::first(Moment::PostStart, start.spec);
                shim.stops_at = None;
                shim.died = None;
                shim.health = match start.spec.health {
                    Some(_) => Health::Starting,
                    None => Health::None,
                };
            }
        }
        if self.keeps_history {
            self.starts.push((key.clone(), now.boot));
        }
        self.moved(touch::INSTANCES | touch::VOLUMES | touch::RECORDS);
        // Directory, mounts, process, record: as many as the real one makes.
        self.steps += 3;
        Ok(Next::Did(1))
    }

    /// 0 drain · 1 hooks, signal · 2 grace · 3 kill · 4 wait
    pub(super) fn stop(
        &mut self,
        key: &InstanceKey,
        drain: u64,
        work: &mut Work,
        now: Now,
    ) -> Result<Next, ActionError> {
        let Some(place) = self.instances.get_mut(key) else {
            return match work.stage {
                0 => Ok(Next::End),
                _ => Err(error(Retry::Again, SimError::NoSandbox(key.clone()))),
            };
        };
        let running = match &place.shim {
            Some(shim) if shim.silent.is_some() => {
                return Err(error(Retry::Again, SimError::Silent(key.clone())));
            }
            Some(shim) => matches!(shim.run, Run::Running { .. }),
            None => false,
        };
        let pids = || {
            place
                .processes
                .iter()
                .map(|process| process.pid)
                .collect::<Vec<u32>>()
        };
        match work.stage {
            0 if place.shim.is_none() => {
                let pids = pids();
                if place.kill() {
                    self.signalled(key, &pids);
                    self.moved(touch::INSTANCES);
                    return Ok(Next::Did(4));
                }
                Ok(Next::To(4))
            }
            0 if !running => Ok(Next::To(3)),
            0 => {
                if place.connections > 0 && drain > 0 {
                    match World::waited(work, now, drain) {
                        Err(wait) => return Ok(wait),
                        Ok(()) => place.connections = 0,
                    }
                }
                work.until = None;
                Ok(Next::To(1))
            }
            1 => {
                self.begin_stop(key, now.boot);
                Ok(Next::Did(2))
            }
            2 => {
                if !running {
                    work.until = None;
                    return Ok(Next::To(3));
                }
                if work.impatient {
                    self.skip_hooks(key, now.boot);
                }
                let Some(place) = self.instances.get(key) else {
                    return Ok(Next::To(3));
                };
                let grace = place.shim.as_ref().and_then(|shim| shim.container.as_ref());
                let grace = grace.map_or(0, |container| container.stop_grace);
                match World::waited(work, now, grace) {
                    Err(wait) => Ok(wait),
                    Ok(()) => Ok(Next::To(3)),
                }
            }
            3 => {
                let pids = pids();
                if !place.kill() {
                    return Ok(Next::To(4));
                }
                let emptied = place.processes.is_empty();
                self.signalled(key, &pids);
                if emptied {
                    self.ended(key, KILLED, now.boot);
                } else {
                    self.moved(touch::INSTANCES);
                }
                Ok(Next::Did(4))
            }
            _ => {
                if place.processes.is_empty() {
                    return Ok(Next::End);
                }
                match World::waited(work, now, KILL_PATIENCE) {
                    Err(wait) => Ok(wait),
                    Ok(()) => Err(error(Retry::Again, SimError::StillAlive(key.clone()))),
                }
            }
        }
    }

    pub(super) fn update(
        &mut self,
        key: &InstanceKey,
        spec: &ContainerSpec,
        work: &mut Work,
    ) -> Result<Next, ActionError> {
        let no_sandbox = || error(Retry::Again, SimError::NoSandbox(key.clone()));
        let place = self.instances.get_mut(key).ok_or_else(no_sandbox)?;
        let shim = place.shim.as_mut().ok_or_else(no_sandbox)?;
        if shim.silent.is_some() {
            return Err(error(Retry::Again, SimError::Silent(key.clone())));
        }
        match work.stage {
            // First: a limit that the host cannot keep is not recorded as kept.
            0 => match &mut place.cgroup {
                Some(cgroup) if cgroup.limits != spec.limits => {
                    cgroup.limits = spec.limits.clone();
                    self.moved(touch::INSTANCES);
                    Ok(Next::Did(1))
                }
                _ => Ok(Next::To(1)),
            },
            1 if shim.container.as_deref() == Some(spec) => Ok(Next::End),
            1 => {
                let before = shim.container.replace(Arc::new(spec.clone()));
                if before.is_none_or(|before| before.health != spec.health) {
                    shim.health = match (&shim.run, &spec.health) {
                        (Run::Running { .. }, Some(_)) => Health::Starting,
                        _ => Health::None,
                    };
                }
                self.moved(touch::INSTANCES);
                Ok(Next::Did(2))
            }
            _ => Ok(Next::End),
        }
    }
}
