//! Waiting for the agent, with what it does meanwhile on standard error.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::bail;

use crate::{
    api::wire::{Present, Project},
    client::{Client, encode},
    exit,
    journal::Numbered,
};

/// Often enough that a start of 30 ms does not look like a long one.
const EVERY: Duration = Duration::from_millis(50);

pub struct Progress<'a> {
    client: &'a Client,
    /// The last journal entry that was shown.
    shown: u64,
    /// Complaints that were shown: each once.
    said: BTreeSet<String>,
}

impl<'a> Progress<'a> {
    /// What was done before is not shown.
    pub async fn start(client: &'a Client) -> anyhow::Result<Self> {
        let before: Vec<Numbered> = client.get("/v1/journal").await?;
        Ok(Progress {
            client,
            shown: before.last().map_or(0, |entry| entry.number),
            said: BTreeSet::new(),
        })
    }

    /// All that the agent has done since it started is shown.
    pub fn start_at_the_beginning(client: &'a Client) -> Self {
        Progress {
            client,
            shown: 0,
            said: BTreeSet::new(),
        }
    }

    pub fn client(&self) -> &'a Client {
        self.client
    }

    /// Shows what was done since.
    pub async fn show(&mut self) -> anyhow::Result<()> {
        let entries: Vec<Numbered> = self
            .client
            .get(&format!("/v1/journal?after={}", self.shown))
            .await?;
        for Numbered { number, entry } in entries {
            self.shown = number;
            let what = entry.change.map_or_else(
                || "restart".to_owned(),
                |class| format!("{class:?}").to_lowercase(),
            );
            match entry.error {
                None => eprintln!("{}  {what}  ({})", entry.key, entry.cause.field),
                Some(error) => eprintln!("{}  {what}  failed: {error}", entry.key),
            }
        }
        Ok(())
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
            let done = |project: &&Project| {
                project.state == "converged"
                    && project.revision.applied.as_ref() == wanted.get(&project.project)
            };
            if mine.len() == wanted.len() && mine.iter().all(done) {
                return self.show().await;
            }
            for project in &mine {
                self.complain(project);
                if is_stuck(project, wanted) {
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

    fn complain(&mut self, project: &Project) {
        let waits = project
            .conditions
            .iter()
            .filter(|condition| ["Waiting", "Failed"].contains(&&*condition.kind));
        for condition in waits {
            let text = format!("{}: {}", condition.reason, condition.message);
            if self.said.insert(text.clone()) {
                eprintln!("{text}");
            }
        }
    }

    async fn wait(&self, start: Instant, timeout: Option<Duration>, what: &str) -> anyhow::Result<()> {
        if timeout.is_some_and(|timeout| start.elapsed() >= timeout) {
            let message = format!("the time is over before all {what}; stead goes on, see `stead status`");
            return Err(exit::with(exit::TIMEOUT, message));
        }
        tokio::time::sleep(EVERY).await;
        Ok(())
    }
}

/// Tried, failed, and no further attempt is planned.
fn is_stuck(project: &Project, wanted: &BTreeMap<String, String>) -> bool {
    project.state == "degraded"
        && project.next_attempt.is_none()
        && project.revision.tried.as_ref() == wanted.get(&project.project)
}
