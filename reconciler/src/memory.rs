//! What happened before: failures, so that the next try waits, and changes that are half way.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem::{Discriminant, discriminant},
    sync::Arc,
};

use model::types::{Project, Service};

use crate::{
    backoff,
    desired::{Desired, Wish},
    key::{InstanceKey, Key, ResourceKey},
    observed::{Fact, Observed, State},
    plan::{
        InFlight,
        action::Action,
        step::{Cause, Class, Plan, Step},
    },
    port::Retry,
    pull, rollout,
    spec::{FirewallSpec, Zone},
    time::Now,
};

/// Failures by key and changes under way. Lost with the agent: a new one tries at once.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    pub failures: BTreeMap<Key, Failed>,
    /// Changes of which a step was started: what is half way keeps its class and cause, although a
    /// removed sandbox looks like one that never was.
    pub begun: BTreeMap<Key, (Class, Cause)>,
    /// Containers that are stopped for being unhealthy, with the count of such restarts to start them with.
    pub flapping: BTreeMap<InstanceKey, u32>,
    /// What was last brought to the kernel by us: a difference to it is somebody else's doing.
    pub firewall: Option<FirewallSpec>,
    pub zones: BTreeMap<ResourceKey, Zone>,
    /// The last attempt at the firewall failed: how much of it was done is not known.
    pub firewall_due: bool,
    /// By project: the last revision that was converged. Kept by the [`crate::port::Ledger`].
    pub good: BTreeMap<String, Good>,
    /// By project: a revision that was rolled back. Kept by the [`crate::port::Ledger`].
    pub barred: BTreeMap<String, Barred>,
    /// Boot-clock milliseconds since when an instance with a health check is known to be healthy.
    pub settled: BTreeMap<InstanceKey, u64>,
}

/// A revision of a project that was once converged.
#[derive(Debug, Clone)]
pub struct Good {
    pub revision: String,
    pub project: Arc<Project>,
    /// By reference: the digests that it ran with.
    pub images: BTreeMap<String, String>,
    /// The same while it is returned to: no tag is followed.
    still: Arc<Project>,
}

impl Good {
    pub fn new(revision: String, project: Arc<Project>, images: BTreeMap<String, String>) -> Self {
        let still = match project.services.values().any(pull::follows) {
            true => Arc::new(pull::still(&project)),
            false => Arc::clone(&project),
        };
        Good {
            revision,
            project,
            images,
            still,
        }
    }

    pub fn still(&self) -> &Arc<Project> {
        &self.still
    }
}

/// A revision that is not tried again until the manifest changes, or images that are not until their tags move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    pub revision: String,
    pub why: String,
    /// By reference: what the tag had moved to. None of them: it is the revision that was taken back.
    pub images: BTreeMap<String, String>,
}

/// Failed tries of one key, in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    pub message: String,
    pub at: Now,
    pub attempts: u32,
    pub again: Again,
    /// As [`crate::port::ActionError::field`].
    pub field: Option<&'static str>,
    /// Which kind of action failed, where it was one.
    pub action: Option<Discriminant<Action>>,
}

/// When the next try may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Boot-clock milliseconds.
    At(u64),
    /// Once the manifest or the host has changed.
    AfterChange,
    Never,
}

impl Barred {
    /// For people: the images that were taken back, as `NAME@DIGEST`.
    pub fn named(images: &BTreeMap<String, String>) -> String {
        let names = images
            .iter()
            .map(|(reference, digest)| format!("{reference}@{digest}"));
        names.collect::<Vec<_>>().join(", ")
    }

    /// Tags stand for others by now than those that were taken back.
    fn has_moved_on(&self, observed: &Observed) -> bool {
        self.images.iter().any(|(reference, digest)| {
            let image = observed.images.get(reference).and_then(Fact::known);
            image.is_some_and(|image| {
                image
                    .latest
                    .as_ref()
                    .is_none_or(|latest| latest.digest != *digest)
            })
        })
    }
}

impl Memory {
    /// Notes one more failure of `key`.
    pub fn fail(&mut self, key: Key, message: String, retry: Retry, now: Now) {
        let before = self
            .failures
            .get(&key)
            .filter(|_| !planted!("attempts-not-counted"));
        let attempts = before.map_or(0, |failed| failed.attempts);
        self.firewall_due |= key == Key::Firewall && !planted!("firewall-stays");
        let again = match retry {
            Retry::Again => Again::At(now.boot.saturating_add(backoff::after(&key, attempts))),
            Retry::AfterChange => Again::AfterChange,
            Retry::Never => Again::Never,
        };
        self.failures.insert(
            key,
            Failed {
                message,
                at: now,
                attempts: attempts.saturating_add(1),
                again,
                field: None,
                action: None,
            },
        );
    }

    pub fn succeed(&mut self, key: &Key) {
        if !planted!("failure-never-forgotten") {
            self.failures.remove(key);
        }
    }

    /// A step of `plan` is started: the change it serves is under way.
    pub fn begin(&mut self, plan: &Plan, observed: &Observed, step: &Step) {
        let runs = |key| {
            let seen = observed.instances.known().and_then(|seen| seen.get(key));
            seen.is_some_and(|seen| matches!(seen.state, State::Running { .. }))
        };
        let goes_on = match &step.action {
            Action::StartContainer { fresh, .. } => !fresh,
            // What is made anew later is repaired until then.
            Action::EnsureSandbox(spec) => runs(&spec.key),
            _ => false,
        };
        if goes_on && step.completes.is_none() {
            return;
        }
        if let Some(change) = plan.changes.iter().find(|change| change.key == step.key) {
            let begun = (change.class, change.cause.clone());
            if change.class == Class::Remove {
                // How many there were is told the same for all of them, also once some are gone.
                let same = plan.changes.iter().filter(|other| other.cause == change.cause);
                for other in same {
                    // What one of them was stopped for counts until its own removal begins.
                    self.begun
                        .entry(other.key.clone())
                        .or_insert_with(|| begun.clone());
                }
            }
            self.begun.insert(step.key.clone(), begun);
        }
        match &step.action {
            // A bridge that is made while this runs may have come too late for it.
            Action::SyncFirewall(_) => self.firewall_due = false,
            // One that ended looks the same, whatever it was stopped for.
            Action::StopContainer { key, .. } => {
                let next = plan.steps.iter().find_map(|next| match &next.action {
                    Action::StartContainer {
                        key: other, flaps, ..
                    } if other == key => Some(*flaps),
                    _ => None,
                });
                if let Some(flaps) = next.filter(|flaps| *flaps > 0) {
                    self.flapping.insert(key.clone(), flaps);
                }
            }
            _ => {}
        }
    }

    /// Forgets what is under way but no longer asked for, and failures of what nobody wants any more. What
    /// is under way of one that waits, or in a project that is left alone, is gone on with later.
    pub fn prune(&mut self, plan: &Plan, desired: &Desired, in_flight: &InFlight, now: Now) {
        if self.begun.is_empty() && self.failures.is_empty() {
            return;
        }
        let changes: BTreeSet<&Key> = plan.changes.iter().map(|change| &change.key).collect();
        let waits: BTreeSet<&Key> = plan.waiting.iter().map(|waiting| &waiting.key).collect();
        let mut begun = std::mem::take(&mut self.begun);
        begun.retain(|key, _| {
            let project = key.project();
            changes.contains(key)
                || waits.contains(key)
                || in_flight.iter().any(|step| step.key == *key)
                || project.is_some_and(|project| self.leaves_alone(desired, project))
        });
        self.begun = begun;
        let mut spoken_of = changes;
        spoken_of.extend(plan.steps.iter().map(|step| &step.key));
        spoken_of.extend(plan.waiting.iter().map(|waiting| &waiting.key));
        self.failures.retain(|key, failed| {
            spoken_of.contains(key) || matches!(failed.again, Again::At(until) if now.boot < until)
        });
    }

    /// A step ended well.
    pub fn done(&mut self, step: &Step) {
        // What is done on the way to the step that fails, again and again, is no success.
        let failed = self.failures.get(&step.key).and_then(|failed| failed.action);
        let on_the_way = failed.is_some_and(|failed| failed != discriminant(&step.action));
        if step.completes.is_some() || !on_the_way {
            self.succeed(&step.key);
        }
        if step.completes.is_some() {
            self.begun.remove(&step.key);
        }
        match &step.action {
            Action::SyncFirewall(spec) => {
                self.firewall = Some(spec.clone());
            }
            Action::StartContainer { key, .. } | Action::RemoveSandbox(key) => {
                self.flapping.remove(key);
            }
            Action::SyncNames { network, zone } => {
                match zone {
                    Some(zone) => self.zones.insert(network.clone(), zone.clone()),
                    None => self.zones.remove(network),
                };
            }
            _ => {}
        }
    }

    /// Notes since when each instance is healthy: a new look has told.
    pub fn settle(&mut self, observed: &Observed, now: Now) {
        let Some(seen) = observed.instances.known() else {
            return;
        };
        let healthy = seen.iter().filter_map(|(key, seen)| {
            let since = rollout::healthy_since(seen, self.settled.get(key).copied(), now)?;
            Some((key.clone(), since))
        });
        self.settled = healthy.collect();
    }

    /// Takes back the revisions that `plan` says have failed, where there is a good one to return to. What
    /// was barred.
    pub fn roll_back(&mut self, plan: &Plan) -> Vec<(String, Barred)> {
        let mut taken = Vec::new();
        for rollback in &plan.rollbacks {
            let name = &rollback.project;
            let Some(good) = self.good.get(name) else {
                continue;
            };
            let images = match good.revision == rollback.revision {
                true => rollback.images.clone(),
                false => BTreeMap::new(),
            };
            if good.revision == rollback.revision && images.is_empty() {
                continue;
            }
            let barred = Barred {
                revision: rollback.revision.clone(),
                why: rollback.why.clone(),
                images,
            };
            self.forget(name);
            // What was stopped or removed for it has not ended by itself: it is started anew.
            self.begun.retain(|key, (class, _)| {
                key.project() != Some(name) || matches!(class, Class::Restart | Class::Recreate)
            });
            self.barred.insert(name.clone(), barred.clone());
            taken.push((name.clone(), barred));
        }
        taken
    }

    /// Revisions that are barred no longer: their manifests have changed, or are gone, or the tags whose images were
    /// taken back have moved on.
    pub fn unbar(&mut self, desired: &Desired, observed: &Observed) -> Vec<String> {
        let over = |name: &String, barred: &Barred| match desired.projects.get(name) {
            Some(Wish::Run { revision, .. }) => {
                (*revision != barred.revision || barred.has_moved_on(observed))
                    && !planted!("barred-for-ever")
            }
            Some(Wish::Hold { .. } | Wish::Down { .. }) => false,
            None => desired.incomplete.is_none(),
        };
        let over: Vec<String> = self
            .barred
            .iter()
            .filter(|(name, barred)| over(name, barred))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &over {
            self.barred.remove(name);
        }
        over
    }

    /// What the host shows of `key` is not what it was.
    pub fn changed(&mut self, key: &Key) {
        if self
            .failures
            .get(key)
            .is_some_and(|failed| failed.again == Again::AfterChange)
            && !planted!("change-unnoticed")
        {
            self.failures.remove(key);
        }
    }

    /// The manifest of `project` changed, or somebody asked: everything of it may be tried at once.
    pub fn forget(&mut self, project: &str) {
        if planted!("manifest-does-not-forgive") {
            return;
        }
        self.failures
            .retain(|key, _| key.project().is_some_and(|other| other != project));
    }

    /// What the project `name` is planned for: its last good revision while the wanted one is barred, with what that
    /// ran with.
    pub fn effective<'a>(&'a self, name: &str, wish: &'a Wish) -> Option<&'a Project> {
        let Wish::Run { project, revision } = wish else {
            return None;
        };
        match self.barred.get(name) {
            Some(barred) if barred.revision == *revision => {
                self.good.get(name).map(|good| good.still.as_ref())
            }
            _ => Some(project),
        }
    }

    /// Whose tags are followed for the project `name`: also those whose images were taken back, until they move on.
    pub fn following<'a>(&'a self, name: &str, wish: &'a Wish) -> Option<&'a Project> {
        let effective = self.effective(name, wish);
        match (wish, self.barred.get(name)) {
            (Wish::Run { project, .. }, Some(barred)) if !barred.images.is_empty() => {
                effective.map(|_| project.as_ref())
            }
            _ => effective,
        }
    }

    /// What the tag of `service` has moved to since the project `name` was last converged with another image, to which
    /// it can go back. The digest.
    pub fn on_trial<'a>(&self, name: &str, service: &Service, observed: &'a Observed) -> Option<&'a str> {
        let image = observed.images.get(&service.image)?.known()?;
        let chosen = pull::chosen(image, service);
        let before = self.good.get(name)?.images.get(&service.image)?;
        (*before == image.digest && *before != chosen.digest).then_some(chosen.digest.as_str())
    }

    /// Nothing is decided about `project` now.
    fn leaves_alone(&self, desired: &Desired, project: &str) -> bool {
        match desired.projects.get(project) {
            Some(wish @ Wish::Run { .. }) => self.effective(project, wish).is_none(),
            Some(Wish::Hold { .. }) => true,
            Some(Wish::Down { .. }) => false,
            None => desired.incomplete.is_some(),
        }
    }

    /// The failure that keeps `key` from being tried at `now`.
    pub fn held(&self, key: &Key, now: Now) -> Option<&Failed> {
        self.failures.get(key).filter(|failed| match failed.again {
            Again::At(until) => now.boot < until,
            Again::AfterChange | Again::Never => true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{InstanceKey, Slot};

    #[test]
    fn a_step_on_the_way_is_no_success_of_the_one_that_fails() {
        let instance = InstanceKey {
            project: "shop".into(),
            service: "web".into(),
            index: 1,
            slot: Slot::A,
        };
        let key = Key::Instance(instance.clone());
        let step = |action, completes| Step {
            id: 1,
            key: key.clone(),
            action,
            cause: crate::plan::step::Cause {
                field: "services.web".into(),
                old: None,
                new: None,
                span: None,
            },
            completes,
            after: Vec::new(),
        };
        let failing = Action::StopContainer {
            key: instance.clone(),
            drain: 0,
        };
        let mut memory = Memory::default();
        for attempts in 1..=3 {
            let now = Now::default();
            memory.fail(key.clone(), "the port is taken".into(), Retry::Again, now);
            if let Some(failed) = memory.failures.get_mut(&key) {
                failed.action = Some(discriminant(&failing));
            }
            memory.done(&step(Action::RemoveSandbox(instance.clone()), None));
            assert_eq!(memory.failures[&key].attempts, attempts);
        }
        memory.done(&step(failing, None));
        assert!(memory.failures.is_empty());
    }
}
