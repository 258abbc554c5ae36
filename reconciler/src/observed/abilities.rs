//! What this host cannot keep of what a manifest may ask of one.

use std::collections::{BTreeMap, BTreeSet};

use super::Fact;

/// Nobody has looked, or everything can be kept: both are the default, because what is not known to be
/// missing refuses nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// What is missing for an attribute of a service (`mem_limit`), or not known to be there.
    pub attributes: BTreeMap<&'static str, Lack>,
    /// The profiles of AppArmor that are loaded; `None`: the host has no AppArmor.
    pub profiles: Fact<Option<BTreeSet<String>>>,
    /// Why a service can have no user namespace of its own.
    pub user_namespaces: Option<Lack>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lack {
    Missing {
        /// `this host cannot limit memory: …`
        what: String,
        /// What to do, beside leaving the attribute out.
        remedy: String,
    },
    /// Why it is not known.
    Unknown(String),
}

impl Default for Abilities {
    fn default() -> Self {
        Abilities {
            attributes: BTreeMap::new(),
            profiles: Fact::Unknown("nobody has looked".to_owned()),
            user_namespaces: None,
        }
    }
}
