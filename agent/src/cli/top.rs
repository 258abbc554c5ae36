//! `stead top`: the processes of a running instance.

use super::{Global, print, print_json, target};
use crate::{api::wire::Place, host, render};

#[derive(Debug, clap::Args)]
pub struct Top {
    /// PROJECT/SERVICE[/INDEX], or SERVICE where there is only one of that name.
    target: String,
}

impl Top {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let places: Vec<Place> = global.client()?.get("/v1/instances").await?;
        let socket = target::find(&self.target, &places)?.socket.clone();
        let found = tokio::task::spawn_blocking(move || host::processes(&socket)).await??;
        if global.json {
            print_json(&found)?;
            return Ok(0);
        }
        let rows: Vec<Vec<String>> = found.iter().map(cells).collect();
        let head = ["PID", "USER", "%CPU", "TIME", "MEMORY", "S", "COMMAND"];
        print(&render::table(&head, &rows, render::colour_out()))?;
        Ok(0)
    }
}

fn cells(process: &host::Process) -> Vec<String> {
    let seconds = process.cpu_ms / 1000;
    // What a process calls itself must not speak to the terminal.
    let command = process
        .command
        .chars()
        .map(|c| if c.is_control() { '?' } else { c });
    vec![
        process.pid.to_string(),
        process.user.clone(),
        format!(
            "{:.1}",
            process.cpu_ms as f64 * 100.0 / process.age_ms.max(1) as f64
        ),
        format!(
            "{}:{:02}.{:02}",
            seconds / 60,
            seconds % 60,
            process.cpu_ms % 1000 / 10
        ),
        render::bytes(process.memory),
        process.state.clone(),
        command.collect(),
    ]
}
