//! The loop without its runtime: what it knows, what it does with each thing that comes in, and what it
//! orders. Synchronous; the moment is an input. The daemon and the simulation run this very machine.

mod focus;
mod images;
mod outcomes;
mod revisions;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{
    desired::{Desired, Wish},
    execute::{Lane, Order},
    journal::{Entry, transitions::Told},
    key::{InstanceKey, Key},
    memory::{Again, Barred, Good, Memory},
    observed::Observed,
    plan::{
        self,
        action::Action,
        step::{Plan, Step},
    },
    port::{HostEvent, Scope},
    status::{self, ProjectState, Status},
    time::Now,
};
use focus::Touched;
use images::{asked_at_each_change, images_of, references};

/// Milliseconds between two looks at everything, in case an event was missed.
const RESYNC: u64 = 120_000;
/// Each of them that sees nothing new is followed by one that waits twice as long, up to this many
/// milliseconds: as often as the manifests are read again.
const RAREST: u64 = 300_000;
/// The same action done so often within [`ECHO_WINDOW`] ms has no lasting effect: wait before the next.
const ECHOES: u32 = 5;
const ECHO_WINDOW: u64 = 10_000;

/// What an agent finds of its forerunner in the [`crate::port::Ledger`].
#[derive(Debug, Clone, Default)]
pub struct Kept {
    pub good: BTreeMap<String, Good>,
    pub barred: BTreeMap<String, Barred>,
}

impl From<Kept> for Memory {
    fn from(kept: Kept) -> Self {
        Memory {
            good: kept.good,
            barred: kept.barred,
            ..Memory::default()
        }
    }
}

/// What one round asks of the world, in this order.
pub struct Round {
    /// To be written to the ledger before anything is carried out.
    pub notes: Vec<Note>,
    pub entries: Vec<Entry>,
    pub orders: Vec<Order>,
    pub status: Arc<Status>,
}

/// Something for the [`crate::port::Ledger`].
#[derive(Debug, Clone)]
pub enum Note {
    Good { project: String, good: Good },
    Barred { project: String, barred: Option<Barred> },
}

pub struct Engine {
    desired: Arc<Desired>,
    observed: Arc<Observed>,
    memory: Memory,
    plan: Arc<Plan>,
    /// Something the plan is made from has changed since it was made.
    stale: bool,
    touched: Touched,
    /// Boot-clock milliseconds when the plan was made.
    planned: u64,
    /// Started and not ended, at most one a key.
    running: Vec<Step>,
    /// Those of `running` whose project has changed since: their failure says nothing about what is wanted now.
    outdated: BTreeSet<Key>,
    /// To be looked at as soon as possible.
    dirty: Scope,
    images: images::Looking,
    following: images::Following,
    /// A look at the host is under way; keys that an action touched since it began.
    looking: Option<BTreeSet<Key>>,
    /// Somebody asked for a look at everything, and it has not ended yet: 2 not begun, 1 under way.
    asked: u8,
    /// Looks at everything that found something unreadable, in a row.
    blind: u32,
    /// Looks at everything since anything was seen to change.
    calm: u32,
    /// Boot-clock milliseconds of the next look at everything.
    resync: u64,
    /// A project was converged with others than before: what nobody goes back to may go.
    proven: bool,
    /// What was done last for each key, how often in a row, and when first.
    echoes: BTreeMap<Key, (Action, u32, u64)>,
    applied: BTreeMap<String, String>,
    pass: u64,
    told: Told,
    notes: Vec<Note>,
    entries: Vec<Entry>,
    orders: Vec<Order>,
}

impl Engine {
    pub fn new(desired: Arc<Desired>, kept: Kept) -> Self {
        let memory = Memory::from(kept);
        let images = references(&desired, &memory);
        let mut engine = Engine {
            dirty: Scope {
                images,
                ..Scope::default()
            },
            desired,
            observed: Arc::new(Observed::nothing_known()),
            memory,
            plan: Arc::new(Plan::default()),
            stale: true,
            touched: Touched::Everything,
            planned: 0,
            running: Vec::new(),
            outdated: BTreeSet::new(),
            images: images::Looking::default(),
            following: images::Following::default(),
            looking: None,
            asked: 0,
            blind: 0,
            calm: 0,
            resync: 0,
            proven: false,
            echoes: BTreeMap::new(),
            applied: BTreeMap::new(),
            pass: 0,
            told: Told::default(),
            notes: Vec::new(),
            entries: Vec::new(),
            orders: Vec::new(),
        };
        // Manifests change also while nobody is there to see it.
        engine.unbar();
        engine.follow();
        engine
    }

    pub fn look(&mut self, scope: Scope) {
        self.dirty.add(scope);
    }

    /// What runs for `project` was ordered for what it was before: should it fail, that says nothing now.
    fn outdate(&mut self, project: &str) {
        let own = self.running.iter().map(|step| &step.key);
        let own = own.filter(|key| key.project() == Some(project));
        self.outdated.extend(own.cloned());
    }

    /// Takes over what is wanted now; a changed project starts with a clean slate.
    pub fn desire(&mut self, desired: Arc<Desired>) {
        let mut anew = BTreeSet::new();
        for (name, wish) in &desired.projects {
            let before = self.desired.projects.get(name);
            let same = match (before, wish) {
                (Some(Wish::Run { revision: old, .. }), Wish::Run { revision: new, .. }) => old == new,
                (Some(Wish::Hold { .. }), Wish::Hold { .. }) => true,
                _ => false,
            };
            if !same {
                self.touched.project(name);
                self.memory.forget(name);
                self.outdate(name);
                let project = self.memory.effective(name, wish);
                if let Some(project) = project {
                    self.dirty.add_images(images_of(project));
                    anew.extend(asked_at_each_change(project));
                }
            }
        }
        // An order is tried at once, whatever failed before.
        for (target, intent) in &desired.intents {
            if self.desired.intents.get(target) != Some(intent) {
                self.memory.forget(&target.project);
            }
        }
        let intents = self.desired.intents.iter().chain(&desired.intents);
        for (target, intent) in intents {
            let both = [&self.desired, &desired].map(|desired| desired.intents.get(target));
            if both != [Some(intent); 2] {
                self.touched.project(&target.project);
            }
        }
        if self.desired.incomplete != desired.incomplete {
            self.touched = Touched::Everything;
        }
        let gone = self.desired.projects.keys();
        let gone = gone.filter(|name| !desired.projects.contains_key(*name));
        let gone: Vec<String> = gone.cloned().collect();
        for name in &gone {
            self.touched.project(name);
            self.memory.forget(name);
            self.outdate(name);
            self.applied.remove(name);
        }
        self.desired = desired;
        self.unbar();
        self.stale = true;
        self.want_images(anew);
    }

    pub fn event(&mut self, event: HostEvent) {
        let key = match event {
            HostEvent::Instance(_) if planted!("event-lost") => return,
            HostEvent::Instance(key) => Key::Instance(key),
            HostEvent::Network(key) => Key::Network(key),
            HostEvent::Volume(key) => Key::Volume(key),
            HostEvent::Names(key) => Key::Names(key),
            HostEvent::Firewall => Key::Firewall,
            HostEvent::Images => {
                return self.dirty.add_images(references(&self.desired, &self.memory));
            }
            HostEvent::Lost => {
                self.dirty.add_images(references(&self.desired, &self.memory));
                return self.look(Scope::all());
            }
        };
        // A bridge takes its interfaces along.
        if let Key::Network(network) = &key {
            let on_it = self.observed.instances.known().into_iter().flatten();
            let on_it = on_it.filter(|(_, instance)| {
                instance
                    .sandbox
                    .endpoints
                    .iter()
                    .any(|endpoint| endpoint.network == *network)
            });
            self.dirty.instances.extend(on_it.map(|(key, _)| key.clone()));
        }
        self.look(Scope::key(&key));
    }

    /// Somebody wants to know how it is now: look at everything, and try at once what has failed.
    pub fn asked(&mut self) {
        self.memory.failures.clear();
        self.stale = true;
        self.touched = Touched::Everything;
        self.dirty.add_images(references(&self.desired, &self.memory));
        self.ask_all_anew();
        self.look(Scope::all());
        self.asked = 2;
    }

    pub fn timeout(&mut self, now: Now) {
        if now.boot >= self.resync && self.looking.is_none() {
            self.look(Scope::all());
        }
        self.look_for_images(now);
    }

    /// Plans, starts what can start, looks where something may have changed, publishes. The look comes
    /// second: what a step has just been started on is looked at when that step has ended.
    pub fn round(&mut self, now: Now) -> Round {
        let mut entries = self.told.desired(&self.desired, &self.memory, now);
        entries.append(&mut self.entries);
        self.entries = entries;
        // Before the first look nothing is known, and a plan would say nothing else.
        if self.resync > 0 {
            if self.stale || self.due(now) {
                self.replan(now);
                let told = self.told.plan(&self.plan, &self.running, now);
                self.entries.extend(told);
            }
            if self.asked == 0 {
                self.pass += 1;
            }
        }
        let told = self.told.barred(&self.memory, now);
        self.entries.extend(told);
        self.start_look();
        let status = Arc::new(self.status(now));
        Round {
            notes: std::mem::take(&mut self.notes),
            entries: std::mem::take(&mut self.entries),
            orders: std::mem::take(&mut self.orders),
            status,
        }
    }

    /// The plan may be another by the clock alone; now and then it is made anew in any case.
    fn due(&self, now: Now) -> bool {
        let mut waits = self.plan.waiting.iter().filter_map(|waiting| waiting.until);
        let mut failures = self.memory.failures.values();
        self.proven
            || now.boot >= self.planned.saturating_add(RESYNC)
            || waits.any(|until| until <= now.boot)
            || failures.any(|failed| matches!(failed.again, Again::At(until) if until <= now.boot))
    }

    fn start_look(&mut self) {
        self.look_at_images();
        let images = std::mem::take(&mut self.dirty.images);
        if self.looking.is_none() && !self.dirty.is_empty() {
            self.look_at_the_host();
        }
        self.dirty.images = images;
    }

    fn look_at_the_host(&mut self) {
        let busy: BTreeSet<Key> = self.running.iter().map(|step| step.key.clone()).collect();
        let mut scope = std::mem::take(&mut self.dirty);
        scope.all |= self.observed.needs_all(&scope);
        if !scope.all {
            // An action is at it: the look comes after.
            let untouched = if planted!("busy-key-looked-at") {
                BTreeSet::new()
            } else {
                busy.clone()
            };
            self.dirty = scope.without(&untouched);
            if scope.is_empty() {
                return;
            }
        }
        if self.asked > 0 && scope.all {
            self.asked = 1;
        }
        let before = self.observed.cut(&scope);
        self.looking = Some(busy);
        self.orders.push(Order::Look {
            scope,
            before: Box::new(before),
        });
    }

    fn replan(&mut self, now: Now) {
        if std::mem::take(&mut self.proven) {
            self.touch_moved();
        }
        self.memory.settle(&self.observed, now);
        if self.unbar() {
            self.follow();
        }
        let focus = self.focus(now);
        let mut plan = self.plan_for(focus.as_ref(), now);
        if self.roll_back(&plan) {
            plan = self.plan_for(focus.as_ref(), now);
        }
        debug_assert_eq!(
            plan,
            self.plan_for(None, now),
            "the plan of {focus:?} is not the plan"
        );
        self.stale = false;
        self.planned = now.boot;
        self.memory.prune(&plan, &self.desired, &self.running, now);
        for step in plan.steps.iter().filter(|step| step.after.is_empty()) {
            let lane = Lane::of(&step.action);
            let in_lane = self
                .running
                .iter()
                .filter(|step| Lane::of(&step.action) == lane)
                .count();
            if in_lane >= lane.width() || self.running.iter().any(|other| other.key == step.key) {
                continue;
            }
            self.memory.begin(&plan, &self.observed, step);
            self.entries.push(self.told.started(step, now));
            self.images.touch(&step.key);
            if let Some(touched) = &mut self.looking {
                touched.insert(step.key.clone());
            }
            let scope = Scope::key(&step.key);
            let before = self.observed.cut(&scope);
            self.orders.push(Order::Step {
                step: Box::new(step.clone()),
                next: plan.next(step).cloned().map(Box::new),
                scope,
                before: Box::new(before),
            });
            self.running.push(step.clone());
            self.stale = true;
        }
        self.plan = Arc::new(plan);
    }

    fn plan_for(&self, focus: Option<&BTreeSet<String>>, now: Now) -> Plan {
        plan::focused(
            focus,
            &self.desired,
            &self.observed,
            &self.memory,
            &self.running,
            now,
        )
    }

    /// What the outside may see now.
    fn status(&mut self, now: Now) -> Status {
        let facts = status::project::Facts {
            desired: &self.desired,
            observed: &self.observed,
            memory: &self.memory,
            plan: &self.plan,
            running: &self.running,
            looking: !planted!("before-the-look")
                && self.looking.is_some()
                && (self.pass == 0 || self.asked > 0),
            images: &self.images_to_come(),
            applied: &self.applied,
            now,
        };
        let mut projects = status::project::projects(&facts);
        for (name, status) in &mut projects {
            if status.state == ProjectState::Converged
                && let Some(revision) = &status.tried
            {
                self.note_good(name, revision);
                self.applied.insert(name.clone(), revision.clone());
                status.applied = Some(revision.clone());
            }
        }
        Status {
            projects,
            observed: self.observed.clone(),
            plan: self.plan.clone(),
            stopping: self.stopping(now),
            pass: self.pass,
            at: now,
        }
    }

    fn stopping(&self, now: Now) -> BTreeMap<InstanceKey, u64> {
        let stops = self.running.iter().filter_map(|step| {
            let since = self.told.since(&step.key).unwrap_or(now.boot);
            Some((step.stops()?.clone(), since.saturating_add(step.drain())))
        });
        stops.collect()
    }

    /// How long nothing happens by itself.
    pub fn timer(&self, now: Now) -> Duration {
        if self.proven {
            return Duration::ZERO;
        }
        let question = self.next_question(now).map(|at| at.max(now.boot + 1));
        let now = now.boot;
        let waiting = self.plan.waiting.iter().filter_map(|waiting| waiting.until);
        let failures = self.memory.failures.values();
        let failed = failures.filter_map(|failed| match failed.again {
            Again::At(until) => Some(until),
            Again::AfterChange | Again::Never => None,
        });
        let next = waiting
            .chain(failed)
            .chain(question)
            .filter(|until| *until > now)
            .chain(self.looking.is_none().then(|| self.resync.max(now + 1)))
            .min()
            .unwrap_or(now + RESYNC);
        Duration::from_millis(next - now)
    }
}
