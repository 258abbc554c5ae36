//! `stead agent`: the daemon.

use std::path::PathBuf;

use super::Global;
use crate::{collection::Watermarks, daemon};

#[derive(Debug, clap::Args)]
pub struct Agent {
    /// Another directory of manifests, beside the root's own.
    #[arg(long, value_name = "DIR")]
    manifests: Vec<PathBuf>,
    /// Started by `up -d`: a session of its own, so that it outlives the terminal.
    #[arg(long, hide = true)]
    detached: bool,
    #[command(flatten)]
    watermarks: Watermarks,
}

impl Agent {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        daemon::demand_root(&super::up::with_sudo())?;
        if self.detached {
            // Fails only for a leader of a process group, which a child of `up` is not.
            let _ = nix::unistd::setsid();
        }
        let options = daemon::Options {
            layout: global.layout()?,
            manifests: self.manifests.clone(),
            foreground: Vec::new(),
            signals: true,
            watermarks: self.watermarks.check()?,
        };
        let (ready, _) = tokio::sync::oneshot::channel();
        daemon::run(options, ready).await?;
        Ok(0)
    }
}
