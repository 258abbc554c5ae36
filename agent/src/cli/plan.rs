//! `stead plan`: what would change; changes nothing.

use std::path::PathBuf;

use super::{Global, absolute, known, print, print_json};
use crate::{
    api::wire::{PlanReply, PlanRequest},
    daemon, exit, planning,
};

#[derive(Debug, clap::Args)]
pub struct Plan {
    /// As if these were applied.
    #[arg(short, long = "file", value_name = "PATH")]
    files: Vec<PathBuf>,
    /// Only these.
    projects: Vec<String>,
}

impl Plan {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let paths = absolute(&self.files)?;
        let client = global.client()?;
        let reply: PlanReply = if client.answers().await {
            let request = PlanRequest {
                paths,
                projects: self.projects.clone(),
            };
            let reply = client.post("/v1/plan", &request).await?;
            if request.paths.is_empty() {
                known::demand(&client, &self.projects).await?;
            }
            reply
        } else {
            // Without an agent, this process looks at the host itself.
            daemon::demand_root(&super::up::with_sudo())?;
            let (layout, projects) = (global.layout()?, self.projects.clone());
            tokio::task::spawn_blocking(move || planning::in_process(&layout, &paths, &projects)).await??
        };
        for diagnostic in &reply.diagnostics {
            eprintln!("{diagnostic}");
        }
        if reply.failed {
            return Ok(exit::FAILED);
        }
        if global.json {
            print_json(&reply.plan)?;
        } else {
            print(&format!("{}\n", reply.text.trim_end()))?;
        }
        Ok(match reply.changes {
            _ if reply.wrong => exit::FAILED,
            0 => 0,
            _ => exit::SOMETHING,
        })
    }
}
