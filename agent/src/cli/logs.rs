//! `stead logs`: what services printed. Reads the files; needs no agent.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::Timestamp;
use serde_json::json;

use super::{Global, duration, print};
use crate::{
    logs::{self, Line, Tail},
    render,
};

const EVERY: Duration = Duration::from_millis(100);

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
    project: String,
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
        if follower.tails.is_empty() && !self.follow {
            anyhow::bail!(
                "there are no logs of {}; `stead ps -a` shows what there is",
                [std::slice::from_ref(&self.project), &self.services]
                    .concat()
                    .join(" ")
            );
        }
        if let Some(since) = self.since {
            lines.retain(|(_, line)| line.time.parse::<Timestamp>().is_ok_and(|time| time >= since));
        }
        if let Some(count) = self.tail {
            lines = last(lines, count);
        }
        let show = Show {
            json: global.json,
            timestamps: self.timestamps,
            colour: render::colour_out(),
        };
        show.print(&lines)?;
        if !self.follow {
            return Ok(0);
        }
        loop {
            tokio::time::sleep(EVERY).await;
            show.print(&follower.read())?;
        }
    }
}

/// The last `count` of each instance, in the same order.
fn last(lines: Vec<(String, Line)>, count: usize) -> Vec<(String, Line)> {
    let mut left: BTreeMap<(String, String), usize> = BTreeMap::new();
    for (project, line) in &lines {
        *left.entry((project.clone(), line.instance.clone())).or_default() += 1;
    }
    lines
        .into_iter()
        .filter(|(project, line)| {
            let left = left.entry((project.clone(), line.instance.clone())).or_default();
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
}

impl Show {
    pub fn print(&self, lines: &[(String, Line)]) -> anyhow::Result<()> {
        let width = lines
            .iter()
            .map(|(_, line)| line.instance.len())
            .max()
            .unwrap_or(0)
            .max(8);
        let mut text = String::new();
        for (project, line) in lines {
            if self.json {
                let object = json!({
                    "project": project, "instance": line.instance, "time": line.time,
                    "stream": line.stream, "text": line.text,
                });
                text.push_str(&format!("{object}\n"));
                continue;
            }
            let time = if self.timestamps {
                format!("{} ", line.time)
            } else {
                String::new()
            };
            let prefix = render::prefix(&line.instance, width, self.colour);
            text.push_str(&format!("{prefix} {time}{}\n", line.text));
        }
        print(&text)
    }
}

/// Reads the logs of projects, also of instances that appear later.
pub struct Follower {
    logs: PathBuf,
    projects: Vec<String>,
    services: Vec<String>,
    tails: Vec<(String, Tail)>,
}

impl Follower {
    pub fn new(logs: PathBuf, projects: &[String], services: Vec<String>) -> Self {
        Follower {
            logs,
            projects: projects.to_vec(),
            services,
            tails: Vec::new(),
        }
    }

    /// What came since, in the order of its times.
    pub fn read(&mut self) -> Vec<(String, Line)> {
        for project in &self.projects {
            // A project that has not printed anything yet has no directory.
            for tail in logs::instances(&self.logs, project).unwrap_or_default() {
                let wanted =
                    self.services.is_empty() || self.services.iter().any(|name| name == tail.service());
                let known = self
                    .tails
                    .iter()
                    .any(|(_, other)| other.directory() == tail.directory());
                if wanted && !known {
                    self.tails.push((project.clone(), tail));
                }
            }
        }
        let mut lines = Vec::new();
        for (project, tail) in &mut self.tails {
            // Removed in this moment: the next look has it or does not.
            lines.extend(
                tail.read()
                    .unwrap_or_default()
                    .into_iter()
                    .map(|line| (project.clone(), line)),
            );
        }
        lines.sort_by(|a, b| a.1.time.cmp(&b.1.time));
        lines
    }
}
