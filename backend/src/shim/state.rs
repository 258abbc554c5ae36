//! What a shim knows and how it answers each request.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use reconciler::spec::PortBinding;

use super::{
    clock,
    joined::{self, Joined, Purpose},
    launch,
    protocol::{
        Assignment, Event, Exec, HealthState, Reason, Record, Reply, Request, Run, SandboxState, Start,
        VERSION,
    },
    record,
    run::{Output, reap},
    serve::Connection,
    wire::Inbox,
};
use crate::{
    cgroup,
    dns::server::Server,
    health::Health,
    init::seccomp,
    rootfs::{Step, StepError, fill, stage},
    sandbox::{Holder, Namespaces, ResolverSockets, furnish, reserve},
};

/// Before and after the assignment.
pub enum Phase {
    Idle { holder: Holder, leaf: PathBuf },
    Assigned(Box<Sandbox>),
    Left,
}

/// Everything an assigned shim holds.
pub struct Sandbox {
    pub namespaces: Namespaces,
    /// Kept beside the server's own, so that an upgrade can hand them over.
    pub sockets: ResolverSockets,
    pub names: Server,
    pub ports: Vec<(PortBinding, OwnedFd)>,
    pub listener: UnixListener,
    pub record: Record,
    /// Held open: its name is how the shim is found.
    pub memfd: OwnedFd,
    pub payload: OwnedFd,
    pub run: Run,
    pub first: Option<(i32, OwnedFd)>,
    pub output: Option<Output>,
    pub joined: Vec<Joined>,
    pub health: Health,
    /// The idle leaf, until the shim has moved out of it.
    pub idle_leaf: Option<PathBuf>,
}

/// The whole process.
pub struct Supervisor {
    pub phase: Phase,
    pub connections: Vec<Connection>,
    pub next_number: u64,
    filter: Vec<libc::sock_filter>,
}

type Answer = Result<Option<(Reply, Vec<OwnedFd>)>, StepError>;

fn request_error(message: &str) -> StepError {
    StepError {
        message: message.to_owned(),
        errno: None,
        reason: Reason::Request,
    }
}

fn done() -> Answer {
    Ok(Some((Reply::Done, Vec::new())))
}

impl Supervisor {
    pub fn new(phase: Phase) -> Self {
        Supervisor {
            phase,
            connections: Vec::new(),
            next_number: 0,
            filter: seccomp::default_filter(),
        }
    }

    /// # Errors
    /// The socket cannot be set up.
    pub fn connect(&mut self, socket: UnixStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        self.next_number += 1;
        self.connections.push(Connection {
            number: self.next_number,
            socket,
            inbox: Inbox::default(),
            subscribed: false,
        });
        Ok(())
    }

    pub fn connection(&mut self, number: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|one| one.number == number)
    }

    pub fn disconnect(&mut self, number: u64) {
        self.connections.retain(|one| one.number != number);
    }

    /// An idle shim goes with its agent, one that has left at once.
    pub fn finished(&mut self) -> bool {
        match &self.phase {
            Phase::Left => true,
            Phase::Idle { holder, leaf } if self.connections.is_empty() => {
                holder.end();
                leave_leaf(leaf);
                true
            }
            _ => false,
        }
    }

    /// # Errors
    /// What the asker is told.
    pub fn answer(&mut self, number: u64, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
        match request {
            Request::Hello { .. } => {
                let reply = Reply::Welcome {
                    version: VERSION,
                    build: env!("CARGO_PKG_VERSION").to_owned(),
                    pid: std::process::id(),
                };
                Ok(Some((reply, Vec::new())))
            }
            Request::Assign(assignment) => self.assign(*assignment),
            Request::Subscribe => {
                if let Some(connection) = self.connection(number) {
                    connection.subscribed = true;
                }
                done()
            }
            Request::Upgrade => {
                let binary = descriptors
                    .into_iter()
                    .next()
                    .ok_or_else(|| request_error("an upgrade needs the descriptor of the new program"))?;
                super::upgrade::replace(self, number, &binary)
                    .step("hand over to", "the new program; this one goes on")?;
                Ok(None)
            }
            Request::Leave if matches!(self.phase, Phase::Idle { .. }) => {
                self.disconnect(number);
                Ok(None)
            }
            other => {
                let filter = std::mem::take(&mut self.filter);
                let result = match &mut self.phase {
                    Phase::Assigned(sandbox) => sandbox.answer(number, other, descriptors, &filter),
                    _ => Err(request_error("this shim has no sandbox yet; assign one first")),
                };
                self.filter = filter;
                match result? {
                    Some(answer) => Ok(Some(answer)),
                    None => {
                        if let Some(connection) = self.connection(number) {
                            connection.send(&Reply::Done, &[]);
                        }
                        self.phase = Phase::Left;
                        Ok(None)
                    }
                }
            }
        }
    }

    fn assign(&mut self, assignment: Assignment) -> Answer {
        match std::mem::replace(&mut self.phase, Phase::Left) {
            Phase::Idle { holder, leaf } => {
                // After a failure the holder is gone: such a shim ends, the agent takes another.
                let sandbox = match Sandbox::new(assignment, holder) {
                    Ok(sandbox) => sandbox,
                    Err(error) => {
                        leave_leaf(&leaf);
                        return Err(error);
                    }
                };
                let sandbox = Sandbox {
                    idle_leaf: Some(leaf),
                    ..sandbox
                };
                let net = sandbox.namespaces.net.try_clone().step("copy", "a descriptor")?;
                let resolver_port = sandbox.sockets.port;
                self.phase = Phase::Assigned(Box::new(sandbox));
                Ok(Some((Reply::Assigned { resolver_port }, vec![net])))
            }
            other => {
                self.phase = other;
                Err(request_error("this shim has a sandbox already; take another"))
            }
        }
    }

    /// After an answer was sent: what would have delayed it.
    pub fn settle(&mut self) {
        if let Phase::Assigned(sandbox) = &mut self.phase
            && !matches!(sandbox.run, Run::Created)
            && let Some(leaf) = sandbox.idle_leaf.take()
        {
            let own = sandbox.record.assignment.cgroup.join("shim");
            if cgroup::create(&own).and_then(|()| cgroup::enter(&own, 0)).is_ok() {
                let _ = fs::remove_dir(leaf);
            } else {
                sandbox.idle_leaf = Some(leaf);
            }
        }
    }

    fn tell(&self, event: &Event) {
        for connection in self.connections.iter().filter(|one| one.subscribed) {
            connection.send(&Reply::Event(event.clone()), &[]);
        }
    }

    pub fn first_ended(&mut self) {
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return;
        };
        if let Some(code) = sandbox.first_ended() {
            self.tell(&Event::Exited { code });
        }
    }

    pub fn joined_ended(&mut self, pid: i32) {
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return;
        };
        let Some(code) = reap(pid) else { return };
        let Some(at) = sandbox.joined.iter().position(|one| one.pid == pid) else {
            return;
        };
        match sandbox.joined.remove(at).purpose {
            Purpose::Exec { connection } => {
                if let Some(connection) = self.connection(connection) {
                    connection.send(&Reply::ExecExited { code }, &[]);
                }
            }
            Purpose::Probe { .. } => self.probed(code == 0),
        }
    }

    fn probed(&mut self, success: bool) {
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return;
        };
        let spec = sandbox
            .record
            .container
            .as_ref()
            .and_then(|container| container.health.as_ref());
        if let Some(spec) = spec
            && sandbox.health.end(spec, success, clock::boot())
        {
            let health = sandbox.health.state;
            self.tell(&Event::Health { health });
        }
    }

    /// The next time something is due.
    pub fn deadline(&self) -> Option<u64> {
        let Phase::Assigned(sandbox) = &self.phase else {
            return None;
        };
        let probes = sandbox.joined.iter().filter_map(|one| match one.purpose {
            Purpose::Probe { deadline } => Some(deadline),
            Purpose::Exec { .. } => None,
        });
        let next = sandbox.health.next.filter(|_| sandbox.first.is_some());
        probes.chain(next).chain(sandbox.names.next_deadline()).min()
    }

    pub fn tick(&mut self, now: u64) {
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return;
        };
        if sandbox.names.next_deadline().is_some_and(|at| at <= now) {
            sandbox.names.tick(now);
        }
        for joined in &mut sandbox.joined {
            if let Purpose::Probe { deadline } = &mut joined.purpose
                && *deadline <= now
            {
                // Asked again should a process of the group resist.
                *deadline = now + 1000;
                joined.kill();
            }
        }
        if sandbox.health.next.is_some_and(|at| at <= now)
            && let (Some((_, first)), Some(container)) = (&sandbox.first, &sandbox.record.container)
            && let Some(spec) = &container.health
        {
            sandbox.health.begin();
            let launched = joined::probe(container, &spec.argv, first, &sandbox.payload, &self.filter);
            match launched.and_then(|pid| Ok((pid, joined::pidfd(pid)?))) {
                Ok((pid, pidfd)) => sandbox.joined.push(Joined {
                    pid,
                    pidfd,
                    purpose: Purpose::Probe {
                        deadline: now + spec.timeout,
                    },
                }),
                Err(_) => self.probed(false),
            }
        }
    }
}

/// Moves to the top of the tree, which may always hold processes, so that the leaf can go.
fn leave_leaf(leaf: &Path) {
    if let Some(idle) = leaf.parent()
        && let Some(own) = idle.parent()
        && let Some(top) = own.parent()
        && cgroup::enter(top, 0).is_ok()
    {
        let _ = fs::remove_dir(leaf);
        let _ = fs::remove_dir(idle);
        let _ = fs::remove_dir(own);
    }
}

/// Binds through /proc/self/fd: a socket's address has 108 bytes at most.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)?;
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
    fn new(assignment: Assignment, holder: Holder) -> Result<Self, StepError> {
        let namespaces = holder.assign(assignment.sandbox.id_base)?;
        let payload = fresh_payload(&assignment)?;
        let sockets = furnish(&namespaces)?;
        let mut ports = Vec::new();
        for port in &assignment.sandbox.ports {
            ports.push((port.clone(), reserve(port)?));
        }
        fs::create_dir_all(&assignment.directory).step("make", assignment.directory.display())?;
        let listener = listen(&assignment.socket).step("listen on", assignment.socket.display())?;
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
            assignment,
        };
        let names = serve_names(&sockets, &record)?;
        Ok(Sandbox {
            namespaces,
            sockets,
            names,
            ports,
            listener,
            memfd: record::seal(&record).step("write", "the record")?,
            record,
            payload,
            run: Run::Created,
            first: None,
            output: None,
            joined: Vec::new(),
            health: Health::new(None, 0),
            idle_leaf: None,
        })
    }

    /// `Ok(None)`: the shim is to leave.
    fn answer(
        &mut self,
        number: u64,
        request: Request,
        descriptors: Vec<OwnedFd>,
        filter: &[libc::sock_filter],
    ) -> Answer {
        match request {
            Request::Update { sandbox, resolver } => {
                let mut ports = Vec::new();
                for port in &sandbox.ports {
                    if !self.ports.iter().any(|(held, _)| held == port) {
                        ports.push((port.clone(), reserve(port)?));
                    }
                }
                self.ports.retain(|(held, _)| sandbox.ports.contains(held));
                self.ports.append(&mut ports);
                self.names.update(resolver.clone());
                self.record.assignment.sandbox = *sandbox;
                self.record.assignment.resolver = resolver;
                self.seal()?;
                done()
            }
            Request::Start(start) => {
                let pid = self.start(*start, filter)?;
                Ok(Some((Reply::Started { pid }, Vec::new())))
            }
            Request::Amend { container } => {
                let before = self.record.container.replace(*container);
                let now = self
                    .record
                    .container
                    .as_ref()
                    .and_then(|container| container.health.as_ref());
                if now != before.as_ref().and_then(|container| container.health.as_ref()) {
                    self.health = Health::new(now, clock::boot());
                }
                self.seal()?;
                done()
            }
            Request::Signal { signal } => {
                let Some((_, first)) = &self.first else {
                    return Err(request_error("the container does not run"));
                };
                let signal = rustix::process::Signal::from_named_raw(signal)
                    .ok_or_else(|| request_error("there is no such signal; correct `stop_signal`"))?;
                rustix::process::pidfd_send_signal(first, signal).step("signal", "the container")?;
                done()
            }
            Request::Kill => {
                let payload = self.record.assignment.cgroup.join("payload");
                cgroup::kill(&payload).step("kill", payload.display())?;
                done()
            }
            Request::Exec(wish) => self.exec(number, &wish, descriptors, filter),
            Request::State => {
                let along = match &self.first {
                    Some((_, pidfd)) => vec![pidfd.try_clone().step("copy", "a descriptor")?],
                    None => Vec::new(),
                };
                Ok(Some((Reply::State(Box::new(self.state())), along)))
            }
            Request::Leave if self.first.is_some() => {
                Err(request_error("the container still runs; stop it first"))
            }
            Request::Leave => {
                let _ = fs::remove_file(&self.record.assignment.socket);
                if let Some(leaf) = &self.idle_leaf {
                    leave_leaf(leaf);
                }
                Ok(None)
            }
            _ => Err(request_error(
                "this shim does not know the request; upgrade it first",
            )),
        }
    }

    fn state(&self) -> SandboxState {
        SandboxState {
            record: self.record.clone(),
            run: self.run.clone(),
            health: if self.first.is_some() {
                self.health.state
            } else {
                HealthState::None
            },
            ports: self.ports.iter().map(|(port, _)| port.clone()).collect(),
            resolver_port: self.sockets.port,
        }
    }

    /// The new memfd exists before the old one goes.
    fn seal(&mut self) -> Result<(), StepError> {
        self.memfd = record::seal(&self.record).step("write", "the record")?;
        Ok(())
    }

    fn start(&mut self, start: Start, filter: &[libc::sock_filter]) -> Result<u32, StepError> {
        if self.first.is_some() {
            return Err(request_error("the container runs already"));
        }
        let assignment = &self.record.assignment;
        self.payload = fresh_payload(assignment)?;
        stage::prepare(assignment, &start)?;
        let _ = fs::remove_file(assignment.directory.join("exit"));
        let (output, stdio) =
            Output::new(&assignment.logs, assignment.sandbox.id_base).step("make", "the output pipes")?;
        let launched = launch::container(
            assignment,
            &start,
            &self.namespaces,
            self.payload.as_fd(),
            stdio,
            filter,
        )?;
        let now = clock::boot();
        for name in &launched.filled {
            if let Some(data) = start.volumes.get(name) {
                let _ = fill::done(data);
            }
        }
        let pid = launched.pid;
        self.first = Some((pid, joined::pidfd(pid)?));
        self.output = Some(output);
        self.run = Run::Running { pid: pid as u32 };
        self.health = Health::new(start.container.health.as_ref(), now);
        self.record.pid = Some(pid as u32);
        self.record.start_ticks = record::start_ticks(pid);
        self.record.restarts = start.restarts;
        self.record.streak = start.streak;
        self.record.started_boot = Some(now);
        self.record.started_wall = Some(clock::wall());
        self.record.container = Some(start.container);
        self.seal()?;
        Ok(pid as u32)
    }

    fn exec(
        &mut self,
        number: u64,
        wish: &Exec,
        descriptors: Vec<OwnedFd>,
        filter: &[libc::sock_filter],
    ) -> Answer {
        let (Some((_, first)), Some(container)) = (&self.first, &self.record.container) else {
            return Err(request_error("the container does not run; start it first"));
        };
        let (pid, master) = joined::exec(container, wish, descriptors, first, &self.payload, filter)?;
        self.joined.push(Joined {
            pid,
            pidfd: joined::pidfd(pid)?,
            purpose: Purpose::Exec { connection: number },
        });
        let reply = Reply::ExecStarted { pid: pid as u32 };
        Ok(Some((reply, master.into_iter().collect())))
    }

    fn first_ended(&mut self) -> Option<i32> {
        let (pid, _) = self.first.as_ref()?;
        let code = reap(*pid)?;
        self.first = None;
        if let Some(output) = self.output.take() {
            output.finish();
        }
        let at = clock::boot();
        let assignment = &self.record.assignment;
        // The state below is the truth while the shim lives; the file is for after it.
        let _ = record::write_exit(&assignment.directory, code, at, &self.record.boot_id);
        self.run = Run::Exited { code, at };
        self.health.next = None;
        Some(code)
    }
}

/// The payload leaf of a start is a new one: the kernel (seen on 6.18) kills whatever is cloned into a
/// cgroup that was ever killed, because it compares the kill counts of two cgroups. A leaf that is not
/// empty cannot be removed, so nothing starts beside a survivor.
fn fresh_payload(assignment: &Assignment) -> Result<OwnedFd, StepError> {
    let path = assignment.cgroup.join("payload");
    match fs::remove_dir(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).step("start while something still ends in", path.display());
        }
        _ => {}
    }
    cgroup::create(&path).step("make", path.display())?;
    Ok(File::open(&path).step("open", path.display())?.into())
}

/// The server gets copies of the sockets.
pub fn serve_names(sockets: &ResolverSockets, record: &Record) -> Result<Server, StepError> {
    let udp = sockets.udp.try_clone().step("copy", "a socket")?;
    let tcp = sockets.tcp.try_clone().step("copy", "a socket")?;
    Server::new(udp, tcp, record.assignment.resolver.clone()).step("serve names on", "127.0.0.11")
}
