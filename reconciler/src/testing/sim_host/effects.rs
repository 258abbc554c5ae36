//! What each action does to the simulated host: a row of mutations, between which the agent may die and
//! others have their turn, and the orders that no correct plan gives.

mod container;
mod network;
mod sandbox;
mod storage;

pub(super) use sandbox::clash;

use super::{SimError, World, disk, error, subject, world::touch};
use crate::{
    key::Key,
    plan::action::Action,
    port::{ActionError, Retry},
    spec::Endpoint,
    time::Now,
};

/// Milliseconds that killed processes may take to end before it is reported.
const KILL_PATIENCE: u64 = 5_000;

/// An action that was begun. Dropped half way, it is what a killed agent leaves behind.
#[derive(Debug, Clone)]
pub struct Work {
    pub action: Action,
    /// Waits are over at once.
    pub impatient: bool,
    stage: u8,
    /// What the present wait is for.
    until: Option<u64>,
    /// Identity of a volume under way.
    number: u64,
    /// Interfaces that the sandbox shall not have any more.
    leaving: Vec<Endpoint>,
    /// What is removed is the whole instance, not only what was left of its sandbox.
    whole: bool,
}

/// How far one call of [`World::advance`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// One mutation was made.
    Moved,
    /// Nothing more before this moment (boot-clock milliseconds), unless something else happens.
    Until(u64),
    Done,
}

/// What one stage came to.
enum Next {
    /// Nothing was to be done: on with that stage.
    To(u8),
    /// One mutation: the next call goes on with that stage.
    Did(u8),
    Wait(u64),
    End,
}

impl World {
    /// An action arrives. It fails at once where a failure was asked for.
    ///
    /// # Errors
    /// What [`World::failing`] says.
    pub fn begin(&mut self, action: Action) -> Result<Work, ActionError> {
        self.steps += 1;
        if !self.failing.is_empty() {
            let subject = subject(&action);
            if let Some((left, retry)) = self.failing.get_mut(&subject)
                && *left > 0
            {
                *left -= 1;
                return Err(error(*retry, SimError::Asked(subject)));
            }
        }
        self.under_way += 1;
        Ok(Work {
            action,
            impatient: false,
            stage: 0,
            until: None,
            number: 0,
            leaving: Vec::new(),
            whole: false,
        })
    }

    /// The next mutation of an action.
    ///
    /// # Errors
    /// What the real host would refuse, or that the agent is dead.
    pub fn advance(&mut self, work: &mut Work, now: Now) -> Result<Progress, ActionError> {
        let progress = self.next(work, now);
        if matches!(progress, Ok(Progress::Done) | Err(_)) {
            self.under_way = self.under_way.saturating_sub(1);
        }
        progress
    }

    fn next(&mut self, work: &mut Work, now: Now) -> Result<Progress, ActionError> {
        loop {
            if self.dies_after == Some(0) {
                return Err(error(Retry::Again, SimError::Asked("the agent".to_owned())));
            }
            match self.stage(work, now)? {
                Next::To(stage) => work.stage = stage,
                Next::Did(stage) => {
                    work.stage = stage;
                    if let Some(left) = &mut self.dies_after {
                        *left -= 1;
                    }
                    return Ok(Progress::Moved);
                }
                Next::Wait(until) => return Ok(Progress::Until(until)),
                Next::End => {
                    if self.keeps_history {
                        self.done.push(work.action.clone());
                    }
                    return Ok(Progress::Done);
                }
            }
        }
    }

    fn stage(&mut self, work: &mut Work, now: Now) -> Result<Next, ActionError> {
        // Taken out for the time being, so that the work can be changed beside it.
        let placeholder = Action::SyncFirewall(crate::spec::FirewallSpec::default());
        let action = std::mem::replace(&mut work.action, placeholder);
        let next = match &action {
            Action::UnpackImage {
                reference,
                digest,
                latest,
            } => self.unpack(reference, digest, *latest, work),
            Action::PinImage { reference, digest } => self.unpack(reference, digest, false, work),
            Action::EnsureNetwork(spec) => self.ensure_network(spec, work),
            Action::RemoveNetwork(key) => self.remove_network(key, work),
            Action::EnsureVolume(spec) => self.ensure_volume(&spec.key, work),
            Action::RemoveVolume(key) => self.remove_volume(key, work),
            Action::EnsureSandbox(spec) => self.ensure_sandbox(spec, work),
            Action::RemoveSandbox(key) => self.remove_sandbox(key, work, now),
            Action::StartContainer {
                key,
                spec,
                fresh,
                restarts,
                streak,
                flaps,
            } => {
                let start = container::Start {
                    spec,
                    fresh: *fresh,
                    restarts: *restarts,
                    streak: *streak,
                    flaps: *flaps,
                };
                self.start(key, &start, work, now)
            }
            Action::StopContainer { key, drain } => self.stop(key, *drain, work, now),
            Action::UpdateContainer { key, spec } => self.update(key, spec, work),
            Action::SyncFirewall(spec) => self.sync_firewall(spec, work),
            Action::SyncNames { network, zone } => self.sync_names(network, zone.as_ref(), work),
        };
        work.action = action;
        next
    }

    /// An order that no correct plan gives is a violation, and fails.
    fn need(&mut self, there: bool, what: &Key, needs: &str) -> Result<(), ActionError> {
        if there {
            return Ok(());
        }
        let order = SimError::Order {
            what: what.to_string(),
            needs: needs.to_owned(),
        };
        self.violations.push(order.to_string());
        Err(error(Retry::Again, order))
    }

    /// A wait for something that ends at `until` at the latest. True: it is over.
    fn waited(work: &mut Work, now: Now, milliseconds: u64) -> Result<(), Next> {
        let until = *work.until.get_or_insert(now.boot.saturating_add(milliseconds));
        if work.impatient || now.boot >= until {
            work.until = None;
            work.impatient = false;
            Ok(())
        } else {
            Err(Next::Wait(until))
        }
    }

    /// One system call of writing a record; `base`: the stage at which the writing begins. `put`
    /// returns false where the record says the same already.
    fn record(
        &mut self,
        base: u8,
        stage: u8,
        put: impl FnOnce(&mut World, u8) -> bool,
    ) -> Result<Next, ActionError> {
        if stage == base + disk::WRITE && self.disk_full {
            // A record that says the same is not written, and needs no room.
            return if put(self, disk::SAME) {
                Err(error(Retry::Again, SimError::DiskFull))
            } else {
                Ok(Next::To(base + disk::STAGES))
            };
        }
        if put(self, stage - base) {
            self.moved(touch::RECORDS);
            Ok(Next::Did(stage + 1))
        } else {
            Ok(Next::To(base + disk::STAGES))
        }
    }
}
