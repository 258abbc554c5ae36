//! Which projects the next plan is about: those that something has happened to since the last one, and those
//! that were not at rest in it. What a plan would say of the others is known: nothing.

use std::collections::BTreeSet;

use super::{Engine, RESYNC};
use crate::{
    key::Key,
    plan::{action::Action, step::Step},
    port::Scope,
    time::Now,
};

/// What has happened since the last plan.
#[derive(Debug)]
pub(super) enum Touched {
    Everything,
    Projects(BTreeSet<String>),
}

impl Touched {
    pub fn project(&mut self, name: &str) {
        if let Touched::Projects(projects) = self {
            projects.insert(name.to_owned());
        }
    }

    pub fn key(&mut self, key: &Key) {
        match key.project() {
            Some(project) => self.project(project),
            None => *self = Touched::Everything,
        }
    }
}

impl Engine {
    /// `None`: everything.
    pub(super) fn focus(&mut self, now: Now) -> Option<BTreeSet<String>> {
        // What is remembered of them may be forgotten after this plan.
        let mut next = Touched::Projects(BTreeSet::new());
        let remembered = self.memory.failures.keys().chain(self.memory.begun.keys());
        remembered.for_each(|key| next.key(key));
        let mut touched = std::mem::replace(&mut self.touched, next);
        let plan = &self.plan;
        // Where it is known how the rules were left, damage to them is a change, and a step alone follows from
        // what else is in this list.
        let follows = |key: &Key| *key == Key::Firewall && self.memory.firewall.is_some();
        let changes = plan.changes.iter().map(|change| &change.key);
        let steps = plan.steps.iter().chain(&self.running).map(|step| &step.key);
        let keys = changes
            .chain(steps.filter(|key| !follows(key)))
            .chain(plan.waiting.iter().map(|waiting| &waiting.key))
            .chain(self.memory.failures.keys())
            .chain(self.memory.begun.keys());
        keys.for_each(|key| touched.key(key));
        let rollbacks = plan.rollbacks.iter().map(|rollback| &rollback.project);
        plan.restless
            .iter()
            .chain(rollbacks)
            .for_each(|name| touched.project(name));
        let everything = self.observed.has_unknown()
            || self.memory.firewall_due
            || now.boot >= self.planned.saturating_add(RESYNC);
        match touched {
            Touched::Projects(projects) if !everything => Some(projects),
            _ => None,
        }
    }

    /// A look at `scope` has shown that `changed` is not what it was before; `step`: the one after which it was.
    pub(super) fn touch(&mut self, scope: &Scope, changed: &BTreeSet<Key>, step: Option<&Step>) {
        if scope.all {
            self.touched = Touched::Everything;
        }
        for instance in &scope.instances {
            self.touched.project(&instance.project);
        }
        let synced = match step.map(|step| &step.action) {
            Some(Action::SyncFirewall(spec)) => self
                .observed
                .firewall
                .known()
                .is_some_and(|seen| seen.spec == *spec && seen.drift.is_empty()),
            _ => false,
        };
        for key in changed {
            match key {
                Key::Firewall if synced => {}
                Key::Image { reference, .. } => {
                    for key in self.image_keys(reference) {
                        self.touched.key(&key);
                    }
                }
                key => self.touched.key(key),
            }
        }
    }
}
