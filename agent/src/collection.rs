//! Room on the disk: above a high watermark, images that nobody needs are removed, the least recently used first, until
//! the disk is below a low one.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use backend::{image::ImageError, layout::Layout};
use reconciler::{
    journal::{Entry, Journal, Kind},
    plan::step::Cause,
    time::Now,
};
use tokio::sync::Notify;

use crate::{
    images::{self, Stored, What},
    render,
};

/// How often is looked without any image having come: others fill the disk, too.
const EVERY: Duration = Duration::from_secs(600);

/// Per cent of the file system of the images that are used, as df(1) counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub struct Watermarks {
    /// Above so many per cent of the disk of the images, those that nobody uses are removed, the least recently used
    /// first; 100: never.
    #[arg(long = "image-gc-high", value_name = "PERCENT", default_value_t = 85, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub high: u8,
    /// … until it is below so many per cent.
    #[arg(long = "image-gc-low", value_name = "PERCENT", default_value_t = 80, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub low: u8,
}

impl Watermarks {
    /// # Errors
    /// They are the wrong way round.
    pub fn check(self) -> anyhow::Result<Self> {
        if self.low > self.high {
            return Err(crate::exit::usage(format!(
                "--image-gc-low {} is above --image-gc-high {}; write the lower one first",
                self.low, self.high
            )));
        }
        Ok(self)
    }
}

/// How many bytes are to be freed, of a file system with so many used and free; `None`: there is room.
fn excess((used, free): (u64, u64), marks: Watermarks) -> Option<u64> {
    let (used, all) = (u128::from(used), u128::from(used) + u128::from(free));
    let above = used * 100 > all * u128::from(marks.high);
    let low = all * u128::from(marks.low) / 100;
    above.then(|| u64::try_from(used.saturating_sub(low)).unwrap_or(u64::MAX))
}

/// Keeps room for as long as the agent runs. `brought`: an image has come, or failed to.
pub async fn keep_room(
    layout: Arc<Layout>,
    marks: Watermarks,
    brought: Arc<Notify>,
    journal: Arc<impl Journal>,
    now: impl Fn() -> Now,
) {
    loop {
        // Whatever ends the waiting: at most one look by itself in so long.
        let _ = tokio::time::timeout(EVERY, brought.notified()).await;
        let place = Arc::clone(&layout);
        let looked = tokio::task::spawn_blocking(move || make_room(&place, marks)).await;
        match looked {
            Ok(Ok(gone)) => {
                for (image, why) in gone {
                    let cause = Cause {
                        field: "room".to_owned(),
                        old: None,
                        new: Some(why),
                        span: None,
                    };
                    let key = format!("image/{}", image.title());
                    journal.record(Entry::new(now(), Kind::Event, None, key, cause));
                }
            }
            Ok(Err(error)) => tracing::warn!(
                error = format!("{error:#}"),
                "the disk of the images is nearly full, and no image was removed"
            ),
            Err(error) => tracing::error!(%error, "looking for room on the disk has failed"),
        }
    }
}

/// What was removed, and why.
fn make_room(layout: &Layout, marks: Watermarks) -> anyhow::Result<Vec<(Stored, String)>> {
    let store = images::open(layout);
    let room = store.room()?;
    let Some(bytes) = excess(room, marks) else {
        return Ok(Vec::new());
    };
    let what = What::Oldest { bytes };
    let selected = match images::collect(layout, &store, &BTreeSet::new(), what, Duration::ZERO) {
        Ok(selected) => selected,
        // Looked at again when that has come.
        Err(error) if matches!(error.downcast_ref(), Some(ImageError::Busy { .. })) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let all = room.0.saturating_add(room.1).max(1);
    let percent = u128::from(room.0) * 100 / u128::from(all);
    let now = SystemTime::now();
    tracing::info!(
        percent,
        freed = selected.bytes(),
        images = selected.images.len(),
        "looked for room on the disk of the images"
    );
    if selected.bytes() < bytes {
        tracing::warn!(
            percent,
            high = marks.high,
            missing = render::bytes(bytes - selected.bytes()),
            "the disk of the images is nearly full, and all that is left of them is needed or has just come; remove \
             something else there, or give it a larger disk"
        );
    }
    let why = |image: &Stored| {
        let age = now.duration_since(image.used).unwrap_or_default();
        format!(
            "removed, because {percent} % of its disk were used, more than {} %; nobody uses it, and it was last used {} ago",
            marks.high,
            ago(age)
        )
    };
    Ok(selected
        .images
        .into_iter()
        .map(|image| {
            let why = why(&image);
            (image, why)
        })
        .collect())
}

/// `3 days`, `2 hours`, `5 minutes`
fn ago(age: Duration) -> String {
    let minutes = age.as_secs() / 60;
    let (number, unit) = match minutes {
        0..120 => (minutes, "minute"),
        120..2880 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_high_mark_it_is_freed_down_to_the_low_one() {
        let marks = Watermarks { high: 85, low: 80 };
        for (used, free, expected) in [
            (0, 0, None),
            (0, 1000, None),
            (850, 150, None),
            (851, 149, Some(51)),
            (1000, 0, Some(200)),
            (u64::MAX, u64::MAX, None),
        ] {
            assert_eq!(excess((used, free), marks), expected, "{used} {free}");
        }
        assert_eq!(
            excess((1000, 0), Watermarks { high: 100, low: 80 }),
            None,
            "never"
        );
        assert_eq!(excess((7, 993), Watermarks { high: 0, low: 0 }), Some(7));
        assert!(Watermarks { high: 80, low: 81 }.check().is_err());
        assert!(marks.check().is_ok());
    }

    #[test]
    fn times_are_told_in_the_unit_that_says_most() {
        for (seconds, expected) in [
            (59, "0 minutes"),
            (60, "1 minute"),
            (7199, "119 minutes"),
            (7200, "2 hours"),
            (172_800, "2 days"),
        ] {
            assert_eq!(ago(Duration::from_secs(seconds)), expected);
        }
    }
}
