//! `stead image pull`: names asked of their registries anew, with progress.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use backend::{
    image::{Progress, Reference},
    layout::Layout,
};
use serde_json::json;

use super::short;
use crate::{
    cli::{Global, print},
    images::{self, Moved, Store},
    render,
};

/// How often a bar is drawn anew.
const EVERY: Duration = Duration::from_millis(100);
/// The rate is that of so long.
const RECENT: Duration = Duration::from_secs(5);
/// Columns of a bar.
const BAR: usize = 24;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The registry is asked anew. Where the tag has moved, the name stands for the new image from
now on, and the agent brings the services that use the name to it when it next looks at the
host, within five minutes. What a broken transfer has brought is not fetched again.")]
pub struct Pull {
    /// As in `image:` of a manifest.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl Pull {
    pub fn run(&self, global: &Global, layout: &Layout) -> anyhow::Result<u8> {
        let parsed = self.names.iter().map(|name| name.parse());
        let references: Vec<Reference> = parsed.collect::<Result<_, _>>()?;
        let store = images::open(layout);
        for reference in &references {
            match follow(&store, reference, global.json) {
                Ok(moved) => tell(&moved, "pulled", global.json)?,
                Err(error) => {
                    let error = error.context(format!(
                        "{reference} was not brought; what came of it is kept for the next time"
                    ));
                    if global.json {
                        let event = json!({
                            "event": "failed", "name": reference.to_string(), "error": format!("{error:#}"),
                        });
                        print(&format!("{event}\n"))?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(0)
    }
}

/// What a name stands for now.
pub fn tell(moved: &Moved, word: &str, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let event = json!({
            "event": word, "name": moved.name, "before": moved.before, "digest": moved.now,
        });
        return print(&format!("{event}\n"));
    }
    print(&match &moved.before {
        Some(before) if *before == moved.now => format!("{word} {} {} (as it was)\n", moved.name, moved.now),
        Some(before) => format!("{word} {} {} -> {}\n", moved.name, before, moved.now),
        None => format!("{word} {} {}\n", moved.name, moved.now),
    })
}

fn follow(store: &Store, reference: &Reference, as_json: bool) -> anyhow::Result<Moved> {
    let name = reference.to_string();
    let mut shown = Shown {
        way: match (as_json, std::io::stderr().is_terminal()) {
            (true, _) => Way::Json,
            (false, true) => Way::Bar,
            (false, false) => Way::Lines,
        },
        colour: render::colour_err(),
        start: Instant::now(),
        samples: Vec::new(),
        told: None,
    };
    match shown.way {
        Way::Bar => {}
        Way::Lines => eprintln!("pulling {name}"),
        Way::Json => print(&format!("{}\n", json!({ "event": "begin", "name": name })))?,
    }
    std::thread::scope(|scope| {
        let bringing = scope.spawn(|| store.bring(reference));
        while !bringing.is_finished() {
            std::thread::sleep(EVERY);
            if let Some(progress) = store.progress().into_iter().find(|one| one.reference == name) {
                shown.show(&progress)?;
            }
        }
        shown.end();
        let ended = bringing.join();
        let moved = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(moved)
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Redrawn in place.
    Bar,
    /// The beginning, and every tenth.
    Lines,
    Json,
}

struct Shown {
    way: Way,
    colour: bool,
    start: Instant,
    /// Since the start, and bytes.
    samples: Vec<(Duration, u64)>,
    /// The last tenth that was told, and how many layers were unpacked.
    told: Option<(u64, usize)>,
}

impl Shown {
    fn show(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let now = self.start.elapsed();
        self.samples.push((now, progress.fetched));
        self.samples.retain(|(at, _)| now - *at <= RECENT);
        let rate = rate(&self.samples);
        let mark = (tenth(progress), progress.unpacked);
        let moved = self.told != Some(mark);
        match self.way {
            Way::Bar => {
                // Without wrapping: what does not fit is cut, and the line stays one.
                let line = bar(progress, rate, self.colour);
                eprint!("\r\x1b[2K\x1b[?7l{line}\x1b[?7h");
                std::io::stderr().flush()?;
            }
            Way::Lines if moved => eprintln!("{}", plain(progress, rate)),
            Way::Json if moved => print(&format!(
                "{}\n",
                json!({
                    "event": "progress", "name": progress.reference, "fetched": progress.fetched,
                    "size": progress.size, "unpacked": progress.unpacked, "layers": progress.layers,
                })
            ))?,
            Way::Lines | Way::Json => {}
        }
        self.told = Some(mark);
        Ok(())
    }

    /// The line that follows is one of its own.
    fn end(&self) {
        if self.way == Way::Bar && self.told.is_some() {
            eprintln!();
        }
    }
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
        title(&progress.reference),
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
            assert_eq!(bar(&progress, rate, false), expected);
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
}
