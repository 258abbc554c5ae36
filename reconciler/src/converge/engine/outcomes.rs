//! What comes back to the loop: looks and steps that have ended, and what is learnt from them.

use std::{collections::BTreeSet, sync::Arc};

use super::{ECHO_WINDOW, ECHOES, Engine, RAREST, RESYNC, images::with_instances};
use crate::{
    backoff,
    execute::Report,
    journal::{Entry, Kind, transitions},
    key::{InstanceKey, Key},
    memory::{Again, Failed},
    observed::{Fact, Observed},
    plan::{action::Action, step::Step, volumes},
    port::{ActionError, Retry, Scope},
    pull,
    time::Now,
};

impl Engine {
    /// Steps are under way.
    pub fn is_busy(&self) -> bool {
        !self.running.is_empty()
    }

    pub fn report(&mut self, report: Report, now: Now) {
        match report {
            Report::Look { scope, seen } => {
                match self.ends_at_images(&scope) {
                    Some(true) => return self.look(scope),
                    Some(false) => {
                        self.put(*seen, &scope, &BTreeSet::new(), None, now);
                        self.answered(&scope, now);
                        return;
                    }
                    None => {}
                }
                let touched = self.looking.take().unwrap_or_default();
                self.asked &= 2;
                let passed_over = match planted!("stale-look") {
                    true => BTreeSet::new(),
                    false => touched.clone(),
                };
                self.calm = self.calm.saturating_add(u32::from(scope.all));
                let events = self.put(*seen, &scope, &passed_over, None, now);
                self.entries.extend(events);
                if scope.all {
                    let unknown = self.observed.has_unknown();
                    self.blind = if unknown { self.blind.saturating_add(1) } else { 0 };
                    let delay = match self.blind {
                        0 if planted!("resync-never") => u64::MAX / 2,
                        0 => (RESYNC << self.calm.saturating_sub(1).min(8)).min(RAREST),
                        tries => backoff::delay("look", tries),
                    };
                    self.resync = now.boot.saturating_add(delay);
                }
                // What an action touched meanwhile was not taken over.
                let mut missed = scope;
                let everything = missed.all;
                for key in touched {
                    if planted!("missed-not-looked-at") {
                        break;
                    }
                    if everything {
                        let again = Scope::key(&key);
                        self.look(match self.observed.needs_all(&again) {
                            true => Scope::all(),
                            false => again,
                        });
                    } else {
                        let again = missed.without(&BTreeSet::from([key]));
                        self.look(again);
                    }
                }
            }
            Report::Step {
                key,
                result,
                scope,
                seen,
            } => {
                let Some(index) = self.running.iter().position(|step| step.key == key) else {
                    return;
                };
                let step = self.running.remove(index);
                self.stale = true;
                if step.key != Key::Firewall || result.is_err() {
                    self.touched.key(&step.key);
                }
                self.images.touch(&key);
                if let Some(touched) = &mut self.looking {
                    touched.insert(key);
                }
                let events = self.put(*seen, &scope, &BTreeSet::new(), Some(&step), now);
                if self.observed.needs_all(&scope) {
                    self.look(Scope::all());
                }
                self.ended(step, result, now);
                self.entries.extend(events);
            }
        }
    }

    /// Takes over what was seen; what has happened meanwhile. `step`: the one after which it was looked.
    pub(super) fn put(
        &mut self,
        seen: Observed,
        scope: &Scope,
        busy: &BTreeSet<Key>,
        step: Option<&Step>,
        now: Now,
    ) -> Vec<Entry> {
        let mut events = Vec::new();
        if step.is_some() || !self.observed.shows(&seen, scope) {
            self.stale = true;
            let before = transitions::before(&self.observed, scope);
            let changed = Arc::make_mut(&mut self.observed).put(seen, scope, busy);
            events = transitions::events(&before, &self.observed, step, now);
            self.touch(scope, &changed, step);
            if !changed.is_empty() {
                self.calm = 0;
                self.resync = self.resync.min(now.boot.saturating_add(RESYNC));
            }
            for key in &changed {
                match key {
                    Key::Image { reference, .. } => {
                        for key in self.image_keys(reference) {
                            self.memory.succeed(&key);
                        }
                    }
                    key => self.memory.changed(key),
                }
            }
        }
        if self.observed.has_unknown() && self.blind == 0 {
            self.resync = self.resync.min(now.boot.saturating_add(backoff::FIRST));
        }
        for reference in scope.images.keys() {
            if let Some(Fact::Unknown(why)) = self.observed.images.get(reference) {
                let why = why.clone();
                for key in self.image_keys(reference) {
                    self.memory.fail(key, why.clone(), Retry::Again, now);
                    self.stale = true;
                }
            }
        }
        events
    }

    /// The keys under which projects want `reference`.
    pub(super) fn image_keys(&self, reference: &str) -> Vec<Key> {
        let mut keys = Vec::new();
        for (name, wish) in &self.desired.projects {
            let project = self.memory.effective(name, wish);
            if project
                .into_iter()
                .flat_map(with_instances)
                .any(|service| service.image == reference)
            {
                keys.push(Key::Image {
                    project: name.clone(),
                    reference: reference.to_owned(),
                });
            }
        }
        keys
    }

    pub(super) fn ended(&mut self, step: Step, result: Result<(), ActionError>, now: Now) {
        let mut entry = self.told.ended(&step, now);
        let outdated = self.outdated.remove(&step.key);
        match result {
            Err(error) => {
                let message = chain(&error);
                tracing::warn!(key = %step.key, error = message, "a step failed");
                entry.kind = Kind::Failed;
                entry.error = Some(message.clone());
                self.entries.push(entry);
                if planted!("error-forgets-the-start") {
                    return self.memory.done(&step);
                }
                if outdated && !planted!("outdated-failure-counts") {
                    return;
                }
                // That an image or a volume is there again is not told: it is asked for.
                let retry = match (error.field, error.retry) {
                    (Some("image" | "volumes"), Retry::AfterChange) => Retry::Again,
                    (_, retry) => retry,
                };
                if let (Key::Instance(key), Some("image")) = (&step.key, error.field) {
                    self.look_at_image_of(key);
                }
                if let (Action::StartContainer { spec, .. }, Some("volumes")) = (&step.action, error.field) {
                    self.dirty.volumes.extend(volumes::mounted(spec).cloned());
                }
                self.memory.fail(step.key.clone(), message, retry, now);
                if let Some(failed) = self.memory.failures.get_mut(&step.key) {
                    failed.field = error.field;
                    failed.action = Some(std::mem::discriminant(&step.action));
                }
            }
            Ok(()) => {
                tracing::debug!(key = %step.key, cause = step.cause.field, "a step is done");
                self.memory.done(&step);
                self.entries.push(entry);
                // Where something fails, that is what is to be told, and waited for.
                if !self.memory.failures.contains_key(&step.key) {
                    self.echo(step, now);
                }
            }
        }
    }

    /// What was known of its image is not so any more.
    pub(super) fn look_at_image_of(&mut self, key: &InstanceKey) {
        let wish = self.desired.projects.get(&key.project);
        let project = wish.and_then(|wish| self.memory.effective(&key.project, wish));
        let service = project.and_then(|project| project.services.get(&key.service));
        let image = service.map(|service| (service.image.clone(), pull::ask(service)));
        self.dirty.add_images(image);
    }

    /// An action that is done and wanted again at once must not keep the loop busy for ever.
    pub(super) fn echo(&mut self, step: Step, now: Now) {
        let (count, since) = match self.echoes.get(&step.key) {
            Some((action, count, since))
                if *action == step.action && now.boot.saturating_sub(*since) < ECHO_WINDOW =>
            {
                (count + 1, *since)
            }
            _ => (1, now.boot),
        };
        if count > ECHOES {
            let message = format!(
                "{} was put right {count} times and does not stay so: something else on this host undoes it",
                step.key
            );
            let delay = backoff::after(&step.key, count);
            let failed = Failed {
                message,
                at: now,
                attempts: count,
                again: Again::At(now.boot.saturating_add(delay)),
                field: None,
                action: None,
            };
            self.memory.failures.insert(step.key.clone(), failed);
        }
        self.echoes.insert(step.key, (step.action, count, since));
    }
}

/// The error and all that it comes from.
fn chain(error: &ActionError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
