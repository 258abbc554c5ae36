//! `stead config`: the canonical project, as `docker compose config` prints it.

mod locate;

use std::path::PathBuf;

use model::{
    diagnostic::{Diagnostic, Severity},
    load::{Options, load},
};
use serde_json::json;

use super::{Global, print, print_json};
use crate::{api::views, environment, exit, render, text};
use locate::{Asked, Given};

#[derive(Debug, clap::Args)]
pub struct Config {
    /// Compose files, merged in this order; `-`: standard input. By default COMPOSE_FILE, else compose.yaml and
    /// compose.override.yaml of this directory or of the nearest one above.
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Where relative paths start; by default the directory of the first file.
    #[arg(long, value_name = "DIR")]
    project_directory: Option<PathBuf>,
    /// Instead of `.env`; later ones win.
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// Services of these profiles too; '*': all.
    #[arg(long = "profile", value_name = "PROFILE")]
    profiles: Vec<String>,
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
        let asked = Asked {
            files: self.files.clone(),
            project_directory: self.project_directory.clone(),
            env_files: self.env_files.clone(),
        };
        let located = locate::locate(&asked, &locate::here()?, &environment::of_process())?;
        let sources = Given::read(&located)?;
        let mut diagnostics = locate::passed_over(&located);
        let options = Options {
            fallback_name: located
                .directory
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            environment: located.environment,
            env_files: located.env_files,
            home: std::env::var_os("HOME").map(PathBuf::from),
            directory: located.directory,
            profiles: self.profiles.clone(),
            confined: false,
        };
        let loaded = load(&sources, &located.files, &options);
        diagnostics.extend(loaded.diagnostics.iter().cloned().map(as_checked));
        for diagnostic in &diagnostics {
            eprintln!("{}", text::diagnostic(diagnostic, render::colour_err()));
        }
        let json = global.json || self.format == Format::Json;
        let canonical = text::canonical(&loaded, json);
        match &canonical {
            Some(text) if !self.quiet => print(&format!("{}\n", text.trim_end()))?,
            // One document in any case: what was found, where there is no project to print.
            _ if global.json => {
                let found: Vec<_> = diagnostics.iter().map(views::diagnostic).collect();
                print_json(&json!({ "diagnostics": found }))?;
            }
            _ => {}
        }
        Ok(if canonical.is_some() { 0 } else { exit::FAILED })
    }
}

/// What stead alone refuses does not make the project a wrong one.
fn as_checked(diagnostic: Diagnostic) -> Diagnostic {
    let severity = match diagnostic.refusal {
        true => Severity::Warning,
        false => diagnostic.severity,
    };
    Diagnostic {
        severity,
        ..diagnostic
    }
}
