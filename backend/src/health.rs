//! What probe results mean: a pure state machine. Times are boot-clock milliseconds.

use reconciler::spec::HealthSpec;
use serde::{Deserialize, Serialize};

use crate::shim::protocol::HealthState;

/// The first probe comes early, so that what is ready at once is healthy at once.
const FIRST_PROBE: u64 = 100;

/// The health of one run of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    pub state: HealthState,
    failures: u32,
    started: u64,
    /// When the next probe is to start; `None` while one runs or without a check.
    pub next: Option<u64>,
}

impl Health {
    pub fn new(spec: Option<&HealthSpec>, now: u64) -> Self {
        let state = if spec.is_some() {
            HealthState::Starting
        } else {
            HealthState::None
        };
        Health {
            state,
            failures: 0,
            started: now,
            next: spec.map(|spec| now + FIRST_PROBE.min(spec.interval)),
        }
    }

    /// A probe has started.
    pub fn begin(&mut self) {
        self.next = None;
    }

    /// A probe has ended. Failures before the first success and within the start period, or without one the first
    /// interval, do not count: the early probe must not cost a retry. Answers whether the state changed.
    pub fn end(&mut self, spec: &HealthSpec, success: bool, now: u64) -> bool {
        let before = self.state;
        self.next = Some(now + spec.interval);
        if success {
            self.failures = 0;
            self.state = HealthState::Healthy;
        } else if self.state == HealthState::Starting
            && spec.start_period > 0
            && now < self.started + spec.start_period
        {
            self.next = Some(now + spec.start_interval.max(1));
        } else if self.state == HealthState::Starting
            && spec.start_period == 0
            && now < self.started + spec.interval
        {
            self.next = Some(self.started + spec.interval);
        } else {
            self.failures += 1;
            if self.failures >= spec.retries.max(1) {
                self.state = HealthState::Unhealthy;
            }
        }
        self.state != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_on_the_first_success_unhealthy_after_the_retries() {
        use HealthState::{Healthy, Starting, Unhealthy};
        let spec = HealthSpec {
            argv: vec!["true".into()],
            interval: 1000,
            timeout: 500,
            retries: 2,
            ..HealthSpec::default()
        };
        let mut health = Health::new(Some(&spec), 0);
        assert_eq!(health.next, Some(100));
        let steps = [
            (150, false, Starting, 1000),
            (1010, false, Starting, 2010),
            (2020, true, Healthy, 3020),
            (3030, false, Healthy, 4030),
            (4040, false, Unhealthy, 5040),
            (5050, true, Healthy, 6050),
        ];
        for (now, success, state, next) in steps {
            health.begin();
            health.end(&spec, success, now);
            assert_eq!((health.state, health.next), (state, Some(next)), "at {now}");
        }
    }

    #[test]
    fn failures_of_the_start_period_do_not_count_before_the_first_success() {
        use HealthState::{Healthy, Starting, Unhealthy};
        let spec = HealthSpec {
            argv: vec!["true".into()],
            interval: 1000,
            timeout: 500,
            retries: 1,
            start_period: 5000,
            start_interval: 200,
        };
        let run = |steps: &[(u64, bool, HealthState, u64)]| {
            let mut health = Health::new(Some(&spec), 0);
            for (now, success, state, next) in steps {
                health.begin();
                health.end(&spec, *success, *now);
                assert_eq!((health.state, health.next), (*state, Some(*next)), "at {now}");
            }
        };
        run(&[
            (110, false, Starting, 310),
            (4999, false, Starting, 5199),
            (5199, false, Unhealthy, 6199),
        ]);
        run(&[(310, true, Healthy, 1310), (1320, false, Unhealthy, 2320)]);
    }

    #[test]
    fn without_a_check_there_is_no_health() {
        assert_eq!(Health::new(None, 0).state, HealthState::None);
        assert_eq!(Health::new(None, 0).next, None);
    }
}
