//! A host of whom everything that is ordered is written down.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use super::Hands;
use crate::{
    key::InstanceKey,
    observed::Observed,
    plan::action::Action,
    port::{ActionError, Backend, HostEvent, Scope},
    spec::{ContainerSpec, SandboxSpec},
    time::Now,
};

pub struct Witness<H> {
    pub hands: H,
    /// Every order is given twice.
    pub twice: bool,
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    said: String,
    failures: u32,
    ordered: Ordered,
}

/// What each sandbox was last made to be.
#[derive(Debug, Clone, Default)]
pub struct Ordered {
    pub sandboxes: BTreeMap<InstanceKey, SandboxSpec>,
    pub containers: BTreeMap<InstanceKey, ContainerSpec>,
}

impl<H> Witness<H> {
    pub fn new(hands: H) -> Self {
        Witness {
            hands,
            twice: false,
            notes: Mutex::default(),
        }
    }

    pub fn say(&self, text: &str) {
        self.notes().said.push_str(text);
    }

    /// What was said since the last call.
    pub fn said(&self) -> String {
        std::mem::take(&mut self.notes().said)
    }

    pub fn failures(&self) -> u32 {
        self.notes().failures
    }

    pub fn ordered(&self) -> Ordered {
        self.notes().ordered.clone()
    }

    fn everything(&self) -> Observed
    where
        H: Backend,
    {
        let mut observed = Observed::nothing_known();
        self.hands.observe(&Scope::all(), &mut observed);
        observed
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<H: Hands> Backend for Witness<H> {
    fn observe(&self, scope: &Scope, observed: &mut Observed) {
        self.hands.observe(scope, observed);
    }

    fn apply(&self, action: &Action) -> Result<(), ActionError> {
        let outcome = self.hands.apply(action);
        let mut notes = self.notes();
        let _ = writeln!(notes.said, "> {}{}", words(action), ending(&outcome));
        if outcome.is_err() {
            notes.failures += 1;
            return outcome;
        }
        notes.ordered.note(action);
        // What runs is not started again.
        if self.twice && !matches!(action, Action::StartContainer { .. }) {
            let before = self.everything();
            let again = self.hands.apply(action);
            if again.is_err() {
                let _ = writeln!(notes.said, "> again{}", ending(&again));
            }
            if self.everything() != before {
                let _ = writeln!(notes.said, "> again changes something");
            }
        }
        outcome
    }

    fn events(&self) -> mpsc::UnboundedReceiver<HostEvent> {
        self.hands.events()
    }

    fn now(&self) -> Now {
        self.hands.now()
    }
}

impl Ordered {
    fn note(&mut self, action: &Action) {
        match action {
            Action::EnsureSandbox(spec) => {
                self.sandboxes.insert(spec.key.clone(), spec.clone());
            }
            Action::StartContainer { key, spec, .. } | Action::UpdateContainer { key, spec } => {
                self.containers.insert(key.clone(), (**spec).clone());
            }
            Action::RemoveSandbox(key) => {
                self.sandboxes.remove(key);
                self.containers.remove(key);
            }
            _ => {}
        }
    }
}

fn ending(outcome: &Result<(), ActionError>) -> String {
    match outcome {
        Ok(()) => String::new(),
        Err(error) => {
            let field = error.field.map(|field| format!(", for its {field}"));
            format!(" fails ({:?}{})", error.retry, field.unwrap_or_default())
        }
    }
}

fn words(action: &Action) -> String {
    match action {
        Action::UnpackImage { reference, .. } => format!("unpack {reference}"),
        Action::PinImage { reference, .. } => format!("pin {reference}"),
        Action::EnsureNetwork(spec) => format!("ensure network {}", spec.key),
        Action::RemoveNetwork(key) => format!("remove network {key}"),
        Action::EnsureVolume(spec) => format!("ensure volume {}", spec.key),
        Action::RemoveVolume(key) => format!("remove volume {key}"),
        Action::EnsureSandbox(spec) => format!("ensure sandbox {}", spec.key),
        Action::RemoveSandbox(key) => format!("remove sandbox {key}"),
        Action::StartContainer { key, fresh, .. } => {
            let how = if *fresh { " afresh" } else { "" };
            format!("start {key}{how}")
        }
        Action::StopContainer { key, drain: 0 } => format!("stop {key}"),
        Action::StopContainer { key, drain } => format!("drain {key} for {drain} ms, stop it"),
        Action::UpdateContainer { key, .. } => format!("update {key}"),
        Action::SyncFirewall(_) => "sync the firewall".to_owned(),
        Action::SyncNames { network, .. } => format!("sync the names of {network}"),
    }
}
