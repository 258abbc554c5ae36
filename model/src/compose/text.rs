//! For tests: trees from YAML text, and back to what can be compared without positions.

use serde_json::{Value as Json, json};

use crate::{
    tree::{Node, Value},
    yaml,
};

pub(super) fn tree(text: &str) -> Node {
    let documents = yaml::parse(text, 0).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let null = Node::new(Value::Null, Default::default());
    documents.into_iter().next().unwrap_or(null)
}

/// Without positions; the order of mappings does not count.
pub(super) fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!({ "int": value.to_string() }),
        Value::Float(value) => json!({ "float": value.to_string() }),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(plain).collect(),
        Value::Map(entries) => {
            let entries = entries
                .iter()
                .map(|entry| (entry.key.clone(), plain(&entry.value)));
            Json::Object(entries.collect())
        }
    }
}

/// The node at dotted keys.
pub(super) fn at<'n>(node: &'n mut Node, path: &str) -> &'n mut Node {
    path.split('.').fold(node, |node, key| {
        node.get_mut(key).unwrap_or_else(|| panic!("no {key} of {path}"))
    })
}
