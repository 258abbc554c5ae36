//! What must hold for one agent while it lives: what it was told and what it has ordered, counted here once
//! more. What was heard of is looked at; what fails is counted once, forgotten when it should be, and waited
//! for as the curve says.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, violated};
use crate::{
    converge::{Note, Round},
    desired::{Desired, Wish},
    execute::{Order, Report},
    key::{InstanceKey, Key},
    observed::Fact,
    plan::{action::Action, step::Step},
    port::{HostEvent, Scope},
    status::{ProjectState, Status},
};

/// The longest delay of the curve with its jitter, in milliseconds: nothing that goes by the clock waits longer.
const LONGEST_WAIT: u64 = 66_000;
/// The same for what asks a registry.
const LONGEST_OF_IMAGES: u64 = 330_000;

/// A step that was ordered, and whose end was not told yet.
#[derive(Debug)]
pub(super) struct Running {
    /// What is wanted of its project has changed since.
    outdated: bool,
    completes: bool,
    /// On the way from what ran to what the manifest asks for.
    pub replaces: bool,
    /// Its sandbox goes.
    removes: bool,
    /// When it was looked at afterwards.
    looked: Option<u64>,
}

/// A look at the host.
#[derive(Debug)]
struct Look {
    began: u64,
    scope: Scope,
    /// Keys that a step was at meanwhile.
    touched: BTreeSet<Key>,
}

#[derive(Debug, Default)]
pub(super) struct Agent {
    /// Numbers what happens to it.
    clock: u64,
    pub running: BTreeMap<Key, Running>,
    look: Option<Look>,
    /// It heard of them then, and has not looked since.
    unseen: BTreeMap<Key, u64>,
    /// Looks at everything until somebody who asked may be answered: 2 not begun, 1 under way.
    owed: u8,
    /// By text form of the key: its project, and how often it failed since it last succeeded.
    failed: BTreeMap<String, (Option<String>, u32)>,
    /// The rules could not be set, and were not set again.
    rules_due: bool,
    /// Stopped because of what is broken under them, and to be started anew.
    broken: BTreeSet<InstanceKey>,
    /// By project and service: the revision, and which of its instances were replaced for it from when on.
    pub replaced: BTreeMap<(String, String), (String, BTreeMap<u32, u64>)>,
}

impl Agent {
    pub fn new() -> Self {
        Agent {
            owed: 2,
            ..Agent::default()
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Another manifest, or another order of an operator: what failed before says nothing any more.
    pub fn wants(&mut self, before: &Desired, now: &Desired) {
        for (name, wish) in &now.projects {
            let same = match (before.projects.get(name), wish) {
                (Some(Wish::Run { revision: old, .. }), Wish::Run { revision: new, .. }) => old == new,
                (Some(Wish::Hold { .. }), Wish::Hold { .. }) => true,
                _ => false,
            };
            // Of a project that is left alone for a while nothing is remembered.
            if !matches!(wish, Wish::Run { .. }) {
                self.broken.retain(|key| key.project != *name);
            }
            if !same {
                self.forget(name);
                self.outdate(name);
            }
        }
        let gone = before.projects.keys();
        gone.filter(|name| !now.projects.contains_key(*name))
            .for_each(|name| self.forget(name));
        let orders = now.intents.iter();
        orders
            .filter(|(target, intent)| before.intents.get(target) != Some(intent))
            .for_each(|(target, _)| self.forget(&target.project));
    }

    fn forget(&mut self, project: &str) {
        let others = |own: &Option<String>| own.as_ref().is_some_and(|own| own != project);
        self.failed.retain(|_, (own, _)| others(own));
    }

    fn outdate(&mut self, project: &str) {
        for (key, step) in &mut self.running {
            step.outdated |= key.project() == Some(project);
        }
    }

    pub fn asked(&mut self) {
        self.owed = 2;
        self.failed.clear();
    }

    pub fn hears(&mut self, hint: &HostEvent) {
        let moment = self.tick();
        let key = match hint {
            HostEvent::Instance(key) => Key::Instance(key.clone()),
            HostEvent::Network(key) => Key::Network(key.clone()),
            HostEvent::Volume(key) => Key::Volume(key.clone()),
            HostEvent::Names(key) => Key::Names(key.clone()),
            HostEvent::Firewall => Key::Firewall,
            // Of images, no look is owed.
            HostEvent::Images => return,
            HostEvent::Lost => {
                let touched = self
                    .running
                    .keys()
                    .filter(|key| !matches!(key, Key::Image { .. }));
                self.unseen.extend(touched.map(|key| (key.clone(), moment)));
                return;
            }
        };
        self.unseen.insert(key, moment);
    }

    /// The look that follows a step.
    pub fn looked(&mut self, key: &Key) {
        let moment = self.tick();
        if let Some(step) = self.running.get_mut(key) {
            step.looked = Some(moment);
        }
    }

    pub fn reported(&mut self, report: &Report) {
        match report {
            Report::Look { scope, .. } => self.look_ended(scope),
            Report::Step { key, result, .. } => self.step_ended(key, result.is_ok()),
        }
    }

    fn look_ended(&mut self, scope: &Scope) {
        if !of_the_host(scope) {
            return;
        }
        let Some(look) = self.look.take() else {
            return;
        };
        if scope.all && self.owed == 1 {
            self.owed = 0;
        }
        self.unseen.retain(|key, heard| {
            *heard > look.began || !covers(&look.scope, key) || look.touched.contains(key)
        });
    }

    fn step_ended(&mut self, key: &Key, well: bool) {
        let Some(step) = self.running.remove(key) else {
            return;
        };
        if let (Some(heard), Some(looked)) = (self.unseen.get(key), step.looked)
            && *heard < looked
        {
            self.unseen.remove(key);
        }
        if let Some(look) = &mut self.look {
            look.touched.insert(key.clone());
        }
        if well {
            if step.completes && !self.failed.is_empty() {
                self.failed.remove(&key.to_string());
            }
        } else if !step.outdated {
            let project = key.project().map(str::to_owned);
            let failed = self.failed.entry(key.to_string()).or_insert((project, 0));
            failed.1 += 1;
        }
        self.rules_due |= !well && *key == Key::Firewall;
        if let (false, Key::Instance(key)) = (well, key) {
            self.broken.remove(key);
        }
    }

    /// How often `key` has failed in a row.
    pub fn failures(&self, key: &Key) -> u32 {
        match self.failed.is_empty() {
            true => 0,
            false => self.failed.get(&key.to_string()).map_or(0, |(_, count)| *count),
        }
    }

    /// L1, F1, before its orders: what a round says fits what the agent was told.
    pub fn decided(&mut self, round: &Round) -> Result<(), Violation> {
        for note in &round.notes {
            if let Note::Barred {
                project,
                barred: Some(_),
            } = note
            {
                self.forget(project);
                self.outdate(project);
            }
        }
        let status = &round.status;
        let plan = &status.plan;
        if !self.running.is_empty()
            && let Some(step) = plan
                .steps
                .iter()
                .find(|step| self.running.contains_key(&step.key))
        {
            return violated(
                "L1",
                format!("a step is planned for {}, which is under way", step.key),
            );
        }
        if let Fact::Unknown(_) = status.observed.instances {
            let mut keys = plan.steps.iter().map(|step| &step.key);
            let mut changes = plan.changes.iter().map(|change| &change.key);
            let of_instance = |key: &&Key| matches!(key, Key::Instance(_));
            if let Some(key) = keys.find(of_instance).or_else(|| changes.find(of_instance)) {
                return violated("L1", format!("{key} changes, and nobody knows what there is"));
            }
        }
        let converged = |state: ProjectState| state == ProjectState::Converged;
        if self.owed > 0
            && let Some((name, _)) = status.projects.iter().find(|(_, one)| converged(one.state))
        {
            return violated("T1", format!("{name} is converged, and nobody has looked yet"));
        }
        self.tries(status)
    }

    /// F1
    fn tries(&mut self, status: &Status) -> Result<(), Violation> {
        let latest = |key: &Key| {
            let longest = match key {
                Key::Image { .. } => LONGEST_OF_IMAGES,
                _ => LONGEST_WAIT,
            };
            status.at.boot.saturating_add(longest)
        };
        if let Some(waiting) = status
            .plan
            .waiting
            .iter()
            .find(|waiting| waiting.until.is_some_and(|until| until > latest(&waiting.key)))
        {
            return violated("F1", format!("{} waits too long: {}", waiting.key, waiting.why));
        }
        let told = status.projects.iter();
        let told =
            told.flat_map(|(name, project)| project.failures.iter().map(move |failure| (name, failure)));
        for (name, failure) in told {
            // Containers that keep ending are told in the same list; images are looked for again and again.
            if failure.attempts == 0
                || failure.key.starts_with("image ")
                || failure.message.contains("see `stead logs")
            {
                continue;
            }
            let count = self.failed.get(&failure.key).map_or(0, |(_, count)| *count);
            if failure.message.contains("does not stay so") {
                let project = (failure.key != "firewall").then(|| name.clone());
                self.failed
                    .insert(failure.key.clone(), (project, failure.attempts));
            } else if failure.attempts > count {
                let text = format!(
                    "{} is said to have failed {} times, and has failed {count} times: {}",
                    failure.key, failure.attempts, failure.message
                );
                return violated("F1", text);
            }
        }
        Ok(())
    }

    /// An order of this round.
    pub fn orders(&mut self, order: &Order) -> Result<(), Violation> {
        match order {
            Order::Look { scope, .. } => self.looks(scope),
            Order::Step { step, .. } => {
                self.begins(step);
                Ok(())
            }
        }
    }

    fn looks(&mut self, scope: &Scope) -> Result<(), Violation> {
        if !of_the_host(scope) {
            return Ok(());
        }
        if !scope.all
            && let Some(key) = self.running.keys().find(|key| covers(scope, key))
        {
            return violated("L1", format!("{key} is looked at while a step is at it"));
        }
        if scope.all && self.owed == 2 {
            self.owed = 1;
        }
        let began = self.tick();
        self.look = Some(Look {
            began,
            scope: scope.clone(),
            touched: self.running.keys().cloned().collect(),
        });
        Ok(())
    }

    fn begins(&mut self, step: &Step) {
        if let Some(look) = &mut self.look {
            look.touched.insert(step.key.clone());
        }
        let replaces = matches!(
            step.action,
            Action::StopContainer { .. }
                | Action::RemoveSandbox(_)
                | Action::StartContainer { fresh: true, .. }
        );
        let running = Running {
            outdated: false,
            completes: step.completes.is_some(),
            replaces: replaces && step.cause.field.starts_with("services."),
            removes: matches!(step.action, Action::RemoveSandbox(_)),
            looked: None,
        };
        self.running.insert(step.key.clone(), running);
        match &step.action {
            Action::SyncFirewall(_) => self.rules_due = false,
            Action::StopContainer { key, .. } if step.cause.field == "mounts" => {
                self.broken.insert(key.clone());
            }
            Action::StartContainer { key, .. } | Action::RemoveSandbox(key) => {
                self.broken.remove(key);
            }
            _ => {}
        }
    }

    /// The sandbox of `key` is being removed.
    pub fn removes(&self, key: &Key) -> bool {
        self.running.get(key).is_some_and(|step| step.removes)
    }

    /// It was stopped for what is broken under it: what starts it is no crash.
    pub fn stopped_broken(&self, key: &InstanceKey) -> bool {
        self.broken.contains(key)
    }

    /// L1, after its orders: it looks, or will once what is under way has ended, at all it has heard of.
    pub fn attends(&self) -> Result<(), Violation> {
        if self.look.is_some() || self.unseen.is_empty() {
            return Ok(());
        }
        // Names are looked at together.
        let names = |key: &Key| matches!(key, Key::Names(_));
        let named = self.running.keys().any(names);
        let under_way = |key: &Key| self.running.contains_key(key) || (named && names(key));
        match self.unseen.keys().find(|key| !under_way(key)) {
            Some(key) => violated("L1", format!("{key} has changed, and nobody looks at it")),
            None => Ok(()),
        }
    }

    /// C1, at rest.
    pub fn rests(&self) -> Result<(), Violation> {
        match self.rules_due {
            true => violated("C1", "the rules could not be set, and were never set again"),
            false => Ok(()),
        }
    }
}

/// Not a look at the source of an image.
fn of_the_host(scope: &Scope) -> bool {
    scope.all
        || scope.firewall
        || scope.zones
        || !scope.instances.is_empty()
        || !scope.networks.is_empty()
        || !scope.volumes.is_empty()
}

fn covers(scope: &Scope, key: &Key) -> bool {
    scope.all
        || match key {
            Key::Image { .. } => false,
            Key::Network(key) => scope.networks.contains(key),
            Key::Volume(key) => scope.volumes.contains(key),
            Key::Instance(key) => scope.instances.contains(key),
            Key::Names(_) => scope.zones,
            Key::Firewall => scope.firewall,
        }
}
