//! The healthcheck of a service.

use super::{Reader, value::Place};
use crate::types::{Duration, Healthcheck};

/// The shortest time that the Engine takes.
const SHORTEST: Duration = Duration(1_000_000);

impl Reader<'_> {
    pub(super) fn healthcheck(&mut self, place: &Place) -> Option<Healthcheck> {
        let place = place.get("healthcheck")?;
        if place.flag("disable") {
            if let Some(at) = self
                .report
                .origins
                .get(&format!("{}.disable", place.path))
                .copied()
            {
                self.report.origin(format!("{}.test", place.path), at);
            }
            return Some(Healthcheck {
                test: Some(vec!["NONE".to_owned()]),
                ..Healthcheck::default()
            });
        }
        let check = Healthcheck {
            test: self.test(&place),
            interval: self.health_time(&place, "interval"),
            timeout: self.health_time(&place, "timeout"),
            // Zero means "not said" in the Engine API (HealthConfig).
            retries: self
                .number(&place, "retries", 0..=i128::from(u32::MAX))
                .filter(|retries| *retries > 0),
            start_period: self.health_time(&place, "start_period"),
            start_interval: self.health_time(&place, "start_interval"),
        };
        Some(check).filter(|check| *check != Healthcheck::default())
    }

    fn health_time(&mut self, place: &Place, key: &str) -> Option<Duration> {
        let time = self.duration(place, key)?;
        if time < SHORTEST {
            let what = format!("{time} is shorter than a millisecond");
            self.refuse(&place.get(key)?, what, "write `1ms` or more; `0s` is the default");
            return None;
        }
        Some(time)
    }

    fn test(&mut self, place: &Place) -> Option<Vec<String>> {
        let place = place.get("test")?;
        let test: Vec<String> = place.items().filter_map(|word| word.scalar()).collect();
        let words = test.len();
        let wrong = match test.first().map(String::as_str) {
            None => return None,
            Some("NONE") if words == 1 => return Some(test),
            Some("CMD") if words > 1 => return Some(test),
            Some("CMD-SHELL") if words == 2 => {
                if test.get(1).is_some_and(|command| command == "NONE") {
                    self.report.warning(
                        place.node.at,
                        format!("`{}`: the text `NONE` is a command of this name", place.path),
                        "to have no healthcheck, write `[\"NONE\"]` or `disable: true`",
                    );
                }
                return Some(test);
            }
            Some("NONE") => "nothing comes after `NONE`",
            Some("CMD") => "there is no command after `CMD`",
            Some("CMD-SHELL") => "one text comes after `CMD-SHELL`",
            // An error to every loader.
            Some(_) => return None,
        };
        let hint = "write `[\"CMD\", \"program\", \"argument\"]`, or plain text for a shell";
        self.refuse(&place, wrong, hint);
        None
    }
}
