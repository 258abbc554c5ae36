//! What happens again and again is told ever more seldom: a crash loop must not push everything else out.
//!
//! The first eight of a kind are kept, then the sixteenth, the thirty-second and so on, and at least one an hour,
//! each with its count. What has not happened for ten minutes is news again. What people cause (edits, orders,
//! refusals) and the changes of a manifest are kept each time.

use std::collections::BTreeMap;

use reconciler::journal::{Entry, Kind};

/// So many are kept one by one.
const FREE: u64 = 8;
/// Milliseconds after which one is kept, however many there were.
const SELDOM: u64 = 60 * 60 * 1000;
/// Milliseconds without another one after which it is news again.
const FORGOTTEN: u64 = 10 * 60 * 1000;

#[derive(Debug, Default)]
pub struct Repeats {
    seen: BTreeMap<(Kind, String, String), Seen>,
    /// Boot-clock milliseconds of the last clearing away.
    cleared: u64,
}

#[derive(Debug)]
struct Seen {
    times: u64,
    at: u64,
    kept: u64,
}

impl Repeats {
    /// The entry, with its count where others before it were not kept; `None`: not to be kept either.
    pub fn take(&mut self, mut entry: Entry) -> Option<Entry> {
        let Some(text) = essence(&entry) else {
            return Some(entry);
        };
        let now = entry.at.boot;
        if now.saturating_sub(self.cleared) > FORGOTTEN {
            self.cleared = now;
            self.seen
                .retain(|_, seen| now.saturating_sub(seen.at) <= FORGOTTEN);
        }
        let like = (entry.kind, entry.key.clone(), text);
        let seen = self.seen.entry(like).or_insert(Seen {
            times: 0,
            at: now,
            kept: now,
        });
        if now.saturating_sub(seen.at) > FORGOTTEN {
            seen.times = 0;
        }
        seen.times += 1;
        seen.at = now;
        let due =
            seen.times <= FREE || seen.times.is_power_of_two() || now.saturating_sub(seen.kept) >= SELDOM;
        if !due {
            return None;
        }
        seen.kept = now;
        if seen.times > FREE {
            entry.times = Some(seen.times);
        }
        Some(entry)
    }
}

/// What makes it the same as one before; `None`: it never is.
fn essence(entry: &Entry) -> Option<String> {
    let cause = &entry.cause;
    let new = cause.new.as_deref().unwrap_or_default();
    let stands = cause.span.is_some() || cause.field == "manifest" || cause.field == "down";
    match entry.kind {
        Kind::Wanted | Kind::Refused | Kind::Intent | Kind::Rollback => None,
        Kind::Done if entry.change.is_some() && stands => None,
        Kind::Failed => Some(without_digits(entry.error.as_deref().unwrap_or_default())),
        // `restart 5 follows` is the same as `restart 6 follows`.
        Kind::Waiting | Kind::Opened => Some(without_digits(new)),
        Kind::Event => Some(format!("{} {new}", cause.field)),
        Kind::Started | Kind::Done => {
            let action = entry.action.as_deref().unwrap_or_default();
            let old = cause.old.as_deref().unwrap_or_default();
            Some(format!("{action} {} {old} {new}", cause.field))
        }
    }
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[cfg(test)]
mod tests {
    use reconciler::{plan::step::Cause, time::Now};

    use super::*;

    fn entry(kind: Kind, text: &str, at: u64) -> Entry {
        let cause = Cause {
            field: "process".into(),
            old: None,
            new: Some(text.into()),
            span: None,
        };
        let now = Now { boot: at, wall: at };
        Entry::new(now, kind, Some("shop"), "container shop/web/1a", cause)
    }

    #[test]
    fn a_crash_loop_of_a_month_leaves_few_entries() {
        let mut repeats = Repeats::default();
        let mut kept = Vec::new();
        for crash in 0..30 * 24 * 60_u64 {
            let at = crash * 60_000;
            kept.extend(repeats.take(entry(Kind::Event, "it ended with status 7", at)));
            let wait = format!("exited with 7; restart {crash} follows");
            kept.extend(repeats.take(entry(Kind::Waiting, &wait, at)));
        }
        assert!(kept.len() < 2 * 31 * 24, "{}", kept.len());
        let counts: Vec<Option<u64>> = kept.iter().step_by(2).map(|entry| entry.times).collect();
        assert_eq!(counts[..8], [None; 8]);
        assert_eq!(counts[8..11], [Some(16), Some(32), Some(64)]);
        let last = kept.last().expect("some").at.wall;
        assert!(last > 30 * 24 * 3_600_000 - 2 * SELDOM, "the latest is never old");
    }

    #[test]
    fn what_differs_or_was_quiet_for_long_is_news() {
        let mut repeats = Repeats::default();
        for at in 0..20 {
            repeats.take(entry(Kind::Event, "it ended with status 7", at));
        }
        assert!(
            repeats
                .take(entry(Kind::Event, "it ended with status 7", 20))
                .is_none()
        );
        assert!(
            repeats
                .take(entry(Kind::Event, "it ended with status 3", 20))
                .is_some()
        );
        let later = repeats.take(entry(Kind::Event, "it ended with status 7", 21 + FORGOTTEN));
        assert_eq!(later.map(|entry| entry.times), Some(None));
    }

    #[test]
    fn what_people_cause_is_kept_each_time() {
        let mut repeats = Repeats::default();
        for kind in [Kind::Wanted, Kind::Refused, Kind::Intent, Kind::Rollback] {
            for at in 0..100 {
                assert!(repeats.take(entry(kind, "the same", at)).is_some(), "{kind:?}");
            }
        }
    }
}
