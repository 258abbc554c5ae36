//! What becomes of a process once it runs: its command says when it ends, falls ill or gets well.

use super::{Event, Simulation, Turn};
use crate::{
    key::InstanceKey,
    observed::Moment,
    testing::{generate::Behaviour, sim_host::Random},
};

impl Simulation {
    /// A container was started, or is being stopped, it seems: its life is laid out by its command and its hooks.
    pub(super) fn give_life(&mut self, key: &InstanceKey) {
        let Some((pid, argv, probed)) = self.host.process(key) else {
            return;
        };
        self.lay_out_end(key, pid);
        let before = self.lives.insert(key.clone(), (pid, probed));
        if before == Some((pid, probed)) {
            return;
        }
        // A probe may be added while it runs.
        let fresh = before.is_none_or(|(before, _)| before != pid);
        let behaviour = Behaviour::of(&argv);
        if fresh {
            self.lay_out_hooks(key, pid, Moment::PostStart);
        }
        let turn = match behaviour {
            Behaviour::Job if fresh => Some((200 + self.below(5_000), Turn::Exit(0))),
            Behaviour::Fail if fresh => Some((50 + self.below(3_000), Turn::Exit(1))),
            Behaviour::Flaky if fresh => Some((50 + self.below(3_000), Turn::Exit(chance(pid, 0)))),
            Behaviour::Sick if probed => Some((500 + self.below(3_000), Turn::Unhealthy)),
            Behaviour::Slow if probed => Some((20_000 + self.below(20_000), Turn::Healthy)),
            Behaviour::Job | Behaviour::Fail | Behaviour::Flaky => None,
            _ if probed => Some((100 + self.below(3_000), Turn::Healthy)),
            _ => None,
        };
        if behaviour == Behaviour::Deaf {
            self.host.deafen(key);
        }
        if let Some((wait, turn)) = turn {
            let key = key.clone();
            self.queue
                .push(self.now + wait, Event::Process { key, pid, turn });
        }
    }

    /// By the process, so that other lives stay as they were. Some take longer than a container has to run to be well.
    fn lay_out_hooks(&mut self, key: &InstanceKey, pid: u32, moment: Moment) {
        let mut at = self.now;
        for (number, hook) in (1..).zip(self.host.hooks(key, moment)) {
            at += 50 + (u64::from(pid) * 7919 + u64::from(number) * 1_301) % 4_000;
            if (pid + number).is_multiple_of(5) {
                at += 11_000;
            }
            let status = match hook {
                Behaviour::Fail => 5,
                Behaviour::Flaky => 5 * chance(pid, number),
                _ => 0,
            };
            let turn = match moment {
                Moment::PostStart => Turn::Started(number, status),
                Moment::PreStop => Turn::Stopping(number, status),
            };
            let key = key.clone();
            self.queue.push(at, Event::Process { key, pid, turn });
        }
    }

    fn lay_out_end(&mut self, key: &InstanceKey, pid: u32) {
        let Some(at) = self.host.stops_at(key) else {
            return;
        };
        if self.ends.insert(key.clone(), pid) == Some(pid) {
            return;
        }
        if !self.host.hooks(key, Moment::PreStop).is_empty() {
            self.branches.reach("hook.before-stop");
        }
        self.lay_out_hooks(key, pid, Moment::PreStop);
        let (key, turn) = (key.clone(), Turn::Grace);
        self.queue.push(at, Event::Process { key, pid, turn });
    }

    pub(super) fn live(&mut self, key: &InstanceKey, pid: u32, turn: Turn) {
        if self.host.process(key).is_none_or(|(own, _, _)| own != pid) {
            return;
        }
        self.trace.note(self.now, turn, || format!("{key} {turn:?}"));
        self.host.turn(key, turn);
        if let Some((pid, _, _)) = self.host.process(key) {
            self.lay_out_end(key, pid);
        }
    }
}

/// 0 or 1, by the process.
fn chance(pid: u32, number: u32) -> i32 {
    i32::from(Random(u64::from(pid) << 8 | u64::from(number)).chance(2))
}
