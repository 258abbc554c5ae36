//! When to look again after an event: at once where something is complete, otherwise after quiet.

/// Quiet before an incomplete change is looked at, and the least time between two looks.
const QUIET: u64 = 100;
/// The longest that a stream of incomplete changes puts a look off.
const CAP: u64 = 1000;

/// Pure; times in milliseconds of any one clock.
#[derive(Debug, Default)]
pub struct Debounce {
    first: Option<u64>,
    last: u64,
    urgent: bool,
    looked: Option<u64>,
}

impl Debounce {
    /// `urgent`: a file was closed after writing, renamed or removed.
    pub fn event(&mut self, urgent: bool, now: u64) {
        self.first.get_or_insert(now);
        self.last = now;
        self.urgent |= urgent;
    }

    /// When to look; `None`: nothing happened.
    pub fn due(&self) -> Option<u64> {
        let first = self.first?;
        Some(if self.urgent {
            self.looked.map_or(first, |looked| first.max(looked + QUIET))
        } else {
            (self.last + QUIET).min(first + CAP)
        })
    }

    pub fn looked(&mut self, now: u64) {
        *self = Debounce {
            looked: Some(now),
            ..Debounce::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_complete_file_is_looked_at_at_once_and_bursts_behind_it_coalesce() {
        let mut debounce = Debounce::default();
        assert_eq!(debounce.due(), None);
        debounce.event(false, 1000);
        assert_eq!(debounce.due(), Some(1100));
        debounce.event(true, 1005);
        assert_eq!(debounce.due(), Some(1000), "now");
        debounce.looked(1006);
        assert_eq!(debounce.due(), None);
        debounce.event(true, 1010);
        debounce.event(true, 1020);
        assert_eq!(debounce.due(), Some(1106));
        debounce.looked(1106);
        debounce.event(true, 5000);
        assert_eq!(debounce.due(), Some(5000));
    }

    #[test]
    fn a_stream_of_incomplete_changes_is_put_off_by_one_second_at_most() {
        let mut debounce = Debounce::default();
        for now in (0..3000).step_by(50) {
            debounce.event(false, now);
        }
        assert_eq!(debounce.due(), Some(1000));
    }
}
