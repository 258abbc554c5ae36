//! Projects and plans as text: the doors of `model` and `reconciler` that the agent uses.

pub use model::{
    canonical::{project_json, project_yaml},
    diagnostic::render as diagnostic,
    project_name, revision,
    source::Disk,
};
pub use reconciler::plan::{
    because, hash as plan_hash, json as plan_json, line as plan_line, render as plan_text, word,
};
