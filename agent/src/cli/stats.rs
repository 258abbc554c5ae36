//! `stead stats`: what running instances use, now and on.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Global, print, print_json, target};
use crate::{
    api::wire::Place,
    host::{self, Source, Usage},
    render,
};

const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Stats {
    /// Once, instead of every second.
    #[arg(long)]
    no_stream: bool,
    /// PROJECT/SERVICE[/INDEX], or SERVICE where there is only one of that name; none: all.
    targets: Vec<String>,
}

/// One instance, and what was seen of it.
struct Row {
    name: String,
    usage: Usage,
    /// Hundred is one processor.
    cpu: Option<f64>,
}

impl Stats {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let client = global.client()?;
        let mut before: BTreeMap<String, (Instant, Usage)> = BTreeMap::new();
        loop {
            let places: Vec<Place> = client.get("/v1/instances").await?;
            let first = before.is_empty();
            let places: Vec<Place> = match self.targets.as_slice() {
                [] => places.into_iter().filter(|place| place.running).collect(),
                targets => targets
                    .iter()
                    .map(|name| target::find(name, &places).cloned())
                    .collect::<anyhow::Result<_>>()?,
            };
            let rows = tokio::task::spawn_blocking(move || look(&places, before)).await?;
            if !first || rows.is_empty() {
                self.show(&rows, global.json)?;
                if self.no_stream {
                    return Ok(0);
                }
            }
            before = rows
                .into_iter()
                .map(|(row, at)| (row.name, (at, row.usage)))
                .collect();
            tokio::time::sleep(EVERY).await;
        }
    }

    fn show(&self, rows: &[(Row, Instant)], json: bool) -> anyhow::Result<()> {
        let rows = rows.iter().map(|(row, _)| row);
        if json {
            let documents: Vec<_> = rows
                .map(|row| json!({"instance": row.name, "cpu_percent": row.cpu, "usage": row.usage}))
                .collect();
            if self.no_stream {
                return print_json(&documents);
            }
            return documents
                .iter()
                .try_for_each(|document| print(&format!("{document}\n")));
        }
        let head = [
            "INSTANCE", "%CPU", "MEMORY", "LIMIT", "NET IN", "NET OUT", "READ", "WRITTEN", "PIDS",
        ];
        let colour = render::colour_out();
        let summed = rows.clone().any(|row| {
            row.usage.memory_source == Source::Processes || row.usage.block_source == Source::Processes
        });
        let rows: Vec<Vec<String>> = rows.map(cells).collect();
        let mut text = render::table(&head, &rows, colour);
        if summed {
            text.push_str("~ the sum of the processes that live now: no cgroup controller counts it here\n");
        }
        // Over what was there before, for eyes.
        if !self.no_stream && std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            text.insert_str(0, "\x1b[H\x1b[J");
        }
        print(&text)
    }
}

/// One that ends meanwhile is not there.
fn look(places: &[Place], mut before: BTreeMap<String, (Instant, Usage)>) -> Vec<(Row, Instant)> {
    let mut rows = Vec::new();
    for place in places {
        let Ok(usage) = host::usage(&place.socket) else {
            continue;
        };
        let at = Instant::now();
        let name = format!("{}/{}/{}", place.project, place.service, place.index);
        let cpu = before.remove(&name).and_then(|(then, old)| {
            let used = usage.cpu_usec?.checked_sub(old.cpu_usec?)?;
            Some(used as f64 / at.duration_since(then).as_micros().max(1) as f64 * 100.0)
        });
        rows.push((Row { name, usage, cpu }, at));
    }
    rows
}

fn cells(row: &Row) -> Vec<String> {
    let usage = &row.usage;
    let bytes = |value: Option<u64>, source: Source| {
        let mark = if source == Source::Processes { "~" } else { "" };
        value.map_or_else(
            || "?".to_owned(),
            |value| format!("{mark}{}", render::bytes(value)),
        )
    };
    vec![
        row.name.clone(),
        row.cpu.map_or_else(|| "?".to_owned(), |cpu| format!("{cpu:.1}")),
        bytes(usage.memory, usage.memory_source),
        usage.memory_limit.map_or_else(|| "-".to_owned(), render::bytes),
        bytes(usage.received, Source::Cgroup),
        bytes(usage.sent, Source::Cgroup),
        bytes(usage.read, usage.block_source),
        bytes(usage.written, usage.block_source),
        usage.pids.map_or_else(|| "?".to_owned(), |pids| pids.to_string()),
    ]
}
