//! Since when each condition of each project is as it is.

use std::collections::{BTreeMap, BTreeSet};

use super::{views, wire};

/// What a condition says, without what counts up in it, and since when (wall-clock milliseconds).
#[derive(Debug, Default)]
pub struct Since {
    known: BTreeMap<(String, String, String), (bool, String, u64)>,
}

impl Since {
    /// Fills in `since` where it is not known otherwise; what is not in `rows` any more is forgotten.
    pub fn fill(&mut self, rows: &mut [wire::Project], now: u64) {
        let mut there = BTreeSet::new();
        for row in rows {
            for condition in &mut row.conditions {
                // Several of one kind are told apart by what they are about; others change their reason.
                let about = match condition.kind.as_str() {
                    "Waiting" | "Failed" | "Intent" | "IntentLost" => condition.reason.clone(),
                    "Fault" => format!("{} {}", condition.reason, condition.message),
                    _ => String::new(),
                };
                let key = (row.project.clone(), condition.kind.clone(), about);
                let says = match condition.kind.as_str() {
                    // A next attempt is no other failure.
                    "Failed" => String::new(),
                    "Waiting" => condition
                        .message
                        .chars()
                        .filter(|c| !c.is_ascii_digit())
                        .collect(),
                    _ => condition.reason.clone(),
                };
                let known = self
                    .known
                    .entry(key.clone())
                    .or_insert_with(|| (condition.status, says.clone(), now));
                if (known.0, &known.1) != (condition.status, &says) {
                    *known = (condition.status, says, now);
                }
                if condition.since.is_none() {
                    condition.since = views::time(known.2);
                }
                there.insert(key);
            }
        }
        self.known.retain(|key, _| there.contains(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: &str, status: bool, reason: &str, message: &str) -> wire::Project {
        wire::Project {
            project: "shop".into(),
            source: None,
            state: "waiting".into(),
            conditions: vec![wire::Condition {
                kind: kind.into(),
                status,
                reason: reason.into(),
                message: message.into(),
                since: None,
            }],
            revision: wire::Revision::default(),
            next_attempt: None,
            diagnostics: Vec::new(),
        }
    }

    #[test]
    fn a_condition_keeps_its_moment_until_it_says_something_else() {
        let mut since = Since::default();
        let mut at = |row: wire::Project, now: u64| {
            let mut rows = [row];
            since.fill(&mut rows, now * 1000);
            rows[0].conditions[0].since.clone().expect("filled in")
        };
        let second = |text: &str| text.ends_with("00:00:01Z");
        assert!(second(&at(row("Converged", false, "Working", ""), 1)));
        assert!(second(&at(row("Converged", false, "Working", "two steps"), 2)));
        assert!(at(row("Converged", true, "NothingToDo", ""), 3).ends_with(":03Z"));
        let web = "container shop/web/1a";
        assert!(at(row("Failed", true, web, "the port is taken (attempt 1)"), 4).ends_with(":04Z"));
        assert!(at(row("Failed", true, web, "the port is taken (attempt 2)"), 5).ends_with(":04Z"));
        assert!(at(row("Waiting", true, web, "restart 5 follows"), 6).ends_with(":06Z"));
        assert!(at(row("Waiting", true, web, "restart 6 follows"), 7).ends_with(":06Z"));
        assert!(
            at(row("Failed", true, web, "it is back"), 8).ends_with(":08Z"),
            "it was gone"
        );
    }
}
