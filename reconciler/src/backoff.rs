//! The delay before the next try: 100 ms doubling to 60 s, with a jitter that is the same on every run.

use crate::derive;

/// Milliseconds before the first retry.
pub const FIRST: u64 = 100;
/// Milliseconds that a delay, without its jitter, never exceeds.
pub const LONGEST: u64 = 60_000;

/// Milliseconds to wait before try number `attempt` (from 0) of `key`: within ±10 % of the curve.
pub fn delay(key: &str, attempt: u32) -> u64 {
    let attempt = if planted!("delay-never-grows") { 0 } else { attempt };
    let factor = 1u64.checked_shl(attempt).unwrap_or(u64::MAX);
    let longest = if planted!("no-cap") {
        u64::MAX / 2000
    } else {
        LONGEST
    };
    spread(key, attempt, FIRST.saturating_mul(factor).min(longest))
}

/// `plain` milliseconds, give or take ±10 %: not all keys at one moment.
pub fn spread(key: &str, attempt: u32, plain: u64) -> u64 {
    let thousandths =
        derive::number(&format!("{key} {attempt}")) % if planted!("jitter-unbounded") { 20_001 } else { 201 };
    plain * (900 + thousandths) / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_from_100_ms_to_60_s_within_ten_percent() {
        let curve = [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000,
        ];
        for (attempt, plain) in curve.into_iter().enumerate() {
            let delay = delay("shop/web/1a", attempt as u32);
            assert!(
                delay >= plain * 9 / 10 && delay <= plain * 11 / 10,
                "attempt {attempt}: {delay}"
            );
        }
    }

    #[test]
    fn saturates_whatever_the_attempt() {
        for attempt in [31, 32, 63, 64, 65, u32::MAX] {
            let delay = delay("shop/web/1a", attempt);
            assert!((54_000..=66_000).contains(&delay), "attempt {attempt}: {delay}");
        }
    }

    #[test]
    fn is_the_same_every_time_and_differs_between_keys() {
        assert_eq!(delay("a", 5), delay("a", 5));
        let delays: std::collections::BTreeSet<u64> =
            (0..20).map(|n| delay(&format!("shop/web/{n}a"), 9)).collect();
        assert!(delays.len() > 10, "the jitter spreads: {delays:?}");
    }
}
