//! `stead ps`: the instances.

use super::{Global, known, print, print_json};
use crate::{api::wire::Instance, client::encode, render};

#[derive(Debug, clap::Args)]
pub struct Ps {
    /// Only this one.
    project: Option<String>,
    /// Also those that have ended for good.
    #[arg(short, long)]
    all: bool,
}

impl Ps {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let query = self
            .project
            .as_ref()
            .map(|project| format!("?project={}", encode(project)));
        let mut rows: Vec<Instance> = global
            .client()?
            .get(&format!("/v1/ps{}", query.unwrap_or_default()))
            .await?;
        if rows.is_empty() {
            known::demand(&global.client()?, self.project.as_slice()).await?;
        }
        rows.retain(|row| self.all || row.state != "exited" || row.intent.is_some());
        if global.json {
            print_json(&rows)?;
        } else {
            print(&text(&rows, render::colour_out()))?;
        }
        Ok(0)
    }
}

fn text(rows: &[Instance], colour: bool) -> String {
    let head = [
        "INSTANCE",
        "STATE",
        "HEALTH",
        "RESTARTS",
        "PORTS",
        "ADDRESSES",
        "IMAGE",
    ];
    let rows: Vec<Vec<String>> = rows.iter().map(cells).collect();
    render::table(&head, &rows, colour)
}

/// One word of what goes wrong now: how the last run of one that runs again was ended, `status` says.
fn faults(row: &Instance) -> impl Iterator<Item = &str> {
    let now = row
        .faults
        .iter()
        .filter(|fault| !fault.ended || row.pid.is_none());
    now.map(|fault| fault.fault.as_str())
}

fn cells(row: &Instance) -> Vec<String> {
    let ports = row.ports.iter().map(|port| {
        format!(
            "{}:{}->{}/{}",
            port.host_ip, port.published, port.target, port.protocol
        )
    });
    let state = match row.exit_code {
        // Until it is cleared, that is what keeps it from running.
        _ if row.intent.as_deref() == Some("stop") && row.pid.is_none() => "stopped".to_owned(),
        Some(code) if row.state == "exited" => format!("exited ({code})"),
        _ => row.state.clone(),
    };
    let state = std::iter::once(state)
        .chain(row.hook.clone())
        .chain(faults(row).map(str::to_owned))
        .collect::<Vec<_>>()
        .join(", ");
    vec![
        format!("{}/{}/{}", row.project, row.service, row.index),
        state,
        row.health.clone(),
        row.restarts.to_string(),
        ports.collect::<Vec<_>>().join(" "),
        row.addresses
            .values()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join(" "),
        row.image.clone(),
    ]
}
