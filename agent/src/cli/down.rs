//! `stead down`: remove projects and wait until they are gone.

use std::time::Duration;

use super::{Global, duration, progress};
use crate::api::wire::{DownReply, DownRequest};

#[derive(Debug, clap::Args)]
pub struct Down {
    #[arg(required = true, value_name = "PROJECT")]
    projects: Vec<String>,
    /// Remove the named volumes and their data too.
    #[arg(long)]
    volumes: bool,
    /// How long to wait.
    #[arg(long, value_parser = duration, default_value = "5m")]
    timeout: Duration,
}

impl Down {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let client = global.client()?;
        let request = DownRequest {
            projects: self.projects.clone(),
            volumes: self.volumes,
        };
        let mut progress = progress::Progress::start(&client).await?;
        let reply: DownReply = client.post("/v1/down", &request).await?;
        for note in &reply.notes {
            eprintln!("{note}");
        }
        progress
            .gone(&self.projects, self.volumes, Some(self.timeout))
            .await?;
        Ok(0)
    }
}
