//! Commands around the life of a container: `post_start` after each start, `pre_stop` before each stop.
//!
//! The shim goes through them by itself, so the end of an agent neither loses nor doubles one. How far they are
//! stands in the record.

use std::fs;

use reconciler::{
    observed::{Fault, Hook, Moment, fault::Seconds},
    spec::{ContainerSpec, HookSpec},
};

use super::{
    assigned::{Sandbox, request_error},
    clock,
    joined::{self, Joined, Purpose},
    protocol::{Hooks, Reason, Stop},
    run::Beside,
};
use crate::rootfs::{Step, StepError};

/// Milliseconds after which those are killed again who were not gone.
const AGAIN: u64 = 1000;
/// What a shell says where there is no such command, and where it cannot be run.
const NO_COMMAND: i32 = 127;
const NOT_RUN: i32 = 126;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Launch(Hook),
    Signal,
    /// At this time (boot clock).
    Kill(u64),
    Nothing,
}

impl Hooks {
    /// Of a container that was just started.
    pub fn begin(container: &ContainerSpec) -> Self {
        Hooks {
            current: first(Moment::PostStart, container),
            ..Hooks::default()
        }
    }

    /// The first process has ended with `code`, for `died`: what counts instead.
    pub fn end(&mut self, code: i32, died: Option<Fault>) -> (i32, Option<Fault>) {
        self.stop = None;
        self.current = self.current.filter(|hook| hook.moment == Moment::PostStart);
        match (&self.failed, died) {
            (_, died @ Some(Fault::OutOfMemory { .. })) => (code, died),
            (Some(Fault::PostStart { status, .. }), _) => (*status, self.failed.clone()),
            (_, died) => (code, died),
        }
    }

    /// For what it is being stopped.
    pub fn failing(&self) -> Option<Fault> {
        match self.failed.clone()? {
            Fault::PostStart { hook, status, why } => Some(Fault::PostStartNow { hook, status, why }),
            _ => None,
        }
    }

    /// The hook that runs or is about to; not one that the container is stopped for.
    fn live(&self) -> Option<Hook> {
        self.current
            .filter(|hook| hook.moment == Moment::PreStop || self.stop.is_none())
    }

    fn turn(&self, runs: bool) -> Turn {
        match (self.live(), &self.stop) {
            (Some(hook), _) if !runs => Turn::Launch(hook),
            (None, Some(stop)) if !stop.signalled => Turn::Signal,
            (_, Some(stop)) => Turn::Kill(stop.until),
            _ => Turn::Nothing,
        }
    }

    /// `hook` is over. `failed`: its status, and why where that does not say it. Answers what is to be said of it.
    fn over(
        &mut self,
        hook: Hook,
        failed: Option<(i32, Option<String>)>,
        container: &ContainerSpec,
    ) -> Option<Fault> {
        let next = Hook {
            number: hook.number + 1,
            ..hook
        };
        let next = of(container, next).map(|_| next);
        let (moment, hook) = (hook.moment, hook.number);
        match (moment, failed) {
            (_, None) => {
                self.current = next;
                None
            }
            (Moment::PostStart, Some((status, why))) => {
                self.failed = Some(Fault::PostStart { hook, status, why });
                self.stop = Some(Stop {
                    until: clock::boot() + container.stop_grace,
                    signalled: false,
                });
                self.failed.clone()
            }
            (Moment::PreStop, Some((status, why))) => {
                self.current = next;
                let fault = Fault::PreStop { hook, status, why };
                self.faults.push(fault.clone());
                Some(fault)
            }
        }
    }
}

fn list(moment: Moment, container: &ContainerSpec) -> &[HookSpec] {
    match moment {
        Moment::PostStart => &container.post_start,
        Moment::PreStop => &container.pre_stop,
    }
}

fn of(container: &ContainerSpec, hook: Hook) -> Option<&HookSpec> {
    let place = (hook.number as usize).checked_sub(1)?;
    list(hook.moment, container).get(place)
}

fn first(moment: Moment, container: &ContainerSpec) -> Option<Hook> {
    let hook = Hook { moment, number: 1 };
    of(container, hook).map(|_| hook)
}

impl Sandbox {
    /// Begins to stop the container, unless that has begun.
    ///
    /// # Errors
    /// It does not run.
    pub fn stop(&mut self) -> Result<(), StepError> {
        let (Some(_), Some(container)) = (&self.first, &self.record.container) else {
            return Err(request_error("the container does not run"));
        };
        if self.record.hooks.stop.is_some() {
            return Ok(());
        }
        let hooks = &mut self.record.hooks;
        hooks.stop = Some(Stop {
            until: clock::boot() + container.stop_grace,
            signalled: false,
        });
        // One of a start that is not to be is not waited for.
        let cut = hooks.current;
        hooks.current = first(Moment::PreStop, container).or(cut);
        self.kill_hook();
        self.seal()
    }

    fn kill_hook(&self) {
        for joined in &self.joined {
            if let Purpose::Hook { .. } = joined.purpose {
                joined.kill();
            }
        }
    }

    /// Everything is about to be killed, with the hook that runs.
    pub fn cut_hooks(&mut self) {
        let Some(container) = &self.record.container else {
            return;
        };
        let hooks = &mut self.record.hooks;
        let Some(hook) = hooks.live() else {
            return;
        };
        hooks.stop = Some(Stop {
            until: clock::boot() + AGAIN,
            signalled: true,
        });
        if hook.moment == Moment::PreStop {
            let grace = Seconds(container.stop_grace);
            let why = format!("it did not end within {grace} s (`stop_grace_period`)");
            let fault = hooks.over(hook, Some((128 + libc::SIGKILL, Some(why))), container);
            hooks.current = None;
            self.tell_of(fault.as_ref());
        }
        let _ = self.seal();
    }

    /// In the log of the container.
    fn tell_of(&mut self, fault: Option<&Fault>) {
        if let (Some(output), Some(fault)) = (&mut self.output, fault) {
            output.note(&fault.to_string());
        }
    }

    fn hook_runs(&self) -> bool {
        let mut joined = self.joined.iter();
        joined.any(|one| matches!(one.purpose, Purpose::Hook { .. }))
    }

    /// When something is to be done (boot clock).
    pub fn hooks_due(&self) -> Option<u64> {
        self.first.as_ref()?;
        match self.record.hooks.turn(self.hook_runs()) {
            Turn::Launch(_) | Turn::Signal => Some(0),
            Turn::Kill(until) => Some(until),
            Turn::Nothing => None,
        }
    }

    /// Does what is due. Answers whether a hook has ended by that.
    pub fn follow_hooks(&mut self, now: u64) -> bool {
        let mut ended = false;
        while let Some((of, _)) = self.first {
            match self.record.hooks.turn(self.hook_runs()) {
                Turn::Launch(hook) => {
                    let Err(error) = self.launch_hook(of, hook) else {
                        return ended;
                    };
                    let status = match error.reason {
                        Reason::Spec if error.errno == Some(libc::ENOENT) => NO_COMMAND,
                        _ => NOT_RUN,
                    };
                    self.hook_over(hook, Some((status, Some(error.message))));
                    ended = true;
                }
                Turn::Signal => {
                    if let Some(stop) = &mut self.record.hooks.stop {
                        stop.signalled = true;
                    }
                    let signal = self
                        .record
                        .container
                        .as_ref()
                        .map(|container| container.stop_signal);
                    // Who cannot be signalled is killed when the time is over.
                    let _ = signal.map_or(Ok(()), |signal| self.signal(signal));
                    let _ = self.seal();
                }
                Turn::Kill(until) if until <= now => {
                    let _ = self.kill();
                    if let Some(stop) = &mut self.record.hooks.stop {
                        stop.until = now + AGAIN;
                    }
                    return true;
                }
                Turn::Kill(_) | Turn::Nothing => return ended,
            }
        }
        ended
    }

    fn launch_hook(&mut self, of: i32, hook: Hook) -> Result<(), StepError> {
        self.find_payload();
        let host_ids = self.has_host_ids();
        let base = self.record.assignment.sandbox.id_base;
        let leaf = self.leaf();
        let (Some((_, first)), Some(container)) = (&self.first, &self.record.container) else {
            return Err(request_error("the container does not run"));
        };
        let Some(spec) = self::of(container, hook) else {
            return Err(request_error("there is no such hook any more"));
        };
        let (beside, ends) = Beside::new(base).step("make", "the output pipes")?;
        let pid = joined::hook(container, spec, ends, first, host_ids, leaf)?;
        let pidfd = joined::pidfd(pid)?;
        if let Some(output) = &mut self.output {
            output.beside.push(beside);
        }
        self.joined.push(Joined {
            pid,
            pidfd,
            purpose: Purpose::Hook { hook, of },
        });
        Ok(())
    }

    /// The process of a hook has ended, in the run that `of` was the first process of.
    pub fn hook_ended(&mut self, of: i32, hook: Hook, code: i32) {
        let Some((first, _)) = self.first else { return };
        // It was cut off, or ended with the container: neither says anything about it.
        let cut = self.record.hooks.live() != Some(hook) || (code == 128 + libc::SIGKILL && ends(first));
        if of != first || cut {
            return;
        }
        if let Some(output) = &mut self.output {
            output.drain(false);
        }
        self.hook_over(hook, (code != 0).then_some((code, None)));
    }

    fn hook_over(&mut self, hook: Hook, failed: Option<(i32, Option<String>)>) {
        let Some(container) = &self.record.container else {
            return;
        };
        let fault = self.record.hooks.over(hook, failed, container);
        self.tell_of(fault.as_ref());
        let _ = self.seal();
    }
}

/// A process that is on its way out: what shares its process namespace is killed before it is seen to have ended.
fn ends(pid: i32) -> bool {
    const PF_EXITING: u64 = 4;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything, so fields are counted from its end: proc_pid_stat(5).
    let Some((_, fields)) = stat.rsplit_once(')') else {
        return true;
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let flags = fields.get(6).and_then(|flags| flags.parse::<u64>().ok());
    fields.first().is_some_and(|state| matches!(*state, "Z" | "X"))
        || flags.is_some_and(|flags| flags & PF_EXITING != 0)
}
