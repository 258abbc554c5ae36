//! The delay before the next try: doubling, from 100 ms to 60 s on this host and from 1 s to 5 min over the network,
//! with a jitter that is the same on every run.

use crate::{derive, key::Key};

/// Milliseconds before the first retry.
pub const FIRST: u64 = 100;
/// Milliseconds that a delay, without its jitter, never exceeds.
pub const LONGEST: u64 = 60_000;

/// First and longest, in milliseconds, where a registry is asked: others have need of it, too.
const REMOTE: (u64, u64) = (1_000, 300_000);

/// Milliseconds to wait before what failed `attempts` times before is tried again.
pub fn after(key: &Key, attempts: u32) -> u64 {
    let (first, longest) = match key {
        // Of an image in a file, the path is absolute; in no name of a registry a slash follows a colon.
        Key::Image { reference, .. } if !reference.contains(":/") => REMOTE,
        _ => (FIRST, LONGEST),
    };
    grown(&key.to_string(), attempts, first, longest)
}

/// Milliseconds to wait before try number `attempt` (from 0) of `key`: within ±10 % of the curve.
pub fn delay(key: &str, attempt: u32) -> u64 {
    grown(key, attempt, FIRST, LONGEST)
}

fn grown(key: &str, attempt: u32, first: u64, longest: u64) -> u64 {
    let attempt = if planted!("delay-never-grows") { 0 } else { attempt };
    let factor = 1u64.checked_shl(attempt).unwrap_or(u64::MAX);
    let longest = if planted!("no-cap") {
        u64::MAX / 2000
    } else {
        longest
    };
    spread(key, attempt, first.saturating_mul(factor).min(longest))
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
    fn a_registry_is_asked_again_after_a_second_and_at_the_latest_after_five_minutes() {
        let image = |reference: &str| Key::Image {
            project: "shop".into(),
            reference: reference.into(),
        };
        for (key, first, longest) in [
            (image("registry.example:5000/shop:1"), 1_000, 300_000),
            (image("oci:/srv/shop:1"), 100, 60_000),
            (Key::Firewall, 100, 60_000),
        ] {
            for (attempts, plain) in [(0, first), (1, 2 * first), (20, longest)] {
                let delay = after(&key, attempts);
                assert!(
                    (plain * 9 / 10..=plain * 11 / 10).contains(&delay),
                    "{key}: {delay}"
                );
            }
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
