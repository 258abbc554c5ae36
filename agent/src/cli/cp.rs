//! `stead cp`: files into a running instance and out of it.

use std::path::PathBuf;

use anyhow::bail;

use super::{Global, target};
use crate::{
    api::wire::Place as Instance,
    exit,
    host::{self, CopyOptions, Place},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A source that is a directory is copied into a destination that is one; with `/.` at its end, only what is in it.")]
pub struct Cp {
    /// Owners stay, by number; else they become root of the container, or whoever copies out.
    #[arg(short, long)]
    archive: bool,
    /// Follow a symbolic link that SRC is.
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// TARGET:PATH, a path of this host, or - for a tar stream on standard input.
    #[arg(value_name = "SRC")]
    source: String,
    /// TARGET:PATH, a path of this host, or - for a tar stream on standard output.
    #[arg(value_name = "DST")]
    destination: String,
}

impl Cp {
    pub async fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let how = CopyOptions {
            follow: self.follow_link,
            archive: self.archive,
        };
        let (source, destination) = (Place::parse(&self.source), Place::parse(&self.destination));
        let target = match (&source, &destination) {
            (Place::Container { .. }, Place::Container { .. }) => {
                bail!("one side must be of this host; copy out first, then in")
            }
            (Place::Container { target, .. }, _) | (_, Place::Container { target, .. }) => target,
            _ => {
                return Err(exit::usage(
                    "one side must be TARGET:PATH, like shop/web:/etc/app.conf",
                ));
            }
        };
        let places: Vec<Instance> = global.client()?.get("/v1/instances").await?;
        let socket: PathBuf = target::find(target, &places)?.socket.clone();
        let copied =
            tokio::task::spawn_blocking(move || host::copy(&socket, &source, &destination, how)).await??;
        for warning in copied {
            eprintln!("stead: {warning}");
        }
        Ok(0)
    }
}
