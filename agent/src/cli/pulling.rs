//! How far transfers of images are: one line that is redrawn in place on a terminal, plain lines otherwise.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use backend::image::Progress;
use serde_json::json;

use super::{image::short, print};
use crate::render;

/// The rate is that of so long.
const RECENT: Duration = Duration::from_secs(5);
/// Columns of a bar.
const BAR: usize = 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Redrawn in place.
    Bar,
    /// The beginning, and every tenth.
    Lines,
    Json,
}

/// What was shown of the transfers so far.
pub struct Pulling {
    way: Way,
    colour: bool,
    start: Instant,
    /// Since the start, and bytes of all of them.
    samples: Vec<(Duration, u64)>,
    /// By name: the last tenth that was told, and how many layers were unpacked.
    told: BTreeMap<String, (u64, usize)>,
    /// There is a bar on the last line.
    drawn: bool,
}

impl Pulling {
    /// `as_json`: a document for each event on standard output.
    pub fn new(as_json: bool) -> Self {
        Pulling {
            way: match (as_json, std::io::stderr().is_terminal()) {
                (true, _) => Way::Json,
                (false, true) => Way::Bar,
                (false, false) => Way::Lines,
            },
            colour: render::colour_err(),
            start: Instant::now(),
            samples: Vec::new(),
            told: BTreeMap::new(),
            drawn: false,
        }
    }

    /// One of them is about to begin.
    pub fn begin(&self, name: &str) -> anyhow::Result<()> {
        match self.way {
            Way::Bar => Ok(()),
            Way::Lines => {
                eprintln!("pulling {name}");
                Ok(())
            }
            Way::Json => print(&format!("{}\n", json!({ "event": "begin", "name": name }))),
        }
    }

    /// Those that are under way now.
    pub fn show(&mut self, all: &[Progress]) -> anyhow::Result<()> {
        self.told
            .retain(|name, _| all.iter().any(|one| one.reference == *name));
        let Some(sum) = sum(all) else {
            self.samples.clear();
            return self.clear();
        };
        let now = self.start.elapsed();
        self.samples.push((now, sum.fetched));
        self.samples.retain(|(at, _)| now - *at <= RECENT);
        let rate = rate(&self.samples);
        if self.way == Way::Bar {
            // Without wrapping: what does not fit is cut, and the line stays one.
            eprint!("\r\x1b[2K\x1b[?7l{}\x1b[?7h", bar(&sum, rate, self.colour));
            self.drawn = true;
            return Ok(std::io::stderr().flush()?);
        }
        for progress in all {
            let mark = (tenth(progress), progress.unpacked);
            let before = self.told.insert(progress.reference.clone(), mark);
            if before == Some(mark) {
                continue;
            }
            if self.way == Way::Json {
                let event = json!({
                    "event": "progress", "name": progress.reference, "fetched": progress.fetched,
                    "size": progress.size, "unpacked": progress.unpacked, "layers": progress.layers,
                });
                print(&format!("{event}\n"))?;
            } else {
                eprintln!("{}", plain(progress, rate));
            }
        }
        Ok(())
    }

    /// Somebody else is about to write a line.
    pub fn clear(&mut self) -> anyhow::Result<()> {
        if std::mem::take(&mut self.drawn) {
            eprint!("\r\x1b[2K");
            std::io::stderr().flush()?;
        }
        Ok(())
    }
}

/// Several as one; `None`: there is none.
fn sum(all: &[Progress]) -> Option<Progress> {
    let sum = all.iter().cloned().reduce(|sum, one| Progress {
        reference: String::new(),
        fetched: sum.fetched.saturating_add(one.fetched),
        size: sum.size.saturating_add(one.size),
        unpacked: sum.unpacked + one.unpacked,
        layers: sum.layers + one.layers,
    });
    sum.map(|sum| Progress {
        reference: match sum.reference.is_empty() {
            true => format!("{} images", all.len()),
            false => title(&sum.reference),
        },
        ..sum
    })
}

fn tenth(progress: &Progress) -> u64 {
    (progress.fetched.saturating_mul(10))
        .checked_div(progress.size)
        .unwrap_or(10)
}

/// Bytes a second, between the first and the last of some samples.
fn rate(samples: &[(Duration, u64)]) -> u64 {
    let (Some((first, from)), Some((last, to))) = (samples.first(), samples.last()) else {
        return 0;
    };
    let milliseconds = (*last - *first).as_millis().max(1);
    u64::try_from(u128::from(to.saturating_sub(*from)) * 1000 / milliseconds).unwrap_or(u64::MAX)
}

/// `12.0 MiB of 40.1 MiB, 3.1 MiB/s, 9 s left`, or how far the unpacking is.
fn state(progress: &Progress, rate: u64) -> String {
    if progress.fetched >= progress.size {
        return format!(
            "{}, unpacked {} of {} layers",
            render::bytes(progress.size),
            progress.unpacked,
            progress.layers
        );
    }
    let left = (progress.size - progress.fetched).checked_div(rate);
    let left = left.map_or(String::new(), |seconds| format!(", {seconds} s left"));
    format!(
        "{} of {}, {}/s{left}",
        render::bytes(progress.fetched),
        render::bytes(progress.size),
        render::bytes(rate)
    )
}

fn plain(progress: &Progress, rate: u64) -> String {
    format!(
        "pulling {}: {} % ({})",
        progress.reference,
        tenth(progress) * 10,
        state(progress, rate)
    )
}

fn bar(progress: &Progress, rate: u64, colour: bool) -> String {
    let share = u128::from(progress.fetched.min(progress.size)) * BAR as u128;
    let full = share
        .checked_div(u128::from(progress.size))
        .unwrap_or(BAR as u128);
    let full = usize::try_from(full).unwrap_or(BAR);
    let drawn = render::paint(&"#".repeat(full), render::Tone::Good, colour);
    let empty = "-".repeat(BAR - full);
    format!(
        "{} [{drawn}{empty}] {}",
        progress.reference,
        state(progress, rate)
    )
}

/// Its end is what tells names apart; a digest needs no more than its beginning.
fn title(name: &str) -> String {
    let (name, digest) = name.split_once('@').unwrap_or((name, ""));
    let last = name.rsplit('/').next().unwrap_or(name);
    match digest.is_empty() {
        true => last.to_owned(),
        false => format!("{last}@{}", short(digest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(fetched: u64, size: u64, unpacked: usize) -> Progress {
        Progress {
            reference: "docker.io/library/nginx:1.27".to_owned(),
            fetched,
            size,
            unpacked,
            layers: 5,
        }
    }

    #[test]
    fn a_bar_says_how_far_it_is_and_for_how_long() {
        let mib = 1 << 20;
        for (progress, rate, expected) in [
            (
                at(0, 40 * mib, 0),
                0,
                "nginx:1.27 [------------------------] 0 B of 40.0 MiB, 0 B/s",
            ),
            (
                at(20 * mib, 40 * mib, 0),
                4 * mib,
                "nginx:1.27 [############------------] 20.0 MiB of 40.0 MiB, 4.0 MiB/s, 5 s left",
            ),
            (
                at(40 * mib, 40 * mib, 2),
                mib,
                "nginx:1.27 [########################] 40.0 MiB, unpacked 2 of 5 layers",
            ),
            (
                at(0, 0, 5),
                0,
                "nginx:1.27 [########################] 0 B, unpacked 5 of 5 layers",
            ),
        ] {
            assert_eq!(bar(&sum(&[progress]).unwrap(), rate, false), expected);
        }
        assert!(bar(&at(mib, mib, 0), 0, true).contains("\x1b[32m#"));
        assert_eq!(
            plain(&at(20 * mib, 40 * mib, 0), 4 * mib),
            "pulling docker.io/library/nginx:1.27: 50 % (20.0 MiB of 40.0 MiB, 4.0 MiB/s, 5 s left)"
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let seconds = Duration::from_secs;
        for (samples, expected) in [
            (vec![], 0),
            (vec![(seconds(1), 7)], 0),
            (vec![(seconds(1), 100), (seconds(3), 300)], 100),
            // What came was wrong, and comes again.
            (vec![(seconds(1), 100), (seconds(3), 0)], 0),
        ] {
            assert_eq!(rate(&samples), expected, "{samples:?}");
        }
        assert_eq!(title("a.b/c/d@sha256:0123456789abcdef"), "d@0123456789ab");
    }

    #[test]
    fn several_are_shown_as_one() {
        assert_eq!(sum(&[]), None);
        let sum = sum(&[at(10, 40, 1), at(20, 60, 2)]).unwrap();
        assert_eq!(
            (sum.fetched, sum.size, sum.unpacked, sum.layers),
            (30, 100, 3, 10)
        );
        assert_eq!(sum.reference, "2 images");
    }
}
