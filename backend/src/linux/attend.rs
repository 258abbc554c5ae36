//! How it is, as the supervisors themselves say when somebody asks.
//!
//! Some of it tells nothing by itself, and an instance that a step is about is not observed meanwhile.

use std::{
    sync::MutexGuard,
    thread,
    time::{Duration, Instant},
};

use reconciler::port::Attention;

use super::{LinuxBackend, sandboxes::Sandbox};
use crate::shim::client::Client;

/// For all of them together: one that stands still does not answer.
const PATIENCE: Duration = Duration::from_millis(300);
/// For the end of what somebody else asks; a start takes longer, and has nothing to tell so far.
const TURN: Duration = Duration::from_millis(20);

impl LinuxBackend {
    pub(super) fn how_it_is(&self, project: Option<&str>) -> Attention {
        let until = Instant::now() + PATIENCE;
        let keys = self.sandboxes.keys().into_iter();
        let wanted = keys.filter(|key| project.is_none_or(|project| project == key.project));
        let all: Vec<_> = wanted
            .filter_map(|key| Some((self.sandboxes.get(&key)?, key)))
            .collect();
        // All are asked before the first answer is waited for: they look at the same time.
        let mut asked = Vec::new();
        for (sandbox, key) in &all {
            if let Some(mut client) = turn(sandbox, until)
                && client.attend().is_ok()
            {
                asked.push((client, key));
            }
        }
        let mut attention = Attention::default();
        for (mut client, key) in asked {
            // Of one that is gone, or does not answer, the loop hears otherwise.
            if let Ok(said) = client.attended(until.saturating_duration_since(Instant::now())) {
                attention.suspected = attention.suspected.into_iter().chain(said.suspected).min();
                attention.faults.insert(key.clone(), said.faults);
            }
        }
        attention
    }
}

fn turn(sandbox: &Sandbox, until: Instant) -> Option<MutexGuard<'_, Client>> {
    let until = until.min(Instant::now() + TURN);
    loop {
        match sandbox.try_client() {
            None if Instant::now() < until => thread::sleep(Duration::from_millis(1)),
            client => return client,
        }
    }
}
