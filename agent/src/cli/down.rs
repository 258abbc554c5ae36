//! `stead down`: remove projects and wait until they are gone.

use std::time::Duration;

use super::{Global, duration, known, progress};
use crate::api::wire::{DownReply, DownRequest};

#[derive(Debug, clap::Args)]
pub struct Down {
    /// As `stead status` names them.
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
        let mut projects = Vec::new();
        for project in &self.projects {
            if known::is_there(&client, project, self.volumes).await? {
                projects.push(project.clone());
            } else {
                eprintln!("there is no project `{project}`: nothing to do");
            }
        }
        if projects.is_empty() {
            return Ok(0);
        }
        let request = DownRequest {
            projects: projects.clone(),
            volumes: self.volumes,
        };
        let mut progress = progress::Progress::start(&client).await?;
        let reply: DownReply = client.post("/v1/down", &request).await?;
        for note in &reply.notes {
            eprintln!("{note}");
        }
        progress.gone(&projects, self.volumes, Some(self.timeout)).await?;
        let stay = if self.volumes { "" } else { "; its volumes stay" };
        for project in &projects {
            eprintln!("{project} is gone{stay}");
        }
        Ok(0)
    }
}
