//! `stead logs`: what services printed. Reads the files; needs no agent.

use std::{cell::Cell, collections::BTreeMap, fs, path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde_json::json;

use super::{Global, duration, print};
use crate::{
    host::{ELSEWHERE, LogLine, LogReader},
    render,
};

const EVERY: Duration = Duration::from_millis(100);

/// One line of one instance.
pub struct Line {
    pub project: String,
    /// `web-1`
    pub instance: String,
    pub line: LogLine,
}

#[derive(Debug, clap::Args)]
pub struct Logs {
    /// Go on with what comes.
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines of each instance.
    #[arg(long, value_name = "N")]
    tail: Option<usize>,
    /// Only later lines: a duration (`10m`) or a time (`2026-11-20T08:00:00Z`).
    #[arg(long, value_name = "T", value_parser = since)]
    since: Option<Timestamp>,
    /// With the time of each line.
    #[arg(short, long)]
    timestamps: bool,
    /// As `stead status` names it.
    project: String,
    /// Only of these services.
    services: Vec<String>,
}

fn since(text: &str) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = duration(text)
        .map_err(|_| format!("`{text}` is neither a duration (10m) nor a time (2026-11-20T08:00:00Z)"))?;
    Timestamp::now()
        .checked_sub(ago)
        .map_err(|error| error.to_string())
}

impl Logs {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let layout = global.layout()?;
        let mut follower = Follower::new(
            layout.state.join("logs"),
            std::slice::from_ref(&self.project),
            self.services.clone(),
        );
        let mut lines = follower.read();
        let say = |hints: Vec<String>| hints.iter().for_each(|hint| eprintln!("stead: {hint}"));
        say(follower.hints());
        if follower.tails.is_empty() && !self.follow {
            let directory = layout.state.join("logs").join(&self.project);
            if let Err(error) = fs::read_dir(&directory)
                && error.kind() == std::io::ErrorKind::PermissionDenied
            {
                anyhow::bail!(
                    "{} may only be read by root; run it with sudo",
                    directory.display()
                );
            }
            anyhow::bail!(
                "there are no logs of {}; `stead ps -a` shows what there is",
                [std::slice::from_ref(&self.project), &self.services]
                    .concat()
                    .join(" ")
            );
        }
        if let Some(since) = self.since {
            let later = |line: &LogLine| line.time.parse::<Timestamp>().is_ok_and(|time| time >= since);
            lines.retain(|line| later(&line.line));
        }
        if let Some(count) = self.tail {
            lines = last(lines, count);
        }
        let show = Show {
            json: global.json,
            timestamps: self.timestamps,
            colour: render::colour_out(),
            width: Cell::new(8),
        };
        show.print(&lines)?;
        if !self.follow {
            return Ok(0);
        }
        loop {
            tokio::time::sleep(EVERY).await;
            show.print(&follower.read())?;
            say(follower.hints());
        }
    }
}

/// The last `count` of each instance, in the same order.
fn last(lines: Vec<Line>, count: usize) -> Vec<Line> {
    let instance = |line: &Line| (line.project.clone(), line.instance.clone());
    let mut left: BTreeMap<(String, String), usize> = BTreeMap::new();
    for line in &lines {
        *left.entry(instance(line)).or_default() += 1;
    }
    lines
        .into_iter()
        .filter(|line| {
            let left = left.entry(instance(line)).or_default();
            *left -= 1;
            *left < count
        })
        .collect()
}

/// How lines are shown.
pub struct Show {
    pub json: bool,
    pub timestamps: bool,
    pub colour: bool,
    /// Of the widest name so far, so that lines stand below each other.
    pub width: Cell<usize>,
}

impl Show {
    pub fn print(&self, lines: &[Line]) -> anyhow::Result<()> {
        let widths = lines.iter().map(|line| line.instance.len());
        let width = widths.max().unwrap_or(0).max(self.width.get());
        self.width.set(width);
        let mut text = String::new();
        for Line {
            project,
            instance,
            line,
        } in lines
        {
            let said = String::from_utf8_lossy(&line.text);
            if self.json {
                let object = json!({
                    "project": project, "instance": instance, "time": line.time,
                    "stream": line.stream, "text": said,
                });
                text.push_str(&format!("{object}\n"));
                continue;
            }
            let time = if self.timestamps {
                format!("{} ", line.time)
            } else {
                String::new()
            };
            let prefix = render::prefix(instance, width, self.colour);
            text.push_str(&format!("{prefix} {time}{said}\n"));
        }
        print(&text)
    }
}

/// Reads the logs of projects, also of instances that appear later.
pub struct Follower {
    logs: PathBuf,
    projects: Vec<String>,
    services: Vec<String>,
    /// By directory: `PROJECT/web-1a`.
    tails: BTreeMap<PathBuf, Tail>,
    /// Where else output goes, by instance; said once.
    elsewhere: BTreeMap<String, String>,
}

struct Tail {
    project: String,
    instance: String,
    reader: LogReader,
}

impl Follower {
    pub fn new(logs: PathBuf, projects: &[String], services: Vec<String>) -> Self {
        Follower {
            logs,
            projects: projects.to_vec(),
            services,
            tails: BTreeMap::new(),
            elsewhere: BTreeMap::new(),
        }
    }

    /// Which instances print to somewhere else as well, or only there.
    fn hints(&mut self) -> Vec<String> {
        let mut found = Vec::new();
        for (place, tail) in &self.tails {
            let text = fs::read_to_string(place.join(ELSEWHERE)).unwrap_or_default();
            let known = self.elsewhere.entry(tail.instance.clone()).or_default();
            if *known != text {
                *known = text;
                if !known.is_empty() {
                    found.push(format!("{}: {known}", tail.instance));
                }
            }
        }
        found
    }

    /// What came since, up to now, in the order of its times.
    pub fn read(&mut self) -> Vec<Line> {
        self.look();
        // A service may print faster than anybody reads.
        let now = format!("{:.9}", Timestamp::now());
        let mut lines = Vec::new();
        for tail in self.tails.values_mut() {
            // Removed in this moment: the next look has it or does not.
            while let Ok(Some(line)) = tail.reader.next_line() {
                let last = line.time > now;
                lines.push(Line {
                    project: tail.project.clone(),
                    instance: tail.instance.clone(),
                    line,
                });
                if last {
                    break;
                }
            }
        }
        lines.sort_by(|a, b| a.line.time.cmp(&b.line.time));
        lines
    }

    fn look(&mut self) {
        for project in &self.projects {
            // A project that has not printed anything yet has no directory.
            for entry in fs::read_dir(self.logs.join(project))
                .into_iter()
                .flatten()
                .flatten()
            {
                let Ok(name) = entry.file_name().into_string() else {
                    continue;
                };
                // `web-1a` is shown as `web-1`: there is one of both slots at a time.
                let instance = name.trim_end_matches(['a', 'b']);
                let service = instance.rsplit_once('-').map_or(instance, |(service, _)| service);
                let wanted = self.services.is_empty() || self.services.iter().any(|name| name == service);
                if !wanted || self.tails.contains_key(&entry.path()) {
                    continue;
                }
                if let Ok(reader) = LogReader::open(&entry.path()) {
                    let tail = Tail {
                        project: project.clone(),
                        instance: instance.to_owned(),
                        reader,
                    };
                    self.tails.insert(entry.path(), tail);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_all_instances_come_in_order_and_later_instances_too() {
        let logs = tempfile::tempdir().unwrap();
        let write = |instance: &str, text: &str| {
            let directory = logs.path().join("shop").join(instance);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("current.log"), text).unwrap();
        };
        write(
            "web-1a",
            "2025-1 stdout P be\n2025-1 stdout F gin\n2025-3 stderr F third\n",
        );
        write("db-1b", "2025-2 stdout F second\n");
        let mut follower = Follower::new(logs.path().into(), &["shop".into()], Vec::new());
        let mut read = || {
            let show = |line: Line| format!("{} {}", line.instance, String::from_utf8_lossy(&line.line.text));
            follower.read().into_iter().map(show).collect::<Vec<_>>()
        };
        assert_eq!(read(), ["web-1 begin", "db-1 second", "web-1 third"]);
        write("job-1a", "2025-4 stdout F late\n");
        assert_eq!(read(), ["job-1 late"]);
        let mut one = Follower::new(logs.path().into(), &["shop".into()], vec!["db".into()]);
        assert_eq!(one.read().len(), 1);
        assert_eq!(last(one.read(), 1).len(), 0);
    }
}
