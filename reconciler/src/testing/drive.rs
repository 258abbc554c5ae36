//! The loop without a runtime: one pass after the other on a host, the simulated one unless another is
//! given, whole passes in any order that their `after` edges allow.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::sim_host::{Random, SimHost};
use crate::{
    desired::{Desired, Wish},
    key::{InstanceKey, Key},
    memory::{Good, Memory},
    observed::Observed,
    plan::{
        self, InFlight,
        step::{Cause, Class, Plan, Step},
    },
    port::{Ask, Backend, Scope},
    pull,
    status::{self, ProjectStatus, project::Facts},
};

/// A host, what is wanted of it, and what was done.
pub struct Drive<H = SimHost> {
    pub host: H,
    pub desired: Desired,
    pub memory: Memory,
    /// Completed changes, in order.
    pub executed: Vec<(Key, Class, Cause)>,
    /// The order among steps that could all go.
    pub random: Random,
}

impl Drive {
    pub fn new(seed: u64) -> Self {
        Drive::on(SimHost::new(), seed)
    }

    /// Another agent takes over: it remembers nothing but what the ledger keeps.
    pub fn new_agent(&mut self) {
        self.forget();
        self.host.world().dies_after = None;
    }

    pub fn pids(&self) -> BTreeMap<InstanceKey, u32> {
        self.host.pids()
    }
}

impl<H: Backend> Drive<H> {
    pub fn on(host: H, seed: u64) -> Self {
        Drive {
            host,
            desired: Desired::default(),
            memory: Memory::default(),
            executed: Vec::new(),
            random: Random(seed),
        }
    }

    /// The manifest of `name` is now `text`.
    pub fn file(&mut self, name: &str, text: &str) -> Result<(), String> {
        let project = Arc::new(super::manifest::project(name, text)?);
        self.memory.forget(name);
        let revision = format!("{:x}", crate::derive::number(text));
        let wish = Wish::Run { project, revision };
        self.desired.projects.insert(name.to_owned(), wish);
        self.memory.unbar(&self.desired, &Observed::nothing_known());
        Ok(())
    }

    /// What is to be done from here.
    pub fn plan(&self) -> Plan {
        self.plan_beside(&InFlight::new())
    }

    /// What is to be done from here, beside what is under way.
    pub fn plan_beside(&self, under_way: &InFlight) -> Plan {
        let mut memory = self.memory.clone();
        self.plan_with(&mut memory, under_way)
    }

    fn plan_with(&self, memory: &mut Memory, under_way: &InFlight) -> Plan {
        let now = self.host.now();
        let plan = |memory: &mut Memory| {
            let observed = self.observe_for(memory);
            memory.unbar(&self.desired, &observed);
            memory.settle(&observed, now);
            plan::plan(&self.desired, &observed, memory, under_way, now)
        };
        let first = plan(memory);
        match memory.roll_back(&first).is_empty() {
            true => first,
            false => plan(memory),
        }
    }

    /// The next plan, and what the loop keeps on the way to it.
    fn next(&mut self) -> Plan {
        let mut memory = self.memory.clone();
        let plan = self.plan_with(&mut memory, &InFlight::new());
        memory.prune(&plan, &self.desired, &InFlight::new(), self.host.now());
        let mut proven = false;
        for (name, wish) in &self.desired.projects {
            let concerns = |key: &Key| key.project().is_none_or(|project| project == name);
            let open = plan.changes.iter().any(|change| concerns(&change.key))
                || plan.steps.iter().any(|step| concerns(&step.key))
                || plan.waiting.iter().any(|waiting| concerns(&waiting.key));
            if let (false, Wish::Run { project, revision }) = (open, wish)
                && !memory.barred.contains_key(name)
            {
                let images = pull::digests(project.services.values(), &self.observe());
                let good = Good::new(revision.clone(), project.clone(), images);
                let before = memory.good.insert(name.clone(), good);
                proven |= before.is_some_and(|before| before.images != memory.good[name].images);
            }
        }
        self.memory = memory;
        match proven {
            true => self.next(),
            false => plan,
        }
    }

    /// What the outside would see now.
    pub fn status(&self) -> BTreeMap<String, ProjectStatus> {
        let observed = self.observe();
        let plan = self.plan();
        status::project::projects(&Facts {
            desired: &self.desired,
            observed: &observed,
            memory: &self.memory,
            plan: &plan,
            running: &[],
            looking: false,
            images: &BTreeSet::new(),
            applied: &BTreeMap::new(),
            now: self.host.now(),
        })
    }

    /// One pass: every step whose `after` are done, until none is left. False: nothing was to be done.
    pub fn pass(&mut self) -> bool {
        let plan = self.next();
        let mut left: Vec<&Step> = plan.steps.iter().collect();
        let mut done = BTreeSet::new();
        loop {
            let ready: Vec<usize> = (0..left.len())
                .filter(|index| left[*index].after.iter().all(|id| done.contains(id)))
                .collect();
            if ready.is_empty() {
                break;
            }
            let pick = ready[self.random.below(ready.len() as u64) as usize];
            let step = left.remove(pick);
            if self.carry_out(&plan, step) {
                done.insert(step.id);
            }
        }
        !plan.steps.is_empty()
    }

    /// One step, and then a new plan. False: nothing could be done.
    pub fn single(&mut self) -> bool {
        let plan = self.next();
        let ready: Vec<&Step> = plan.steps.iter().filter(|step| step.after.is_empty()).collect();
        if ready.is_empty() {
            return false;
        }
        let pick = self.random.below(ready.len() as u64) as usize;
        self.carry_out(&plan, ready[pick]);
        true
    }

    fn carry_out(&mut self, plan: &Plan, step: &Step) -> bool {
        let observed = self.observe_for(&self.memory);
        self.memory.begin(plan, &observed, step);
        match self.host.apply(&step.action) {
            Ok(()) => {
                self.memory.done(step);
                if let Some(class) = step.completes {
                    self.executed.push((step.key.clone(), class, step.cause.clone()));
                }
                true
            }
            Err(error) => {
                let now = self.host.now();
                self.memory
                    .fail(step.key.clone(), error.to_string(), error.retry, now);
                if let Some(failed) = self.memory.failures.get_mut(&step.key) {
                    failed.field = error.field;
                }
                false
            }
        }
    }

    /// Passes until there is nothing to do. The error is the plan that does not end.
    pub fn settle(&mut self) -> Result<(), Plan> {
        for _ in 0..50 {
            if !self.pass() {
                return Ok(());
            }
        }
        Err(self.plan())
    }

    /// What an agent remembers, but for what the ledger keeps.
    pub fn forget(&mut self) {
        self.memory = Memory {
            good: std::mem::take(&mut self.memory.good),
            barred: std::mem::take(&mut self.memory.barred),
            ..Memory::default()
        };
    }

    /// Everything, as it is.
    pub fn observe(&self) -> Observed {
        self.observe_for(&self.memory)
    }

    fn observe_for(&self, memory: &Memory) -> Observed {
        let mut observed = Observed::nothing_known();
        let projects = self.desired.projects.iter();
        let projects = projects.filter_map(|(name, wish)| memory.following(name, wish));
        let wishes = pull::wishes(projects.flat_map(|project| project.services.values()));
        let images = wishes.into_iter().map(|(reference, wish)| match wish.interval {
            Some(_) => (reference, Ask::Anew),
            None => (reference, wish.ask),
        });
        let scope = Scope {
            images: images.collect(),
            ..Scope::all()
        };
        self.host.observe(&scope, &mut observed);
        observed
    }
}

/// Every image that some project is planned with.
pub fn references(desired: &Desired, memory: &Memory) -> BTreeSet<String> {
    desired
        .projects
        .iter()
        .filter_map(|(name, wish)| memory.effective(name, wish))
        .flat_map(|project| project.services.values().map(|service| service.image.clone()))
        .collect()
}
