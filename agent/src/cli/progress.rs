//! Waiting for the agent, with what it does meanwhile on standard error.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::bail;
use reconciler::journal::{Entry, Kind};

use crate::{
    api::wire::{Instance, Port, Present, Project},
    cli::pulling::Pulling,
    client::{Client, encode},
    exit, host,
    journal::Numbered,
    text,
};

/// Often enough that a start of 30 ms does not look like a long one.
const EVERY: Duration = Duration::from_millis(50);

pub struct Progress<'a> {
    client: &'a Client,
    /// The last journal entry that was shown.
    shown: u64,
    /// What was said about something that is not in force yet: each once, and anew after it was.
    said: BTreeSet<String>,
    /// Of the widest key so far.
    width: usize,
    pulling: Pulling,
}

impl<'a> Progress<'a> {
    /// What was done before is not shown.
    pub async fn start(client: &'a Client) -> anyhow::Result<Self> {
        let before: Vec<Numbered> = client.get("/v1/journal").await?;
        let mut progress = Progress::start_at_the_beginning(client);
        progress.shown = before.last().map_or(0, |entry| entry.number);
        Ok(progress)
    }

    /// All that the agent has done since it started is shown.
    pub fn start_at_the_beginning(client: &'a Client) -> Self {
        Progress {
            client,
            shown: 0,
            said: BTreeSet::new(),
            // Few keys are longer: most lines stand in line with each other.
            width: 30,
            pulling: Pulling::new(false),
        }
    }

    pub fn client(&self) -> &'a Client {
        self.client
    }

    /// Shows what was done since. What failed is told by the state of its project, with its place.
    pub async fn show(&mut self) -> anyhow::Result<()> {
        let path = format!("/v1/journal?after={}", self.shown);
        let entries: Vec<Numbered> = self.client.get(&path).await?;
        self.shown = entries.last().map_or(self.shown, |entry| entry.number);
        let done: Vec<&Numbered> = entries.iter().filter(|entry| is_told(&entry.entry)).collect();
        for Numbered { entry, .. } in &done {
            self.width = self.width.max(entry.key.len());
        }
        self.pulling.clear()?;
        for Numbered { entry, .. } in done {
            let why = text::because(entry.change, &entry.key, &entry.cause);
            self.line(entry.change.map_or("restart", text::word), &entry.key, &why);
        }
        Ok(())
    }

    fn line(&self, word: &str, key: &str, why: &str) {
        eprint!("{}", text::plan_line(word, key, self.width, why));
    }

    /// Until each project has its revision in force.
    ///
    /// # Errors
    /// 124 when the time is over; at once where nothing but a change of the manifest or of the host
    /// would help.
    pub async fn converged(
        &mut self,
        wanted: &BTreeMap<String, String>,
        timeout: Option<Duration>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        loop {
            self.show().await?;
            let all: Vec<Project> = self.client.get("/v1/status").await?;
            let mine: Vec<&Project> = all
                .iter()
                .filter(|project| wanted.contains_key(&project.project))
                .collect();
            if mine.len() == wanted.len() && mine.iter().all(|project| is_converged(project)) {
                self.show().await?;
                for project in wanted.keys() {
                    self.report(project).await?;
                }
                return Ok(());
            }
            for project in &mine {
                self.complain(project, true);
                if is_stuck(project) {
                    self.show().await?;
                    bail!(
                        "{} is degraded; correct what is said above, stead goes on by itself",
                        project.project
                    );
                }
            }
            self.wait(start, timeout, "is converged").await?;
        }
    }

    /// Until the host has nothing of them any more.
    pub async fn gone(
        &mut self,
        projects: &[String],
        volumes: bool,
        timeout: Option<Duration>,
    ) -> anyhow::Result<()> {
        let start = Instant::now();
        for project in projects {
            loop {
                self.show().await?;
                let path = format!("/v1/present?project={}&volumes={volumes}", encode(project));
                let present: Present = self.client.get(&path).await?;
                if present.objects.is_some_and(|objects| objects.is_empty()) {
                    break;
                }
                self.wait(start, timeout, "is gone").await?;
            }
        }
        self.show().await
    }

    /// `hello is converged: web at 127.0.0.1:8080`
    pub async fn report(&self, project: &str) -> anyhow::Result<()> {
        let path = format!("/v1/ps?project={}", encode(project));
        let instances: Vec<Instance> = self.client.get(&path).await?;
        let places: Vec<String> = instances.iter().flat_map(places).collect();
        match places.as_slice() {
            [] => eprintln!("{project} is converged"),
            places => eprintln!("{project} is converged: {}", places.join(", ")),
        }
        Ok(())
    }

    /// What keeps a project from being as it should be. `waits`: also what it only waits for.
    pub fn complain(&mut self, project: &Project, waits: bool) {
        if project.state == "converged" {
            let own = format!("{}\n", project.project);
            self.said.retain(|said| !said.starts_with(&own));
            return;
        }
        for (word, key, why) in reasons(project) {
            if word == "waiting" && !waits {
                continue;
            }
            if self.said.insert(format!("{}\n{key}\n{why}", project.project)) {
                self.width = self.width.max(key.len());
                self.line(word, key, why);
            }
        }
    }

    /// What images are on their way, below all that was said.
    pub async fn draw(&mut self) -> anyhow::Result<()> {
        let pulls: Vec<host::Progress> = self.client.get("/v1/pulls").await?;
        self.pulling.show(&pulls)
    }

    pub async fn wait(
        &mut self,
        start: Instant,
        timeout: Option<Duration>,
        what: &str,
    ) -> anyhow::Result<()> {
        if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            let message = format!("the time is over before all {what}; stead goes on, see `stead status`");
            return Err(exit::with(exit::TIMEOUT, message));
        }
        self.draw().await?;
        tokio::time::sleep(EVERY).await;
        Ok(())
    }
}

/// Changes that are complete, and restarts; the steps on the way are for `why`.
fn is_told(entry: &Entry) -> bool {
    let again = entry.action.as_deref() == Some("start again");
    entry.kind == Kind::Done && (entry.change.is_some() || again)
}

/// Tried, failed, and no further attempt is planned.
fn is_stuck(project: &Project) -> bool {
    project.state == "degraded"
        && project.next_attempt.is_none()
        && project.revision.tried.is_some()
        && project.revision.tried == project.revision.seen
}

/// What the manifest says now is in force. It may say something else than when the wait began.
pub fn is_converged(project: &Project) -> bool {
    let revision = &project.revision;
    project.state == "converged" && revision.applied.is_some() && revision.applied == revision.seen
}

/// What fails, then what waits for something else: a word, of what, and why.
pub fn reasons(project: &Project) -> Vec<(&'static str, &str, &str)> {
    let of = |kind: &str| {
        let kind = kind.to_owned();
        let all = project.conditions.iter();
        all.filter(move |condition| condition.kind == kind)
    };
    let failed: BTreeSet<&str> = of("Failed").map(|condition| condition.reason.as_str()).collect();
    // A manifest that was never good is told by its diagnostics; that a revision was taken back, by nothing else.
    let told = project.diagnostics.iter().any(|one| one.severity == "error");
    let failures = of("Failed").filter(|condition| !told || condition.reason != project.project);
    let failures = failures.map(|condition| ("failed", &*condition.reason, untried(&condition.message)));
    // What failed waits for its next attempt, too.
    let waiting = of("Waiting").filter(|condition| !failed.contains(&*condition.reason));
    let waiting = waiting.map(|condition| ("waiting", &*condition.reason, &*condition.message));
    failures.chain(waiting).collect()
}

/// Without the count of attempts, which would make another message of each.
fn untried(message: &str) -> &str {
    match message.rsplit_once(" (attempt ") {
        Some((message, _)) => message,
        None => message,
    }
}

/// Where a client reaches an instance.
fn places(instance: &Instance) -> Vec<String> {
    let place = |port: &Port| {
        let address = match port.host_ip.as_str() {
            "0.0.0.0" => "127.0.0.1",
            "::" => "[::1]",
            other => other,
        };
        let protocol = match port.protocol.as_str() {
            "tcp" => String::new(),
            other => format!("/{other}"),
        };
        format!("{} at {address}:{}{protocol}", instance.service, port.published)
    };
    instance.ports.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::wire::{Condition, Diagnostic};

    #[test]
    fn a_failure_is_told_once_and_before_what_waits_for_it() {
        let condition = |kind: &str, reason: &str, message: &str| Condition {
            kind: kind.into(),
            status: true,
            reason: reason.into(),
            message: message.into(),
            since: None,
        };
        let web = "container shop/web/1a";
        let mut project = Project {
            project: "shop".into(),
            source: None,
            state: "degraded".into(),
            conditions: vec![
                condition("Waiting", web, "the port is taken"),
                condition("Waiting", "container shop/api/1a", "after web is healthy"),
                condition("Failed", web, "/m/shop.yaml:4:5: the port is taken (attempt 3)"),
                condition("Failed", "shop", "the manifest was never good"),
            ],
            revision: Default::default(),
            next_attempt: None,
            diagnostics: vec![Diagnostic {
                file: "/m/shop.yaml".into(),
                line: 1,
                column: 1,
                severity: "error".into(),
                message: "not understood".into(),
                hint: None,
            }],
        };
        let own = [
            ("failed", web, "/m/shop.yaml:4:5: the port is taken"),
            ("waiting", "container shop/api/1a", "after web is healthy"),
        ];
        assert_eq!(reasons(&project), own);
        // Nothing else tells that a revision was taken back.
        project.diagnostics.clear();
        project.conditions[3].message = "revision 1 was rolled back".into();
        let back = ("failed", "shop", "revision 1 was rolled back");
        assert_eq!(reasons(&project), [own[0], back, own[1]]);
    }
}
