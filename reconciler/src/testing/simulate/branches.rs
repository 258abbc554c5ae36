//! The ways of recovery that a run must have gone at least once, by name: what is never gone is not tested.

use super::oracle::Verdict;
use crate::{
    converge::{Note, Round},
    key::{Key, Slot},
    plan::{
        action::Action,
        step::{Class, Step},
    },
    testing::{generate::Repertoire, sim_host::damage::Damage},
};

/// What of the repertoire a branch needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    Nothing,
    Scale,
    Rollout,
    Intents,
}

const ALL: &[(&str, Needs)] = &[
    // The agent and the host.
    ("agent.adopts", Needs::Nothing),
    ("agent.cut-before", Needs::Nothing),
    ("agent.cut-midway", Needs::Nothing),
    ("agent.stalls", Needs::Nothing),
    ("host.reboots", Needs::Nothing),
    ("host.power-cut", Needs::Nothing),
    ("clock.jumps", Needs::Nothing),
    ("asked", Needs::Nothing),
    ("edit.back", Needs::Nothing),
    ("edit.midway", Needs::Nothing),
    // Calls and hints.
    ("step.fails", Needs::Nothing),
    ("step.done-but-failed", Needs::Nothing),
    ("start.refused", Needs::Nothing),
    ("look.torn", Needs::Nothing),
    ("hint.lost", Needs::Nothing),
    ("pull.slow", Needs::Nothing),
    ("disk.full", Needs::Nothing),
    ("part.unreadable", Needs::Nothing),
    ("echo.damped", Needs::Nothing),
    // Images and volumes.
    ("image.unpacked", Needs::Nothing),
    ("image.missing", Needs::Nothing),
    ("image.moved", Needs::Nothing),
    ("image.pinned", Needs::Rollout),
    ("image.pulled", Needs::Nothing),
    ("image.taken-back", Needs::Rollout),
    ("volume.made", Needs::Nothing),
    ("volume.held", Needs::Nothing),
    ("volume.removed", Needs::Nothing),
    // Networks, names, firewall.
    ("network.made", Needs::Nothing),
    ("network.repaired", Needs::Nothing),
    ("network.removed", Needs::Nothing),
    ("names.repaired", Needs::Nothing),
    ("firewall.repaired", Needs::Nothing),
    // Instances.
    ("sandbox.repaired", Needs::Nothing),
    ("shim.lost", Needs::Nothing),
    ("container.updated-live", Needs::Nothing),
    ("container.restarted", Needs::Nothing),
    ("container.removed", Needs::Nothing),
    ("container.revived", Needs::Nothing),
    ("container.backs-off", Needs::Nothing),
    ("dependant.restarted", Needs::Nothing),
    ("port.waits", Needs::Nothing),
    ("port.refused", Needs::Nothing),
    ("port.foreign", Needs::Nothing),
    // Hooks.
    ("hook.before-start", Needs::Nothing),
    ("hook.before-start-again", Needs::Nothing),
    ("hook.before-stop", Needs::Nothing),
    ("hook.start-failed", Needs::Nothing),
    // Namespaces that are shared.
    ("sharing.joined", Needs::Nothing),
    ("sharing.anew", Needs::Nothing),
    ("sharing.waits", Needs::Nothing),
    ("sharing.outlived", Needs::Nothing),
    ("pause.killed", Needs::Nothing),
    // Gates.
    ("gate.started", Needs::Nothing),
    ("gate.hooks", Needs::Nothing),
    ("gate.healthy", Needs::Nothing),
    ("gate.completed", Needs::Nothing),
    ("gate.stuck", Needs::Nothing),
    ("health.flips", Needs::Nothing),
    ("job.not-run-again", Needs::Nothing),
    // Where it ends.
    ("hold.leaves-alone", Needs::Nothing),
    ("degraded.stable", Needs::Nothing),
    ("waiting.stable", Needs::Nothing),
    ("sick.told", Needs::Nothing),
    // Kept on disk.
    ("good.kept", Needs::Nothing),
    ("scale.several", Needs::Scale),
    ("scale.down", Needs::Scale),
    ("rollout.other-slot", Needs::Rollout),
    ("rollout.drains", Needs::Rollout),
    ("rollout.flip-cut", Needs::Rollout),
    ("rollback", Needs::Rollout),
    ("rollback.settled", Needs::Rollout),
    ("rollback.over", Needs::Rollout),
    ("intent.waits", Needs::Intents),
];

/// Those that were gone, in one seed or in several.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Branches(u128);

/// In how many seeds each branch was gone.
#[derive(Debug, Clone)]
pub struct Counts([u64; ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Counts([0; ALL.len()])
    }
}

impl Counts {
    pub fn add(&mut self, seed: Branches) {
        for (index, count) in self.0.iter_mut().enumerate() {
            *count += u64::from(seed.0 & (1 << index) != 0);
        }
    }

    /// By name, in the order in which they are declared.
    pub fn all(&self) -> impl Iterator<Item = (&'static str, u64)> {
        ALL.iter().map(|(name, _)| *name).zip(self.0)
    }

    /// Those that `repertoire` makes possible and that were never gone.
    pub fn missing(&self, repertoire: Repertoire) -> Vec<&'static str> {
        let possible = |needs: Needs| match needs {
            Needs::Nothing => true,
            Needs::Scale => repertoire.scale,
            Needs::Rollout => repertoire.rollout,
            Needs::Intents => repertoire.intents,
        };
        let all = ALL.iter().zip(self.0);
        let missing = all.filter(|((_, needs), count)| possible(*needs) && *count == 0);
        missing.map(|((name, _), _)| *name).collect()
    }
}

fn is_shared(cause: &str) -> bool {
    cause.starts_with("it shares namespaces")
}

impl Branches {
    pub fn reach(&mut self, name: &str) {
        let index = ALL.iter().position(|(known, _)| *known == name);
        debug_assert!(index.is_some(), "there is no branch {name}");
        if let Some(index) = index {
            self.0 |= 1 << index;
        }
    }

    pub(super) fn note(&mut self, note: &Note) {
        self.reach(match note {
            Note::Good { .. } => "good.kept",
            Note::Barred {
                barred: Some(barred), ..
            } if !barred.images.is_empty() => "image.taken-back",
            Note::Barred { barred: Some(_), .. } => "rollback",
            Note::Barred { barred: None, .. } => "rollback.over",
        });
    }

    pub(super) fn damage(&mut self, damage: &Damage) {
        match damage {
            Damage::DiskFull => self.reach("disk.full"),
            Damage::PauseKilled(_) => self.reach("pause.killed"),
            _ => {}
        }
    }

    /// The agent died in the middle of a call on `key`; `begun`: it had an effect.
    pub(super) fn cut(&mut self, key: &Key, begun: bool, two_slots: bool) {
        self.reach(if begun {
            "agent.cut-midway"
        } else {
            "agent.cut-before"
        });
        if two_slots && matches!(key, Key::Names(_) | Key::Firewall) {
            self.reach("rollout.flip-cut");
        }
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        if verdict.mismatch.is_none() {
            verdict.states.iter().for_each(|state| self.reach(state));
        }
    }

    pub(super) fn step(&mut self, step: &Step) {
        if let Key::Instance(key) = &step.key {
            if key.index > 1 {
                self.reach(match step.action {
                    Action::RemoveSandbox(_) => "scale.down",
                    _ => "scale.several",
                });
            }
            if key.slot == Slot::B {
                self.reach("rollout.other-slot");
            }
        }
        let field = step.cause.field.as_str();
        match &step.action {
            Action::StartContainer { key, fresh, .. } if key.service.contains(".pre_start-") => {
                self.reach(if *fresh {
                    "hook.before-start"
                } else {
                    "hook.before-start-again"
                });
            }
            Action::EnsureSandbox(spec) if spec.spaces.of.is_some() => self.reach("sharing.joined"),
            Action::RemoveSandbox(_) if step.cause.new.as_deref().is_some_and(is_shared) => {
                self.reach("sharing.anew");
            }
            _ => {}
        }
        match (&step.action, field) {
            (Action::UnpackImage { .. }, _) => self.reach("image.unpacked"),
            (Action::PinImage { .. }, _) => self.reach("image.pinned"),
            (Action::EnsureNetwork(_), "bridge") => self.reach("network.repaired"),
            (Action::EnsureNetwork(_), _) => self.reach("network.made"),
            (Action::RemoveNetwork(_), _) => self.reach("network.removed"),
            (Action::EnsureVolume(_), _) => self.reach("volume.made"),
            (Action::RemoveVolume(_), _) => self.reach("volume.removed"),
            (Action::EnsureSandbox(_), "sandbox") => self.reach("sandbox.repaired"),
            (Action::RemoveSandbox(_), "shim") => self.reach("shim.lost"),
            (Action::RemoveSandbox(_), _) if step.completes == Some(Class::Remove) => {
                self.reach("container.removed");
            }
            (Action::UpdateContainer { .. }, _) => self.reach("container.updated-live"),
            (Action::StartContainer { fresh: false, .. }, "exit") => self.reach("container.revived"),
            (Action::StartContainer { .. }, _) if step.completes == Some(Class::Restart) => {
                self.reach("container.restarted");
                if field.ends_with("image.digest") {
                    self.reach("image.moved");
                }
                if field.contains("depends_on") {
                    self.reach("dependant.restarted");
                }
            }
            (Action::StopContainer { drain, .. }, _) if *drain > 0 => self.reach("rollout.drains"),
            (Action::SyncFirewall(_), "firewall") if step.completes == Some(Class::Live) => {
                self.reach("firewall.repaired");
            }
            (Action::SyncNames { .. }, "names") if step.completes == Some(Class::Live) => {
                self.reach("names.repaired");
            }
            _ => {}
        }
    }

    pub(super) fn round(&mut self, round: &Round) {
        for waiting in &round.status.plan.waiting {
            let why = waiting.why.as_str();
            let name = match &waiting.key {
                Key::Volume(_) if waiting.until.is_none() => "volume.held",
                _ if why.contains("could not be read") => "part.unreadable",
                _ if why.contains("has given up a host port") => "port.waits",
                _ if why.contains("is used by") => "port.refused",
                _ if why.ends_with("which shares its namespaces") => "sharing.outlived",
                _ if why.contains("what it shares is gone") => "sharing.waits",
                _ if why.contains("is stopped") => "intent.waits",
                _ if why.starts_with("exited with") && waiting.until.is_some() => "container.backs-off",
                _ if why.starts_with("post_start hook") => "gate.hooks",
                _ if why.starts_with("stopped: post_start hook") => "hook.start-failed",
                _ if why.contains("is unhealthy") || why.contains("must complete") => "gate.stuck",
                _ if why.starts_with("after ") && why.ends_with("is healthy") => "gate.healthy",
                _ if why.starts_with("after ") && why.ends_with("has completed") => "gate.completed",
                _ if why.starts_with("after ") && why.ends_with("has started") => "gate.started",
                _ if why.contains("cannot start yet") => "image.missing",
                _ => continue,
            };
            self.reach(name);
        }
        for entry in &round.entries {
            let Some(error) = entry.error.as_deref() else {
                continue;
            };
            if error.contains("held by a program") {
                self.reach("port.foreign");
            } else if error.contains("refuses what it is to start") {
                self.reach("start.refused");
            } else if error.contains("no space") {
                self.reach("disk.full");
            }
        }
        let failures = round
            .status
            .projects
            .values()
            .flat_map(|project| &project.failures);
        if failures
            .into_iter()
            .any(|failure| failure.message.contains("does not stay so"))
        {
            self.reach("echo.damped");
        }
    }
}
