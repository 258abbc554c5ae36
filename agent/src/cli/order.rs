//! `stead stop`, `start` and `restart`: an operator's order, recorded until it is cleared or done.

use std::time::{Duration, Instant};

use super::{Global, duration, print_json, progress::Progress};
use crate::{
    api::wire::{OrderRequest, Ordered, Project},
    client::Client,
    orders::Order,
};

#[derive(Debug, clap::Args)]
pub struct Orders {
    /// PROJECT/SERVICE[/INDEX], SERVICE where that is unambiguous, or PROJECT for all of it.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
    /// How long to wait.
    #[arg(long, value_parser = duration, default_value = "5m")]
    timeout: Duration,
    /// Do not wait.
    #[arg(long)]
    no_wait: bool,
}

impl Orders {
    pub async fn run(&self, order: Order, global: &Global) -> anyhow::Result<u8> {
        let client = global.client()?;
        let mut progress = Progress::start(&client).await?;
        let request = OrderRequest {
            order,
            targets: self.targets.clone(),
        };
        let mut given: Vec<Ordered> = client.post("/v1/order", &request).await?;
        if !self.no_wait {
            wait(&client, &mut progress, &mut given, self.timeout).await?;
        }
        if global.json {
            print_json(&given)?;
            return Ok(0);
        }
        for one in &given {
            let target = &one.target;
            match (order, one.done) {
                (Order::Stop, true) => {
                    eprintln!(
                        "{target} is stopped, also after a reboot; `stead start {target}` lets it run again"
                    );
                }
                (Order::Stop, false) => eprintln!("{target} is to stop; `stead status` shows how far it is"),
                (_, true) => eprintln!("{target} runs"),
                (_, false) => eprintln!("{target} is to start; `stead status` shows how far it is"),
            }
        }
        Ok(0)
    }
}

/// Until each is carried out.
async fn wait(
    client: &Client,
    progress: &mut Progress<'_>,
    given: &mut [Ordered],
    timeout: Duration,
) -> anyhow::Result<()> {
    let start = Instant::now();
    loop {
        progress.show().await?;
        let recorded: Vec<Ordered> = client.get("/v1/orders").await?;
        for one in given.iter_mut() {
            // What is done is cleared, but for a stop.
            one.done = match recorded.iter().find(|other| other.target == one.target) {
                Some(other) => other.done,
                None => true,
            };
        }
        if given.iter().all(|one| one.done) {
            return progress.show().await;
        }
        let all: Vec<Project> = client.get("/v1/status").await?;
        let open = |project: &&Project| {
            let prefix = format!("{}/", project.project);
            given
                .iter()
                .any(|one| !one.done && one.target.starts_with(&prefix))
        };
        for project in all.iter().filter(open) {
            progress.complain(project, true);
        }
        progress.wait(start, Some(timeout), "is carried out").await?;
    }
}
