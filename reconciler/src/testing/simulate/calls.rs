//! Calls of the backend under way: each takes its time, fails, pauses between two effects, and reports
//! later.

use std::collections::BTreeMap;

use super::{Event, Report, Simulation, host::Work, nemesis::Nemesis};
use crate::{
    key::Key,
    observed::Observed,
    plan::{action::Action, step::Step},
    port::{ActionError, Scope},
    testing::simulate::host::{self, Progress},
};

/// One call.
#[derive(Debug)]
pub struct Call {
    doing: Doing,
    scope: Scope,
    seen: Observed,
}

#[derive(Debug)]
enum Doing {
    Look {
        once: bool,
    },
    Step {
        key: Key,
        /// Taken when the work begins.
        action: Option<Box<Action>>,
        work: Option<Box<Work>>,
        result: Option<Result<(), ActionError>>,
        /// It will be reported as failed, though it is done.
        lie: bool,
    },
}

/// What is next for a call.
enum Next {
    Again(u64),
    Report(Report),
}

impl Call {
    pub fn step(step: Step, scope: Scope, before: Observed) -> Self {
        Call {
            doing: Doing::Step {
                key: step.key,
                action: Some(Box::new(step.action)),
                work: None,
                result: None,
                lie: false,
            },
            scope,
            seen: before,
        }
    }

    /// It changes something.
    pub fn is_step(&self) -> bool {
        matches!(self.doing, Doing::Step { .. })
    }

    pub fn look(scope: Scope, before: Observed) -> Self {
        Call {
            doing: Doing::Look { once: false },
            scope,
            seen: before,
        }
    }
}

impl Simulation {
    /// Milliseconds until the effect of a step.
    pub(super) fn latency(&mut self, call: &Call) -> u64 {
        let pace = self.nemesis.pace;
        let Doing::Step {
            action: Some(action), ..
        } = &call.doing
        else {
            return 0;
        };
        match **action {
            Action::UnpackImage { .. } => {
                if Nemesis::strikes(self.nemesis.slow_pulls, &mut self.random) {
                    self.branches.reach("pull.slow");
                    60_000 + self.random.below(540_000)
                } else {
                    self.random.below(pace * 20)
                }
            }
            _ => self.random.below(pace),
        }
    }

    pub(super) fn proceed(&mut self, number: u32) {
        let Some(mut call) = self.agent.as_mut().and_then(|agent| agent.calls.remove(&number)) else {
            return;
        };
        let next = match &mut call.doing {
            Doing::Look { once } => {
                let first = !std::mem::replace(once, true);
                self.look(first, &mut call)
            }
            Doing::Step { .. } => self.work(&mut call),
        };
        let agents = self.agents;
        match next {
            Next::Again(at) => {
                if let Some(agent) = &mut self.agent {
                    agent.calls.insert(number, call);
                }
                let event = Event::Call {
                    agent: agents,
                    call: number,
                };
                self.queue.push(at, event);
            }
            Next::Report(report) => {
                let at = self.now + self.random.below(self.nemesis.pace.min(20));
                let report = Box::new(report);
                self.queue.push(
                    at,
                    Event::Report {
                        agent: agents,
                        report,
                    },
                );
            }
        }
    }

    /// A look, or a part of one: nobody sees everything at one moment.
    fn look(&mut self, first: bool, call: &mut Call) -> Next {
        if first && call.scope.all && self.nemesis.torn_looks {
            self.host.look(&call.scope, &mut call.seen);
            return Next::Again(self.now + 1 + self.random.below(self.nemesis.pace));
        }
        if first {
            self.host.look(&call.scope, &mut call.seen);
        } else {
            let mut again = call.seen.clone();
            self.host.look(&call.scope, &mut again);
            let mut later = || self.random.chance(2);
            let seen = &mut call.seen;
            if later() {
                seen.networks = again.networks;
                seen.routes = again.routes;
            }
            if later() {
                seen.volumes = again.volumes;
            }
            if later() {
                seen.instances = again.instances;
                seen.ended = again.ended;
                seen.id_bases = again.id_bases;
            }
            if later() {
                seen.firewall = again.firewall;
            }
            if later() {
                seen.zones = again.zones;
            }
            self.branches.reach("look.torn");
        }
        self.trace.note(self.now, 5u8, || "looked".to_owned());
        Next::Report(Report::Look {
            scope: std::mem::take(&mut call.scope),
            seen: Box::new(std::mem::replace(&mut call.seen, Observed::nothing_known())),
        })
    }

    fn work(&mut self, call: &mut Call) -> Next {
        let now = self.moment();
        let Doing::Step {
            key,
            action,
            work,
            result,
            lie,
        } = &mut call.doing
        else {
            return Next::Again(self.now);
        };
        if let Some(action) = action.take() {
            if Nemesis::strikes(self.nemesis.fails, &mut self.random) {
                self.branches.reach("step.fails");
                *result = Some(Err(host::asked(key)));
            } else {
                *lie = Nemesis::strikes(self.nemesis.lies, &mut self.random);
                match self.host.begin(*action) {
                    Ok(begun) => *work = Some(Box::new(begun)),
                    Err(error) => *result = Some(Err(error)),
                }
            }
        }
        if let (None, Some(under_way)) = (&result, work) {
            let mut waits = None;
            let done = loop {
                match self.host.advance_work(under_way, now) {
                    Ok(Progress::Moved) => {
                        if Nemesis::strikes(self.nemesis.pauses, &mut self.random) {
                            waits = Some(self.now + 1 + self.random.below(self.nemesis.pace));
                            break None;
                        }
                    }
                    Ok(Progress::Until(until)) => {
                        waits = Some(until.min(self.now + 100).max(self.now + 1));
                        break None;
                    }
                    Ok(Progress::Done) => break Some(Ok(())),
                    Err(error) => break Some(Err(error)),
                }
            };
            if let Key::Instance(key) = key {
                let key = key.clone();
                self.give_life(&key);
            }
            match done {
                None => return Next::Again(waits.unwrap_or(self.now + 1)),
                Some(done) => *result = Some(done),
            }
            if *lie && matches!(result, Some(Ok(()))) {
                self.branches.reach("step.done-but-failed");
                *result = Some(Err(host::asked(key)));
            }
            // The look that follows is a call of its own.
            if self.nemesis.pauses > 0 && self.random.chance(2) {
                return Next::Again(self.now + self.random.below(self.nemesis.pace));
            }
        }
        let result = result.take().unwrap_or(Ok(()));
        if !call.scope.is_empty() {
            self.host.looked(key);
            self.host.look(&call.scope, &mut call.seen);
        }
        self.trace
            .note(self.now, (&*key, result.is_ok()), || match &result {
                Ok(()) => format!("done {key}"),
                Err(error) => format!("failed {key}: {error}"),
            });
        Next::Report(Report::Step {
            key: key.clone(),
            result,
            scope: std::mem::take(&mut call.scope),
            seen: Box::new(std::mem::replace(&mut call.seen, Observed::nothing_known())),
        })
    }

    /// The agent dies in the middle of these: each gets as far as it may.
    pub(super) fn cut(&mut self, calls: BTreeMap<u32, Call>) {
        let now = self.moment();
        for (_, call) in calls {
            let Doing::Step {
                key, action, work, ..
            } = call.doing
            else {
                continue;
            };
            let mut mutations = self.random.below(6);
            let work = match (action, work) {
                (Some(action), _) if mutations > 0 => self.host.begin(*action).ok(),
                (_, work) => work.map(|work| *work),
            };
            let Some(mut work) = work else {
                continue;
            };
            let two = self.host.two_slots();
            self.branches.cut(&key, mutations > 0, two);
            while mutations > 0 {
                mutations -= 1;
                match self.host.advance_work(&mut work, now) {
                    Ok(Progress::Moved) => {}
                    Ok(Progress::Until(_) | Progress::Done) | Err(_) => break,
                }
            }
            self.trace.note(self.now, &key, || format!("cut off {key}"));
            if let Key::Instance(key) = &key {
                self.give_life(key);
            }
        }
    }
}

/// A step as the trace has it.
pub fn text(step: &Step) -> String {
    let kind = match &step.action {
        Action::UnpackImage { .. } => "unpack",
        Action::PinImage { .. } => "pin",
        Action::EnsureNetwork(_) => "ensure",
        Action::RemoveNetwork(_) | Action::RemoveVolume(_) => "remove",
        Action::EnsureVolume(_) => "make",
        Action::EnsureSandbox(_) => "ensure sandbox",
        Action::RemoveSandbox(_) => "remove sandbox",
        Action::StartContainer { fresh: true, .. } => "start",
        Action::StartContainer { .. } => "start again",
        Action::StopContainer { .. } => "stop",
        Action::UpdateContainer { .. } => "update",
        Action::SyncFirewall(_) | Action::SyncNames { .. } => "sync",
    };
    let (old, new) = (step.cause.old.as_deref(), step.cause.new.as_deref());
    let cause = match (old, new) {
        (None, None) => String::new(),
        (old, new) => format!(" {} → {}", old.unwrap_or("-"), new.unwrap_or("-")),
    };
    format!("{kind} {} ({}{cause})", step.key, step.cause.field)
}

pub fn scope_text(scope: &Scope) -> String {
    if scope.all {
        return "at everything".to_owned();
    }
    let mut text = String::from("at");
    for key in &scope.instances {
        text.push_str(&format!(" {key}"));
    }
    for key in scope.networks.iter().chain(&scope.volumes) {
        text.push_str(&format!(" {key}"));
    }
    for image in scope.images.keys() {
        text.push_str(&format!(" {image}"));
    }
    if scope.firewall {
        text.push_str(" firewall");
    }
    if scope.zones {
        text.push_str(" names");
    }
    text
}
