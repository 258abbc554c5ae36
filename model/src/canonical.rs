//! The canonical form of a project, as `docker compose config` prints it. Equal projects give equal text.

mod build;
mod defaults;
mod json;
mod long;
mod mounts;
mod place;
mod reshape;
#[cfg(test)]
mod testing;
mod unique;
mod validate;
mod yaml;

pub(crate) use self::json::plain as plain_json;
pub(crate) use self::{
    defaults::defaults,
    long::{long, omit_empty},
    reshape::reshape,
    validate::validate,
};
pub use self::{json::json, yaml::yaml};

use crate::tree::Node;

/// A loaded project in canonical form: long syntax, defaults, names and paths filled in, every position known.
#[derive(Debug, Clone)]
pub struct Canonical(pub(crate) Node);
