//! `stead port`: where the ports of an instance are on this host.

use anyhow::bail;

use super::{Global, print, print_json, target};
use crate::{
    api::wire::{Instance, Place, Port as Published},
    exit,
};

#[derive(Debug, clap::Args)]
pub struct Port {
    /// PROJECT/SERVICE[/INDEX], or SERVICE where there is only one of that name.
    target: String,
    /// Only this port of the container: `80`, `53/udp`.
    port: Option<String>,
}

impl Port {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let wanted = self.port.as_deref().map(parse).transpose()?;
        let client = global.client()?;
        let places: Vec<Place> = client.get("/v1/instances").await?;
        let place = target::find(&self.target, &places)?;
        let rows: Vec<Instance> = client.get("/v1/ps").await?;
        let own = rows.into_iter().filter(|row| {
            (&row.project, &row.service, row.index) == (&place.project, &place.service, place.index)
        });
        let mut ports: Vec<Published> = own.flat_map(|row| row.ports).collect();
        ports.retain(|port| {
            wanted
                .as_ref()
                .is_none_or(|(number, protocol)| port.target == *number && port.protocol == *protocol)
        });
        if let (true, Some(port)) = (ports.is_empty(), &self.port) {
            bail!(
                "port {port} of {} is not published; add it to `ports`",
                self.target
            );
        }
        if global.json {
            print_json(&ports)?;
            return Ok(0);
        }
        for port in &ports {
            let at = format!("{}:{}", port.host_ip, port.published);
            match wanted {
                Some(_) => print(&format!("{at}\n"))?,
                None => print(&format!("{}/{} -> {at}\n", port.target, port.protocol))?,
            }
        }
        Ok(0)
    }
}

fn parse(text: &str) -> anyhow::Result<(u16, String)> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let wrong = || exit::usage(format!("`{text}` is no port; write it as 80 or 53/udp"));
    Ok((number.parse().map_err(|_| wrong())?, protocol.to_owned()))
}
