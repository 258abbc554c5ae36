//! A command that runs beside the first process, at a moment of its life.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Rights;

/// As `exec` would run it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookSpec {
    pub argv: Vec<String>,
    /// Beside the environment of the container.
    pub environment: BTreeMap<String, String>,
    /// Empty: the container's.
    pub user: String,
    /// `None`: the container's.
    pub working_dir: Option<PathBuf>,
    /// `None`: the container's.
    pub rights: Option<Box<Rights>>,
}
