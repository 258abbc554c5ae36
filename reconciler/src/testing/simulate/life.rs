//! What becomes of a process once it runs: its command says when it ends, falls ill or gets well.

use super::{Event, Simulation, Turn};
use crate::{key::InstanceKey, testing::generate::Behaviour};

impl Simulation {
    /// A container was started, it seems: its life is laid out by its command.
    pub(super) fn give_life(&mut self, key: &InstanceKey) {
        let Some((pid, argv, probed)) = self.host.process(key) else {
            return;
        };
        let before = self.lives.insert(key.clone(), (pid, probed));
        if before == Some((pid, probed)) {
            return;
        }
        // A probe may be added while it runs.
        let fresh = before.is_none_or(|(before, _)| before != pid);
        let behaviour = Behaviour::of(&argv);
        if fresh {
            // By the process, so that other lives stay as they were.
            let mut at = self.now;
            for number in 0..self.host.hooks(key) as u64 {
                at += 50 + (u64::from(pid) * 7919 + number * 1_301) % 4_000;
                let (key, turn) = (key.clone(), Turn::Hook);
                self.queue.push(at, Event::Process { key, pid, turn });
            }
        }
        let turn = match behaviour {
            Behaviour::Job if fresh => Some((200 + self.below(5_000), Turn::Exit(0))),
            Behaviour::Fail if fresh => Some((50 + self.below(3_000), Turn::Exit(1))),
            Behaviour::Sick if probed => Some((500 + self.below(3_000), Turn::Unhealthy)),
            Behaviour::Slow if probed => Some((20_000 + self.below(20_000), Turn::Healthy)),
            Behaviour::Job | Behaviour::Fail => None,
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

    pub(super) fn live(&mut self, key: &InstanceKey, pid: u32, turn: Turn) {
        if self.host.process(key).is_none_or(|(own, _, _)| own != pid) {
            return;
        }
        self.trace.note(self.now, turn, || format!("{key} {turn:?}"));
        self.host.turn(key, turn);
    }
}
