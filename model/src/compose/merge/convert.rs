//! The one form of an attribute that both sides of a merge are brought to.

use std::collections::BTreeSet;

use super::Merge;
use crate::tree::{At, Entry, Node, Value};

/// Bytes that the items of one key may repeat of the key. No list of addresses is near.
const MAX_REPEATED: usize = 256 * 1024;

impl Merge<'_> {
    /// A list as it is, text as its only item, a mapping as sorted `KEY=VALUE`; null is empty.
    ///
    /// A key without a value is `KEY`, one with a list is `KEY=ITEM` for each item. The items of a mapping
    /// have the positions of its keys.
    pub(super) fn list(&mut self, node: Node) -> Vec<Node> {
        match node.value {
            Value::List(items) => items,
            Value::Text(text) => vec![Node::text(text, node.at)],
            Value::Map(entries) => {
                let mut items: Vec<(String, At)> = Vec::with_capacity(entries.len());
                for entry in entries {
                    self.pairs(entry, &mut items);
                }
                items.sort();
                items.into_iter().map(|(text, at)| Node::text(text, at)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Int(_) | Value::Float(_) => {
                self.dropped(&node);
                Vec::new()
            }
        }
    }

    fn pairs(&mut self, entry: Entry, items: &mut Vec<(String, At)>) {
        let Entry { key, at, value } = entry;
        match &value.value {
            Value::Null => items.push((key, at)),
            Value::List(values) if key.len().saturating_mul(values.len()) > MAX_REPEATED => {
                let message = format!("`{}`: too many values for so long a key", self.path.entry(&key));
                let hint = "write fewer values, or a shorter key";
                self.report.refuse(value.at, message, hint);
            }
            Value::List(values) => {
                if values.iter().any(|item| item.value.scalar().is_none()) {
                    self.printed(&key, &value);
                }
                let pairs = values.iter().map(|item| (pair(&key, item), at));
                items.extend(pairs);
            }
            Value::Map(_) => {
                self.printed(&key, &value);
                items.push((pair(&key, &value), at));
            }
            _ => items.push((pair(&key, &value), at)),
        }
    }

    /// A single file with such a value is refused by the schema; a merge makes it text before that.
    fn printed(&mut self, key: &str, value: &Node) {
        let message = format!(
            "`{}`: {} is no value here, and is merged as the text that prints it",
            self.path.entry(key),
            value.value.kind()
        );
        self.report
            .warning(value.at, message, "write text, a number or a boolean");
    }

    /// The short form of `build` is its context.
    pub(super) fn build(&mut self, node: Node) -> Result<Vec<Entry>, Node> {
        match node.value {
            Value::Map(entries) => Ok(entries),
            Value::Text(context) => Ok(vec![Entry {
                key: "context".to_owned(),
                at: node.at,
                value: Node::text(context, node.at),
            }]),
            _ => Err(node),
        }
    }

    /// Names without attributes.
    pub(super) fn names(&mut self, node: Node) -> Result<Vec<Entry>, Node> {
        self.keyed(node, |at| Node::new(Value::Null, at))
    }

    /// Services that must have started.
    pub(super) fn dependencies(&mut self, node: Node) -> Result<Vec<Entry>, Node> {
        self.keyed(node, |at| {
            let attributes = [
                ("condition", Value::Text("service_started".to_owned())),
                ("required", Value::Bool(true)),
            ];
            let entries = attributes.map(|(key, value)| Entry {
                key: key.to_owned(),
                at,
                value: Node::new(value, at),
            });
            Node::new(Value::Map(entries.into()), at)
        })
    }

    fn keyed(&mut self, node: Node, value: fn(At) -> Node) -> Result<Vec<Entry>, Node> {
        let items = match node.value {
            Value::Map(entries) => return Ok(entries),
            Value::List(items) => items,
            _ => return Err(node),
        };
        let mut known = BTreeSet::new();
        let mut entries = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let Value::Text(key) = item.value else {
                let message = format!(
                    "`{}`: a name is text, not {}",
                    self.path.item(index),
                    item.value.kind()
                );
                self.report
                    .last_error(item.at, message, "write the name alone, numbers in quotes");
                continue;
            };
            if known.insert(key.clone()) {
                entries.push(Entry {
                    key,
                    at: item.at,
                    value: value(item.at),
                });
            }
        }
        Ok(entries)
    }
}

fn pair(key: &str, value: &Node) -> String {
    let mut text = format!("{key}=");
    print(value, &mut text);
    text
}

/// As the reference loader prints: `[a b]` for a list, `map[a:1 b:2]`, sorted, for a mapping.
fn print(node: &Node, text: &mut String) {
    match &node.value {
        Value::Null => text.push_str("<nil>"),
        Value::List(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                print(item, text);
            }
            text.push(']');
        }
        Value::Map(entries) => {
            let mut entries: Vec<&Entry> = entries.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            text.push_str("map[");
            for (index, entry) in entries.into_iter().enumerate() {
                if index > 0 {
                    text.push(' ');
                }
                text.push_str(&entry.key);
                text.push(':');
                print(&entry.value, text);
            }
            text.push(']');
        }
        scalar => text.push_str(&scalar.scalar().unwrap_or_default()),
    }
}
