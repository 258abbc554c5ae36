//! What the manifests ask for, as the intake hands it over.

use std::{collections::BTreeMap, fmt, sync::Arc};

use model::types::Project;
use serde::{Deserialize, Serialize};

use crate::time::Now;

/// All projects of a root, and whether the list is whole.
#[derive(Debug, Clone, Default)]
pub struct Desired {
    pub projects: BTreeMap<String, Wish>,
    /// Why nothing may be removed for want of a manifest: a source could not be read. `None`: the list
    /// is whole, and what the host has beyond it goes.
    pub incomplete: Option<String>,
    /// What an operator has ordered, until it is cleared.
    pub intents: BTreeMap<Target, Intent>,
}

/// A service, or one of its containers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Target {
    pub project: String,
    pub service: String,
    /// Counts from 1; `None`: all of them.
    pub index: Option<u32>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.service)?;
        self.index.map_or(Ok(()), |index| write!(f, "/{index}"))
    }
}

/// An operator's order. It says nothing about the manifest: a stopped service is still wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "lowercase")]
pub enum Intent {
    /// Not to run until `start`, also after a reboot.
    Stop { at: Now },
    /// To be started again if it was last started before this moment of this boot; done by then.
    Run { boot_id: String, at: Now },
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
