//! The whole process: who is connected, idle or assigned, what is due when.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::waitpid,
    },
    unistd::Pid,
};

use super::{
    assigned::{Answer, Sandbox, done, request_error},
    clock,
    joined::{self, Joined, Purpose},
    made::Names,
    protocol::{Assignment, Event, Reply, Request, Run, VERSION},
    run::{Output, reap},
    serve::Connection,
    wire::Inbox,
};
use crate::{
    cgroup::{
        self,
        limits::{Controllers, LimitError},
    },
    logs::forward::Forward,
    rootfs::{Step, StepError},
    sandbox::Holder,
};

/// Connections at one time.
const MOST: usize = 128;

/// Before and after the assignment.
pub enum Phase {
    /// Without a holder where the host forbids one: that is told to who asks for a sandbox that needs it.
    Idle {
        holder: Result<Holder, StepError>,
        controllers: Result<Controllers, LimitError>,
        leaf: PathBuf,
    },
    Assigned(Box<Sandbox>),
    Left,
}

/// The whole process.
pub struct Supervisor {
    pub phase: Phase,
    pub connections: Vec<Connection>,
    pub next_number: u64,
    /// The holder of the namespaces, to be reaped.
    spent: Option<Pid>,
}

impl Supervisor {
    pub fn new(phase: Phase) -> Self {
        Supervisor {
            phase,
            connections: Vec::new(),
            next_number: 0,
            spent: None,
        }
    }

    /// Of too many connections one that waits for nothing goes, best one that never said anything, else
    /// the one that was silent longest: those who leak theirs must not keep the agent out.
    ///
    /// # Errors
    /// The socket cannot be set up, or every connection is in use.
    pub fn connect(&mut self, socket: UnixStream) -> io::Result<&mut Connection> {
        if self.connections.len() >= MOST {
            let busy: Vec<u64> = match &self.phase {
                Phase::Assigned(sandbox) => sandbox
                    .joined
                    .iter()
                    .filter_map(|one| match one.purpose {
                        Purpose::Exec { connection } => Some(connection),
                        Purpose::Probe { .. } | Purpose::Hook { .. } => None,
                    })
                    .chain(sandbox.attached().map(|one| one.connection))
                    .collect(),
                _ => Vec::new(),
            };
            let idlest = self
                .connections
                .iter()
                .filter(|one| !one.subscribed && !busy.contains(&one.number))
                .min_by_key(|one| one.heard)
                .map(|one| one.number)
                .ok_or(io::ErrorKind::QuotaExceeded)?;
            self.disconnect(idlest);
        }
        socket.set_nonblocking(true)?;
        self.next_number += 1;
        Ok(self.connections.push_mut(Connection {
            number: self.next_number,
            socket,
            inbox: Inbox::default(),
            subscribed: false,
            heard: None,
        }))
    }

    pub fn connection(&mut self, number: u64) -> Option<&mut Connection> {
        self.connections.iter_mut().find(|one| one.number == number)
    }

    pub fn disconnect(&mut self, number: u64) {
        self.connections.retain(|one| one.number != number);
        if let Phase::Assigned(sandbox) = &mut self.phase
            && let Some(output) = &mut sandbox.output
        {
            output.attached.remove(number);
        }
    }

    /// An idle shim goes with its agent, one that has left at once.
    pub fn finished(&mut self) -> bool {
        match &self.phase {
            Phase::Left => true,
            Phase::Idle { holder, leaf, .. } if self.connections.is_empty() => {
                holder.iter().for_each(Holder::end);
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
            Request::Assign(assignment) => self.assign(*assignment, descriptors),
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
                // Not a child that the new program would know.
                if let Phase::Assigned(sandbox) = &mut self.phase {
                    sandbox.end_stub();
                }
                super::upgrade::replace(self, number, &binary)
                    .step("hand over to", "the new program; this one goes on")?;
                Ok(None)
            }
            Request::Attend => Ok(Some((self.attend(), Vec::new()))),
            Request::Leave if matches!(self.phase, Phase::Idle { .. }) => {
                self.disconnect(number);
                Ok(None)
            }
            other => {
                let result = match &mut self.phase {
                    Phase::Assigned(sandbox) => sandbox.answer(number, other, descriptors),
                    _ => Err(request_error("this shim has no sandbox yet; assign one first")),
                };
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

    fn assign(&mut self, assignment: Assignment, descriptors: Vec<OwnedFd>) -> Answer {
        let mut descriptors = descriptors.into_iter();
        if let Some(events) = descriptors.next() {
            let events = self.connect(UnixStream::from(events));
            events.step("take", "the connection for events")?.subscribed = true;
        }
        let lent = descriptors.collect();
        match std::mem::replace(&mut self.phase, Phase::Left) {
            Phase::Idle {
                holder,
                controllers,
                leaf,
            } => {
                // After a failure the holder is gone: such a shim ends, the agent takes another.
                let holder = holder.or_else(|_| Holder::new());
                self.spent = holder.as_ref().ok().map(Holder::pid);
                let controllers = controllers.or_else(|_| Controllers::find());
                let made = controllers
                    .map_err(StepError::from)
                    .and_then(|controllers| Sandbox::new(assignment, (holder, controllers), lent));
                let sandbox = match made {
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
                self.phase = Phase::Assigned(Box::new(sandbox));
                Ok(Some((Reply::Assigned, vec![net])))
            }
            other => {
                self.phase = other;
                Err(request_error("this shim has a sandbox already; take another"))
            }
        }
    }

    /// After an answer was sent: what would have delayed it.
    pub fn settle(&mut self) {
        if let Some(holder) = self.spent.take() {
            // Also where the assignment failed before that was done.
            let _ = kill(holder, Signal::SIGKILL);
            let _ = waitpid(holder, None);
        }
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

    /// Somebody asks how it is.
    fn attend(&mut self) -> Reply {
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return Reply::Done;
        };
        let differ = sandbox.first.is_some() && sandbox.watch.attend(clock::boot());
        let hooks = sandbox.record.hooks.faults.iter().cloned();
        let faults = sandbox.faults().into_iter().chain(hooks).collect();
        let suspected = sandbox.watch.suspected().filter(|_| sandbox.first.is_some());
        if differ {
            self.tell(&Event::Faults);
        }
        Reply::Attended { faults, suspected }
    }

    /// The kernel has something to say about the container's limits.
    pub fn limits_told(&mut self) {
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return;
        };
        if sandbox.watch.ready(clock::boot()) {
            self.tell(&Event::Faults);
        }
    }

    pub fn first_ended(&mut self) {
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return;
        };
        if let Some((code, attached)) = sandbox.first_ended() {
            self.tell(&Event::Exited { code });
            for one in attached.readers {
                self.attach_ended(one.connection, Some(code));
            }
            for number in attached.cut_off {
                self.attach_ended(number, None);
            }
        }
    }

    fn attach_ended(&mut self, number: u64, code: Option<i32>) {
        if let Some(connection) = self.connection(number) {
            connection.send(&Reply::AttachEnded { code }, &[]);
        }
    }

    /// Whoever gets the output as well takes more of it now.
    pub fn forward(&mut self) {
        if let Phase::Assigned(sandbox) = &mut self.phase
            && let Some(output) = &mut sandbox.output
            && let Some(forward) = output.forward()
        {
            forward.flush(clock::boot());
            sandbox.count_lost();
        }
    }

    /// Output of the container is there to be read.
    pub fn printed(&mut self) {
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return;
        };
        let Some(output) = &mut sandbox.output else {
            return;
        };
        output.drain(false);
        let cut_off = std::mem::take(&mut output.attached.cut_off);
        sandbox.count_lost();
        for number in cut_off {
            self.attach_ended(number, None);
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
            Purpose::Hook { hook, of } => {
                sandbox.hook_ended(of, hook, code);
                self.tell(&Event::Hook);
            }
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

    fn forward_due(&self) -> Option<u64> {
        let Phase::Assigned(sandbox) = &self.phase else {
            return None;
        };
        let mut forwarded = sandbox.output.iter().filter_map(Output::forwarded);
        forwarded.find_map(Forward::due)
    }

    /// The next time something is due.
    pub fn deadline(&self) -> Option<u64> {
        let Phase::Assigned(sandbox) = &self.phase else {
            return None;
        };
        let probes = sandbox.joined.iter().filter_map(|one| match one.purpose {
            Purpose::Probe { deadline } => Some(deadline),
            Purpose::Exec { .. } | Purpose::Hook { .. } => None,
        });
        let next = sandbox.health.next.filter(|_| sandbox.first.is_some());
        probes
            .chain(next)
            .chain(
                sandbox
                    .names
                    .as_ref()
                    .and_then(|names| names.server.next_deadline()),
            )
            .chain(sandbox.exit_due)
            .chain(sandbox.stub_due)
            .chain(sandbox.stub.as_ref().map(|stub| stub.until))
            .chain(sandbox.hooks_due())
            .chain(sandbox.watch.deadline())
            .chain(self.forward_due())
            .min()
    }

    pub fn tick(&mut self, now: u64) {
        if self.forward_due().is_some_and(|at| at <= now) {
            self.forward();
        }
        let Phase::Assigned(sandbox) = &mut self.phase else {
            return;
        };
        if let Some(Names { server, .. }) = &mut sandbox.names
            && server.next_deadline().is_some_and(|at| at <= now)
        {
            server.tick(now);
        }
        if sandbox.exit_due.is_some_and(|at| at <= now) {
            sandbox.write_exit();
        }
        if sandbox.stub_due.is_some_and(|at| at <= now) {
            sandbox.make_stub(now);
        }
        if sandbox.stub.as_ref().is_some_and(|stub| stub.until <= now) {
            sandbox.end_stub();
        }
        let hooked = sandbox.follow_hooks(now);
        let differ = sandbox.watch.deadline().is_some_and(|at| at <= now) && sandbox.watch.look(now);
        for joined in &mut sandbox.joined {
            if let Purpose::Probe { deadline } = &mut joined.purpose
                && *deadline <= now
            {
                // Asked again should a process of the group resist.
                *deadline = now + 1000;
                joined.kill();
            }
        }
        let probe = sandbox.health.next.is_some_and(|at| at <= now);
        if probe {
            sandbox.find_payload();
        }
        if probe
            && let (Some((_, first)), Some(container)) = (&sandbox.first, &sandbox.record.container)
            && let Some(spec) = &container.health
        {
            sandbox.health.begin();
            let launched = joined::probe(
                container,
                &spec.argv,
                first,
                sandbox.has_host_ids(),
                sandbox.leaf(),
            );
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
        if differ {
            self.tell(&Event::Faults);
        }
        if hooked {
            self.tell(&Event::Hook);
        }
    }
}

/// Moves to the top of the tree, which may always hold processes, so that the leaf can go.
pub fn leave_leaf(leaf: &Path) {
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
