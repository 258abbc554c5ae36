//! What to do about a value of a wrong kind, a key that is unknown or missing: the usual traps by name.

use super::{
    Field, Form, Object, Shape,
    path::{Path, cut},
};
use crate::{
    support::nearest,
    tree::{Entry, Node, Value},
};

/// Longer values are cut.
const MAX_SHOWN: usize = 40;
/// More names than this are not listed.
const MAX_NAMES: usize = 10;

/// What a shape wants, for "must be …".
pub(super) fn wants(shape: &Shape) -> String {
    let mut words: Vec<&str> = Vec::new();
    for shape in shape.alternatives() {
        let word = match shape {
            Shape::Any | Shape::OneOf(_) => "any value",
            Shape::Null => "nothing",
            Shape::Text | Shape::Pattern(_) | Shape::Choice(_) => "text",
            Shape::Bool => "a boolean",
            Shape::Integer { .. } => "a whole number",
            Shape::Number => "a number",
            Shape::List { .. } => "a list",
            Shape::Map { .. } | Shape::Object(_) => "a mapping",
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    match words.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// What to write instead of a value of a wrong kind.
pub(super) fn instead(node: &Node, shape: &Shape, path: &Path, field: Option<&Field>) -> String {
    let key = path.key();
    let allows = |test: fn(&Shape) -> bool| shape.alternatives().iter().any(test);
    let text = allows(|shape| matches!(shape, Shape::Text | Shape::Pattern(_) | Shape::Choice(_)));
    let list = allows(|shape| matches!(shape, Shape::List { .. }));
    let map = allows(|shape| matches!(shape, Shape::Map { .. } | Shape::Object(_)));
    match &node.value {
        Value::Null if path.is_item() => "write a value after the `-`, or remove the line".to_owned(),
        Value::Null => format!("write a value after `{key}:`, or remove the line"),
        Value::Bool(value) if text && key == "restart" => {
            let word = if *value { "always" } else { "no" };
            format!("in YAML 1.2 this is a boolean: write `restart: \"{word}\"`, with the quotes")
        }
        Value::Int(_) | Value::Float(_) if is_duration(field) => {
            let number = node.value.scalar().unwrap_or_default();
            format!("add a unit: `{key}: {number}s`")
        }
        Value::Bool(_) | Value::Int(_) | Value::Float(_) if text => {
            let shown = cut(&node.value.scalar().unwrap_or_default(), MAX_SHOWN);
            match path.is_item() {
                true => format!("put it in quotes: `\"{shown}\"`"),
                false => format!("put it in quotes: `{key}: \"{shown}\"`"),
            }
        }
        Value::Map(entries) if text && path.is_item() => item_as_text(entries, key),
        Value::Map(entries) if list && text_items(shape) => match entries.first() {
            Some(entry) if pairs(key) => format!("write a list: `- \"{}\"`", pair(entry, ":")),
            _ => "write a list: begin each line with `- `".to_owned(),
        },
        Value::Map(_) if list => "write a list: begin each item with `- `".to_owned(),
        Value::List(_) if map => "write a mapping: lines of `KEY: VALUE` without `-`".to_owned(),
        Value::List(_) if text => "write one text".to_owned(),
        Value::Text(text) if list => format!("write a list: `{key}: [\"{}\"]`", cut(text, MAX_SHOWN)),
        Value::Int(_) | Value::Float(_) | Value::Bool(_) if list => {
            let shown = node.value.scalar().unwrap_or_default();
            format!("write a list: `{key}: [\"{shown}\"]`")
        }
        _ if map => format!("write lines of `KEY: VALUE` below `{key}:`"),
        Value::Text(_) if allows(|shape| matches!(shape, Shape::Bool)) => {
            "write `true` or `false` without quotes".to_owned()
        }
        Value::Text(_) => "write a number without quotes".to_owned(),
        _ => format!("write {}", wants(shape)),
    }
}

fn is_duration(field: Option<&Field>) -> bool {
    field.is_some_and(|field| matches!(field.form, Form::Duration(_)))
}

/// Whether the items of the list are (also) text.
fn text_items(shape: &Shape) -> bool {
    shape.alternatives().iter().any(|shape| match shape {
        Shape::List { item, .. } => item.alternatives().iter().any(|item| matches!(item, Shape::Text)),
        _ => false,
    })
}

/// Lists whose items are two things with a colon between them, which is easily taken for a mapping.
fn pairs(key: &str) -> bool {
    matches!(key, "ports" | "volumes" | "devices" | "links" | "extra_hosts")
}

/// `- KEY: value` where `- KEY=value` was meant, or `- 8080: 80` without quotes.
fn item_as_text(entries: &[Entry], key: &str) -> String {
    match entries {
        [entry] if pairs(key) => format!("put it in quotes: `- \"{}\"`", pair(entry, ":")),
        [entry] if matches!(key, "command" | "entrypoint" | "test") => {
            format!("put it in quotes: `- \"{}\"`", pair(entry, ": "))
        }
        [entry] => format!(
            "put a `=` between name and value: `- {}=…`",
            cut(&entry.key, MAX_SHOWN)
        ),
        _ => "write text after the `-`".to_owned(),
    }
}

/// A key and its value as one text. The value is cut: it may be confidential.
fn pair(entry: &Entry, between: &str) -> String {
    let value = entry.value.value.scalar().unwrap_or_default();
    format!(
        "{}{between}{}",
        cut(&entry.key, MAX_SHOWN),
        cut(&value, MAX_SHOWN)
    )
}

/// What to do about a key that an object does not have.
pub(super) fn unknown(entry: &Entry, object: &'static Object, path: &Path) -> String {
    let key = entry.key.as_str();
    let names = object.fields.iter().map(|field| field.name);
    if let Some(name) = nearest(key, names.clone()) {
        return format!("did you mean `{name}`?");
    }
    // `- 8080: 80`: without quotes this is a mapping.
    if path.is_item() && pairs(path.key()) && entry.value.value.scalar().is_some() {
        return format!("put it in quotes: `- \"{}\"`", pair(entry, ":"));
    }
    if matches!(path, Path::Top) {
        let of_a_service = super::table::SERVICE.field(key).is_some();
        let is_a_service = ["image", "build", "command", "volumes", "ports"];
        return if of_a_service {
            format!("`{key}` belongs to a service: write it below `services.NAME:`")
        } else if is_a_service.iter().any(|name| entry.value.get(name).is_some()) {
            format!("write the service below `services:`, or `x-{key}` if it is a template")
        } else {
            format!("remove it, or write `x-{key}` if it is for another program")
        };
    }
    if let Some(section) = section_with(object, key) {
        return format!("`{key}` belongs below `{section}`");
    }
    if object.fields.len() <= MAX_NAMES {
        let names: Vec<_> = names.map(|name| format!("`{name}`")).collect();
        return format!("remove it; known here: {}", names.join(", "));
    }
    if object.extensible {
        return format!("remove it, or write `x-{key}` if it is for another program");
    }
    "remove it".to_owned()
}

/// The section of the object that has an attribute of this name.
fn section_with(object: &'static Object, key: &str) -> Option<&'static str> {
    let has = |shape: &Shape| matches!(shape, Shape::Object(object) if object.field(key).is_some());
    let mut sections = object.fields.iter();
    let section = sections.find(|field| field.shape.alternatives().iter().any(has))?;
    Some(section.name)
}

/// What to do where an empty text may come from a variable that is not set.
pub(super) fn with_default(hint: &str) -> String {
    format!("{hint}; if it comes from a variable, give it a default: `${{NAME:-…}}`")
}

/// How to write an attribute that is missing.
pub(super) fn missing(name: &str, object: &Object) -> String {
    match object.field(name).map(|field| field.shape) {
        Some(Shape::Choice([first, ..])) => format!("add it, for example `{name}: {first}`"),
        Some(Shape::List { .. }) => format!("add it: `{name}: […]`"),
        _ => format!("add it: `{name}: …`"),
    }
}
