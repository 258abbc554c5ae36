//! How a run of the container begins: at once, or with a first process that was made ahead.

use std::{
    fs::{self, File},
    io,
    os::fd::OwnedFd,
};

use super::{
    assigned::{Sandbox, request_error},
    clock, ground, joined,
    launch::{self, Input},
    protocol::{Assignment, Hooks, Run, Start},
    record,
    run::Output,
    stub::Stub,
    watch::Watch,
};
use crate::{
    cgroup::{self, limits::Controllers},
    health::Health,
    init::Stdio,
    logs::forward::Dropped,
    rootfs::{Step, StepError, devices::Nodes, etc, files::Held, stage},
};

impl Sandbox {
    /// # Errors
    /// It runs already, or the step that failed.
    pub fn start(&mut self, start: Start, along: Option<OwnedFd>) -> Result<u32, StepError> {
        if self.first.is_some() {
            return Err(request_error("the container runs already"));
        }
        (self.stub_due, self.next) = (None, None);
        let stub = self.stub.take().and_then(|stub| self.still_fits(stub, &start));
        self.exit_due = None;
        if let Some(names) = &mut self.names {
            names.follow(&start.container);
        }
        let (pid, mut output, files, mut watch) = match stub {
            Some(stub) => stub.go()?,
            None => {
                let (files, devices, watch) = self.prepare(&start, along)?;
                let (pid, output) = self.launch(&start, files.as_ref(), devices.as_ref())?;
                (pid, output, files, watch)
            }
        };
        let assignment = &self.record.assignment;
        let _ = fs::remove_file(assignment.directory.join(record::EXIT));
        self.files = files;
        let now = clock::boot();
        self.record.ground = ground::look(pid, &assignment.directory, &start.layers);
        self.first = Some((pid, joined::pidfd(pid)?));
        output.set(&start.container.logging, &self.record.key, Dropped::default());
        self.output = Some(output);
        self.run = Run::Running { pid: pid as u32 };
        self.health = Health::new(start.container.health.as_ref(), now);
        watch.runs(pid as u32, now);
        self.watch = watch;
        self.record.ended = None;
        if start.restarts == 0 {
            self.record.died = None;
        }
        self.record.pid = Some(pid as u32);
        self.record.start_ticks = record::start_ticks(pid);
        self.record.restarts = start.restarts;
        self.record.streak = start.streak;
        self.record.flaps = start.flaps;
        self.record.started_boot = Some(now);
        self.record.started_wall = Some(clock::wall());
        self.record.hooks = Hooks::begin(&start.container);
        self.record.container = Some(start.container);
        self.sources = Some((start.layers, start.volumes));
        self.seal()?;
        Ok(pid as u32)
    }

    /// What a start needs before its first process: a payload leaf, directories, files, limits, devices.
    fn prepare(
        &mut self,
        start: &Start,
        along: Option<OwnedFd>,
    ) -> Result<(Option<Held>, Option<Nodes>, Watch), StepError> {
        let assignment = &self.record.assignment;
        let (base, host_ids) = (assignment.sandbox.id_base, assignment.sandbox.spaces.host_ids);
        let container = &start.container;
        self.payload = fresh_payload(assignment)?;
        stage::prepare(assignment, start)?;
        let files = Held::new(
            &container.files,
            base,
            (&start.contents, along),
            self.files.as_ref(),
        )?;
        if let Err(error) = self.controllers.apply(&assignment.cgroup, &container.limits) {
            // One that was missing when the sandbox was made may be there now.
            self.controllers = Controllers::find().map_err(|_| error)?;
            self.controllers.apply(&assignment.cgroup, &container.limits)?;
        }
        cgroup::devices::limit(&assignment.cgroup.join("payload"), container, host_ids)?;
        let devices = Nodes::new(&container.devices, base)?;
        let watch = Watch::begin(&self.controllers, &assignment.cgroup, &container.limits);
        Ok((files, devices, watch))
    }

    fn launch(
        &self,
        start: &Start,
        files: Option<&Held>,
        devices: Option<&Nodes>,
    ) -> Result<(i32, Output), StepError> {
        let plan = self.plan(start, files, devices);
        let (logs, lost, open) = (
            &self.record.assignment.logs,
            self.lost.clone(),
            start.container.stdin_open,
        );
        if start.container.tty {
            let (ours, theirs) = joined::terminal_sockets()?;
            let pid = launch::container(plan, Input::Terminal(theirs, None))?;
            let master = joined::take_master(&ours)?;
            let output = Output::of_terminal(logs, lost, master, open).step("hold", "the terminal")?;
            return Ok((pid, output));
        }
        let (output, stdio) = self.output(start)?;
        Ok((launch::container(plan, Input::Given(stdio))?, output))
    }

    fn plan<'a>(
        &'a self,
        start: &'a Start,
        files: Option<&'a Held>,
        devices: Option<&'a Nodes>,
    ) -> launch::Plan<'a> {
        launch::Plan {
            assignment: &self.record.assignment,
            start,
            files,
            devices,
            namespaces: &self.namespaces,
            leaf: self.leaf(),
        }
    }

    fn output(&self, start: &Start) -> Result<(Output, Stdio), StepError> {
        let assignment = &self.record.assignment;
        let (base, open) = (assignment.sandbox.id_base, start.container.stdin_open);
        Output::new(&assignment.logs, base, self.lost.clone(), open).step("make", "the output pipes")
    }

    /// The stub, where `start` would make the same. It sees the files that are generated, so they are written
    /// anew where they differ.
    fn still_fits(&self, stub: Stub, start: &Start) -> Option<Stub> {
        let written = etc::GENERATED
            .iter()
            .try_for_each(|name| etc::generate(&self.record.assignment, &start.container, name));
        if written.is_ok() && stub.fits(start) {
            return Some(stub);
        }
        stub.end();
        None
    }

    /// Makes the next run ready. What goes wrong is told by the start, which does without.
    pub fn make_stub(&mut self, now: u64) {
        self.stub_due = None;
        let next = self.next.take().or_else(|| self.again());
        self.stub = next.and_then(|start| self.try_stub(start, now).ok());
    }

    /// What ended by itself, once more.
    fn again(&self) -> Option<Start> {
        let (Run::Exited { .. }, Some(container), Some((layers, volumes))) =
            (&self.run, &self.record.container, &self.sources)
        else {
            return None;
        };
        Some(Start {
            container: container.clone(),
            layers: layers.clone(),
            volumes: volumes.clone(),
            fresh: false,
            restarts: 0,
            streak: 0,
            flaps: 0,
            contents: vec![None; container.files.len()],
        })
    }

    fn try_stub(&mut self, start: Start, now: u64) -> Result<Stub, StepError> {
        let (files, devices, watch) = self.prepare(&start, None)?;
        let looked = Stub::look(&self.record.assignment, &start)?;
        let (output, stdio) = self.output(&start)?;
        let waiting = launch::waiting(self.plan(&start, files.as_ref(), devices.as_ref()), stdio)?;
        Stub::new(start, looked, waiting, output, (files, watch), now)
    }

    pub fn end_stub(&mut self) {
        (self.stub_due, self.next) = (None, None);
        if let Some(stub) = self.stub.take() {
            stub.end();
        }
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
