//! The canonical form of a project, as `docker compose config` prints it. Equal projects give equal text.

use serde::Serialize;

use crate::{types::Project, yaml};

/// YAML, with a final newline.
pub fn yaml(project: &Project) -> String {
    // Text keys and plain data: the serializer has nothing to refuse. Should it, JSON is YAML too.
    yaml::print(project).unwrap_or_else(|_| json(project))
}

/// Indented JSON, with a final newline.
pub fn json(project: &Project) -> String {
    let mut text = Vec::new();
    let mut serializer = serde_json::Serializer::pretty(&mut text);
    // Writing to memory cannot fail, and a project has text keys only.
    let _ = project.serialize(&mut serializer);
    text.push(b'\n');
    String::from_utf8_lossy(&text).into_owned()
}
