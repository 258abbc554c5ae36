//! What to do about a value of a wrong kind, a key that is unknown or missing: the usual traps by name.

use super::{
    Field, Form, Object, Shape,
    path::{Path, cut},
    table::SERVICE,
};
use crate::{
    support::nearest,
    syntax::{host, ssh},
    tree::{Entry, Node, Value},
};

/// Longer values are cut.
const MAX_SHOWN: usize = 40;
/// Longer values of variables are cut.
const MAX_VALUE: usize = 12;
/// More names than this are not listed.
const MAX_NAMES: usize = 10;

const SIZE: &str = "write whole bytes, or a number with a unit, like `64m`";
const TEXTS: &str = "write a list of texts: begin each line with `- `";

/// What a shape wants, for "must be …".
pub(super) fn wants(shape: &Shape, field: Option<&Field>) -> String {
    let known = field
        .filter(|field| scalars(shape) && !(text_only(shape) && matches!(field.form, Form::Bytes(_))))
        .and_then(|field| word(field.form));
    let mut words: Vec<String> = Vec::new();
    for shape in shape.alternatives() {
        let word = match (shape, known) {
            (Shape::Null, _) => continue,
            (Shape::Choice(values), _) => one_of(values),
            (Shape::Text | Shape::Bool | Shape::Integer { .. } | Shape::Number, Some(word)) => {
                word.to_owned()
            }
            (Shape::Any | Shape::OneOf(_), _) => "any value".to_owned(),
            (Shape::Text | Shape::Pattern(_), _) => "text".to_owned(),
            (Shape::Bool, _) => "a boolean".to_owned(),
            (Shape::Integer { .. }, _) => "a whole number".to_owned(),
            (Shape::Number, _) => "a number".to_owned(),
            (Shape::List { .. }, _) => "a list".to_owned(),
            (Shape::Map { .. } | Shape::Object(_), _) => "a mapping".to_owned(),
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    either(&words)
}

/// What text in the place of such a field stands for, where it is not just text.
fn word(form: Form) -> Option<&'static str> {
    match form {
        Form::Bool(_) | Form::OptOut => Some("a boolean"),
        Form::Int(_) | Form::Uint(..) | Form::Ulimits => Some("a whole number"),
        Form::Float => Some("a number"),
        Form::Bytes(_) => Some("a size"),
        Form::Duration(_) => Some("a duration"),
        Form::Mode => Some("a file mode"),
        Form::Count => Some("a number of devices"),
        _ => None,
    }
}

/// "`a`, `b` or `c`".
pub(super) fn one_of(values: &[&str]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("`{value}`")).collect();
    either(&values)
}

fn either(words: &[String]) -> String {
    match words.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

/// What to write instead of a value of a wrong kind.
pub(super) fn instead(node: &Node, shape: &Shape, path: &Path, field: Option<&Field>) -> String {
    let key = path.key();
    let allows = |test: fn(&Shape) -> bool| shape.alternatives().iter().any(test);
    let text = allows(|shape| matches!(shape, Shape::Text | Shape::Pattern(_) | Shape::Choice(_)));
    let map = allows(|shape| matches!(shape, Shape::Map { .. } | Shape::Object(_)));
    let item = shape.alternatives().iter().find_map(|shape| match shape {
        Shape::List { item, .. } => Some(*item),
        _ => None,
    });
    match &node.value {
        Value::Null if !path.is_item() => return format!("write a value after `{key}:`, or remove the line"),
        Value::Bool(value) if text && key == "restart" => {
            let word = if *value { "always" } else { "no" };
            return format!("in YAML 1.2 this is a boolean: write `restart: \"{word}\"`, with the quotes");
        }
        _ => {}
    }
    if let Some(hint) = field.and_then(|field| scalar(node, shape, key, field)) {
        return hint;
    }
    if let Some(hint) = certain_text(node, shape, key).filter(|_| item.is_none() || !is_map(node)) {
        return hint;
    }
    match &node.value {
        _ if text && path.is_item() => as_item(node, key),
        Value::Bool(_) | Value::Int(_) | Value::Float(_) if text => as_value(node, key),
        Value::Map(entries) => match item {
            Some(item) => map_as_list(entries, item, key),
            None => "write one text".to_owned(),
        },
        Value::List(_) if map => "write a mapping: lines of `KEY: VALUE` without `-`".to_owned(),
        Value::List(_) if text => "write one text".to_owned(),
        _ if item.is_some() && field.is_some_and(|field| of_pairs(field.form)) => match node.as_text() {
            Some(text) if field.is_some_and(|field| is_pair(text, field.form)) => one_item(node, key),
            _ => format!("write lines of `NAME: VALUE` below `{key}:`"),
        },
        value => match (item, object(shape)) {
            (Some(item), _) => match object(item) {
                Some(object) if !has_text(item) => format!(
                    "write a list of mappings: begin each with `- {}: …`",
                    first_key(object)
                ),
                _ if matches!(value, Value::Bool(_)) => TEXTS.to_owned(),
                _ => one_item(node, key),
            },
            (None, Some(object)) if path.is_item() => {
                format!("write a mapping: `- {}: …`", first_key(object))
            }
            _ if map => format!("write lines of `KEY: VALUE` below `{key}:`"),
            _ => format!("write {}", wants(shape, field)),
        },
    }
}

/// For a boolean, a number, a size or a time: what one looks like.
fn scalar(node: &Node, shape: &Shape, key: &str, field: &Field) -> Option<String> {
    if !field.hint.is_empty() && scalars(shape) {
        return Some(field.hint.to_owned());
    }
    word(field.form).filter(|_| scalars(shape))?;
    let number = match &node.value {
        Value::Int(_) | Value::Float(_) => node.value.scalar(),
        _ => None,
    };
    // Quotes that make text of what must not be text.
    let quoted = node.as_text().filter(|text| match field.form {
        Form::Bool(_) | Form::OptOut => matches!(*text, "true" | "false"),
        _ => text.parse::<f64>().is_ok(),
    });
    if let Some(text) = quoted.filter(|_| !has_text(shape)) {
        return Some(format!(
            "write it without quotes: `{key}: {}`",
            cut(text, MAX_SHOWN)
        ));
    }
    let range = shape.alternatives().iter().find_map(|shape| match shape {
        Shape::Integer { min, max } => whole(*min, *max),
        _ => None,
    });
    Some(match (field.form, number) {
        (Form::Bool(_) | Form::OptOut, _) => "write `true` or `false`".to_owned(),
        (Form::Duration(_), Some(number)) => format!("add a unit: `{key}: {number}s`"),
        (Form::Duration(_), None) => "write numbers with units, like `1m30s` or `500ms`".to_owned(),
        (Form::Bytes(_), Some(_)) if text_only(shape) => as_value(node, key),
        (Form::Bytes(_), _) => SIZE.to_owned(),
        (Form::Float, _) => range.unwrap_or_else(|| "write a number like `0.5`".to_owned()),
        (Form::Mode, _) => "write octal digits, for example `0440`".to_owned(),
        (Form::Count, _) => "write a whole number or `all`".to_owned(),
        _ => range.unwrap_or_else(|| "write a whole number, for example `10`".to_owned()),
    })
}

/// What to write where a whole number has bounds.
pub(super) fn whole(min: Option<i64>, max: Option<i64>) -> Option<String> {
    match (min, max) {
        (Some(min), Some(max)) => Some(format!("write a whole number from {min} to {max}")),
        (Some(min), None) => Some(format!("write a whole number from {min}")),
        (None, Some(max)) => Some(format!("write a whole number up to {max}")),
        (None, None) => None,
    }
}

/// For text that must be one of a few, or of a certain form: quotes alone do not make it so.
fn certain_text(node: &Node, shape: &Shape, key: &str) -> Option<String> {
    let written = node.value.scalar();
    shape.alternatives().iter().find_map(|shape| match shape {
        Shape::Choice(_) if matches!(node.value, Value::Text(_)) => None,
        Shape::Choice([only]) => Some(format!("write `{key}: {only}`")),
        Shape::Choice(values) => Some(format!("write {}", one_of(values))),
        Shape::Pattern(pattern) if !written.as_deref().is_some_and(pattern.holds) => {
            Some(pattern.hint.to_owned())
        }
        _ => None,
    })
}

/// Whether a value of the shape may be one that is no list and no mapping.
fn scalars(shape: &Shape) -> bool {
    shape.alternatives().iter().any(|shape| {
        matches!(
            shape,
            Shape::Text | Shape::Bool | Shape::Integer { .. } | Shape::Number
        )
    })
}

fn is_map(node: &Node) -> bool {
    matches!(node.value, Value::Map(_))
}

fn text_only(shape: &Shape) -> bool {
    matches!(shape, Shape::Text)
}

fn has_text(shape: &Shape) -> bool {
    shape
        .alternatives()
        .iter()
        .any(|shape| matches!(shape, Shape::Text))
}

fn object(shape: &Shape) -> Option<&'static Object> {
    shape.alternatives().iter().find_map(|shape| match shape {
        Shape::Object(object) => Some(*object),
        _ => None,
    })
}

/// The attribute that a mapping begins with when people write one.
fn first_key(object: &Object) -> &'static str {
    let first = object.fields.first().map_or("", |field| field.name);
    object.required.first().copied().unwrap_or(first)
}

/// Mappings that may be written as lists of `NAME=VALUE`.
fn of_pairs(form: Form) -> bool {
    matches!(form, Form::Variables | Form::Labels | Form::Hosts | Form::Keys)
}

/// Whether the text can be an item of such a list.
fn is_pair(text: &str, form: Form) -> bool {
    match form {
        Form::Hosts => host::parse(text).is_ok(),
        Form::Keys => ssh::parse(text).is_ok(),
        _ => text.contains('='),
    }
}

fn one_item(node: &Node, key: &str) -> String {
    format!("write a list: `{key}: [{}]`", quoted(node))
}

fn as_value(node: &Node, key: &str) -> String {
    format!("put it in quotes: `{key}: {}`", quoted(node))
}

/// A scalar as text of YAML; cut where it is long.
fn quoted(node: &Node) -> String {
    let text = cut(&node.value.scalar().unwrap_or_default(), MAX_SHOWN);
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// How to write an item that is not text as text, in the list of this key.
pub(crate) fn as_item(item: &Node, key: &str) -> String {
    match &item.value {
        Value::Null => "write a value after the `-`, or remove the line".to_owned(),
        Value::Map(entries) => pair_as_text(entries, key),
        Value::List(_) => "write one text".to_owned(),
        _ if matches!(key, "extra_hosts" | "additional_contexts" | "ssh") => "write `NAME=VALUE`".to_owned(),
        _ => format!("put it in quotes: `{}`", quoted(item)),
    }
}

/// A mapping in the place of a list.
fn map_as_list(entries: &[Entry], item: &Shape, key: &str) -> String {
    match entries.first() {
        Some(entry) if has_text(item) && pairs(key) && entry.value.value.scalar().is_some() => {
            format!("write a list: `- \"{}\"`", pair(entry, ":"))
        }
        _ if object(item).is_some() => "write a list: begin each item with `- `".to_owned(),
        _ => TEXTS.to_owned(),
    }
}

/// Lists whose items are two things with a colon between them, which is easily taken for a mapping.
fn pairs(key: &str) -> bool {
    matches!(
        key,
        "ports" | "volumes" | "devices" | "links" | "extra_hosts" | "dns_opt" | "security_opt"
    )
}

/// `- KEY: value` where `- KEY=value` was meant, or `- 8080: 80` without quotes.
fn pair_as_text(entries: &[Entry], key: &str) -> String {
    match entries {
        [entry] if entry.value.value.scalar().is_none() => "write text after the `-`".to_owned(),
        [entry] if pairs(key) => format!("put it in quotes: `- \"{}\"`", pair(entry, ":")),
        [entry] if matches!(key, "command" | "entrypoint" | "test") => {
            format!("put it in quotes: `- \"{}\"`", pair(entry, ": "))
        }
        [entry] => {
            let name = cut(&entry.key, MAX_SHOWN);
            let value = entry.value.value.scalar().unwrap_or_default();
            // The value of a variable may be confidential.
            let value = cut(&value, MAX_VALUE);
            format!("put a `=` between name and value: `- {name}={value}`")
        }
        _ => "write text after the `-`".to_owned(),
    }
}

/// `- 8080: 80`: without quotes this is a mapping, and its key is none of the attributes.
fn pair_without_quotes(entry: &Entry, list: &str) -> Option<String> {
    let can_be = list != "ports" || entry.key.starts_with(|c: char| c.is_ascii_digit());
    (pairs(list) && can_be && entry.value.value.scalar().is_some())
        .then(|| format!("put it in quotes: `- \"{}\"`", pair(entry, ":")))
}

/// What to do about an item of a list of a service that is such a pair.
pub(crate) fn unquoted(item: &Node, list: &str) -> Option<String> {
    let [entry] = item.entries() else {
        return None;
    };
    let Shape::List { item, .. } = SERVICE.field(list)?.shape else {
        return None;
    };
    let known = object(item).is_some_and(|object| object.field(&entry.key).is_some());
    pair_without_quotes(entry, list).filter(|_| !known)
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

/// The attribute that was meant by an unknown key.
pub(super) fn meant(entry: &Entry, object: &'static Object) -> Option<&'static str> {
    nearest(&entry.key, object.fields.iter().map(|field| field.name))
}

/// Whether the advice on an unknown key is a list of the known ones.
pub(super) fn lists_names(object: &Object) -> bool {
    object.fields.len() <= MAX_NAMES
}

/// What to do about a key that an object does not have. `meant` is what it may have been.
pub(super) fn unknown(entry: &Entry, object: &'static Object, meant: Option<&str>, path: &Path) -> String {
    let key = entry.key.as_str();
    if let Some(name) = meant {
        return format!("did you mean `{name}`?");
    }
    if path.is_item()
        && let Some(hint) = pair_without_quotes(entry, path.key())
    {
        return hint;
    }
    if matches!(path, Path::Top) {
        let of_a_service = SERVICE.field(key).is_some();
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
    if lists_names(object) {
        let names: Vec<_> = object
            .fields
            .iter()
            .map(|field| format!("`{}`", field.name))
            .collect();
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
