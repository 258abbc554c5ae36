//! What should be there, by another way than the plan's: what is asked minus what is, part by part, and
//! what excuses the rest.

mod clashes;
mod looks;

use std::collections::{BTreeMap, BTreeSet};

use super::wishes::{Standing, Wishes};
use crate::{
    converge::Kept,
    desired::{Intent, Target},
    key::{InstanceKey, ResourceKey},
    observed::{Fact, Health, Instance, Observed, State},
    status::{ProjectState, Status},
    testing::{
        generate::{Behaviour, Condition, OnFailure, Policy, Restart, Service, Shape, TAGS, WORSE},
        sim_host::registry::Registry,
    },
};

/// What the host owes one service.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Expect {
    /// It runs as its file says.
    Runs,
    /// It has run to its end as its file says.
    Ended,
    /// It ends and is started again, for ever.
    Loops,
    /// It ended, and its policy may leave it so.
    Spent,
    /// An operator stopped it.
    Never,
    /// Why nothing can be said.
    Free(&'static str),
}

#[derive(Debug, Default)]
pub struct Verdict {
    /// What is not as it should be.
    pub mismatch: Option<String>,
    pub loops: BTreeSet<InstanceKey>,
    /// Why projects may be unfinished.
    pub excuses: BTreeSet<&'static str>,
    pub states: BTreeSet<&'static str>,
}

struct Judge<'a> {
    wishes: &'a Wishes,
    kept: &'a Kept,
    truth: &'a Observed,
    registry: &'a Registry,
    instances: &'a BTreeMap<InstanceKey, Instance>,
    verdict: Verdict,
}

/// Compares everything that is wanted with everything that is.
pub fn judge(
    wishes: &Wishes,
    kept: &Kept,
    truth: &Observed,
    registry: &Registry,
    status: &Status,
) -> Verdict {
    let (Fact::Known(instances), Fact::Known(_), Fact::Known(_)) =
        (&truth.instances, &truth.networks, &truth.firewall)
    else {
        return Verdict {
            mismatch: Some("the host cannot be read".to_owned()),
            ..Verdict::default()
        };
    };
    let mut judge = Judge {
        wishes,
        kept,
        truth,
        registry,
        instances,
        verdict: Verdict::default(),
    };
    for name in wishes.files.keys() {
        judge.project(name, status);
    }
    judge.verdict
}

impl Judge<'_> {
    fn miss(&mut self, what: String) {
        self.verdict.mismatch.get_or_insert(what);
    }

    fn project(&mut self, name: &str, status: &Status) {
        let Some(file) = self.wishes.files.get(name) else {
            return;
        };
        match file.standing {
            Standing::Hold => {
                if self.instances.keys().any(|key| key.project == name) {
                    self.verdict.states.insert("hold.leaves-alone");
                }
                return;
            }
            Standing::Hidden => return,
            Standing::Gone | Standing::Down { .. } => return self.nothing(name, file.standing),
            Standing::Run => {}
        }
        let barred = self
            .kept
            .barred
            .get(name)
            .filter(|barred| barred.revision == file.revision);
        let good = barred.and_then(|_| self.kept.good.get(name));
        let shape = match good {
            Some(good) => {
                let rolls_back = |service: &Service| {
                    service
                        .update
                        .is_some_and(|update| update.on_failure == Some(OnFailure::Rollback))
                };
                if !file.shape.services.iter().any(rolls_back) {
                    self.miss(format!("{name} was rolled back, and no service asks for it"));
                }
                self.verdict.excuses.insert("rolled back");
                self.verdict.states.insert("rollback.settled");
                let Some(shape) = self.wishes.version(name, &good.revision) else {
                    return self.miss(format!("{name}: nobody ever wanted revision {}", good.revision));
                };
                shape.clone()
            }
            None => file.shape.clone(),
        };
        let mut shape = shape.expanded();
        for service in &mut shape.services {
            if self.digest(service, good.is_some()) == Some(WORSE) {
                service.behaviour = service.behaviour.worse();
            }
            if good.is_some() {
                // Its tag is not followed.
                service.policy = Policy::Missing;
            }
        }
        let mut expected: BTreeMap<&str, Expect> = BTreeMap::new();
        for service in &shape.services {
            let expect = self.expect(name, &shape, service, &expected);
            expected.insert(&service.name, expect);
        }
        let mut excused = good.is_some();
        for service in &shape.services {
            let Some(expect) = expected.get(service.name.as_str()) else {
                continue;
            };
            excused |= self.service(name, service, expect);
        }
        self.extras(name, &shape);
        self.state(name, status, excused, &file.revision);
    }

    /// What the status says of `name` must be true, and have a cause.
    fn state(&mut self, name: &str, status: &Status, excused: bool, revision: &str) {
        let Some(own) = status.projects.get(name) else {
            return self.miss(format!("T1: {name} has no status"));
        };
        match own.state {
            ProjectState::Converged if own.applied.as_deref() == Some(revision) => {}
            ProjectState::Converged if excused => {}
            ProjectState::Converged => {
                self.miss(format!("T1: {name} is converged, and another revision applied"));
            }
            ProjectState::Working => self.miss(format!("{name} is being worked on")),
            state if !excused => {
                let why = own.waiting.iter().map(|waiting| &waiting.why);
                let why: Vec<&String> = why
                    .chain(own.failures.iter().map(|failure| &failure.message))
                    .collect();
                self.miss(format!("{name} is {state:?} without need: {why:?}"));
            }
            state => {
                if own.waiting.is_empty() && own.failures.is_empty() {
                    self.miss(format!("T1: {name} is {state:?} and nothing says why"));
                }
                self.verdict.states.insert(match state {
                    ProjectState::Degraded => "degraded.stable",
                    _ => "waiting.stable",
                });
            }
        }
    }

    /// Of a project that is gone, nothing is left but its volumes.
    fn nothing(&mut self, name: &str, standing: Standing) {
        if let Some(key) = self.instances.keys().find(|key| key.project == name) {
            self.miss(format!("{key} is there, and its project is {standing:?}"));
        }
        let networks = self.truth.networks.known().into_iter().flatten();
        if let Some((key, _)) = networks.into_iter().find(|(key, _)| key.project == name) {
            self.miss(format!("network {key} is there, and its project is {standing:?}"));
        }
        if standing == (Standing::Down { volumes: true }) {
            let volumes = self.truth.volumes.known().into_iter().flatten();
            if let Some((key, _)) = volumes.into_iter().find(|(key, _)| key.project == name) {
                self.miss(format!("volume {key} is there, and was to be removed"));
            }
        }
    }

    fn expect(
        &self,
        name: &str,
        shape: &Shape,
        service: &Service,
        expected: &BTreeMap<&str, Expect>,
    ) -> Expect {
        let target = |index| Target {
            project: name.to_owned(),
            service: service.name.clone(),
            index,
        };
        let all = matches!(self.wishes.intents.get(&target(None)), Some(Intent::Stop { .. }));
        let one = self.wishes.intents.get(&target(Some(1)));
        match (all, one) {
            (true, None | Some(Intent::Stop { .. })) => return Expect::Never,
            (false, None | Some(Intent::Run { .. })) => {}
            _ => return Expect::Free("one of it is stopped, or one of it runs"),
        }
        let kept = !TAGS.contains(&service.image) || self.registry.names.contains_key(service.image);
        if !matches!(self.truth.images.get(service.image), Some(Fact::Known(_)))
            || (service.policy == Policy::Never && !kept)
        {
            return Expect::Free("its image is not there");
        }
        let may_pause = match service.update {
            Some(update) => update.on_failure != Some(OnFailure::Continue),
            None => service.scale > 1,
        };
        if may_pause {
            // Whatever went wrong in the midst of the update may have stopped it.
            return Expect::Free("its update may have been paused");
        }
        let asked = self
            .wishes
            .files
            .get(name)
            .and_then(|file| file.shape.service(&service.name));
        let updates = [Some(service), asked].into_iter().flatten();
        let ends = !matches!(service.restart, Restart::Always | Restart::UnlessStopped);
        if updates
            .filter_map(|service| service.update)
            .any(|update| update.start_first)
            && (matches!(service.behaviour, Behaviour::Job | Behaviour::Fail)
                || service.may_not_start()
                || (ends && !self.exits(name, service).is_empty())
                || (service.behaviour == Behaviour::Sick && service.health))
        {
            return Expect::Free("its new slot may never be ready to take over");
        }
        let lost = |key: &&str| {
            let key = ResourceKey {
                project: name.to_owned(),
                name: format!("{name}_{key}"),
            };
            let volume = self.truth.volumes.known().and_then(|volumes| volumes.get(&key));
            volume.is_some_and(|volume| volume.lost.is_some())
        };
        if service.volumes.iter().any(lost) {
            return Expect::Free("its volume is lost");
        }
        if self.clashes(name, service) {
            return Expect::Free("its host port is wanted elsewhere");
        }
        for need in &service.needs {
            let Some(on) = shape.service(&need.on) else {
                continue;
            };
            let open = match (need.condition, expected.get(need.on.as_str())) {
                (_, Some(Expect::Free(_) | Expect::Never) | None) => false,
                _ if on.scale == 0 => false,
                (Condition::Started, Some(expect)) => *expect != Expect::Spent && !on.never_starts(),
                (Condition::Healthy, Some(expect)) => {
                    *expect == Expect::Runs && on.health && on.behaviour != Behaviour::Sick
                }
                (Condition::Completed, Some(expect)) => {
                    *expect == Expect::Ended && self.exits(name, on).iter().all(|code| *code == 0)
                }
            };
            if !open {
                return Expect::Free("what it needs is not there");
            }
        }
        if let Some(sharing) = &service.sharing
            && self.lends_nothing(name, &sharing.with, expected)
        {
            return Expect::Free("who lends it namespaces has come to its end and is gone");
        }
        match (service.behaviour, service.restart) {
            (Behaviour::Flaky, Restart::No) => {
                match self.exits(name, service).iter().all(|code| *code == 0) {
                    true => Expect::Ended,
                    false => Expect::Spent,
                }
            }
            (Behaviour::Flaky, _) => Expect::Ended,
            _ if service.never_starts() => match service.restart {
                Restart::No | Restart::OnFailure(Some(_)) => Expect::Spent,
                _ => Expect::Loops,
            },
            (Behaviour::Job, Restart::No | Restart::OnFailure(_)) => Expect::Ended,
            (Behaviour::Fail, Restart::No | Restart::OnFailure(Some(_))) => Expect::Spent,
            (Behaviour::Job | Behaviour::Fail, _) => Expect::Loops,
            (_, Restart::Always | Restart::UnlessStopped) => Expect::Runs,
            // A blow may have ended it, and its policy leaves it so.
            _ => match self.exits(name, service).is_empty() {
                true => Expect::Runs,
                false => Expect::Spent,
            },
        }
    }

    /// Of a name of the registry: what `service` is to run. `still`: what this host has, whatever its policy.
    fn digest(&self, service: &Service, still: bool) -> Option<&str> {
        let tag = self.registry.tags.get(service.image)?;
        match service.policy.follows() && !still {
            true => Some(tag),
            false => Some(&self.registry.names.get(service.image)?.digest),
        }
    }

    /// It has come to its end, and nothing is left of it that could be shared.
    fn lends_nothing(&self, name: &str, lender: &str, expected: &BTreeMap<&str, Expect>) -> bool {
        let there = |key: &InstanceKey| key.project == name && key.service == lender && key.index == 1;
        matches!(expected.get(lender), Some(Expect::Ended | Expect::Spent))
            && !self.instances.keys().any(there)
    }

    /// How the instances of a service ended, of those that do not run.
    fn exits(&self, name: &str, service: &Service) -> Vec<i32> {
        let of = |key: &InstanceKey| key.project == name && key.service == service.name;
        let seen = self.instances.iter().filter(|(key, _)| of(key));
        let mut codes: Vec<i32> = seen
            .filter_map(|(_, instance)| match instance.state {
                State::Exited { code, .. } => Some(code),
                _ => None,
            })
            .collect();
        let ended = self.truth.ended.known().into_iter().flatten();
        let left = ended.filter(|(key, _)| of(key) && !self.instances.contains_key(*key));
        codes.extend(left.map(|(_, ended)| ended.code));
        codes
    }

    /// True: what it should be cannot be said, and that excuses its project.
    fn service(&mut self, name: &str, service: &Service, expect: &Expect) -> bool {
        if let Expect::Free(why) = expect {
            self.verdict.excuses.insert(why);
            // What runs already, as this or an earlier version, may end and be started again all the same.
            let own = self.instances.keys();
            let own = own.filter(|key| key.project == name && key.service == service.name);
            self.verdict.loops.extend(own.cloned());
            return true;
        }
        let mut excused = false;
        for index in 1..=service.scale {
            let keys = self
                .instances
                .iter()
                .filter(|(key, _)| key.project == name && key.service == service.name && key.index == index);
            let here: Vec<(&InstanceKey, &Instance)> = keys.collect();
            let label = format!("{name}/{}/{index}", service.name);
            let runs = |instance: &Instance| matches!(instance.state, State::Running { .. });
            let stopped = *expect == Expect::Never && !here.iter().any(|(_, instance)| runs(instance));
            if here.len() > 1 && !stopped {
                self.miss(format!("P1: {label} is there twice"));
                continue;
            }
            let running = here
                .iter()
                .filter(|(_, instance)| matches!(instance.state, State::Running { .. }));
            let running = running.count() == 1;
            let ended = self
                .truth
                .ended
                .known()
                .into_iter()
                .flatten()
                .any(|(key, _)| key.project == name && key.service == service.name && key.index == index);
            match expect {
                Expect::Never => {
                    if running {
                        self.miss(format!("{label} runs, and was stopped"));
                    }
                    excused = true;
                }
                Expect::Runs => match here.first() {
                    Some((key, instance)) if running => {
                        if let Some(what) = self.differs(name, service, key, instance) {
                            self.miss(format!("{label}: {what}"));
                        }
                        if service.health && service.behaviour == Behaviour::Sick {
                            self.verdict.states.insert("sick.told");
                            excused = true;
                        } else if instance.is_starting() {
                            self.miss(format!("the hooks of {label} are not done yet"));
                        } else if service.health && instance.health != Health::Healthy {
                            self.miss(format!("{label} is not healthy yet"));
                        }
                    }
                    Some((_, instance)) => self.miss(format!("{label} is {:?}", instance.state)),
                    None => self.miss(format!("{label} is not there")),
                },
                Expect::Ended => {
                    let over = here
                        .first()
                        .is_some_and(|(_, instance)| matches!(instance.state, State::Exited { .. }));
                    if over || (here.is_empty() && ended) {
                        if here.is_empty() {
                            self.verdict.states.insert("job.not-run-again");
                        }
                        // Ended by a blow, it may be told as failed.
                        excused |= self.exits(name, service).iter().any(|code| *code != 0);
                    } else {
                        self.miss(format!("{label} has not come to its end"));
                    }
                }
                Expect::Spent | Expect::Loops => {
                    excused = true;
                    if *expect == Expect::Loops {
                        self.verdict
                            .loops
                            .extend(here.iter().map(|(key, _)| (*key).clone()));
                    }
                    if here.is_empty() && !ended {
                        self.miss(format!("{label} was never started"));
                    }
                }
                Expect::Free(_) => {}
            }
        }
        excused
    }

    /// What is there of a project beyond what is wanted.
    fn extras(&mut self, name: &str, shape: &Shape) {
        for (key, instance) in self.instances.iter().filter(|(key, _)| key.project == name) {
            let wanted = shape
                .service(&key.service)
                .is_some_and(|service| key.index <= service.scale);
            // Who is to share the namespaces of nobody keeps those it has.
            let lives_there = |other: &Instance| other.joined.as_ref() == Some(&instance.identity);
            let lent = matches!(instance.state, State::Exited { .. } | State::Created)
                && self.instances.values().any(lives_there);
            if !wanted && !lent {
                self.verdict.mismatch.get_or_insert(format!(
                    "{key} is there ({:?}) and nobody wants it",
                    instance.state
                ));
            }
        }
    }
}
