//! The second half of a seed: nothing fails any more and nobody edits. What is wanted must be there within
//! the bound, or be told why not; and then nothing may move.

use std::collections::BTreeSet;

use super::{Event, Progress, Simulation, oracle};
use crate::{
    key::{InstanceKey, Key},
    observed::Observed,
    plan::{action::Action, step::Step},
    port::{Ask, Scope},
};

/// Milliseconds after the last fault until everything is at rest: a back-off, a resync, and rollouts of
/// slow services one after the other.
const BOUND: u64 = 1_200_000;
/// Milliseconds in which nothing may be done.
const QUIET: u64 = 600_000;
/// Rounds in the quiet time: six a minute.
const WAKES: u32 = 60;
/// Rounds for an image that is not there: asked for and answered ten times, and while the delay grows.
const ASKED: u32 = 40;
/// Rounds for an image that is followed: asked for and answered every minute.
const FOLLOWED: u32 = 24;

#[derive(Debug, Default)]
pub struct Peace {
    /// Boot-clock milliseconds; 0: there are still faults.
    since: u64,
    /// At rest until then, if nothing is done.
    until: Option<u64>,
    /// Instances that end and are started again for ever, as asked.
    loops: BTreeSet<InstanceKey>,
    rounds: u32,
    /// Images that the agent looks for in vain.
    missing: u32,
    last: String,
    /// What kept it from being at rest.
    unrest: String,
}

impl Peace {
    /// A step is ordered.
    pub fn acted(&mut self, step: &Step) {
        if self.since == 0 {
            return;
        }
        let revives = matches!(step.action, Action::StartContainer { fresh: false, .. });
        let loops = matches!(&step.key, Key::Instance(key) if self.loops.contains(key));
        if !(revives && loops) {
            self.until = None;
            self.last = super::calls::text(step);
        }
    }

    /// The quiet time that ends now was quiet.
    pub fn ends(&self, at: u64) -> bool {
        self.until == Some(at)
    }
}

impl Simulation {
    pub(super) fn look_at_peace(&mut self, progress: Progress) {
        match progress {
            Progress::Rest => {
                self.trace.note(self.now, 8u8, || "-- peace".to_owned());
                self.make_peace();
                self.peace.since = self.now;
                self.queue.push(self.now + BOUND, Event::Look(Progress::Deadline));
            }
            Progress::Deadline => {
                if self.peace.until.is_none() {
                    let what = format!(
                        "C1: not at rest {} s after the last fault: {}; last: {}; {}",
                        BOUND / 1000,
                        self.peace.unrest,
                        self.peace.last,
                        self.state()
                    );
                    self.fail(what);
                }
            }
            // A quiet time that something has ended early.
            Progress::End => {}
        }
    }

    /// What the agent says.
    fn state(&self) -> String {
        let Some(status) = &self.status else {
            return "no agent".to_owned();
        };
        let mut text = String::new();
        for (name, project) in &status.projects {
            text.push_str(&format!("{name} {:?}", project.state));
            let waiting = project
                .waiting
                .iter()
                .map(|waiting| (waiting.key.to_string(), &waiting.why));
            let failures = project
                .failures
                .iter()
                .map(|failure| (failure.key.clone(), &failure.message));
            for (key, why) in waiting.chain(failures) {
                text.push_str(&format!(" [{key}: {why}]"));
            }
        }
        text
    }

    pub(super) fn peace_after_round(&mut self) {
        if self.peace.since == 0 {
            return;
        }
        if self.peace.until.is_some() {
            self.peace.rounds += 1;
            let wakes = WAKES + ASKED * self.peace.missing + FOLLOWED * self.wishes.followed() as u32;
            if self.peace.rounds > wakes && self.peace.loops.is_empty() {
                let what = format!("C2: more than {wakes} rounds in ten quiet minutes");
                self.fail(what);
            }
            return;
        }
        if self.now > self.peace.since + BOUND {
            let what = format!(
                "C2: at rest once, and busy again {} s after the last fault: {}",
                (self.now - self.peace.since) / 1000,
                self.peace.last
            );
            self.fail(what);
            return;
        }
        let busy = |agent: &super::Agent| agent.calls.values().any(super::calls::Call::is_step);
        if self.agent.as_ref().is_none_or(busy) {
            "the agent is at work".clone_into(&mut self.peace.unrest);
            return;
        }
        let Some(status) = self.status.clone() else {
            return;
        };
        let mut truth = Observed::nothing_known();
        let scope = Scope {
            images: self
                .wishes
                .images()
                .into_iter()
                .map(|name| (name, Ask::default()))
                .collect(),
            ..Scope::all()
        };
        self.host.look(&scope, &mut truth);
        let (kept, registry) = (self.host.kept(), self.host.registry());
        let verdict = oracle::judge(&self.wishes, &kept, &truth, &registry, &status);
        self.branches.verdict(&verdict);
        self.peace.loops = verdict.loops;
        let images = status.observed.images.values();
        self.peace.missing = images.filter(|image| image.known().is_none()).count() as u32;
        match verdict.mismatch {
            Some(what) => self.peace.unrest = what,
            None => {
                self.peace.rounds = 0;
                self.peace.until = Some(self.now + QUIET);
                self.queue.push(self.now + QUIET, Event::Look(Progress::End));
            }
        }
    }
}
