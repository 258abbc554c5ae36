//! From an action to the rooms that carry it out. Every action may be done twice.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
    sync::PoisonError,
    thread,
    time::{Duration, Instant},
};

use reconciler::{
    key::{InstanceKey, ResourceKey},
    plan::action::Action,
    spec::{SandboxSpec, Space, Zone},
};

use super::{
    LinuxBackend,
    error::ApplyError,
    sandboxes::{self, MAX_INTERFACES},
    start::Counts,
};
use crate::{
    cgroup,
    dns::zone,
    layout::instance_name,
    shim::{
        client::ClientError,
        protocol::{Reply, Request, SandboxState},
        record,
    },
};

/// How long links may outlive their namespace before they are taken down one by one.
const LINK_PATIENCE: Duration = Duration::from_millis(400);

impl LinuxBackend {
    /// `next`: what follows on the same key, as far as is known.
    pub(super) fn apply_action(&self, action: &Action, next: Option<&Action>) -> Result<(), ApplyError> {
        match action {
            Action::UnpackImage {
                reference,
                digest,
                latest,
            } => {
                let unpacked = match latest {
                    true => self.images.unpack_latest(reference, digest),
                    false => self.images.unpack(reference, digest),
                };
                self.brought.notify_one();
                Ok(unpacked?)
            }
            Action::PinImage { reference, digest } => Ok(self.images.unpack(reference, digest)?),
            Action::EnsureNetwork(spec) => {
                self.networks.put(&spec.key.to_string(), spec)?;
                let _making = self.firewall.making(&spec.key);
                self.net.ensure_network(spec)?;
                self.firewall.open(&spec.key)?;
                self.watch_settings(&spec.key);
                Ok(())
            }
            Action::RemoveNetwork(key) => {
                let _turn = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
                self.net.remove_network(key)?;
                let record = key.to_string();
                self.files.expect_gone(self.networks.path(&record));
                Ok(self.networks.remove(&record)?)
            }
            Action::EnsureVolume(spec) => self.ensure_volume(spec),
            Action::RemoveVolume(key) => {
                let _turn = self.removing.lock().unwrap_or_else(PoisonError::into_inner);
                self.files.expect_gone(self.volumes.record(key));
                Ok(self.volumes.remove(key)?)
            }
            Action::EnsureSandbox(spec) => self.ensure_sandbox(spec, next),
            Action::RemoveSandbox(key) => self.remove_sandbox(key),
            Action::StartContainer {
                key,
                spec,
                fresh,
                restarts,
                streak,
                flaps,
            } => {
                let counts = Counts {
                    restarts: *restarts,
                    streak: *streak,
                    flaps: *flaps,
                };
                self.start(key, spec, *fresh, counts)
            }
            Action::StopContainer { key, drain } => self.stop(key, Duration::from_millis(*drain)),
            Action::UpdateContainer { key, spec } => {
                // First: a limit that the host cannot keep is not recorded as kept.
                self.limit(key, &spec.limits)?;
                let container = spec.clone();
                self.ask(key, &Request::Amend { container }).map(drop)
            }
            Action::SyncFirewall(spec) => Ok(self.firewall.sync(spec)?),
            Action::SyncNames { network, zone } => self.sync_names(network, zone.as_ref()),
        }
    }

    fn ensure_sandbox(&self, spec: &SandboxSpec, next: Option<&Action>) -> Result<(), ApplyError> {
        if !spec.spaces.host_ids {
            self.keep_id_base(&spec.key.project, spec.id_base)?;
        }
        let known = self.sandboxes.get(&spec.key);
        let new = known.is_none();
        let sandbox = match known {
            Some(sandbox) => {
                let cgroup = self.instance_cgroup(&spec.key);
                if cgroup::frozen(&cgroup) {
                    cgroup::thaw(&cgroup).map_err(|source| at(&cgroup, source))?;
                }
                let request = Request::Update {
                    sandbox: Box::new(spec.clone()),
                    resolver: self.resolver(spec),
                };
                let state = self.state(&spec.key)?;
                self.ask(&spec.key, &request)?;
                let way = (sandbox.netns.as_fd(), state.resolver_port);
                if spec.spaces.network == Space::Own && !self.net.resolver_drift(way.0, way.1)?.is_empty() {
                    self.net.prepare_resolver(way.0, way.1)?;
                }
                let old = state.record.assignment.sandbox;
                for endpoint in old.endpoints.iter().filter(|old| !spec.endpoints.contains(old)) {
                    self.net.detach(&spec.key, &endpoint.interface)?;
                }
                self.mend(&spec.key)?;
                sandbox
            }
            None => self.new_sandbox(spec, next)?,
        };
        let (changes, now) = (sandbox.interfaces.changes(), Instant::now());
        let way_out = spec
            .endpoints
            .iter()
            .position(|endpoint| endpoint.gateway.is_some());
        for (index, endpoint) in spec.endpoints.iter().enumerate() {
            self.net
                .attach(&spec.key, endpoint, way_out == Some(index), sandbox.netns.as_fd())?;
        }
        // What was done until now is nothing to be looked at.
        if spec.spaces.network == Space::Own {
            sandbox.hear(self.net.namespace_number(sandbox.netns.as_fd())?);
            // Whether a repair has helped is looked at.
            if new {
                sandbox.interfaces.found(changes, now, false);
            }
        }
        Ok(())
    }

    fn remove_sandbox(&self, key: &InstanceKey) -> Result<(), ApplyError> {
        let cgroup = self.instance_cgroup(key);
        let lost = !self.end_shim(key)? && cgroup.exists();
        self.files.forget_instance(key);
        cgroup::kill(&cgroup).map_err(|source| at(&cgroup, source))?;
        self.wait_empty(key, &cgroup)?;
        // The namespace goes with its last descriptor, and its links with it: cheaper than one by one.
        drop(self.sandboxes.remove(key));
        cgroup::remove(&cgroup).map_err(|source| at(&cgroup, source))?;
        self.controllers()
            .remove(&cgroup)
            .map_err(|source| at(&cgroup, source))?;
        // The directory of the project goes with its last instance; one that is not empty stays.
        if let Some(project) = cgroup.parent() {
            let _ = fs::remove_dir(project);
        }
        remove_file(&self.shim_socket(key))?;
        let directory = self.layout.container(key);
        // How a lost one ended before is still true; a finished job is finished.
        if lost {
            remove_but(&directory, record::EXIT)?;
        } else {
            remove_tree(&directory)?;
        }
        if let Some(project) = directory.parent() {
            let _ = fs::remove_dir(project);
        }
        self.wait_links_gone(key)
    }

    /// A shim that has not moved yet lives in the idle leaf, where the kill of the cgroup misses it.
    /// Returns whether there was one.
    fn end_shim(&self, key: &InstanceKey) -> Result<bool, ApplyError> {
        if self.sandboxes.get(key).is_some()
            && self.ask(key, &Request::Kill).is_ok()
            && self.ask(key, &Request::Leave).is_ok()
        {
            return Ok(true);
        }
        let shims = cgroup::find_shims(&self.layout.mark).map_err(|source| at(&self.cgroup, source))?;
        let mut found = false;
        for (pid, _) in shims.into_iter().filter(|(_, record)| record.key == *key) {
            kill_shim(pid, key).map_err(|source| at(&self.cgroup, source.into()))?;
            found = true;
        }
        Ok(found)
    }

    /// The kernel removes links of a namespace that has gone a little later; what is left then is
    /// deleted one by one, so that the next sandbox of this key finds its names free.
    fn wait_links_gone(&self, key: &InstanceKey) -> Result<(), ApplyError> {
        let links = sandboxes::links(&self.layout.mark, key);
        let deadline = Instant::now() + LINK_PATIENCE;
        loop {
            // One by one: a dump of all would cost the more the more sandboxes there are.
            let mut left = false;
            for link in &links {
                left = left || self.net.has_link(link)?;
            }
            if !left {
                return Ok(());
            }
            if Instant::now() > deadline {
                for index in 0..MAX_INTERFACES {
                    self.net.detach(key, &format!("eth{index}"))?;
                }
                return Ok(());
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    fn sync_names(&self, network: &ResourceKey, zone: Option<&Zone>) -> Result<(), ApplyError> {
        let path = self.zone_file(network);
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(path.clone(), zone.cloned());
        match zone {
            Some(zone) => {
                let written = match zone::write(&path, zone) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        self.make_zones().and_then(|()| zone::write(&path, zone))
                    }
                    written => written,
                };
                written.map_err(|source| at(&path, source))
            }
            None => remove_file(&path),
        }
    }

    pub(super) fn instance_cgroup(&self, key: &InstanceKey) -> PathBuf {
        self.cgroup.join(&key.project).join(instance_name(key))
    }

    pub(super) fn shim_socket(&self, key: &InstanceKey) -> PathBuf {
        self.layout.shims().join(format!(
            "{}.sock",
            crate::names::short_hash(key.to_string().as_bytes())
        ))
    }

    pub(super) fn zone_file(&self, network: &ResourceKey) -> PathBuf {
        self.layout
            .zones()
            .join(format!("{}@{}.zone", network.project, network.name))
    }

    pub(super) fn state(&self, key: &InstanceKey) -> Result<SandboxState, ApplyError> {
        match self.ask(key, &Request::State)? {
            Reply::State(state) => Ok(*state),
            _ => Err(asked(key, ClientError::Unexpected)),
        }
    }

    /// One request to the shim of an instance; a refusal is an error with the shim's own words.
    pub(super) fn ask(&self, key: &InstanceKey, request: &Request) -> Result<Reply, ApplyError> {
        self.ask_with(key, request, &[])
    }

    pub(super) fn ask_with(
        &self,
        key: &InstanceKey,
        request: &Request,
        along: &[BorrowedFd<'_>],
    ) -> Result<Reply, ApplyError> {
        let sandbox = self
            .sandboxes
            .get(key)
            .ok_or_else(|| ApplyError::NoSandbox { key: key.clone() })?;
        let answer = sandbox.client().request(request, along);
        answer.map(|(reply, _)| reply).map_err(|error| asked(key, error))
    }
}

/// Whose zone a file of the zones directory holds.
pub(super) fn zone_key(path: &Path) -> Option<ResourceKey> {
    let (project, name) = path
        .file_name()?
        .to_str()?
        .strip_suffix(".zone")?
        .split_once('@')?;
    Some(ResourceKey {
        project: project.to_owned(),
        name: name.to_owned(),
    })
}

pub(super) fn asked(key: &InstanceKey, source: ClientError) -> ApplyError {
    match source {
        ClientError::Refused { message, reason, .. } => ApplyError::Refused { message, reason },
        source => ApplyError::Client {
            key: key.clone(),
            source,
        },
    }
}

/// The process is checked again under its pidfd, so that a number used anew is never hit.
fn kill_shim(pid: u32, key: &InstanceKey) -> rustix::io::Result<()> {
    use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) if cgroup::record_of(pid).is_some_and(|record| record.key == *key) => {
            pidfd_send_signal(&process, Signal::KILL)
        }
        Ok(_) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error),
    }
}

pub(super) fn at(path: &Path, source: io::Error) -> ApplyError {
    ApplyError::Path {
        path: path.to_owned(),
        source,
    }
}

fn remove_file(path: &Path) -> Result<(), ApplyError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, error)),
        _ => Ok(()),
    }
}

/// Everything in a directory but one file; the directory, too, if that is not there.
fn remove_but(path: &Path, kept: &str) -> Result<(), ApplyError> {
    if !path.join(kept).exists() {
        return remove_tree(path);
    }
    for entry in fs::read_dir(path).map_err(|source| at(path, source))? {
        let entry = entry.map_err(|source| at(path, source))?;
        if entry.file_name() == kept {
            continue;
        }
        let place = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&place)?;
        } else {
            remove_file(&place)?;
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> Result<(), ApplyError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path, error)),
        _ => Ok(()),
    }
}
