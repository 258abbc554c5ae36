//! When to look again after an event: at once where something is complete, otherwise after quiet.

/// Quiet before an incomplete change is looked at.
const QUIET: u64 = 100;
/// The longest that a stream of incomplete changes puts a look off.
const CAP: u64 = 1000;
/// Between a look and the one that follows it closely: doubles from look to look, up to [`QUIET`]. Short
/// at first, for a file is often renamed into place right after it was closed under another name.
const GAP: u64 = 5;

/// Pure; times in milliseconds of any one clock.
#[derive(Debug, Default)]
pub struct Debounce {
    first: Option<u64>,
    last: u64,
    urgent: bool,
    /// When was the last look, and how long after it the next may follow.
    looked: Option<(u64, u64)>,
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
            self.looked.map_or(first, |(looked, gap)| first.max(looked + gap))
        } else {
            (self.last + QUIET).min(first + CAP)
        })
    }

    pub fn looked(&mut self, now: u64) {
        let gap = match self.looked {
            Some((looked, gap)) if now < looked + gap + QUIET => (gap * 2).min(QUIET),
            _ => GAP,
        };
        *self = Debounce {
            looked: Some((now, gap)),
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
        debounce.event(true, 1007);
        assert_eq!(
            debounce.due(),
            Some(1011),
            "renamed into place after it was closed"
        );
        let mut gaps = Vec::new();
        for _ in 0..8 {
            let now = debounce.due().unwrap();
            debounce.looked(now);
            debounce.event(true, now + 1);
            gaps.push(debounce.due().unwrap() - now);
        }
        assert_eq!(gaps, [10, 20, 40, 80, 100, 100, 100, 100]);
        debounce.looked(2000);
        debounce.event(true, 5000);
        assert_eq!(debounce.due(), Some(5000));
        debounce.looked(5000);
        debounce.event(true, 5001);
        assert_eq!(debounce.due(), Some(5005), "after quiet it begins anew");
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
