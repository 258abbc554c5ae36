//! Every way a small world can go: two services, a network and a volume; every order of steps, every
//! point at which the agent may die, every single accident, every edit of one line.
//!
//! A state is what is on the host, what the agent remembers, what is under way and what is wanted. After
//! each move the rules of [`invariants`] hold; without further accidents every way ends, and it ends in
//! what [`oracle`] reads from the manifest.

pub mod edits;
pub mod faults;
pub mod invariants;
pub mod oracle;
pub mod search;
pub mod world;

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hasher},
    mem::discriminant,
};

use edits::{Edit, PROJECT};
use faults::Fault;
use invariants::Moment;
use world::{NOW, Part, World};

use crate::{
    key::{InstanceKey, Key},
    memory::{Again, Memory},
    observed::{Health, State as Process},
    plan::{
        self,
        action::Action,
        step::{Plan, Step},
    },
    port::Retry,
};

/// No delay after a single accident is longer, in milliseconds.
const LONGEST_WAIT: u64 = 110;
/// The same where a registry was asked.
const LONGEST_OF_IMAGES: u64 = 1_100;
/// A new slot that has ended once is watched for so long before it takes over.
const LONGEST_WATCH: u64 = 10_000;

/// How much may still happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    pub faults: u8,
    pub crashes: u8,
    pub edits: u8,
    /// Edits come at any moment, not only when nothing is left to be done.
    pub edits_midway: bool,
    /// Steps under way at once.
    pub width: usize,
}

/// A step under way, and the edit it was planned for.
#[derive(Debug, Clone)]
struct Flight {
    step: Step,
    edit: usize,
}

#[derive(Clone)]
pub struct State {
    world: World,
    memory: Part<Memory>,
    flight: Part<Vec<Flight>>,
    /// Instances that were started as they are wanted, and that nothing has happened to.
    settled: Part<BTreeSet<InstanceKey>>,
    edit: usize,
    left: Budget,
}

/// One way on.
#[derive(Debug, Clone)]
pub enum Move {
    /// By place in the plan.
    Begin(usize),
    /// By place among those under way.
    End(usize),
    Wait(u64),
    Restore,
    Healthy(InstanceKey),
    /// So many effects, and then an error.
    Fail(usize, u8),
    /// So many effects of one step under way, and then the agent is dead.
    Die(usize, u8),
    Strike(Fault),
    Edit(usize),
}

impl Move {
    /// Whether it comes without an accident and without anybody's doing.
    pub fn calm(&self) -> bool {
        matches!(
            self,
            Move::Begin(_) | Move::End(_) | Move::Wait(_) | Move::Restore | Move::Healthy(_)
        )
    }
}

impl State {
    pub fn first(left: Budget) -> Self {
        State {
            world: World::bare(),
            memory: Part::new(Memory::default()),
            flight: Part::new(Vec::new()),
            settled: Part::new(BTreeSet::new()),
            edit: 0,
            left,
        }
    }

    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.world.feed(&mut hasher);
        for part in [self.memory.hash(), self.flight.hash(), self.settled.hash()] {
            hasher.write_u64(part);
        }
        hasher.write_usize(self.edit);
        hasher.write(&[self.left.faults, self.left.crashes, self.left.edits]);
        hasher.finish()
    }

    pub fn world(&self) -> &World {
        &self.world
    }

    pub fn edit(&self) -> usize {
        self.edit
    }

    /// What the agent wants to do here; what it no longer needs to remember is forgotten.
    pub fn plan(&mut self, edits: &[Edit]) -> Plan {
        let flight: Vec<Step> = self.flight.iter().map(|flight| flight.step.clone()).collect();
        let observed = self.world.observe();
        let desired = &edits[self.edit].desired;
        let plan = plan::plan(desired, &observed, &self.memory, &flight, NOW);
        if !self.memory.begun.is_empty() || !self.memory.failures.is_empty() {
            self.memory
                .edit(|memory| memory.prune(&plan, desired, &flight, NOW));
        }
        plan
    }

    /// Every way on from here, the calm ones first.
    pub fn moves(&self, plan: &Plan, edits: &[Edit]) -> Vec<Move> {
        let mut moves: Vec<Move> = (0..self.flight.len()).map(Move::End).collect();
        let ready = plan.steps.iter().enumerate();
        let mut ready = ready.filter(|(_, step)| step.after.is_empty()).peekable();
        let rests = ready.peek().is_none() && self.flight.is_empty();
        if self.flight.len() < self.left.width {
            moves.extend(ready.map(|(index, _)| Move::Begin(index)));
        }
        moves.extend(self.starting().map(Move::Healthy));
        if faults::restored(&self.world).is_some() {
            moves.push(Move::Restore);
        }
        if let Some(wait) = self.wait(plan).filter(|_| rests) {
            moves.push(Move::Wait(wait));
        }
        let effects = |index: usize| World::phases(&self.flight[index].step.action);
        let under_way = 0..self.flight.len();
        if self.left.faults > 0 {
            moves.extend(faults::faults(&self.world).into_iter().map(Move::Strike));
            for index in under_way.clone() {
                moves.extend((0..=effects(index)).map(|phases| Move::Fail(index, phases)));
            }
        }
        if self.left.crashes > 0 {
            moves.push(Move::Die(usize::MAX, 0));
            for index in under_way {
                moves.extend((1..=effects(index)).map(|phases| Move::Die(index, phases)));
            }
        }
        if self.left.edits > 0 && (self.left.edits_midway || !moves.iter().any(Move::calm)) {
            let others = (0..edits.len()).filter(|edit| *edit != self.edit);
            // The second edit takes the first one back.
            let others = others.filter(|edit| self.edit == 0 || *edit == 0);
            moves.extend(others.map(Move::Edit));
        }
        moves
    }

    fn starting(&self) -> impl Iterator<Item = InstanceKey> + '_ {
        self.world
            .running()
            .filter(|(_, instance)| matches!(instance.health, Health::Starting | Health::Unhealthy))
            .map(|(key, _)| key.clone())
    }

    /// Milliseconds until something that waits is due.
    fn wait(&self, plan: &Plan) -> Option<u64> {
        let failures = self
            .memory
            .failures
            .values()
            .filter_map(|failed| match failed.again {
                Again::At(until) => Some(until),
                Again::AfterChange | Again::Never => None,
            });
        let waiting = plan.waiting.iter().filter_map(|waiting| waiting.until);
        let next = waiting.chain(failures).filter(|until| *until > NOW.boot).min()?;
        Some(next - NOW.boot)
    }

    /// The state after `one`; the error is the rule that was broken.
    pub fn after(&self, one: &Move, plan: &Plan, edits: &[Edit]) -> Result<State, String> {
        let mut next = self.clone();
        match one {
            Move::Begin(index) => next.begin(plan, *index, edits)?,
            Move::End(index) => next.end(*index),
            Move::Wait(wait) if *wait > self.longest_wait() => {
                return Err(format!("back-off: a wait of {wait} ms after one accident"));
            }
            Move::Wait(wait) => next.pass(*wait),
            Move::Restore => {
                next.world = faults::restored(&self.world).unwrap_or_else(|| self.world.clone());
            }
            Move::Healthy(key) => next.world.instances.edit(|instances| {
                if let Some(instance) = instances.get_mut(key) {
                    instance.health = Health::Healthy;
                }
            }),
            Move::Fail(index, phases) => {
                next.left.faults -= 1;
                next.fail(*index, *phases);
            }
            Move::Die(index, phases) => {
                next.left.crashes -= 1;
                if let Some(flight) = self.flight.get(*index) {
                    next.effect(flight, *phases);
                }
                next.new_agent();
            }
            Move::Strike(fault) => {
                next.left.faults -= 1;
                fault.strike(&mut next.world);
                next.settled
                    .edit(|settled| settled.retain(|key| !fault.touches(key)));
                if *fault == Fault::Reboot {
                    next.new_agent();
                }
            }
            Move::Edit(edit) => {
                next.left.edits -= 1;
                next.edit = *edit;
                next.memory.edit(|memory| memory.forget(PROJECT));
                let touched = [edits[self.edit].touches, edits[*edit].touches].concat();
                next.settled
                    .edit(|settled| settled.retain(|key| !touched.contains(&key.service.as_str())));
            }
        }
        Ok(next)
    }

    fn longest_wait(&self) -> u64 {
        let keys: Vec<&InstanceKey> = self.world.instances.keys().collect();
        let beside =
            |pair: &[&InstanceKey]| (&pair[0].service, pair[0].index) == (&pair[1].service, pair[1].index);
        let of_image = |key: &Key| matches!(key, Key::Image { .. });
        match keys.windows(2).any(beside) {
            true => LONGEST_WATCH,
            false if self.memory.failures.keys().any(of_image) => LONGEST_OF_IMAGES,
            false => LONGEST_WAIT,
        }
    }

    fn begin(&mut self, plan: &Plan, index: usize, edits: &[Edit]) -> Result<(), String> {
        let step = &plan.steps[index];
        let flight: Vec<&Step> = self.flight.iter().map(|flight| &flight.step).collect();
        let moment = Moment {
            world: &self.world,
            edit: &edits[self.edit],
            flight: &flight,
            settled: &self.settled,
        };
        if let Some(rule) = invariants::broken(step, &moment) {
            return Err(rule);
        }
        let observed = self.world.observe();
        self.memory.edit(|memory| memory.begin(plan, &observed, step));
        let one = Flight {
            step: step.clone(),
            edit: self.edit,
        };
        self.flight.edit(|flight| flight.push(one));
        Ok(())
    }

    fn end(&mut self, index: usize) {
        let action = self.flight[index].step.action.clone();
        if self.world.refuses(&action).is_some() {
            // The world has changed under it.
            return self.fail(index, 0);
        }
        let flight = self.take(index);
        self.effect(&flight, World::phases(&action));
        self.memory.edit(|memory| memory.done(&flight.step));
    }

    fn fail(&mut self, index: usize, phases: u8) {
        let flight = self.take(index);
        self.effect(&flight, phases);
        if flight.edit != self.edit {
            return;
        }
        let key = flight.step.key;
        self.memory.edit(|memory| {
            memory.fail(key.clone(), "it failed".to_owned(), Retry::Again, NOW);
            if let Some(failed) = memory.failures.get_mut(&key) {
                failed.action = Some(discriminant(&flight.step.action));
            }
        });
    }

    fn take(&mut self, index: usize) -> Flight {
        let flight = self.flight[index].clone();
        self.flight.edit(|flight| {
            flight.remove(index);
        });
        flight
    }

    fn effect(&mut self, flight: &Flight, phases: u8) {
        let action = &flight.step.action;
        if self.world.refuses(action).is_some() {
            return;
        }
        self.world.apply(action, phases);
        if let Action::StartContainer { key, .. } = action
            && phases > 0
            && flight.edit == self.edit
        {
            self.settled.edit(|settled| {
                settled.insert(key.clone());
            });
        }
    }

    fn new_agent(&mut self) {
        self.flight = Part::new(Vec::new());
        self.memory = Part::new(Memory {
            good: self.memory.good.clone(),
            barred: self.memory.barred.clone(),
            ..Memory::default()
        });
    }

    fn pass(&mut self, milliseconds: u64) {
        self.world.pass(milliseconds);
        self.memory.edit(|memory| {
            for failed in memory.failures.values_mut() {
                if let Again::At(until) = &mut failed.again {
                    *until = until.saturating_sub(milliseconds);
                }
            }
            for since in memory.settled.values_mut() {
                *since = since.saturating_sub(milliseconds);
            }
        });
    }

    /// Nothing moves any more: whether that is right.
    pub fn rest(&self, plan: &Plan, edits: &[Edit]) -> Option<String> {
        let edit = &edits[self.edit];
        if !edit.frozen && (!plan.changes.is_empty() || !plan.waiting.is_empty()) {
            return Some(format!("at rest, but not done:\n{}", plan::render(plan)));
        }
        let alive: BTreeSet<_> = self
            .world
            .running()
            .map(|(key, _)| (&key.service, key.index))
            .collect();
        if alive.len() < self.world.running().count() {
            return Some("two instances of one index run at rest".to_owned());
        }
        oracle::difference(edit, &self.world)
    }

    /// One line for people.
    pub fn describe(&self, one: &Move, plan: &Plan, edits: &[Edit]) -> String {
        let step = |index: &usize| {
            let flight = self.flight.get(*index);
            flight.map_or_else(String::new, |flight| line(&flight.step))
        };
        match one {
            Move::Begin(index) => format!("begin   {}", line(&plan.steps[*index])),
            Move::End(index) => format!("end     {}", step(index)),
            Move::Fail(index, phases) => format!("ERROR   after {phases} effects of {}", step(index)),
            Move::Die(index, phases) => format!("CRASH   after {phases} effects of {}", step(index)),
            Move::Strike(fault) => format!("FAULT   {fault:?}"),
            Move::Edit(edit) => format!("EDIT    {}", edits[*edit].name),
            Move::Wait(wait) => format!("wait    {wait} ms"),
            Move::Restore => "restore what was away".to_owned(),
            Move::Healthy(key) => format!("healthy {key}"),
        }
    }

    /// What runs, for people.
    pub fn processes(&self) -> String {
        let all = self.world.instances.iter();
        let states = all.map(|(key, instance)| match &instance.state {
            Process::Running { .. } => format!("{key} runs"),
            other => format!("{key} {other:?}"),
        });
        states.collect::<Vec<_>>().join(", ")
    }
}

fn line(step: &Step) -> String {
    let action = format!("{:?}", step.action);
    let verb = action.split(['(', ' ']).next().unwrap_or_default();
    format!("{} {verb} because {}", step.key, step.cause.field)
}
