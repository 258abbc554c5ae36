//! `stead image load` and `stead image save`: images from files and to files.

use std::{
    fs,
    io::{BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use backend::{image::Reference, layout::Layout};
use model::types::ImageName;

use super::pull::tell;
use crate::{
    cli::Global,
    exit,
    images::{self, Stored, Survey},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
What it is, is found by what is in it: an OCI layout (a directory or a tar archive) or what
`docker save` writes, also compressed with gzip or zstd. The names it tells are bound, so that
`image:` runs without a registry. NAME is for an archive of one image, instead of what that
tells.")]
pub struct Load {
    /// The archive or directory, a reference as in `image:` (`docker-archive:FILE:REF`), or - for standard input.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    input: String,
    /// What it shall be called.
    name: Option<String>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The archive is an OCI layout with docker's list beside it: `docker load`, `podman load`,
`skopeo copy oci-archive:` and `stead image load` take it, and the image keeps its id. The
same images give the same bytes.")]
pub struct Save {
    /// Names, or digests, or at least four digits of the beginning of one.
    #[arg(value_name = "NAME", required = true)]
    images: Vec<String>,
    /// A file or, with oci-dir, a new directory; else standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// One tar archive, or the same as files in a directory.
    #[arg(long, value_enum, default_value_t = Format::Archive)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Archive,
    OciDir,
}

impl Load {
    pub fn run(&self, global: &Global, layout: &Layout) -> anyhow::Result<u8> {
        let name = self.name.as_ref().map(|name| named(name)).transpose()?;
        let store = images::open(layout);
        let transports = ["oci:", "oci-archive:", "docker-archive:", "dir:"];
        let loaded = if self.input == "-" {
            if std::io::stdin().is_terminal() {
                return Err(exit::usage(
                    "no archive is named and nothing is piped in; write `stead image load -i FILE`",
                ));
            }
            store.load(Path::new("/proc/self/fd/0"), name.as_ref())
        } else if transports
            .iter()
            .any(|transport| self.input.starts_with(transport))
        {
            store.load_reference(&reference(&self.input)?, name.as_ref())
        } else {
            store.load(Path::new(&self.input), name.as_ref())
        };
        for moved in loaded? {
            tell(&moved, "loaded", global.json)?;
        }
        Ok(0)
    }
}

/// A relative path is below the working directory, as it is of a manifest below that one's.
fn reference(text: &str) -> anyhow::Result<Reference> {
    let (transport, path) = text.split_once(':').unwrap_or((text, ""));
    let path = std::env::current_dir()?.join(path);
    Ok(format!("{transport}:{}", path.display()).parse()?)
}

/// A name that a manifest can use.
fn named(text: &str) -> anyhow::Result<ImageName> {
    let parsed: ImageName = text.parse().map_err(|error: model::types::ParseImageNameError| {
        exit::usage(format!("{text}: {error}; {}", error.hint()))
    })?;
    match parsed.digest {
        Some(_) => Err(exit::usage(format!(
            "{text}: a digest is found, not given; write NAME[:TAG]"
        ))),
        None => Ok(parsed),
    }
}

impl Save {
    pub fn run(&self, layout: &Layout) -> anyhow::Result<u8> {
        let store = images::open(layout);
        let mut survey = store.survey()?;
        let images = chosen(&mut survey, &self.images)?;
        let images: Vec<&Stored> = images.iter().collect();
        match (self.format, &self.output) {
            (Format::OciDir, Some(directory)) => {
                let saved = store.save_layout(&images, directory);
                saved.with_context(|| format!("cannot save to {}", directory.display()))?;
            }
            (Format::OciDir, None) => {
                return Err(exit::usage("a directory cannot be printed; name it with -o DIR"));
            }
            (Format::Archive, Some(file)) => {
                whole_file(file, |out| Ok(store.save(&images, out)?))
                    .with_context(|| format!("cannot save to {}", file.display()))?;
            }
            (Format::Archive, None) if std::io::stdout().is_terminal() => {
                return Err(exit::usage(
                    "an archive is not for a terminal; name a file with -o FILE",
                ));
            }
            (Format::Archive, None) => {
                let mut out = BufWriter::with_capacity(1 << 18, std::io::stdout().lock());
                store.save(&images, &mut out)?;
                out.flush()?;
            }
        }
        Ok(0)
    }
}

/// Each once, with the names that were written; all of them where it was a digest.
fn chosen(survey: &mut Survey, texts: &[String]) -> anyhow::Result<Vec<Stored>> {
    let mut found: Vec<Stored> = Vec::new();
    for text in texts {
        let image = survey.find(text)?;
        let mut names = image.names.clone();
        if let Some(name) = images::canonical(text).filter(|name| names.contains(name)) {
            names.retain(|other| *other == name);
        }
        match found.iter_mut().find(|other| other.digest == image.digest) {
            Some(other) => other.names.extend(names),
            None => found.push(Stored {
                names,
                ..image.clone()
            }),
        }
    }
    Ok(found)
}

/// The file is there whole, or as it was.
fn whole_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let name = path.file_name().context("it has no name")?.to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}.tmp", std::process::id()));
    let written = (|| {
        let mut out = BufWriter::with_capacity(1 << 18, fs::File::create(&temporary)?);
        write(&mut out)?;
        out.flush()?;
        out.get_ref().sync_all()?;
        Ok(fs::rename(&temporary, path)?)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}
