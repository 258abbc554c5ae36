//! Finding again what an earlier agent left running: cgroup → pid → sealed record → connection.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
};

use reconciler::{
    key::{InstanceKey, Slot},
    spec::Space,
};

use super::{
    LinuxBackend, Use,
    error::ApplyError,
    sandboxes::{self, Sandbox},
};
use crate::{
    cgroup,
    shim::{client::Client, protocol::Record},
};

/// Where shims wait that nobody has assigned.
const IDLE: &str = "idle";

impl LinuxBackend {
    /// Connects to every shim of this root that is not known yet. Returns the keys of all instances
    /// there is anything of: a shim, or a cgroup without one.
    pub(super) fn adopt(&self) -> Result<BTreeSet<InstanceKey>, ApplyError> {
        let mut keys: BTreeSet<InstanceKey> = self.sandboxes.keys().into_iter().collect();
        for (pid, record) in cgroup::find_shims(&self.layout.mark).map_err(|source| ApplyError::Path {
            path: self.cgroup.clone(),
            source,
        })? {
            keys.insert(record.key.clone());
            if self.sandboxes.get(&record.key).is_none()
                && let Err(error) = self.connect(pid, &record)
            {
                tracing::warn!(key = %record.key, pid, %error, "a supervisor cannot be adopted");
            }
        }
        keys.extend(self.cgroups_of_instances()?);
        Ok(keys)
    }

    fn connect(&self, pid: u32, record: &Record) -> Result<(), ApplyError> {
        let key = &record.key;
        let socket = self.shim_socket(key);
        let failed = |source| ApplyError::Client {
            key: key.clone(),
            source,
        };
        let mut client = Client::connect(&socket).map_err(failed)?;
        let spaces = &record.assignment.sandbox.spaces;
        let netns = match spaces.network {
            Space::Host => File::open(format!("/proc/{pid}/ns/net")).map(OwnedFd::from),
            Space::Own | Space::Joined => netns(pid),
        };
        let netns = netns.map_err(|source| ApplyError::Path { path: socket, source })?;
        if self.purpose == Use::Converge
            && let Some(binary) = newer_program(pid)
            && let Err(error) = client.upgrade(binary.as_fd())
        {
            // It goes on as it was, which serves as well.
            tracing::warn!(key = %key, pid, %error, "a supervisor keeps its old program");
            client = Client::connect(&self.shim_socket(key)).map_err(failed)?;
        }
        self.listen(key)?;
        let links = sandboxes::links(&self.layout.mark, key);
        let sandbox = self
            .sandboxes
            .insert(key.clone(), Sandbox::new(netns, client, links));
        tracing::info!(key = %key, pid, "adopted");
        if self.purpose == Use::Converge && spaces.network == Space::Own {
            sandbox.hear(self.net.namespace_number(sandbox.netns.as_fd())?);
        }
        Ok(())
    }

    /// Subscribes to a shim on a connection of its own.
    pub(super) fn listen(&self, key: &InstanceKey) -> Result<(), ApplyError> {
        let stream = Client::connect(&self.shim_socket(key))
            .and_then(Client::subscribe)
            .map_err(|source| ApplyError::Client {
                key: key.clone(),
                source,
            })?;
        self.watcher
            .subscribe(key, stream.into())
            .map_err(|source| ApplyError::Path {
                path: self.shim_socket(key),
                source,
            })
    }

    /// Every directory two levels below our cgroup, but the idle ones, is an instance's.
    fn cgroups_of_instances(&self) -> Result<Vec<InstanceKey>, ApplyError> {
        let mut keys = Vec::new();
        for project in directories(&self.cgroup)? {
            if project == IDLE {
                continue;
            }
            for name in directories(&self.cgroup.join(&project))? {
                keys.extend(parse_instance(&project, &name));
            }
        }
        Ok(keys)
    }
}

/// The network namespace that a shim holds: the one among its descriptors that is not its own.
fn netns(pid: u32) -> io::Result<OwnedFd> {
    let own = fs::read_link(format!("/proc/{pid}/ns/net"))?;
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        match fs::read_link(&path) {
            Ok(link) if link != own && link.as_os_str().as_encoded_bytes().starts_with(b"net:[") => {
                return Ok(File::open(path)?.into());
            }
            _ => {}
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        "the supervisor holds no network namespace",
    ))
}

/// Our own program, when the shim runs another one.
fn newer_program(pid: u32) -> Option<File> {
    let ours = File::from(crate::shim::sealed_program().ok()?);
    let (mine, theirs) = (
        ours.metadata().ok()?,
        fs::metadata(format!("/proc/{pid}/exe")).ok()?,
    );
    ((mine.dev(), mine.ino()) != (theirs.dev(), theirs.ino())).then_some(ours)
}

pub(super) fn directories(path: &std::path::Path) -> Result<Vec<String>, ApplyError> {
    let at = |source| ApplyError::Path {
        path: path.to_owned(),
        source,
    };
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(at(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(at)?;
        if entry.file_type().map_err(at)?.is_dir() {
            names.extend(entry.file_name().into_string());
        }
    }
    Ok(names)
}

/// `web-1a` of a project; the reverse of `layout::instance_name`.
pub(super) fn parse_instance(project: &str, name: &str) -> Option<InstanceKey> {
    let (service, place) = name.rsplit_once('-')?;
    let slot = match place.chars().next_back()? {
        'a' => Slot::A,
        'b' => Slot::B,
        _ => return None,
    };
    let index = place[..place.len() - 1].parse().ok()?;
    Some(InstanceKey {
        project: project.to_owned(),
        service: service.to_owned(),
        index,
        slot,
    })
}
