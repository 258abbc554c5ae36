//! Whether and when a container that ended is started again. Pure; the moment is an input.

use model::types::RestartPolicy;

use crate::backoff;

/// Milliseconds of running after which earlier crashes are forgotten.
pub const STEADY: u64 = 10_000;

/// One end of a container. Times are boot-clock milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Exit<'a> {
    /// Text form of the instance: the seed of the jitter.
    pub key: &'a str,
    pub policy: RestartPolicy,
    /// Exit status, or 128 + signal.
    pub code: i32,
    /// Restarts in a row before this end.
    pub streak: u32,
    pub started_at: Option<u64>,
    pub at: u64,
}

/// What follows, with the reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// `streak` is the count to start with.
    Now {
        streak: u32,
        reason: String,
    },
    /// Not before `until` (boot-clock milliseconds).
    At {
        until: u64,
        reason: String,
    },
    Never {
        reason: String,
    },
}

/// What the policy says about `exit` at the moment `now` (boot-clock milliseconds).
pub fn decide(exit: Exit<'_>, now: u64) -> Decision {
    let ran = exit
        .started_at
        .map_or(0, |started| exit.at.saturating_sub(started));
    let streak = if ran >= STEADY { 0 } else { exit.streak };
    let ended = format!("exited with {}", exit.code);
    let never = |why: &str| Decision::Never {
        reason: format!("{ended}; {why}"),
    };
    match exit.policy {
        RestartPolicy::No => return never("restart is \"no\""),
        RestartPolicy::OnFailure(_) if exit.code == 0 => return never("restart is on-failure"),
        RestartPolicy::OnFailure(Some(limit)) if streak >= limit => {
            return never(&format!(
                "on-failure:{limit} is used up; change the service or raise the limit"
            ));
        }
        RestartPolicy::Always | RestartPolicy::UnlessStopped | RestartPolicy::OnFailure(_) => {}
    }
    let until = exit.at.saturating_add(backoff::delay(exit.key, streak));
    if now >= until {
        Decision::Now {
            streak: streak.saturating_add(1),
            reason: ended,
        }
    } else {
        Decision::At {
            until,
            reason: format!("{ended}; restart {} follows", streak.saturating_add(1)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(policy: RestartPolicy, code: i32, streak: u32) -> Exit<'static> {
        Exit {
            key: "shop/web/1a",
            policy,
            code,
            streak,
            started_at: Some(1_000),
            at: 2_000,
        }
    }

    #[test]
    fn the_policy_decides_who_is_started_again() {
        use RestartPolicy::*;
        let cases = [
            (No, 0, 0, false),
            (No, 1, 0, false),
            (Always, 0, 0, true),
            (Always, 137, 50, true),
            (UnlessStopped, 0, 0, true),
            (OnFailure(None), 0, 0, false),
            (OnFailure(None), 1, 1000, true),
            (OnFailure(Some(3)), 1, 2, true),
            (OnFailure(Some(3)), 1, 3, false),
            (OnFailure(Some(0)), 1, 0, false),
        ];
        for (policy, code, streak, again) in cases {
            let decision = decide(exit(policy, code, streak), u64::MAX);
            assert_eq!(
                matches!(decision, Decision::Now { .. }),
                again,
                "{policy:?}, exit {code}, streak {streak}: {decision:?}"
            );
        }
    }

    #[test]
    fn the_delay_counts_from_the_end_and_grows_with_the_streak() {
        for streak in [0, 1, 5, 20, u32::MAX] {
            let until = 2_000 + backoff::delay("shop/web/1a", streak);
            let early = decide(exit(RestartPolicy::Always, 1, streak), until - 1);
            assert!(
                matches!(early, Decision::At { until: at, .. } if at == until),
                "{early:?}"
            );
            let due = decide(exit(RestartPolicy::Always, 1, streak), until);
            assert!(
                matches!(due, Decision::Now { streak: next, .. } if next == streak.saturating_add(1)),
                "{due:?}"
            );
        }
    }

    #[test]
    fn ten_seconds_of_running_forget_earlier_crashes() {
        let steady = Exit {
            at: 11_000,
            ..exit(RestartPolicy::OnFailure(Some(2)), 1, 2)
        };
        assert!(matches!(
            decide(steady, u64::MAX),
            Decision::Now { streak: 1, .. }
        ));
        let short = Exit { at: 10_999, ..steady };
        assert!(matches!(decide(short, u64::MAX), Decision::Never { .. }));
    }
}
