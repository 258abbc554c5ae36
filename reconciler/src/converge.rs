//! The loop: wait, observe, plan, execute, publish.
//!
//! One task owns everything it decides on. What blocks (looks and steps) runs elsewhere and reports
//! back; each report, event, timer and request is only a reason to go round once more. The plan is made
//! anew each time, from what is known then, and what it lets start at once is started.

mod state;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use crate::{
    desired::Desired,
    execute::Report,
    journal::Journal,
    port::{Backend, HostEvent, Scope},
    status::Status,
};
use state::Loop;

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

/// Starts the loop. It ends when `Handle::desired` is dropped; nothing on the host is stopped by that.
pub fn start(backend: Arc<dyn Backend>, journal: Arc<dyn Journal>, first: Desired) -> Handle {
    let first = Arc::new(first);
    let (desired, desired_end) = watch::channel(first.clone());
    let (reports, reports_end) = mpsc::unbounded_channel();
    let (wake, wake_end) = mpsc::unbounded_channel();
    let events = backend.events();
    let (state, status) = Loop::new(backend, journal, first, reports);
    let inputs = Inputs {
        desired: desired_end,
        events: Some(events),
        reports: reports_end,
        wake: wake_end,
    };
    Handle {
        desired,
        status,
        wake,
        task: tokio::spawn(run(state, inputs)),
    }
}

struct Inputs {
    desired: watch::Receiver<Arc<Desired>>,
    /// `None`: the host has stopped telling.
    events: Option<mpsc::UnboundedReceiver<HostEvent>>,
    reports: mpsc::UnboundedReceiver<Report>,
    wake: mpsc::UnboundedReceiver<String>,
}

async fn run(mut state: Loop, mut inputs: Inputs) {
    state.look(Scope::all());
    state.go_round();
    while let Some(wake) = inputs.next(state.timer()).await {
        take(&mut state, &mut inputs, wake);
        // What has come in meanwhile is part of the same round.
        while let Some(wake) = inputs.try_next() {
            take(&mut state, &mut inputs, wake);
        }
        state.go_round();
    }
}

fn take(state: &mut Loop, inputs: &mut Inputs, wake: Wake) {
    match wake {
        Wake::Desired => {
            let desired = inputs.desired.borrow_and_update().clone();
            tracing::debug!(reason = "desired", projects = desired.projects.len(), "wake");
            state.desire(desired);
        }
        Wake::Event(event) => {
            tracing::debug!(reason = "event", ?event, "wake");
            state.event(event);
        }
        Wake::Report(report) => state.report(*report),
        Wake::Asked(reason) => {
            tracing::debug!(reason, "wake");
            state.asked();
        }
        Wake::Timer => {
            tracing::debug!(reason = "timer", "wake");
            state.timeout();
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
