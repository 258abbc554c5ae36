//! The running agent: what is started in which order, and the loop that reads the manifests.

pub mod commands;
mod refusals;
mod served;

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use backend::layout::Layout;
use reconciler::{
    converge::{self, Outside},
    desired::Desired,
    journal::Journal,
    port::Backend,
};
use sd_notify::NotifyState;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

use crate::{
    api::{
        routes::{self, Context},
        server,
    },
    collection::{Watermarks, keep_room},
    environment, host,
    intake::{Intake, Report},
    journal::FileJournal,
    ledger::FileLedger,
    source::{
        Snapshot,
        debounce::Debounce,
        directory::{self, Directory},
        mounts,
        watch::{Hint, Watcher},
    },
};
use commands::Command;

/// How often the agent looks by itself, while everything is as it should be.
const IDLE: Duration = Duration::from_secs(300);
/// The same while a directory is not the one it was, a file stays open for writing, or an order is on
/// its way.
const UNSETTLED: Duration = Duration::from_secs(1);
/// Everything is read again without any event: what inotify did not see.
const RESCAN: Duration = Duration::from_secs(300);
/// The same where inotify cannot be had, and how often the host is looked at for what a manifest lacks.
const POLL: Duration = Duration::from_secs(5);

pub struct Options {
    pub layout: Layout,
    /// Directories of manifests beside the root's own.
    pub manifests: Vec<PathBuf>,
    /// `up PATH`: there for this run alone.
    pub foreground: Vec<PathBuf>,
    /// SIGINT and SIGTERM end the agent; `up` has its own way.
    pub signals: bool,
    /// When images are removed by themselves.
    pub watermarks: Watermarks,
}

/// How long the API waits for the first look at the host.
const FIRST_LOOK: Duration = Duration::from_secs(5);

/// Runs until it is told to end. Nothing on the host is stopped by its end. `ready` is told once the
/// API answers.
pub async fn run(options: Options, ready: tokio::sync::oneshot::Sender<()>) -> anyhow::Result<()> {
    let layout = Arc::new(options.layout);
    make_directories(&layout)?;
    let _lock = host::lock(&layout)?;
    let opened = Arc::clone(&layout);
    let host::Opened {
        backend,
        pulls,
        brought,
    } = tokio::task::spawn_blocking(move || host::open(&opened)).await??;
    let journal = Arc::new(FileJournal::open(&layout.state.join("journal.jsonl"))?);

    let (hints, hint) = mpsc::unbounded_channel();
    let mut reader = Reader::open(Arc::clone(&layout), options.manifests, options.foreground, hints)?;
    let (first, report) = reader.read();
    let ledger = FileLedger::new(&layout);
    let kept = ledger.kept()?;
    let outside = Outside {
        backend: backend.clone(),
        journal: journal.clone(),
        ledger: Arc::new(ledger),
    };
    let converging = converge::start(outside, kept, first.clone());
    reader.after_reading(&report);
    let mut looked = converging.status.clone();
    // Nobody is told of a host that was not looked at yet; one that cannot be read must still answer.
    let _ = tokio::time::timeout(FIRST_LOOK, looked.wait_for(|status| status.pass > 0)).await;

    let (report_sender, report) = watch::channel(Arc::new(report));
    let (commands, command) = mpsc::channel(16);
    let listener = server::bind(&layout.agent_socket())?;
    let context = Context {
        layout: Arc::clone(&layout),
        backend: Arc::clone(&backend),
        pulls,
        journal: Arc::clone(&journal),
        status: converging.status.clone(),
        report,
        commands,
        since: Arc::default(),
    };
    let noticing = tokio::spawn(routes::notice(context.clone()));
    let (clock, place, told) = (Arc::clone(&backend), Arc::clone(&layout), Arc::clone(&journal));
    let keeping = keep_room(place, options.watermarks, brought, told, move || clock.now());
    let keeping = tokio::spawn(keeping);
    let router = routes::router(context);
    let api = tokio::spawn(server::keep(layout.agent_socket(), listener, router));
    // Not started by systemd: nothing listens.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
    let _ = ready.send(());
    tracing::info!(root = %layout.state.display(), "the agent is ready");

    let wiring = Wiring {
        desired: Arc::new(first),
        converging,
        report: report_sender,
        signals: options.signals,
        journal: Arc::clone(&journal),
        backend,
    };
    wiring.tell_refusals(&Report::default());
    let ended = turn(reader, wiring, hint, command).await;
    let _ = sd_notify::notify(&[NotifyState::Stopping]);
    api.abort();
    noticing.abort();
    keeping.abort();
    tokio::task::block_in_place(|| journal.settle());
    // Whoever connects from now on is told at once that nobody is there.
    let _ = fs::remove_file(layout.agent_socket());
    ended
}

/// `/etc/stead/manifests`, `/var/lib/stead` and `/run/stead`, or those of the root.
fn make_directories(layout: &Layout) -> anyhow::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    for (path, mode) in [
        (&layout.manifests, 0o755),
        (&layout.state, 0o711),
        (&layout.run, 0o711),
    ] {
        let made = fs::DirBuilder::new().recursive(true).mode(mode).create(path);
        made.with_context(|| {
            format!(
                "cannot make {}; run as root, or choose another --root",
                path.display()
            )
        })?;
    }
    Ok(())
}

struct Wiring {
    desired: Arc<Desired>,
    converging: converge::Handle,
    report: watch::Sender<Arc<Report>>,
    signals: bool,
    journal: Arc<FileJournal>,
    backend: Arc<dyn Backend>,
}

/// Everything that makes the agent look at the manifests again, until a signal ends it.
async fn turn(
    mut reader: Reader,
    mut wiring: Wiring,
    mut hints: mpsc::UnboundedReceiver<Hint>,
    mut commands: mpsc::Receiver<Command>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut mounts = mounts::watch()?;
    let mut tick = tokio::time::Instant::now();
    loop {
        tick = tick.min(tokio::time::Instant::now() + reader.interval());
        let due = reader.due();
        let looking = async {
            match due {
                Some(due) => tokio::time::sleep_until(due.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv(), if wiring.signals => return Ok(()),
            _ = interrupt.recv(), if wiring.signals => return Ok(()),
            _ = hangup.recv() => {
                reader.accept();
                wiring.publish(&mut reader);
                let _ = wiring.converging.wake.send("SIGHUP".into());
            }
            ended = &mut wiring.converging.task => {
                return Err(anyhow::anyhow!("the converge loop ended ({ended:?}); start the agent again, and report this"));
            }
            hint = hints.recv() => {
                reader.hint(hint);
                while let Ok(hint) = hints.try_recv() {
                    reader.hint(Some(hint));
                }
            }
            () = looking => wiring.publish(&mut reader),
            () = tokio::time::sleep_until(tick) => {
                tick = tokio::time::Instant::now() + IDLE;
                if sd_notify::watchdog_enabled().is_some() {
                    let _ = sd_notify::notify(&[NotifyState::Watchdog]);
                }
                let status = wiring.converging.status.borrow().clone();
                reader.forget_what_is_down(&status);
                let ordered = reader.forget_what_is_started(&status, &wiring.report.borrow());
                if ordered || reader.is_stale() {
                    wiring.publish(&mut reader);
                }
            }
            Some(()) = mounts.recv() => {
                if reader.is_stale() {
                    wiring.publish(&mut reader);
                }
            }
            Some(command) = commands.recv() => wiring.obey(&mut reader, command),
        }
    }
}

impl Wiring {
    /// Reads everything again and hands over what is wanted.
    fn publish(&mut self, reader: &mut Reader) {
        let (desired, report) = tokio::task::block_in_place(|| reader.read());
        self.desired = Arc::new(desired);
        self.converging.desired.send_replace(Arc::clone(&self.desired));
        // After the decision is on its way: disk writes wait for nobody, and nobody for them.
        tokio::task::block_in_place(|| reader.after_reading(&report));
        let before = self.report.send_replace(Arc::new(report));
        self.tell_refusals(&before);
        self.journal.prune();
    }

    /// Errors of manifests that were not there before.
    fn tell_refusals(&self, before: &Report) {
        let report = self.report.borrow();
        for entry in refusals::of_manifests(before, &report, self.backend.now()) {
            self.journal.record(entry);
        }
    }

    /// A reply that nobody waits for any more is no loss.
    fn obey(&mut self, reader: &mut Reader, command: Command) {
        let report = self.report.borrow().clone();
        if matches!(command, Command::Look { .. } | Command::Apply { .. }) {
            reader.intake.set_abilities(host::abilities());
        }
        match command {
            Command::Look { paths, reply } => {
                let looked =
                    tokio::task::block_in_place(|| commands::look(&reader.intake, &self.desired, &paths));
                let _ = reply.send(looked);
            }
            Command::Apply { paths, reply } => {
                let applied = commands::apply(&mut reader.intake, &reader.layout, &report, &paths);
                self.publish(reader);
                // What failed is tried now, and tags are asked for, also where nothing has changed.
                let _ = self.converging.wake.send("apply".into());
                let _ = reply.send(applied);
            }
            Command::Down {
                projects,
                volumes,
                reply,
            } => {
                let done = commands::down(&mut reader.intake, &reader.layout, &report, &projects, volumes);
                self.publish(reader);
                let _ = reply.send(done);
            }
            Command::Order {
                order,
                targets,
                reply,
            } => {
                let observed = Arc::clone(&self.converging.status.borrow().observed);
                let at = self.backend.now();
                let given = commands::order(&mut reader.intake, &report, order, &targets, &observed, at);
                self.publish(reader);
                let _ = reply.send(given);
            }
            Command::End { projects, reply } => {
                projects.iter().for_each(|project| reader.intake.end(project));
                self.publish(reader);
                let _ = reply.send(Ok(()));
            }
        }
    }
}

/// Sources and intake together: what is read, when, and what became of it.
struct Reader {
    layout: Arc<Layout>,
    directories: Vec<Directory>,
    foreground: Vec<PathBuf>,
    intake: Intake,
    watcher: Watcher,
    /// Open for writing somewhere, not to be read yet.
    writing: BTreeSet<PathBuf>,
    debounce: Debounce,
    incomplete: Option<String>,
    start: Instant,
    read_at: Instant,
}

impl Reader {
    fn open(
        layout: Arc<Layout>,
        manifests: Vec<PathBuf>,
        foreground: Vec<PathBuf>,
        hints: mpsc::UnboundedSender<Hint>,
    ) -> anyhow::Result<Self> {
        let mut process = std::collections::BTreeMap::new();
        if !foreground.is_empty() {
            process = environment::of_process();
        }
        let intake = Intake::open(&layout, environment::of(&layout)?, process)?;
        let mut directories: BTreeSet<PathBuf> = [layout.manifests.clone()].into();
        for path in manifests {
            directories.insert(std::path::absolute(path)?);
        }
        Ok(Reader {
            layout,
            directories: directories.into_iter().map(Directory::new).collect(),
            foreground,
            intake,
            watcher: Watcher::start(hints),
            writing: BTreeSet::new(),
            debounce: Debounce::default(),
            incomplete: None,
            start: Instant::now(),
            read_at: Instant::now(),
        })
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn hint(&mut self, hint: Option<Hint>) {
        let now = self.now();
        match hint {
            Some(Hint::Complete(path)) => {
                self.writing.remove(&path);
                self.debounce.event(true, now);
            }
            Some(Hint::Writing(path)) => {
                self.writing.insert(path);
                self.debounce.event(false, now);
            }
            Some(Hint::Other) | None => self.debounce.event(false, now),
        }
    }

    /// When to read again.
    fn due(&self) -> Option<Instant> {
        let event = self
            .debounce
            .due()
            .map(|at| self.start + Duration::from_millis(at));
        // A file that stays open is read when it was the same twice.
        let written = (!self.writing.is_empty()).then(|| self.read_at + UNSETTLED);
        event.into_iter().chain(written).min()
    }

    /// How long nothing needs to be looked at without an event.
    fn interval(&self) -> Duration {
        let unsettled = self.directories.iter().any(|directory| !directory.is_the_same());
        let broken = self.watcher.broken().is_some();
        [
            sd_notify::watchdog_enabled().map(|patience| patience / 2),
            (unsettled || self.owes()).then_some(UNSETTLED),
            (broken || self.intake.wants_more()).then_some(POLL),
        ]
        .into_iter()
        .flatten()
        .fold(IDLE, Duration::min)
    }

    /// Reading is due without any event.
    fn is_stale(&self) -> bool {
        let every = if self.watcher.broken().is_some() {
            POLL
        } else {
            RESCAN
        };
        self.read_at.elapsed() >= every
            || self.directories.iter().any(|directory| !directory.is_the_same())
            || self.intake.would_gain(host::abilities)
    }

    /// SIGHUP: what is there now is right, also where it replaced something.
    fn accept(&mut self) {
        self.directories.iter_mut().for_each(Directory::accept);
        match environment::of(&self.layout) {
            Ok(environment) => self.intake.set_environment(environment),
            Err(error) => tracing::error!(error = format!("{error:#}"), "the environment stays as it was"),
        }
    }

    fn read(&mut self) -> (Desired, Report) {
        let now = self.now();
        self.debounce.looked(now);
        self.read_at = Instant::now();
        let mut snapshot = Snapshot::default();
        for directory in &mut self.directories {
            directory.scan(&mut snapshot);
        }
        for path in &self.foreground {
            self.add_foreground(path, &mut snapshot);
        }
        self.intake.set_abilities(host::abilities());
        self.intake.take(&snapshot, &mut self.writing)
    }

    /// What `up` was given; where a directory has it already, that one counts.
    fn add_foreground(&self, path: &PathBuf, snapshot: &mut Snapshot) {
        let candidates = match directory::at(path) {
            Ok(candidates) => candidates,
            Err(error) => {
                snapshot.unknown.insert(
                    path.clone(),
                    format!("{} cannot be read: {error}", path.display()),
                );
                return;
            }
        };
        for mut candidate in candidates {
            candidate.foreground = true;
            // Kept under one origin, so that a path that cannot be read keeps what came from it.
            candidate.origin.clone_from(path);
            let known =
                |other: &&mut crate::source::Candidate| other.files.first() == candidate.files.first();
            match snapshot.candidates.iter_mut().find(known) {
                Some(other) => other.foreground = true,
                None => snapshot.candidates.push(candidate),
            }
        }
    }

    fn after_reading(&mut self, report: &Report) {
        self.intake.save();
        let directories = self
            .directories
            .iter()
            .map(|directory| directory.path.clone())
            .collect();
        self.watcher.follow(directories, report.inputs.clone());
        if let Some(why) = self.watcher.broken() {
            tracing::warn!(
                why,
                "inotify does not see everything, so the manifests are polled every 5 s; raise fs.inotify.max_user_watches or max_user_instances"
            );
        }
        // Said when it begins, not at each of the readings that follow every second.
        let before = std::mem::replace(&mut self.incomplete, report.incomplete.clone());
        if let Some(why) = report
            .incomplete
            .as_ref()
            .filter(|why| before.as_ref() != Some(*why))
        {
            tracing::error!(
                why,
                "nothing is removed until this directory is back, or accepted with SIGHUP"
            );
        }
        tracing::debug!(
            reading = report.reading,
            projects = report.projects.len(),
            "read the manifests"
        );
    }
}

/// Whether this process may run containers at all; otherwise what to type instead.
pub fn demand_root(again: &str) -> anyhow::Result<()> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    Err(anyhow::anyhow!(
        "this needs root, to see and to run containers; run it as `{again}`"
    ))
}
