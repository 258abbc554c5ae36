//! The one way in: texts and an environment to a project, what was read, and what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::{diagnostic::Diagnostic, source::Sources, types::Project};

/// What the caller decides. The process environment is never looked at here.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where relative paths and `.env` are looked for.
    pub directory: PathBuf,
    /// The name where the file has none; normalised by `load`.
    pub fallback_name: String,
    /// Wins over `.env`.
    pub environment: BTreeMap<String, String>,
    /// Instead of `.env` in `directory`.
    pub env_files: Vec<PathBuf>,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
}

/// Total: any input gives a `Loaded`.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `None` when some diagnostic is an error.
    pub project: Option<Project>,
    /// Every file looked at, also the missing ones: all of them are to be watched.
    pub inputs: BTreeSet<PathBuf>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Loads one project from its Compose file (several: issue of the merge rules).
pub fn load(_sources: &dyn Sources, _files: &[PathBuf], _options: &Options) -> Loaded {
    Loaded {
        project: None,
        inputs: BTreeSet::new(),
        diagnostics: Vec::new(),
    }
}
