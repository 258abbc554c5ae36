//! What makes two items of a list the same resource.

use crate::{
    shape,
    tree::{At, Node, Value},
};

#[derive(Debug, Clone, Copy)]
pub(super) enum Key {
    /// The text before `=`.
    Name,
    /// A port number, as a number or text.
    Exposed,
    /// The path of an env file.
    File,
    /// Host address, published port, container port and protocol; the whole text of a short form.
    Port,
    /// The path in the container.
    Volume,
    /// The path in the container.
    Device,
    /// The target of a config or secret, `below/SOURCE` without one.
    Mount { below: &'static str },
}

/// Why an item has no key.
pub(super) struct Fault {
    /// The attribute of the item that is wrong; `None`: the item itself.
    pub key: Option<&'static str>,
    pub at: At,
    /// Continues the path of what is wrong.
    pub message: String,
    pub hint: String,
}

impl Key {
    /// The key of one item of the list `list`; `None` for what later checks must refuse.
    pub fn of(self, item: &Node, list: &str) -> Result<Option<String>, Fault> {
        let fault = |message: String, hint: String| Fault {
            key: None,
            at: item.at,
            message,
            hint,
        };
        match (self, &item.value) {
            (Key::Name, Value::Text(text)) => Ok(Some(before(text, '=').to_owned())),
            (Key::Name, other) => Err(fault(must_be("text", other), shape::as_item(item, list))),
            (Key::Exposed, Value::Text(text)) => Ok(Some(text.clone())),
            (Key::Exposed, Value::Int(number)) => Ok(Some(number.to_string())),
            (Key::Exposed, other) => Err(fault(
                must_be("a port", other),
                "write a number, or a range like `8000-8010`".to_owned(),
            )),
            (Key::File, Value::Text(path)) => Ok(Some(path.clone())),
            (Key::File, Value::Map(_)) => text_at(item, "path", "write `path: FILE`").map(Some),
            (Key::Port, Value::Text(text)) => Ok(Some(text.clone())),
            (Key::Port, Value::Int(number)) => Ok(Some(number.to_string())),
            (Key::Port, Value::Map(_)) => port(item).map(Some),
            (Key::Volume, Value::Text(text)) => Ok(volume_target(text)),
            (Key::Device, Value::Text(text)) => {
                let mut parts = text.split(':');
                let first = parts.next().unwrap_or_default();
                Ok(Some(parts.next().unwrap_or(first).to_owned()))
            }
            (Key::Volume | Key::Device, Value::Map(_)) => {
                text_at(item, "target", "write `target: /PATH/IN/THE/CONTAINER`").map(Some)
            }
            (Key::Mount { below }, Value::Text(source)) => Ok(Some(format!("{below}/{source}"))),
            (Key::Mount { below }, Value::Map(_)) => match item.get("target") {
                Some(_) => text_at(item, "target", "write `target: /PATH/IN/THE/CONTAINER`").map(Some),
                None => Ok(Some(format!("{below}/{}", part(item.get("source"))))),
            },
            (Key::Mount { .. }, other) => Err(fault(
                must_be("text or a mapping", other),
                "write the name alone, or `source: NAME`".to_owned(),
            )),
            // The reference gives all of these one key; its schema then refuses the one that is left.
            (Key::File | Key::Port | Key::Volume | Key::Device, _) => Ok(None),
        }
    }
}

fn before(text: &str, separator: char) -> &str {
    text.split_once(separator).map_or(text, |(first, _)| first)
}

fn text_at(item: &Node, key: &'static str, hint: &str) -> Result<String, Fault> {
    let Some(found) = item.get(key) else {
        return Err(missing(item, key, hint));
    };
    match found.as_text() {
        Some(text) => Ok(text.to_owned()),
        None => Err(Fault {
            key: Some(key),
            at: found.at,
            message: must_be("text", &found.value),
            hint: hint.to_owned(),
        }),
    }
}

fn must_be(what: &str, value: &Value) -> String {
    match value {
        Value::Null => format!("has no value; it must be {what}"),
        other => format!("must be {what}, and is {}", other.kind()),
    }
}

fn missing(item: &Node, key: &str, hint: &str) -> Fault {
    Fault {
        key: None,
        at: item.at,
        message: format!("has no `{key}`"),
        hint: hint.to_owned(),
    }
}

fn port(item: &Node) -> Result<String, Fault> {
    let Some(target) = item.get("target") else {
        return Err(missing(
            item,
            "target",
            "write `target: PORT`, the port in the container",
        ));
    };
    let or = |key: &str, default: &str| match item.get(key) {
        Some(node) => part(Some(node)),
        None => default.to_owned(),
    };
    Ok(format!(
        "{}:{}:{}/{}",
        or("host_ip", "0.0.0.0"),
        part(item.get("published")),
        part(Some(target)),
        or("protocol", "tcp"),
    ))
}

/// A part of a key in which a number and its text differ, as they do for the reference before the long
/// syntax made both text.
fn part(node: Option<&Node>) -> String {
    match node.map_or(&Value::Null, |node| &node.value) {
        Value::Text(text) => text.clone(),
        other => format!("\0{}{}", other.kind(), other.scalar().unwrap_or_default()),
    }
}

/// The path in the container of `[SOURCE:]TARGET[:OPTIONS]`. Colons within `${…}` and after a drive letter
/// do not separate. `None` for what is no short form: the long syntax reports it.
fn volume_target(text: &str) -> Option<String> {
    if text.is_empty() {
        return None;
    }
    if text.len() <= 2 {
        return Some(text.to_owned());
    }
    let parts = volume_parts(text);
    if parts.iter().any(|part| part.is_empty()) {
        return None;
    }
    match parts[..] {
        [target] | [_, target] | [_, target, _] => Some(target.to_owned()),
        _ => None,
    }
}

fn volume_parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0u32);
    for (at, char) in text.char_indices() {
        let rest = text.get(at..).unwrap_or_default();
        if rest.starts_with("${") {
            depth += 1;
        } else if char == '}' {
            depth = depth.saturating_sub(1);
        } else if char == ':' && depth == 0 {
            let part = text.get(start..at).unwrap_or_default();
            let mut chars = part.chars();
            let drive = chars.next().is_some_and(char::is_alphabetic) && chars.next().is_none();
            if !drive {
                parts.push(part);
                start = at + 1;
            }
        }
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}
