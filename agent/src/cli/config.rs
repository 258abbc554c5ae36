//! `stead config`: the canonical project, as `docker compose config` prints it.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use model::{
    diagnostic::{Diagnostic, Severity},
    load::{Options, load},
    source::Sources,
};
use serde_json::json;

use super::{Global, print, print_json};
use crate::{
    api::views,
    environment, exit, render,
    source::{
        error_at,
        locate::{self, Asked, Located, STDIN},
    },
    text,
};

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
        let located = match locate::locate(&asked, &here()?, &environment::of_process()) {
            Ok(located) => located,
            Err(problem) => {
                tell(&[*problem], global.json)?;
                return Ok(exit::FAILED);
            }
        };
        let sources = Given::read(&located)?;
        let mut diagnostics = passed_over(&located);
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
            device_directories: environment::device_directories(),
        };
        let loaded = load(&sources, &located.files, &options);
        diagnostics.extend(loaded.diagnostics.iter().cloned().map(as_checked));
        let json = global.json || self.format == Format::Json;
        let printed = (!self.quiet).then(|| text::canonical(&loaded, json)).flatten();
        // One document in any case: what was found, where there is no project to print.
        tell(&diagnostics, global.json && printed.is_none())?;
        if let Some(text) = printed {
            print(&format!("{}\n", text.trim_end()))?;
        }
        Ok(if loaded.canonical.is_some() {
            0
        } else {
            exit::FAILED
        })
    }
}

/// To people, and to programs where `json` says so.
fn tell(diagnostics: &[Diagnostic], json: bool) -> anyhow::Result<()> {
    for diagnostic in diagnostics {
        eprintln!("{}", text::diagnostic(diagnostic, render::colour_err()));
    }
    if json {
        let found: Vec<_> = diagnostics.iter().map(views::diagnostic).collect();
        print_json(&json!({ "diagnostics": found }))?;
    }
    Ok(())
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

/// The working directory by the name the shell has for it: a project is named after it, also where it is
/// a link.
///
/// # Errors
/// It was removed.
fn here() -> anyhow::Result<PathBuf> {
    let same = |path: &PathBuf| {
        let identity = |path: &Path| fs::metadata(path).map(|at| (at.dev(), at.ino()));
        let (a, b) = (identity(path), identity(Path::new(".")));
        path.is_absolute() && matches!((a, b), (Ok(a), Ok(b)) if a == b)
    };
    match std::env::var_os("PWD").map(PathBuf::from).filter(same) {
        Some(path) => Ok(locate::clean(&path)),
        None => std::env::current_dir().context("the working directory is gone; go to another one"),
    }
}

/// The disk as a command line sees it: `-` is standard input.
struct Given {
    stdin: Option<Vec<u8>>,
}

impl Given {
    /// Reads standard input where a file says so.
    ///
    /// # Errors
    /// It cannot be read.
    fn read(located: &Located) -> anyhow::Result<Given> {
        let mut given = Given { stdin: None };
        if located.files.iter().any(|file| file.as_os_str() == STDIN) {
            let mut bytes = Vec::new();
            let limit = model::source::MAX_FILE + 1;
            io::stdin()
                .lock()
                .take(limit)
                .read_to_end(&mut bytes)
                .context("standard input cannot be read")?;
            given.stdin = Some(bytes);
        }
        Ok(given)
    }
}

impl Sources for Given {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match &self.stdin {
            Some(bytes) if path.as_os_str() == STDIN => Ok(bytes.clone()),
            _ => text::Disk.read(path),
        }
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        text::Disk.real_path(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        text::Disk.list(directory)
    }
}

/// What is said about files that nobody reads.
fn passed_over(located: &Located) -> Vec<Diagnostic> {
    let read: Vec<String> = located
        .files
        .iter()
        .map(|file| {
            file.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    let warning = |file: &PathBuf| Diagnostic {
        severity: Severity::Warning,
        ..error_at(
            file,
            format!("this file is not read: {} beside it is", read.join(" and ")),
            "remove it, or name the files with -f",
        )
    };
    located.passed_over.iter().map(warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_nobody_reads_is_a_warning_with_what_is_read_instead() {
        let located = Located {
            files: ["/p/compose.yaml", "/p/compose.override.yaml"]
                .map(PathBuf::from)
                .into(),
            passed_over: vec!["/p/docker-compose.yml".into()],
            ..Located::default()
        };
        let said = passed_over(&located);
        assert!(said.len() == 1 && !said[0].is_error(), "{said:?}");
        assert!(
            said[0].message.contains("compose.yaml and compose.override.yaml"),
            "{said:?}"
        );
        assert_eq!(said[0].span.file, located.passed_over[0]);
    }
}
