//! How an assigned shim comes to what it holds: namespaces, resolver, host ports, socket, record.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::DirBuilderExt, net::UnixListener},
    },
    path::Path,
};

use reconciler::spec::ContainerSpec;

use super::{
    assigned::{Sandbox, lends},
    door::Door,
    joined,
    protocol::{Assignment, Ground, Hooks, Record, Run, VERSION},
    record,
    watch::Watch,
};
use crate::{
    cgroup::{self, limits::Controllers},
    dns::server::Server,
    health::Health,
    logs::writer::Lost,
    rootfs::{Step, StepError, stage},
    sandbox::{self, Holder, Namespaces, ResolverSockets, reserve},
};

/// The resolver of the sandbox.
pub struct Names {
    /// Kept beside the server's own, so that an upgrade can hand them over.
    pub sockets: ResolverSockets,
    pub server: Server,
}

impl Names {
    /// The server gets copies of the sockets.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn serve(sockets: ResolverSockets, record: &Record) -> Result<Self, StepError> {
        let udp = sockets.udp.try_clone().step("copy", "a socket")?;
        let tcp = sockets.tcp.try_clone().step("copy", "a socket")?;
        let server = Server::new(udp, tcp, record.assignment.resolver.clone());
        let server = server.step("serve names on", "127.0.0.11")?;
        let mut names = Names { sockets, server };
        if let Some(container) = &record.container {
            names.follow(container);
        }
        Ok(names)
    }

    pub(super) fn follow(&mut self, container: &ContainerSpec) {
        self.server.follow(&container.dns, &container.links);
    }
}

/// Binds through /proc/self/fd: a socket's address has 108 bytes at most.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(0o711).create(parent)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let directory = File::open(parent)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let short = Path::new("/proc/self/fd")
        .join(directory.as_raw_fd().to_string())
        .join(name);
    use nix::sys::stat::{Mode, umask};
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(short);
    umask(before);
    let listener = listener?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Sandbox {
    /// # Errors
    /// What could not be had; the caller has nothing then.
    pub fn new(
        assignment: Assignment,
        (holder, controllers): (Result<Holder, StepError>, Controllers),
        descriptors: Vec<OwnedFd>,
    ) -> Result<Self, StepError> {
        let lent = assignment.lent.iter().copied().zip(descriptors).collect();
        let sandbox = &assignment.sandbox;
        let (mut namespaces, sockets) = Namespaces::new(sandbox, holder, lent)?;
        cgroup::create(&assignment.cgroup).step("make", assignment.cgroup.display())?;
        // Until a start makes the leaf.
        let payload = File::open(&assignment.cgroup).step("open", assignment.cgroup.display())?;
        let pause = pause(&assignment, &mut namespaces)?;
        let mut ports = Vec::new();
        for port in &assignment.sandbox.ports {
            ports.push((port.clone(), reserve(port)?));
        }
        fs::create_dir_all(&assignment.directory).step("make", assignment.directory.display())?;
        let listener = listen(&assignment.socket).step("listen on", assignment.socket.display())?;
        let door = Door::new().step("make", "a way in")?;
        let record = Record {
            version: VERSION,
            mark: assignment.mark.clone(),
            key: assignment.sandbox.key.clone(),
            boot_id: assignment.boot_id.clone(),
            container: None,
            pid: None,
            start_ticks: None,
            restarts: 0,
            streak: 0,
            started_boot: None,
            started_wall: None,
            flaps: 0,
            door: Some(door.number()),
            ground: Ground::default(),
            ended: None,
            died: None,
            hooks: Hooks::default(),
            assignment,
        };
        let names = sockets
            .map(|sockets| Names::serve(sockets, &record))
            .transpose()?;
        Ok(Sandbox {
            namespaces,
            pause,
            names,
            ports,
            listener,
            door,
            memfd: record::seal(&record).step("write", "the record")?,
            record,
            payload: payload.into(),
            controllers,
            run: Run::Created,
            first: None,
            output: None,
            lost: Lost::default(),
            exit_due: None,
            joined: Vec::new(),
            health: Health::new(None, 0),
            watch: Watch::default(),
            idle_leaf: None,
            files: None,
            next: None,
            stub: None,
            stub_due: None,
            sources: None,
        })
    }
}

/// Starts it where there is something to lend.
fn pause(assignment: &Assignment, namespaces: &mut Namespaces) -> Result<Option<(i32, OwnedFd)>, StepError> {
    if !lends(&assignment.sandbox.spaces) {
        return Ok(None);
    }
    let leaf = assignment.cgroup.join("shim");
    cgroup::create(&leaf).step("make", leaf.display())?;
    let leaf = File::open(&leaf).step("open", leaf.display())?;
    let scratch = assignment.directory.join(stage::SHARED_MEMORY);
    let pid = sandbox::pause::start(&assignment.sandbox, namespaces, leaf.as_fd(), &scratch)?;
    Ok(Some((pid, joined::pidfd(pid)?)))
}
