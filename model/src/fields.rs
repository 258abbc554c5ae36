//! A service as a flat list of `path → value`, the form in which plans compare and explain.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::types::Service;

/// Dotted path below the service (`environment.A`, `ports`, `command`) to canonical JSON text.
pub type Fields = BTreeMap<String, String>;

/// Flattens the canonical service. Mappings open one level per key; lists and scalars are one field
/// each, so that a changed list is one change. A dot inside a key is kept: paths are for people and
/// for looking up origins, never parsed back.
pub fn fields(service: &Service) -> Fields {
    let mut fields = Fields::new();
    if let Ok(Value::Object(map)) = serde_json::to_value(service) {
        for (key, value) in map {
            open(&key, value, &mut fields);
        }
    }
    fields
}

fn open(path: &str, value: Value, fields: &mut Fields) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                open(&format!("{path}.{key}"), value, fields);
            }
        }
        Value::String(text) => {
            fields.insert(path.to_owned(), text);
        }
        other => {
            fields.insert(path.to_owned(), other.to_string());
        }
    }
}
