//! Single values: text, numbers, booleans, lists, mappings, and the forms that many keys share.

use std::{collections::BTreeMap, str::FromStr};

use super::Decoder;
use crate::{
    tree::{Entry, Node, Value},
    types::Duration,
};

impl Decoder<'_> {
    /// Reports a value of the wrong kind.
    pub(super) fn wrong(&mut self, node: &Node, path: &str, want: &str) {
        let hint = match (&node.value, node.value.scalar()) {
            (Value::Null, _) => "give it a value, or remove the key".to_owned(),
            (_, Some(scalar)) if want == "text" => format!("write it in quotes: \"{scalar}\""),
            _ => format!("write {want} here"),
        };
        let path = if path.contains(' ') {
            path.to_owned()
        } else {
            format!("`{path}`")
        };
        self.report.error(
            node.at,
            format!("{path} must be {want}, and is {}", node.value.kind()),
            hint,
        );
    }

    pub(super) fn map<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Entry]> {
        match &node.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.wrong(node, path, "a mapping");
                None
            }
        }
    }

    pub(super) fn list<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(items) => Some(items),
            _ => {
                self.wrong(node, path, "a list");
                None
            }
        }
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node, path: &str) -> Option<&'n str> {
        match &node.value {
            Value::Text(text) => Some(text),
            _ => {
                self.wrong(node, path, "text");
                None
            }
        }
    }

    /// A list of texts; items of another kind are reported one by one.
    pub(super) fn texts(&mut self, node: &Node, path: &str) -> Option<Vec<String>> {
        let items = self.list(node, path)?;
        Some(
            items
                .iter()
                .filter_map(|item| Some(self.text(item, path)?.to_owned()))
                .collect(),
        )
    }

    /// `true` and `false`, also as text (from a variable); `yes`, `on`, … with a warning, as Compose does.
    pub(super) fn boolean(&mut self, node: &Node, path: &str) -> Option<bool> {
        let text = match &node.value {
            Value::Bool(value) => return Some(*value),
            Value::Text(text) => text.to_ascii_lowercase(),
            _ => {
                self.wrong(node, path, "true or false");
                return None;
            }
        };
        let value = match text.as_str() {
            "true" => return Some(true),
            "false" => return Some(false),
            "y" | "yes" | "on" | "1" => true,
            "n" | "no" | "off" | "0" => false,
            _ => {
                self.wrong(node, path, "true or false");
                return None;
            }
        };
        self.report.warning(
            node.at,
            format!("`{path}`: `{text}` is text in YAML 1.2, read as {value}"),
            format!("write {value}"),
        );
        Some(value)
    }

    /// A whole number from 0, also as text (from a variable).
    pub(super) fn number<T: TryFrom<i128>>(&mut self, node: &Node, path: &str) -> Option<T> {
        let value = match &node.value {
            Value::Int(value) => Some(*value),
            Value::Text(text) => text.parse::<u64>().ok().map(i128::from),
            _ => None,
        };
        let value = value
            .filter(|value| *value >= 0)
            .and_then(|value| T::try_from(value).ok());
        if value.is_none() {
            let message = format!("`{path}` must be a whole number from 0");
            self.report.error(node.at, message, "write a number like 3 here");
        }
        value
    }

    pub(super) fn duration(&mut self, node: &Node, path: &str) -> Option<Duration> {
        if let Value::Int(number) = node.value {
            let message = format!("`{path}`: {number} has no unit");
            self.report
                .error(node.at, message, format!("write `{number}s` for seconds"));
            return None;
        }
        let text = self.text(node, path)?;
        match Duration::from_str(text) {
            Ok(duration) => Some(duration),
            Err(error) => {
                self.report
                    .error(node.at, format!("`{path}`: {error}"), error.hint());
                None
            }
        }
    }

    /// A mapping `NAME: value`, or a list of `NAME=value`; a name without a value has `None`. Each name
    /// gets an origin.
    pub(super) fn pairs(&mut self, node: &Node, path: &str) -> BTreeMap<String, Option<String>> {
        let mut pairs = BTreeMap::new();
        match &node.value {
            Value::Map(entries) => {
                for entry in entries {
                    let path = format!("{path}.{}", entry.key);
                    let value = match (&entry.value.value, entry.value.value.scalar()) {
                        (Value::Null, _) => None,
                        (_, Some(scalar)) => Some(scalar),
                        _ => {
                            self.wrong(&entry.value, &path, "text, a number, true or false");
                            continue;
                        }
                    };
                    if entry.key.is_empty() || entry.key.contains('=') {
                        let message = format!("`{path}`: `{}` is not a name", entry.key);
                        self.report
                            .error(entry.at, message, "a name is not empty and has no `=`");
                        continue;
                    }
                    self.report.origin(path, entry.at);
                    pairs.insert(entry.key.clone(), value);
                }
            }
            Value::List(items) => {
                for item in items {
                    let Some(text) = self.text(item, path) else {
                        continue;
                    };
                    let (name, value) = match text.split_once('=') {
                        Some((name, value)) => (name, Some(value.to_owned())),
                        None => (text, None),
                    };
                    if name.is_empty() {
                        let message = format!("`{path}`: `{text}` has no name before the `=`");
                        self.report.error(item.at, message, "write it as `NAME=value`");
                        continue;
                    }
                    self.report.origin(format!("{path}.{name}"), item.at);
                    pairs.insert(name.to_owned(), value);
                }
            }
            _ => self.wrong(node, path, "a mapping or a list"),
        }
        pairs
    }
}
