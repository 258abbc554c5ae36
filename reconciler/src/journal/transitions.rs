//! From what the loop knows before and after to entries: only what is another than before is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Entry, Kind, differences};
use crate::{
    desired::{Desired, Intent, Target, Wish},
    key::{InstanceKey, Key},
    memory::{Barred, Good, Memory},
    observed::{Fault, Health, Instance, Observed, State},
    plan::{
        UNSEEN,
        action::Action,
        step::{Cause, Change, Class, Plan, Step, Waiting},
    },
    port::Scope,
    time::Now,
};

/// What was told and still holds.
#[derive(Debug, Default)]
pub struct Told {
    desired: Option<Arc<Desired>>,
    waiting: BTreeMap<Key, Wait>,
    /// Boot-clock milliseconds since when a step runs.
    started: BTreeMap<Key, u64>,
    /// Changes that stand in no manifest.
    drift: BTreeSet<(Key, String)>,
    barred: Option<BTreeMap<String, Barred>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Wait {
    why: String,
    /// It ends by itself, so its end is no news.
    timed: bool,
}

/// How a container was, before it is looked at again.
pub type Before = BTreeMap<InstanceKey, Was>;

#[derive(Debug)]
pub struct Was {
    state: State,
    health: Health,
    faults: Vec<Fault>,
}

/// A short noun and a text: something that stands in no manifest.
fn noun(field: &str, text: impl Into<String>) -> Cause {
    Cause {
        field: field.to_owned(),
        old: None,
        new: Some(text.into()),
        span: None,
    }
}

/// What is wanted otherwise than before. `good`: with what a first wish is compared, where it was converged once.
fn wanted(old: Option<&Desired>, new: &Desired, good: &BTreeMap<String, Good>, now: Now) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut tell = |name: &str, cause, differences| {
        let mut entry = Entry::new(now, Kind::Wanted, Some(name), name, cause);
        entry.differences = differences;
        entries.push(entry);
    };
    for (name, wish) in &new.projects {
        let before = old.and_then(|old| old.projects.get(name));
        match (before, wish) {
            (before, Wish::Run { project, revision }) => {
                let known = match before {
                    Some(Wish::Run { project, revision }) => Some((project, revision)),
                    _ => good.get(name).map(|good| (&good.project, &good.revision)),
                };
                let again = !matches!(before, Some(Wish::Run { .. }) | None);
                if known.is_some_and(|(_, known)| known == revision) && !again {
                    continue;
                }
                let cause = Cause {
                    field: "revision".into(),
                    old: known.map(|(_, revision)| revision.clone()),
                    new: Some(revision.clone()),
                    span: project.origin("services").cloned(),
                };
                tell(
                    name,
                    cause,
                    differences(known.map(|(project, _)| &**project), project),
                );
            }
            (Some(Wish::Down { .. }), Wish::Down { .. }) | (_, Wish::Hold { .. }) => {}
            // A new agent was told of it by its forerunner.
            (None, Wish::Down { .. }) if old.is_none() => {}
            (_, Wish::Down { .. }) => tell(name, noun("down", "an operator took it down"), Vec::new()),
        }
    }
    let gone = old.into_iter().flat_map(|old| old.projects.keys());
    for name in gone.filter(|name| !new.projects.contains_key(*name)) {
        tell(name, noun("manifest", "its manifest is gone"), Vec::new());
    }
    entries
}

/// Orders that were given or cleared.
fn intents(old: &BTreeMap<Target, Intent>, new: &BTreeMap<Target, Intent>, now: Now) -> Vec<Entry> {
    let entry = |target: &Target, text: &str| {
        let cause = noun("operator", text);
        Entry::new(
            now,
            Kind::Intent,
            Some(&target.project),
            target.to_string(),
            cause,
        )
    };
    let given = new
        .iter()
        .filter(|(target, intent)| old.get(*target) != Some(*intent));
    let given = given.map(|(target, intent)| match intent {
        Intent::Stop { .. } => entry(target, "stop: not to run until `stead start`"),
        Intent::Run { .. } => entry(target, "start: to run anew"),
    });
    // A start that is done needs no word: the start is told.
    let cleared = old
        .iter()
        .filter(|(target, intent)| matches!(intent, Intent::Stop { .. }) && !new.contains_key(*target));
    let cleared = cleared.map(|(target, _)| entry(target, "the stop is cleared"));
    given.chain(cleared).collect()
}

/// How the containers in `scope` are before a look is put back.
pub fn before(observed: &Observed, scope: &Scope) -> Before {
    let Some(known) = observed.instances.known() else {
        return Before::new();
    };
    let of = |(key, instance): (&InstanceKey, &Instance)| {
        let was = Was {
            state: instance.state.clone(),
            health: instance.health,
            faults: instance.faults.clone(),
        };
        (key.clone(), was)
    };
    if scope.all {
        return known.iter().map(of).collect();
    }
    let each = scope.instances.iter();
    each.filter_map(|key| known.get_key_value(key).map(of)).collect()
}

/// Ends and verdicts of health that no step of ours brought about. `step`: the one that has just ended.
pub fn events(before: &Before, observed: &Observed, step: Option<&Step>, now: Now) -> Vec<Entry> {
    let Some(known) = observed.instances.known() else {
        return Vec::new();
    };
    let own = step.and_then(|step| match &step.key {
        Key::Instance(key) => Some(key),
        _ => None,
    });
    let stopped = step.and_then(Step::stops);
    let mut entries = Vec::new();
    let made = own.filter(|own| !before.contains_key(*own));
    for key in before.keys().chain(made) {
        let Some(instance) = known.get(key) else { continue };
        let (state, health, faults): (_, _, &[Fault]) = match before.get(key) {
            Some(was) => (Some(&was.state), was.health, &was.faults),
            None => (None, Health::None, &[]),
        };
        let entry = |field: &str, text: String| {
            let text_form = Key::Instance(key.clone()).to_string();
            Entry::new(now, Kind::Event, Some(&key.project), text_form, noun(field, text))
        };
        let is_ours = stopped == Some(key);
        match (state, &instance.state) {
            // Also where it was started and has ended between two looks.
            (before, State::Exited { code, at }) if !is_ours => {
                let known = matches!(before, Some(State::Exited { at: known, .. }) if known == at);
                if !known {
                    entries.push(entry("process", ended(*code, instance.died())));
                }
            }
            // That it ended is our doing; how it took that is not.
            (_, State::Exited { code, .. }) if is_ours && instance.died().is_some() => {
                entries.push(entry("process", ended(*code, instance.died())));
            }
            // It ended and was started again between two looks.
            (Some(State::Running { pid }), State::Running { pid: other })
                if pid != other && step.is_none() =>
            {
                let text = match instance.died().filter(|died| !faults.contains(died)) {
                    Some(died) => format!("it was {died}; it runs again"),
                    None => "it is another one than before".into(),
                };
                entries.push(entry("process", text));
            }
            (Some(State::Running { .. } | State::Exited { .. } | State::Created), State::Lost) => {
                entries.push(entry("supervisor", "it is gone".into()));
            }
            _ => {}
        }
        let lasting = |faults: &[Fault]| -> Vec<Fault> {
            let lasting = faults.iter().filter(|fault| !fault.is_end());
            lasting.cloned().collect()
        };
        let (were, are) = (lasting(faults), lasting(&instance.faults));
        for fault in are.iter().filter(|fault| !were.contains(fault)) {
            entries.push(entry("fault", fault.to_string()));
        }
        let runs_on = state == Some(&instance.state);
        for fault in were.iter().filter(|fault| runs_on && !are.contains(fault)) {
            let word = fault.word();
            if !are.iter().any(|one| one.word() == word) {
                entries.push(entry("fault", format!("it is over: {word}")));
            }
        }
        if health != instance.health && matches!(instance.state, State::Running { .. }) {
            match instance.health {
                Health::Healthy => entries.push(entry("health", "it became healthy".into())),
                Health::Unhealthy => entries.push(entry("health", "it became unhealthy".into())),
                Health::None | Health::Starting => {}
            }
        }
    }
    entries
}

/// `it ended with status 3`, `it was killed: out of memory, …`.
fn ended(code: i32, died: Option<&Fault>) -> String {
    if let Some(fault) = died {
        return format!("it was {fault}");
    }
    match code {
        0 => "it ended with status 0".into(),
        129..=192 => format!("it was ended by signal {} (status {code})", code - 128),
        _ => format!("it ended with status {code}"),
    }
}

impl Told {
    /// What is wanted and ordered otherwise than at the last call.
    pub fn desired(&mut self, desired: &Arc<Desired>, memory: &Memory, now: Now) -> Vec<Entry> {
        let old = self.desired.replace(Arc::clone(desired));
        if old.as_ref().is_some_and(|old| Arc::ptr_eq(old, desired)) {
            return Vec::new();
        }
        let mut entries = wanted(old.as_deref(), desired, &memory.good, now);
        // What an agent finds was told by its forerunner.
        if let Some(old) = old {
            entries.extend(intents(&old.intents, &desired.intents, now));
        }
        entries
    }

    pub fn started(&mut self, step: &Step, now: Now) -> Entry {
        self.started.insert(step.key.clone(), now.boot);
        told_step(now, Kind::Started, step)
    }

    /// Since when a step for `key` runs (boot-clock milliseconds).
    pub fn since(&self, key: &Key) -> Option<u64> {
        self.started.get(key).copied()
    }

    /// The entry of a step that has ended well; the caller says otherwise.
    pub fn ended(&mut self, step: &Step, now: Now) -> Entry {
        let mut entry = told_step(now, Kind::Done, step);
        let started = self.started.remove(&step.key);
        entry.took = started.map(|started| now.boot.saturating_sub(started));
        entry.change = step.completes;
        entry
    }

    /// What waits now and did not, what waits no longer, and what the host shows that no manifest says.
    pub fn plan(&mut self, plan: &Plan, running: &[Step], now: Now) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut drift = BTreeSet::new();
        for change in plan.changes.iter().filter(|change| is_drift(change)) {
            let text = change.cause.new.clone().unwrap_or_else(|| "it differs".into());
            let told = (change.key.clone(), format!("{} {text}", change.cause.field));
            if !self.drift.contains(&told) {
                let mut cause = change.cause.clone();
                cause.new = Some(text);
                entries.push(entry(now, Kind::Event, &change.key, cause));
            }
            drift.insert(told);
        }
        self.drift = drift;
        let mut waiting = BTreeMap::new();
        // What will be looked at in a moment is nothing to wait for.
        let waits = plan
            .waiting
            .iter()
            .filter(|waiting| !waiting.why.ends_with(UNSEEN));
        for Waiting { key, why, until } in waits {
            if self.waiting.get(key).is_none_or(|told| told.why != *why) {
                let mut told = entry(now, Kind::Waiting, key, noun("wait", why));
                let wall = |until: &u64| now.wall.saturating_add(until.saturating_sub(now.boot));
                told.until = until.as_ref().map(wall);
                entries.push(told);
            }
            let wait = Wait {
                why: why.clone(),
                timed: until.is_some(),
            };
            waiting.insert(key.clone(), wait);
        }
        let before = std::mem::replace(&mut self.waiting, waiting);
        let goes_on = |key: &Key| plan.steps.iter().chain(running).any(|step| step.key == *key);
        for (key, wait) in before {
            if !wait.timed && !self.waiting.contains_key(&key) && goes_on(&key) {
                entries.push(entry(now, Kind::Opened, &key, noun("wait", wait.why)));
            }
        }
        entries
    }

    /// Revisions that were taken back since.
    pub fn barred(&mut self, memory: &Memory, now: Now) -> Vec<Entry> {
        let told = self.barred.get_or_insert_with(|| memory.barred.clone());
        if *told == memory.barred {
            return Vec::new();
        }
        let new = memory
            .barred
            .iter()
            .filter(|(name, barred)| told.get(*name) != Some(barred));
        let entries = new.map(|(name, barred)| {
            let good = memory.good.get(name);
            let before = |good: &Good| {
                let mut images = good.images.clone();
                images.retain(|reference, _| barred.images.contains_key(reference));
                Barred::named(&images)
            };
            let (field, old, new) = match barred.images.is_empty() {
                true => (
                    "revision",
                    barred.revision.clone(),
                    good.map(|good| good.revision.clone()),
                ),
                false => ("image", Barred::named(&barred.images), good.map(before)),
            };
            let cause = Cause {
                field: field.into(),
                old: Some(old),
                new,
                span: None,
            };
            let mut entry = Entry::new(now, Kind::Rollback, Some(name), name, cause);
            entry.error = Some(barred.why.clone());
            entry
        });
        let entries = entries.collect();
        told.clone_from(&memory.barred);
        entries
    }
}

fn entry(now: Now, kind: Kind, key: &Key, cause: Cause) -> Entry {
    Entry::new(now, kind, key.project(), key.to_string(), cause)
}

/// The host's doing: it differs from what was brought about.
fn is_drift(change: &Change) -> bool {
    let created = change.class == Class::Create || change.class == Class::Remove;
    !created && !crate::plan::from_manifest(&change.cause)
}

fn told_step(now: Now, kind: Kind, step: &Step) -> Entry {
    let mut entry = entry(now, kind, &step.key, step.cause.clone());
    entry.action = Some(verb(&step.action).to_owned());
    entry
}

fn verb(action: &Action) -> &'static str {
    match action {
        Action::UnpackImage { .. } => "unpack image",
        Action::PinImage { .. } => "pin image",
        Action::EnsureNetwork(_) => "make network",
        Action::RemoveNetwork(_) => "remove network",
        Action::EnsureVolume(_) => "make volume",
        Action::RemoveVolume(_) => "remove volume",
        Action::EnsureSandbox(_) => "make sandbox",
        Action::RemoveSandbox(_) => "remove sandbox",
        Action::StartContainer { fresh: false, .. } => "start again",
        Action::StartContainer { .. } => "start",
        Action::StopContainer { .. } => "stop",
        Action::UpdateContainer { .. } => "update",
        Action::SyncFirewall(_) => "set firewall",
        Action::SyncNames { .. } => "set names",
    }
}
