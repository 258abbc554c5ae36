//! `stead image`: the images of this host, with or without an agent.

mod files;
mod list;
mod pull;
mod remove;
mod verify;

use super::Global;
use crate::daemon;

#[derive(Debug, clap::Args)]
pub struct Image {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// The images that are here, what they take, and who uses them.
    Ls,
    /// What an image is made of: configuration, layers, names.
    Inspect(list::Inspect),
    /// Bring images in, with their names asked of the registries anew.
    Pull(pull::Pull),
    /// Images from an archive or a directory.
    Load(files::Load),
    /// Images into an archive or a directory, for docker, podman, skopeo and stead.
    Save(files::Save),
    /// Whether all is as it was; --repair brings what is damaged anew.
    Verify(verify::Verify),
    /// Let go of names; what nobody has any more is removed.
    Rm(remove::Rm),
    /// Remove all images that no container and no project uses, and what was left over.
    Gc(remove::Gc),
}

impl Image {
    pub fn run(&self, global: &Global) -> anyhow::Result<u8> {
        daemon::demand_root(&super::up::with_sudo())?;
        let layout = global.layout()?;
        match &self.verb {
            Verb::Ls => list::run(global, &layout),
            Verb::Inspect(verb) => verb.run(&layout),
            Verb::Pull(verb) => verb.run(global, &layout),
            Verb::Load(verb) => verb.run(global, &layout),
            Verb::Save(verb) => verb.run(&layout),
            Verb::Verify(verb) => verb.run(global, &layout),
            Verb::Rm(verb) => verb.run(global, &layout),
            Verb::Gc(verb) => verb.run(global, &layout),
        }
    }
}

/// The first twelve digits, as people know images.
pub(super) fn short(digest: &str) -> &str {
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex.get(..12).unwrap_or(hex)
}

/// `2 layers`, `1 layer`
fn count(number: usize, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {one}s"),
    }
}
