//! `stead apply`: add projects and wait until they are converged.

use std::{path::PathBuf, time::Duration};

use super::{Global, absolute, duration, print_json, progress, shell};
use crate::api::wire::{ApplyReply, ApplyRequest};

#[derive(Debug, clap::Args)]
pub struct Apply {
    /// Compose files, project directories or directories of manifests.
    #[arg(short, long = "file", value_name = "PATH", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// Only if this is still the plan (`stead plan -f PATH`).
    #[arg(long, value_name = "HASH")]
    plan: Option<String>,
    /// How long to wait.
    #[arg(long, value_parser = duration, default_value = "5m")]
    timeout: Duration,
    /// Do not wait.
    #[arg(long)]
    no_wait: bool,
}

impl Apply {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let client = global.client()?;
        let request = ApplyRequest {
            paths: absolute(&self.files)?,
            plan: self.plan.clone(),
        };
        for note in shell::notes(&global.layout()?, &request.paths) {
            eprintln!("{note}");
        }
        let mut progress = progress::Progress::start(&client).await?;
        let reply: ApplyReply = client.post("/v1/apply", &request).await?;
        for diagnostic in &reply.diagnostics {
            eprintln!("{diagnostic}");
        }
        if !self.no_wait {
            progress.converged(&reply.applied, Some(self.timeout)).await?;
        }
        if global.json {
            print_json(&reply.applied)?;
        }
        Ok(0)
    }
}
