//! Carries out steps: each on a blocking thread, followed by a look at what it touched.

use std::sync::Arc;

use tokio::sync::mpsc;

use crate::{
    key::Key,
    observed::Observed,
    plan::{action::Action, step::Step},
    port::{ActionError, Backend, Retry, Scope},
};

/// How many steps of a kind run at once. Stops mostly wait for processes; unpacking fills the disk, or
/// waits for a source that may stall, and another image is not to wait for that one.
const STOPS: usize = 64;
const UNPACKS: usize = 8;
const OTHERS: usize = 16;

/// Steps that share a limit, so that slow ones delay only their like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    Stop,
    Unpack,
    Other,
}

impl Lane {
    pub fn of(action: &Action) -> Lane {
        match action {
            Action::StopContainer { .. } | Action::RemoveSandbox(_) => Lane::Stop,
            Action::UnpackImage { .. } | Action::PinImage { .. } => Lane::Unpack,
            _ => Lane::Other,
        }
    }

    pub fn width(self) -> usize {
        match self {
            Lane::Stop => STOPS,
            Lane::Unpack => UNPACKS,
            Lane::Other => OTHERS,
        }
    }
}

/// What a round wants carried out.
pub enum Order {
    /// `before`: what is known of the step's key; `scope`: where to look afterwards; `next`: the action on the same key
    /// that waits for this one.
    Step {
        step: Box<Step>,
        next: Option<Box<Action>>,
        scope: Scope,
        before: Box<Observed>,
    },
    Look {
        scope: Scope,
        before: Box<Observed>,
    },
}

/// What blocking threads report.
pub enum Report {
    Step {
        key: Key,
        result: Result<(), ActionError>,
        scope: Scope,
        seen: Box<Observed>,
    },
    Look {
        scope: Scope,
        seen: Box<Observed>,
    },
}

#[derive(Debug, thiserror::Error)]
#[error("the action on {key} broke off inside stead; please report this")]
struct Broken {
    key: Key,
    #[source]
    source: tokio::task::JoinError,
}

/// Starts what was ordered; its end is a report.
pub fn start(backend: &Arc<dyn Backend>, reports: &mpsc::UnboundedSender<Report>, order: Order) {
    match order {
        Order::Step {
            step,
            next,
            scope,
            before,
        } => self::step(backend, reports, (*step, next), scope, *before),
        Order::Look { scope, before } => look(backend, reports, scope, *before),
    }
}

fn step(
    backend: &Arc<dyn Backend>,
    reports: &mpsc::UnboundedSender<Report>,
    (step, next): (Step, Option<Box<Action>>),
    scope: Scope,
    before: Observed,
) {
    let (backend, reports) = (backend.clone(), reports.clone());
    let (key, action) = (step.key, step.action);
    tokio::spawn(async move {
        let (mut seen, looked) = (before.clone(), scope.clone());
        let work = tokio::task::spawn_blocking(move || {
            let result = match &next {
                Some(next) => backend.apply_before(&action, next),
                None => backend.apply(&action),
            };
            backend.observe(&looked, &mut seen);
            (result, seen)
        });
        let (result, seen) = work.await.unwrap_or_else(|source| {
            let broken = Broken {
                key: key.clone(),
                source,
            };
            let error = ActionError {
                retry: Retry::Again,
                field: None,
                source: Arc::new(broken),
            };
            (Err(error), before)
        });
        // Nobody listens any more: the loop has ended.
        let _ = reports.send(Report::Step {
            key,
            result,
            scope,
            seen: Box::new(seen),
        });
    });
}

fn look(backend: &Arc<dyn Backend>, reports: &mpsc::UnboundedSender<Report>, scope: Scope, before: Observed) {
    let (backend, reports) = (backend.clone(), reports.clone());
    tokio::spawn(async move {
        let (mut seen, looked) = (before.clone(), scope.clone());
        let work = tokio::task::spawn_blocking(move || {
            backend.observe(&looked, &mut seen);
            seen
        });
        let seen = work.await.unwrap_or(before);
        let _ = reports.send(Report::Look {
            scope,
            seen: Box::new(seen),
        });
    });
}
