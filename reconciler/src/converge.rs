//! The loop: wait, observe, plan, execute, publish.
//!
//! One task owns everything it decides on. What blocks (looks and steps) runs elsewhere and reports
//! back; each report, event, timer and request is only a reason to go round once more. The plan is made
//! anew each time, from what is known then, and what it lets start at once is started.

mod engine;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    desired::Desired,
    execute::{self, Report},
    journal::Journal,
    port::{Backend, HostEvent, Ledger, Scope},
    status::Status,
    time::Now,
};
pub use engine::{Engine, Kept, Note, Round};

/// Two ends for the rest of the program.
pub struct Handle {
    /// Send a new value to change what is wanted.
    pub desired: watch::Sender<Arc<Desired>>,
    pub status: watch::Receiver<Arc<Status>>,
    /// Wakes the loop for a full look at the host; the text is the logged reason.
    pub wake: mpsc::UnboundedSender<String>,
    pub task: tokio::task::JoinHandle<()>,
}

/// Why the loop went round. For the log; nothing depends on it.
enum Wake {
    Desired,
    Event(HostEvent),
    Report(Box<Report>),
    Asked(String),
    Timer,
}

/// How much longer than a round the loop waits before the next, while steps are under way.
const BREATH: u32 = 3;

/// What the loop acts through.
#[derive(Clone)]
pub struct Outside {
    pub backend: Arc<dyn Backend>,
    pub journal: Arc<dyn Journal>,
    pub ledger: Arc<dyn Ledger>,
}

/// Starts the loop. It ends when `Handle::desired` is dropped; nothing on the host is stopped by that.
pub fn start(outside: Outside, kept: Kept, first: Desired) -> Handle {
    let first = Arc::new(first);
    let (desired, desired_end) = watch::channel(first.clone());
    let (reports, reports_end) = mpsc::unbounded_channel();
    let (wake, wake_end) = mpsc::unbounded_channel();
    let events = outside.backend.events();
    let engine = Engine::new(first, kept);
    let unseen = Status::before_the_first_look(outside.backend.now());
    let (status, status_end) = watch::channel(Arc::new(unseen));
    let inputs = Inputs {
        desired: desired_end,
        events: Some(events),
        reports: reports_end,
        wake: wake_end,
    };
    let outputs = Outputs {
        outside,
        reports,
        status,
    };
    Handle {
        desired,
        status: status_end,
        wake,
        task: tokio::spawn(run(engine, inputs, outputs)),
    }
}

struct Outputs {
    outside: Outside,
    reports: mpsc::UnboundedSender<Report>,
    status: watch::Sender<Arc<Status>>,
}

impl Outputs {
    fn now(&self) -> Now {
        self.outside.backend.now()
    }

    /// One round: what it decides is kept, told, carried out and shown.
    fn go_round(&self, engine: &mut Engine) {
        let round = engine.round(self.now());
        for note in &round.notes {
            match note {
                Note::Good { project, good } => self.outside.ledger.good(project, good),
                Note::Barred { project, barred } => self.outside.ledger.barred(project, barred.as_ref()),
            }
        }
        for entry in round.entries {
            self.outside.journal.record(entry);
        }
        for order in round.orders {
            execute::start(&self.outside.backend, &self.reports, order);
        }
        self.status.send_replace(round.status);
    }
}

struct Inputs {
    desired: watch::Receiver<Arc<Desired>>,
    /// `None`: the host has stopped telling.
    events: Option<mpsc::UnboundedReceiver<HostEvent>>,
    reports: mpsc::UnboundedReceiver<Report>,
    wake: mpsc::UnboundedReceiver<String>,
}

async fn run(mut engine: Engine, mut inputs: Inputs, outputs: Outputs) {
    engine.look(Scope::all());
    outputs.go_round(&mut engine);
    while let Some(wake) = inputs.next(engine.timer(outputs.now())).await {
        take(&mut engine, &mut inputs, wake, outputs.now());
        // What has come in meanwhile is part of the same round.
        while let Some(wake) = inputs.try_next() {
            take(&mut engine, &mut inputs, wake, outputs.now());
        }
        let begun = Instant::now();
        outputs.go_round(&mut engine);
        // Planning costs the more the more there is, and what is under way needs the processor, too: what ends in the
        // meantime is planned for at once.
        if engine.is_busy() {
            tokio::time::sleep(begun.elapsed() * BREATH).await;
        }
    }
}

fn take(engine: &mut Engine, inputs: &mut Inputs, wake: Wake, now: Now) {
    match wake {
        Wake::Desired => {
            let desired = inputs.desired.borrow_and_update().clone();
            tracing::debug!(reason = "desired", projects = desired.projects.len(), "wake");
            engine.desire(desired);
        }
        Wake::Event(event) => {
            tracing::debug!(reason = "event", ?event, "wake");
            engine.event(event);
        }
        Wake::Report(report) => engine.report(*report, now),
        Wake::Asked(reason) => {
            tracing::debug!(reason, "wake");
            engine.asked();
        }
        Wake::Timer => {
            tracing::debug!(reason = "timer", "wake");
            engine.timeout(now);
        }
    }
}

impl Inputs {
    /// The next reason; `None`: nobody can change what is wanted any more.
    async fn next(&mut self, timer: Duration) -> Option<Wake> {
        loop {
            return tokio::select! {
                changed = self.desired.changed() => changed.ok().map(|()| Wake::Desired),
                Some(report) = self.reports.recv() => Some(Wake::Report(Box::new(report))),
                event = next_event(&mut self.events) => match event {
                    Some(event) => Some(Wake::Event(event)),
                    None => {
                        tracing::warn!("the host sends no events any more; changes are found by looking");
                        self.events = None;
                        continue;
                    }
                },
                Some(reason) = self.wake.recv() => Some(Wake::Asked(reason)),
                () = tokio::time::sleep_until(Instant::now() + timer) => Some(Wake::Timer),
            };
        }
    }

    fn try_next(&mut self) -> Option<Wake> {
        if self.desired.has_changed().unwrap_or(false) {
            return Some(Wake::Desired);
        }
        if let Ok(report) = self.reports.try_recv() {
            return Some(Wake::Report(Box::new(report)));
        }
        if let Some(Ok(event)) = self.events.as_mut().map(mpsc::UnboundedReceiver::try_recv) {
            return Some(Wake::Event(event));
        }
        self.wake.try_recv().ok().map(Wake::Asked)
    }
}

async fn next_event(events: &mut Option<mpsc::UnboundedReceiver<HostEvent>>) -> Option<HostEvent> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}
