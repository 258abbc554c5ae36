//! `stead why`: the chain of causes. Reads the journal; what is so now is asked of the agent, where one runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use anyhow::{Context, bail};
use jiff::Timestamp;
use reconciler::journal::Entry;
use serde_json::json;

use super::{Global, print, print_json, progress::reasons};
use crate::{
    api::wire::{Condition, Instance, LAST_GOOD, Project},
    client::Client,
    journal, render,
    why::{self, Chain, Of, clock, difference, seconds, time},
};

#[derive(Debug, clap::Args)]
pub struct Why {
    /// PROJECT[/SERVICE[/INDEX]], or SERVICE where that is unambiguous.
    target: String,
    /// How many causes, the newest first; 0: all there are.
    #[arg(short = 'n', long, default_value_t = 10, value_name = "N")]
    last: usize,
}

/// What is so at this moment.
struct Present {
    instances: Vec<Instance>,
    projects: Vec<Project>,
}

impl Why {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let layout = global.layout()?;
        let client = Client::new(&layout);
        let present = if client.answers().await {
            // What was just done is in the file then.
            let _: serde_json::Value = client.get("/v1/settle").await?;
            Some(Present {
                instances: client.get("/v1/ps").await?,
                projects: client.get("/v1/status").await?,
            })
        } else {
            None
        };
        let path = layout.state.join("journal.jsonl");
        let entries =
            journal::read(&path).with_context(|| format!("cannot read {}; only root may", path.display()))?;
        let of = find(&self.target, &entries, present.as_ref())?;
        let mut chains = why::chains(&entries, &of);
        let all = chains.len();
        if self.last > 0 {
            chains.truncate(self.last);
        }
        let present = present.map(|present| present.of(&of));
        if global.json {
            print_json(&json!({
                "target": of.to_string(),
                "agent": present.is_some(),
                "instances": present.as_ref().map(|present| &present.instances),
                "status": present.as_ref().and_then(|present| present.projects.first()),
                "chain": chains.iter().map(document).collect::<Vec<_>>(),
            }))?;
            return Ok(0);
        }
        let mut text = match &present {
            Some(present) => present.text(&of),
            None => {
                format!("no agent runs: how {of} is now is not known; the journal says how it came about\n")
            }
        };
        for chain in &chains {
            text.push_str(&told(chain, render::colour_out()));
        }
        if all > chains.len() {
            let _ = writeln!(
                text,
                "\n{} earlier causes are not shown; `-n 0` shows all",
                all - chains.len()
            );
        }
        if chains.is_empty() {
            let _ = writeln!(text, "\nthe journal has nothing about it");
        }
        print(&text)?;
        Ok(0)
    }
}

/// Who is meant, of all that the journal and the agent know.
fn find(target: &str, entries: &[Entry], present: Option<&Present>) -> anyhow::Result<Of> {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in entries {
        let Some(project) = &entry.project else { continue };
        let services = known.entry(project.clone()).or_default();
        let container = entry
            .key
            .strip_prefix("container ")
            .and_then(|key| key.split('/').nth(1));
        let differing = entry.differences.iter().filter_map(|cause| {
            let mut parts = cause.field.split('.');
            parts
                .next()
                .filter(|head| *head == "services")
                .and_then(|_| parts.next())
        });
        services.extend(container.into_iter().chain(differing).map(str::to_owned));
    }
    for project in present.iter().flat_map(|present| &present.projects) {
        known.entry(project.project.clone()).or_default();
    }
    for instance in present.iter().flat_map(|present| &present.instances) {
        let services = known.entry(instance.project.clone()).or_default();
        services.insert(instance.service.clone());
    }
    let of = |project: &str, service: Option<&str>, index| Of {
        project: project.to_owned(),
        service: service.map(str::to_owned),
        index,
    };
    let parts: Vec<&str> = target.split('/').collect();
    let (project, service, index) = match *parts.as_slice() {
        [project] if known.contains_key(project) => return Ok(of(project, None, None)),
        [service] => {
            let having: Vec<&String> = known
                .iter()
                .filter(|(_, services)| services.contains(service))
                .map(|(project, _)| project)
                .collect();
            match having.as_slice() {
                [project] => return Ok(of(project, Some(service), None)),
                [] => bail!(
                    "neither the journal nor the agent knows `{target}`; `stead status` shows what there is"
                ),
                [one, other, ..] => {
                    bail!("`{target}` is in several projects ({one}, {other}); write PROJECT/{target}")
                }
            }
        }
        [project, service] => (project, service, None),
        [project, service, index] => match index.parse() {
            Ok(index) => (project, service, Some(index)),
            Err(_) => bail!("`{target}`: {index} is no index; they count from 1"),
        },
        _ => bail!("`{target}` is no target; write PROJECT[/SERVICE[/INDEX]]"),
    };
    match known.get(project) {
        Some(services) if services.contains(service) => Ok(of(project, Some(service), index)),
        _ => bail!("neither the journal nor the agent knows `{target}`; `stead status` shows what there is"),
    }
}

impl Present {
    /// The part that is about `of`.
    fn of(mut self, of: &Of) -> Present {
        self.projects.retain(|project| project.project == of.project);
        self.instances.retain(|instance| {
            instance.project == of.project
                && of
                    .service
                    .as_ref()
                    .is_none_or(|service| *service == instance.service)
                && of.index.is_none_or(|index| index == instance.index)
        });
        self
    }

    fn text(&self, of: &Of) -> String {
        let mut text = String::new();
        let Some(project) = self.projects.first() else {
            let _ = writeln!(
                text,
                "{of} is gone: there is no manifest of it, and nothing of it on this host"
            );
            return text;
        };
        match &of.service {
            None => {
                let _ = writeln!(text, "{of} is {}", project.state);
            }
            Some(_) if self.instances.is_empty() => {
                let _ = writeln!(text, "{of}: there is none of it, and none is wanted");
            }
            Some(_) => {
                for instance in &self.instances {
                    let _ = writeln!(text, "{}", line(instance));
                }
            }
        }
        let mut note = |word: &str, what: &str| {
            let _ = writeln!(text, "  {word:<12}  {what}");
        };
        for condition in &project.conditions {
            let own = match condition.kind.as_str() {
                "Intent" => concerns_target(of, &condition.reason),
                "Down" | "IntentLost" | "RolledBack" => true,
                _ => false,
            };
            if own {
                note("note", &condition.message);
            }
        }
        let mut tried = self.instances.iter().any(|instance| instance.state == "backoff");
        for (word, key, why) in reasons(project) {
            if concerns(of, key) {
                note(word, why);
                tried |= word == "failed";
            }
        }
        for fault in project.conditions.iter().filter(|one| one.kind == "Fault") {
            if concerns(of, &fault.reason) {
                note("fault", &fault.message);
            }
        }
        for found in project
            .diagnostics
            .iter()
            .filter(|found| found.severity == "error")
        {
            let file = found.file.display();
            note(
                "manifest",
                &format!("{file}:{}:{}: {}", found.line, found.column, found.message),
            );
        }
        let kept = |condition: &Condition| condition.message.ends_with(LAST_GOOD);
        if project.conditions.iter().any(kept) {
            note("", LAST_GOOD);
        }
        // That of the project may be another service's.
        if let Some(next) = project
            .next_attempt
            .as_ref()
            .filter(|_| tried || of.service.is_none())
        {
            note("next attempt", &moment(next));
        }
        text
    }
}

/// `shop/web/1 runs since …: healthy, pid 42, restarted 3 times`
fn line(instance: &Instance) -> String {
    let mut text = format!("{}/{}/{} ", instance.project, instance.service, instance.index);
    let ended = instance
        .exit_code
        .map(|code| format!(" with status {code}"))
        .unwrap_or_default();
    let stopped = instance.intent.as_deref() == Some("stop");
    text.push_str(&match instance.state.as_str() {
        "running" => "is running".to_owned(),
        "exited" | "backoff" if stopped => "is stopped".to_owned(),
        "exited" => format!("has ended{ended}"),
        "backoff" => format!("has ended{ended} and is started again after a while"),
        "waiting" => "is not there yet".to_owned(),
        "failed" => "could not be started".to_owned(),
        "created" => "is made and not started yet".to_owned(),
        "stopping" => "is being stopped".to_owned(),
        other => format!("is {other}"),
    });
    if let (Some(started), "running") = (&instance.started_at, instance.state.as_str()) {
        let _ = write!(text, " since {}", moment(started));
    }
    let mut more = Vec::new();
    if instance.health != "none" {
        more.push(instance.health.clone());
    }
    more.extend(instance.pid.map(|pid| format!("pid {pid}")));
    match instance.restarts {
        0 => {}
        1 => more.push("restarted once".into()),
        restarts => more.push(format!("restarted {restarts} times")),
    }
    if !more.is_empty() {
        let _ = write!(text, "; {}", more.join(", "));
    }
    text
}

/// Whether an order for `target` is one for `of`, or for a part of it.
fn concerns_target(of: &Of, target: &str) -> bool {
    let (of, target) = (format!("{of}/"), format!("{target}/"));
    of.starts_with(&target) || target.starts_with(&of)
}

/// Whether a condition about `key` is one of `of`.
fn concerns(of: &Of, key: &str) -> bool {
    let Some(service) = &of.service else { return true };
    let Some(name) = key.strip_prefix("container ") else {
        // What it stands on may keep it waiting.
        return true;
    };
    let parts: Vec<&str> = name.split('/').collect();
    let index = parts.get(2).map(|index| index.trim_end_matches(['a', 'b']));
    parts.get(1).is_some_and(|other| other == service)
        && of
            .index
            .is_none_or(|wanted| index == Some(wanted.to_string().as_str()))
}

/// A moment of RFC 3339 as people say it.
fn moment(text: &str) -> String {
    let Ok(time) = text.parse::<Timestamp>() else {
        return text.to_owned();
    };
    let wall = u64::try_from(time.as_millisecond()).unwrap_or_default();
    let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
    match (wall.checked_sub(now), now.checked_sub(wall)) {
        (Some(left), _) if left > 0 => format!("{}, in {}", clock(wall), seconds(left)),
        (_, Some(past)) => format!("{}, {} ago", clock(wall), seconds(past)),
        _ => clock(wall),
    }
}

/// One cause, and below it what followed.
fn told(chain: &Chain, colour: bool) -> String {
    let mut text = String::from("\n");
    let head = render::strong(&chain.text, colour);
    let _ = write!(text, "{}  {head}", clock(chain.at));
    if chain.times > 1 {
        let _ = write!(text, " ({} times since {})", chain.times, clock(chain.since));
    }
    text.push('\n');
    if chain.causes.len() > 1 {
        for cause in &chain.causes {
            let _ = writeln!(text, "{:17}{}", "", difference(cause));
        }
    }
    for link in chain.then.iter().filter(|link| !link.minor) {
        let _ = writeln!(text, "{:7}{}    {}", "", time(link.at), link.text);
    }
    text
}

/// As `--json` has it.
fn document(chain: &Chain) -> serde_json::Value {
    let iso = |wall: u64| {
        let wall = i64::try_from(wall).ok()?;
        Timestamp::from_millisecond(wall)
            .ok()
            .map(|time| time.to_string())
    };
    let causes = chain.causes.iter().map(|cause| {
        json!({
            "field": cause.field,
            "old": cause.old,
            "new": cause.new,
            "file": cause.span.as_ref().map(|span| &span.file),
            "line": cause.span.as_ref().map(|span| span.line),
        })
    });
    let then = chain
        .then
        .iter()
        .map(|link| json!({"at": iso(link.at), "kind": link.kind, "key": link.key, "text": link.text, "minor": link.minor}));
    json!({
        "at": iso(chain.at),
        "kind": chain.kind,
        "text": chain.text,
        "times": chain.times,
        "since": iso(chain.since),
        "causes": causes.collect::<Vec<_>>(),
        "then": then.collect::<Vec<_>>(),
    })
}
