//! An assigned shim: its sandbox, and what may be asked of it.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::PathBuf,
};

use reconciler::{
    observed::Fault,
    spec::{PortBinding, Space, Spaces},
};

use super::{
    attached::Attached,
    clock,
    door::Door,
    ground,
    joined::{self, Joined, Purpose},
    launch,
    made::Names,
    protocol::{Exec, ExitRecord, HealthState, Reason, Record, Reply, Request, Run, SandboxState, Start},
    record, remount,
    run::{Output, reap},
    state::leave_leaf,
    stub::{self, Stub},
    watch::Watch,
};
use crate::{
    cgroup::{self, limits::Controllers},
    health::Health,
    logs::{forward::Dropped, writer::Lost},
    oci::Hooks,
    rootfs::{Step, StepError, files::Held},
    sandbox::{self, Namespaces, reserve},
};

/// Milliseconds from one try to write the exit record to the next.
const EXIT_RETRY: u64 = 500;

/// The answer and what goes along; `None` where it is sent by somebody else.
pub type Answer = Result<Option<(Reply, Vec<OwnedFd>)>, StepError>;

/// The request does not fit the state.
pub fn request_error(message: &str) -> StepError {
    StepError {
        message: message.to_owned(),
        errno: None,
        reason: Reason::Request,
    }
}

/// # Errors
/// None; the type is that of every answer.
pub fn done() -> Answer {
    Ok(Some((Reply::Done, Vec::new())))
}

/// Everything an assigned shim holds.
pub struct Sandbox {
    pub namespaces: Namespaces,
    /// First process of what is lent to others, while it lives.
    pub pause: Option<(i32, OwnedFd)>,
    /// `None`: the network is another's.
    pub names: Option<Names>,
    pub ports: Vec<(PortBinding, OwnedFd)>,
    pub listener: UnixListener,
    pub door: Door,
    pub record: Record,
    /// Held open: its name is how the shim is found.
    pub memfd: OwnedFd,
    pub payload: OwnedFd,
    pub controllers: Controllers,
    pub run: Run,
    pub first: Option<(i32, OwnedFd)>,
    pub output: Option<Output>,
    /// Between two runs: output that could not be written.
    pub lost: Lost,
    /// When the exit record is to be written once more (boot clock): it could not be.
    pub exit_due: Option<u64>,
    pub joined: Vec<Joined>,
    pub health: Health,
    pub watch: Watch,
    /// The idle leaf, until the shim has moved out of it.
    pub idle_leaf: Option<PathBuf>,
    /// The configs and secrets of the last start.
    pub files: Option<Held>,
    /// What was said to be the first run.
    pub next: Option<Start>,
    /// The next run, where it is ready.
    pub stub: Option<Stub>,
    /// When that is to be made (boot clock).
    pub stub_due: Option<u64>,
    /// Layers and volumes of the last start; `None`: there was none since the shim was made or upgraded.
    pub sources: Option<Sources>,
}

/// `layers` and `volumes` of a start.
pub type Sources = (Vec<PathBuf>, BTreeMap<String, PathBuf>);

impl Sandbox {
    /// `Ok(None)`: the shim is to leave.
    pub fn answer(&mut self, number: u64, request: Request, descriptors: Vec<OwnedFd>) -> Answer {
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
                if let Some(names) = &mut self.names {
                    names.server.update(resolver.clone());
                }
                self.record.assignment.sandbox = *sandbox;
                self.record.assignment.resolver = resolver;
                self.seal()?;
                done()
            }
            Request::Prepare(start) => {
                if matches!(self.run, Run::Created) && stub::may_wait(&start.container) {
                    self.end_stub();
                    self.next = Some(*start);
                    self.stub_due = Some(clock::boot());
                }
                done()
            }
            Request::Start(start) => {
                let pid = self.start(*start, descriptors.into_iter().next())?;
                Ok(Some((Reply::Started { pid }, Vec::new())))
            }
            Request::Amend { container } => {
                if let Some(names) = &mut self.names {
                    names.follow(&container);
                }
                let before = self.record.container.replace(*container);
                let now = self
                    .record
                    .container
                    .as_ref()
                    .and_then(|container| container.health.as_ref());
                if now != before.as_ref().and_then(|container| container.health.as_ref()) {
                    self.health = Health::new(now, clock::boot());
                }
                if let Some(container) = self.record.container.as_ref().filter(|_| self.first.is_some()) {
                    let instance = &self.record.assignment.cgroup;
                    let limits = &container.limits;
                    self.watch
                        .limit(&self.controllers, instance, limits, clock::boot());
                }
                if let (Some(output), Some(container)) = (&mut self.output, &self.record.container) {
                    output.set(&container.logging, &self.record.key, Dropped::default());
                    self.count_lost();
                }
                self.seal()?;
                done()
            }
            Request::Stop => {
                self.stop()?;
                done()
            }
            Request::Signal { signal } => {
                self.signal(signal)?;
                done()
            }
            Request::Kill => {
                self.kill()?;
                done()
            }
            Request::Remount { volumes } => {
                let Some((pid, first)) = &self.first else {
                    return Err(request_error("the container does not run; start it first"));
                };
                let user = self.namespaces.user();
                remount::remount(*pid, first.as_fd(), user, &self.record, &volumes)?;
                ground::renew(*pid as u32, &mut self.record.ground)
                    .step("look at the mounts of process", pid)?;
                self.seal()?;
                done()
            }
            Request::Exec(wish) => self.exec(number, &wish, descriptors),
            Request::Attach => self.attach(number),
            Request::State => {
                let along = match &self.first {
                    Some((_, pidfd)) => vec![pidfd.try_clone().step("copy", "a descriptor")?],
                    None => Vec::new(),
                };
                Ok(Some((Reply::State(Box::new(self.state())), along)))
            }
            Request::Lend => {
                let lent = self.namespaces.lend().step("lend", "namespaces")?;
                let (kinds, descriptors) = lent.into_iter().unzip();
                Ok(Some((Reply::Lent { kinds }, descriptors)))
            }
            Request::Leave if self.first.is_some() => {
                Err(request_error("the container still runs; stop it first"))
            }
            Request::Leave => {
                self.end_stub();
                let _ = fs::remove_file(&self.record.assignment.socket);
                if let Some(leaf) = &self.idle_leaf {
                    leave_leaf(leaf);
                }
                if let Some((pid, _)) = self.pause.take() {
                    sandbox::pause::end(pid);
                }
                Ok(None)
            }
            _ => Err(request_error(
                "this shim does not know the request; upgrade it first",
            )),
        }
    }

    /// # Errors
    /// It does not run, or there is no such signal.
    pub fn signal(&mut self, number: i32) -> Result<(), StepError> {
        let Some((_, first)) = &self.first else {
            return Err(request_error("the container does not run"));
        };
        let signal = rustix::process::Signal::from_named_raw(number)
            .ok_or_else(|| request_error("there is no such signal; correct `stop_signal`"))?;
        rustix::process::pidfd_send_signal(first, signal).step("signal", "the container")?;
        self.watch.signalled(number, clock::boot());
        Ok(())
    }

    /// # Errors
    /// As writing to the file `cgroup.kill`.
    pub fn kill(&mut self) -> Result<(), StepError> {
        let payload = self.record.assignment.cgroup.join("payload");
        self.end_stub();
        if self.first.is_some() {
            self.watch.forced(clock::boot());
            self.cut_hooks();
        }
        let killed = cgroup::kill(&payload).step("kill", payload.display());
        // Somebody may have moved it to another cgroup. With it goes its whole process namespace.
        if let Some((_, first)) = &self.first {
            let _ = rustix::process::pidfd_send_signal(first, rustix::process::Signal::KILL);
        }
        killed
    }

    /// Before another process joins: somebody may have removed the payload leaf, and the agent made
    /// another.
    pub fn find_payload(&mut self) {
        if let Ok(payload) = File::open(self.record.assignment.cgroup.join("payload")) {
            self.payload = payload.into();
        }
    }

    /// There is no user namespace.
    pub fn has_host_ids(&self) -> bool {
        self.namespaces.user.is_none()
    }

    pub fn leaf(&self) -> launch::Leaf<'_> {
        launch::Leaf {
            instance: &self.record.assignment.cgroup,
            payload: self.payload.as_fd(),
            controllers: &self.controllers,
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
            faults: self.faults(),
            resolver_port: self.names.as_ref().map_or(0, |names| names.sockets.port),
            unpaused: self.pause.is_none() && lends(&self.record.assignment.sandbox.spaces),
        }
    }

    /// What goes wrong with what runs.
    pub fn faults(&self) -> Vec<Fault> {
        let failing = self.record.hooks.failing().filter(|_| self.first.is_some());
        self.watch.faults.iter().cloned().chain(failing).collect()
    }

    /// What the log driver has not taken so far is told with what else goes wrong.
    pub fn count_lost(&mut self) {
        let forward = self.output.as_ref().and_then(Output::forwarded);
        let lost = forward.and_then(|forward| forward.loss.as_ref());
        self.watch.logged(lost, clock::boot());
    }

    /// The new memfd exists before the old one goes.
    pub fn seal(&mut self) -> Result<(), StepError> {
        record::reseal(&mut self.memfd, &self.record).step("write", "the record")?;
        Ok(())
    }

    fn exec(&mut self, number: u64, wish: &Exec, descriptors: Vec<OwnedFd>) -> Answer {
        self.find_payload();
        let (Some((_, first)), Some(container)) = (&self.first, &self.record.container) else {
            return Err(request_error("the container does not run; start it first"));
        };
        let leaf = self.leaf();
        let (pid, master) = joined::exec(container, wish, descriptors, first, self.has_host_ids(), leaf)?;
        self.joined.push(Joined {
            pid,
            pidfd: joined::pidfd(pid)?,
            purpose: Purpose::Exec { connection: number },
        });
        let reply = Reply::ExecStarted { pid: pid as u32 };
        Ok(Some((reply, master.into_iter().collect())))
    }

    /// Nothing can start in the namespaces that it held any more.
    pub fn pause_ended(&mut self) {
        if let Some((pid, _)) = &self.pause
            && reap(*pid).is_some()
        {
            self.pause = None;
        }
    }

    /// Reaps the first process: its exit status, once its output is on disk, and those who were attached.
    pub fn first_ended(&mut self) -> Option<(i32, Attached)> {
        let (pid, _) = self.first.as_ref()?;
        let code = reap(*pid)?;
        self.first = None;
        let mut attached = Attached::default();
        // With a process namespace of its own the kernel has done that.
        if self.namespaces.pid.is_some() || self.record.assignment.sandbox.spaces.pid == Space::Host {
            let _ = cgroup::kill(&self.record.assignment.cgroup.join("payload"));
        }
        self.run_poststop();
        if let Some(output) = self.output.take() {
            (self.lost, attached) = output.finish();
        }
        let at = clock::boot();
        let asked = self.watch.kept.is_signalled() || self.record.hooks.stop.is_some();
        if let Some(container) = self.record.container.as_ref().filter(|_| !asked)
            && stub::is_worth_it(container, code)
        {
            self.stub_due = Some(at + stub::SOON);
        }
        let (code, died) = self.record.hooks.end(code, self.watch.end(code));
        self.run = Run::Exited { code, at };
        self.record.ended = Some((code, at));
        self.record.died = died;
        // Without it, who finds us silent takes it for running, as it did.
        let _ = self.seal();
        self.write_exit();
        self.health.next = None;
        Some((code, attached))
    }

    /// The hooks of vendors for a run that is over. What goes wrong is told in its log: it has ended all the same.
    fn run_poststop(&mut self) {
        let (assignment, container) = (&self.record.assignment, self.record.container.as_ref());
        let hooks = container.map(|container| Hooks::new(assignment, container));
        let failed = match hooks {
            Some(Ok(Some(hooks))) => hooks.stopped(),
            Some(Err(error)) => vec![error],
            Some(Ok(None)) | None => Vec::new(),
        };
        for error in failed {
            if let Some(output) = &mut self.output {
                output.note(&error.message);
            }
        }
    }

    /// The state is the truth while the shim lives; the file is for after it. Tried again until it is
    /// on disk.
    pub fn write_exit(&mut self) {
        self.exit_due = None;
        if let (Run::Exited { code, at }, Some(container)) = (&self.run, &self.record.container) {
            let exit = ExitRecord {
                code: *code,
                at: *at,
                boot_id: self.record.boot_id.clone(),
                key: self.record.key.clone(),
                container: container.clone(),
                restarts: self.record.restarts,
                died: self.record.died.clone(),
            };
            if record::write_exit(&self.record.assignment.directory, &exit).is_err() {
                self.exit_due = Some(clock::boot() + EXIT_RETRY);
            }
        }
    }
}

/// Whether others join what must outlive the container.
pub(super) fn lends(spaces: &Spaces) -> bool {
    spaces.lends_pid || spaces.lends_ipc.is_some()
}
