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

#[allow(unused_imports)] // until the pipeline uses them
pub(crate) use self::{
    defaults::defaults,
    long::{long, omit_empty},
    reshape::reshape,
    validate::validate,
};
pub use self::{json::json, yaml::yaml};

use serde::Serialize;
use serde_json::Value;

use crate::{tree::Node, types::Project};

/// A loaded project in canonical form: long syntax, defaults, names and paths filled in, every position known.
#[derive(Debug, Clone)]
pub struct Canonical(pub(crate) Node);

/// YAML, with a final newline. Every `$` in a value is written `$$`: the text is a Compose file again.
pub fn project_yaml(project: &Project) -> String {
    let value = serde_json::to_value(project).map(escape).unwrap_or_default();
    // Text keys and plain data: the serializer has nothing to refuse. Should it, JSON is YAML too.
    crate::yaml::print(&value).unwrap_or_else(|_| value.to_string())
}

/// Keys are never interpolated, so only values are escaped.
fn escape(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('$', "$$")),
        Value::Array(items) => items.into_iter().map(escape).collect(),
        Value::Object(entries) => entries
            .into_iter()
            .map(|(key, value)| (key, escape(value)))
            .collect(),
        other => other,
    }
}

/// Indented JSON, with a final newline. Values are what they are: `$` stays single.
pub fn project_json(project: &Project) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut text);
    // Writing to memory cannot fail, and a project has text keys only.
    let _ = project.serialize(&mut serializer);
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}
