//! What must hold for what is started again: how often, when, and that what has come to its end stays so.

use model::types::Project;

use super::{super::sim_host::World, Violation, Watch, decisions::Start, oracle, violated};
use crate::{
    key::{InstanceKey, Key},
    observed::{Fault, Observed, State},
    restart::STEADY,
    spec::{ContainerSpec, RestartPolicy},
    time::Now,
};

/// The curve of restarts, in milliseconds, and what jitter takes away at most, in percent.
const FIRST_DELAY: u64 = 100;
const LONGEST_DELAY: u64 = 60_000;
const JITTER: u64 = 10;

impl Watch {
    /// An operator has ordered something of it, or of what it is restarted with.
    pub(super) fn asked_for(&self, project: &Project, key: &InstanceKey) -> bool {
        let InstanceKey {
            project: name,
            service,
            ..
        } = key;
        let followed = oracle::followed(project, service);
        let mut targets = self.desired.intents.keys();
        targets.any(|target| {
            target.project == *name && (target.service == *service || followed.contains(&target.service))
        })
    }

    /// R1: what has come to its end as it should is not run again while it is the same.
    pub(super) fn finished(
        &self,
        world: &World,
        project: &Project,
        key: &InstanceKey,
        spec: &ContainerSpec,
    ) -> Result<(), Violation> {
        let (None, Some(ended)) = (world.instances.get(key), world.ended.whole(key)) else {
            return Ok(());
        };
        let rests = match spec.restart {
            RestartPolicy::No => true,
            RestartPolicy::OnFailure(_) => ended.code == 0,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => false,
        };
        // Half way to another version that is not wanted any more.
        let object = Key::Instance(key.clone());
        if self
            .agent
            .as_ref()
            .is_some_and(|agent| agent.failures(&object) > 0)
        {
            return Ok(());
        }
        let broken = self.agent.as_ref().is_some_and(|agent| agent.stopped_broken(key));
        if rests && !broken && !self.asked_for(project, key) && ended.container.fields == spec.fields {
            let text = format!("{key} has come to its end with {}, and is run again", ended.code);
            return violated("R1", text);
        }
        Ok(())
    }

    /// R1
    pub(super) fn revived(
        &self,
        project: &Project,
        start: &Start<'_>,
        observed: &Observed,
        now: Now,
    ) -> Result<(), Violation> {
        let key = start.key;
        let seen = observed.instances.known().and_then(|all| all.get(key));
        let Some((seen, State::Exited { code, at })) = seen.map(|seen| (seen, &seen.state)) else {
            return Ok(());
        };
        let asked = self.asked_for(project, key);
        if start.fresh || asked {
            return Ok(());
        }
        if !start.changes && self.agent.as_ref().is_some_and(|agent| agent.stopped_broken(key)) {
            return violated(
                "R1",
                format!("{key} was stopped to be made whole, and is started as after a crash"),
            );
        }
        if start.restarts != seen.restarts + 1 {
            let text = format!(
                "{key} had {} restarts and now has {}",
                seen.restarts, start.restarts
            );
            return violated("R1", text);
        }
        let Some(service) = project.services.get(&key.service) else {
            return Ok(());
        };
        // One whose turn has not come keeps the policy that it has.
        let rests = |policy| match policy {
            RestartPolicy::No => true,
            RestartPolicy::OnFailure(_) => *code == 0,
            RestartPolicy::Always | RestartPolicy::UnlessStopped => false,
        };
        let ends = rests(service.restart) && rests(start.spec.restart);
        let ran = at.saturating_sub(seen.started_at.unwrap_or(*at));
        // Who did not come to the end of its start has not run.
        let started = !matches!(seen.died(), Some(Fault::PostStart { .. }));
        let streak = if started && ran >= STEADY { 0 } else { seen.streak };
        if ends && seen.flaps == 0 {
            return violated(
                "R1",
                format!("{key} ended with {code}, and its policy lets it rest"),
            );
        }
        if let RestartPolicy::OnFailure(Some(limit)) = start.spec.restart
            && streak >= limit
            && seen.flaps == 0
        {
            return violated(
                "R1",
                format!("{key} was restarted {streak} times in a row, and its limit is {limit}"),
            );
        }
        let own = service
            .container
            .deploy
            .as_ref()
            .and_then(|deploy| deploy.restart_delay);
        let curve = 1_u64.checked_shl(streak).map_or(LONGEST_DELAY, |factor| {
            FIRST_DELAY.saturating_mul(factor).min(LONGEST_DELAY)
        });
        let least = own.map_or(curve, |own| own.as_millis()) * (100 - JITTER) / 100;
        let waited = now.boot.saturating_sub(*at);
        if waited < least && own.is_none() {
            let text =
                format!("{key} is started {waited} ms after its end instead of {least}, streak {streak}");
            return violated("R1", text);
        }
        if start.streak != streak + 1 {
            return violated(
                "R1",
                format!("{key} is in streak {} instead of {}", start.streak, streak + 1),
            );
        }
        Ok(())
    }
}
