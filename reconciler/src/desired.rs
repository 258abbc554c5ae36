//! What the manifests ask for, as the intake hands it over.

use std::{collections::BTreeMap, sync::Arc};

use model::types::Project;

/// All projects of a root, and whether the list is whole.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    pub projects: BTreeMap<String, Wish>,
    /// Why nothing may be removed for want of a manifest: a source could not be read. `None`: the list
    /// is whole, and what the host has beyond it goes.
    pub incomplete: Option<String>,
}

/// What is wanted of one project.
#[derive(Debug, Clone)]
pub enum Wish {
    Run {
        project: Arc<Project>,
        revision: String,
    },
    /// There is a manifest, but no version of it was ever good: leave what there is alone.
    Hold {
        why: String,
    },
    /// Taken down by an operator; `volumes`: with consent to remove its named volumes.
    Down {
        volumes: bool,
    },
}
