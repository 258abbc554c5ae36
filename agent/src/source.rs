//! Where manifests come from: something changed → read everything again → a snapshot.

pub mod debounce;
pub mod directory;
pub mod generated;
pub mod locate;
pub mod mounts;
pub mod watch;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use model::{
    diagnostic::{Diagnostic, Severity, Span},
    load::Options,
    source::Sources,
};

use crate::{environment, text};

/// A place where a project is defined, before it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The entry of the manifests directory; what `down` removes.
    pub manifest: PathBuf,
    /// What people know it by: the file or the project directory, also where a generated manifest
    /// points elsewhere.
    pub source: PathBuf,
    pub files: Vec<PathBuf>,
    /// Project directory: relative paths and `.env`.
    pub directory: PathBuf,
    /// The name where no file gives one, not normalised.
    pub fallback_name: String,
    /// The manifests directory it was found in.
    pub origin: PathBuf,
    /// Why it cannot even be tried (a FIFO, a directory that cannot be listed).
    pub problem: Option<Diagnostic>,
    /// Given on the command line of `up`: the process environment counts.
    pub foreground: bool,
}

impl Candidate {
    /// What `load` is given for it. `environment` wins over that of the project.
    pub fn to_load(&self, environment: BTreeMap<String, String>) -> (Vec<PathBuf>, Options) {
        let home = environment::home_of_owner(&self.files[0]);
        let mut options = Options {
            home,
            device_directories: environment::device_directories(),
            ..Options::default()
        };
        let is_directory = self.source == self.directory;
        let named = is_directory.then(|| locate::named_in(&self.directory, &environment));
        let Some(named) = named.flatten() else {
            options.directory.clone_from(&self.directory);
            options.fallback_name.clone_from(&self.fallback_name);
            options.environment = environment;
            return (self.files.clone(), options);
        };
        options.fallback_name = if named.directory == self.directory {
            self.fallback_name.clone()
        } else {
            directory::name_of(&named.directory)
        };
        options.directory = named.directory;
        options.environment = named.environment;
        (named.files, options)
    }
}

/// Everything there is right now, in the order of the manifests' paths.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub candidates: Vec<Candidate>,
    /// Directories that could not be read, and why: what came from them stays.
    pub unknown: BTreeMap<PathBuf, String>,
}

/// A finding about a file as a whole.
pub fn error_at(file: &Path, message: impl Into<String>, hint: impl Into<String>) -> Diagnostic {
    Diagnostic {
        severity: Severity::Error,
        refusal: false,
        span: Span {
            file: file.to_owned(),
            line: 0,
            column: 0,
        },
        message: message.into(),
        hint: Some(hint.into()),
        source_line: None,
    }
}

/// The text at a position, as the file is now.
pub fn line_of(span: &Span) -> Option<String> {
    let line = usize::try_from(span.line).ok()?.checked_sub(1)?;
    let text = text::Disk.read(&span.file).ok()?;
    String::from_utf8_lossy(&text)
        .lines()
        .nth(line)
        .map(str::to_owned)
}
