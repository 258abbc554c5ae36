//! `stead config`: the canonical project, as `docker compose config` prints it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use model::load::{Options, load};

use super::{Global, print};
use crate::{environment, exit, render, source::directory::COMPOSE_FILES, text};

#[derive(Debug, clap::Args)]
pub struct Config {
    /// Compose files; by default compose.yaml of this directory or of the nearest one above.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where relative paths start; by default the directory of the first file.
    #[arg(long, value_name = "DIR")]
    project_directory: Option<PathBuf>,
    /// Instead of `.env`.
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// Services of these profiles too; '*': all.
    #[arg(long = "profile", value_name = "PROFILE")]
    _profiles: Vec<String>,
    /// How to print it.
    #[arg(long, value_enum, default_value = "yaml")]
    format: Format,
    /// Only check.
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Yaml,
    Json,
}

impl Config {
    pub fn run(&self, global: &Global) -> anyhow::Result<u8> {
        let here = std::env::current_dir().context("the working directory is gone; go to another one")?;
        let files = if self.files.is_empty() {
            vec![find(&here)?]
        } else {
            self.files.clone()
        };
        let files: Vec<PathBuf> = files.iter().map(|file| here.join(file)).collect();
        let directory = match &self.project_directory {
            Some(directory) => here.join(directory),
            None => files[0].parent().unwrap_or(&here).to_owned(),
        };
        // `.` and `..` would show in every path.
        let directory = std::fs::canonicalize(&directory).unwrap_or(directory);
        let options = Options {
            fallback_name: directory
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            environment: environment::of_process(),
            env_files: self.env_files.iter().map(|file| here.join(file)).collect(),
            home: std::env::var_os("HOME").map(PathBuf::from),
            directory,
            ..Options::default()
        };
        let loaded = load(&text::Disk, &files, &options);
        for diagnostic in &loaded.diagnostics {
            eprintln!("{}", text::diagnostic(diagnostic, render::colour_err()));
        }
        let Some(project) = loaded.project else {
            return Ok(exit::FAILED);
        };
        if !self.quiet {
            let json = global.json || self.format == Format::Json;
            let text = if json {
                text::project_json(&project)
            } else {
                text::project_yaml(&project)
            };
            print(&format!("{}\n", text.trim_end()))?;
        }
        Ok(0)
    }
}

/// As Compose: in this directory, else in the nearest above that has one.
fn find(here: &Path) -> anyhow::Result<PathBuf> {
    for directory in here.ancestors() {
        if let Some(file) = COMPOSE_FILES
            .iter()
            .map(|name| directory.join(name))
            .find(|file| file.is_file())
        {
            return Ok(file);
        }
    }
    bail!(
        "there is no compose.yaml in {} or above; name a file with -f",
        here.display()
    )
}
