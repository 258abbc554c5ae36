//! What the JSON Schema of the reference loader refuses, said with its place and a remedy. Runs on merged
//! files, while short forms are still short.

use std::{collections::BTreeSet, fmt::Write};

use super::{
    Field, Keys, Object, Shape, advice,
    path::{Path, cut},
    table::ROOT,
};
use crate::{
    report::Report,
    tree::{Entry, Node, Value},
};

/// Longer values are cut in messages.
const MAX_SHOWN: usize = 40;
/// Attributes of which a service, a config, a secret, a grant, an env file or a trigger must have one.
const STAND_FOR_A_WHOLE: [&str; 10] = [
    "image",
    "build",
    "provider",
    "file",
    "environment",
    "content",
    "path",
    "external",
    "source",
    "target",
];

/// Tells everything in the model that is not as the table says: unknown keys, values of a wrong kind or out
/// of their range, missing keys, items that are there twice.
pub(crate) fn check(model: &Node, report: &mut Report) {
    if !matches!(model.value, Value::Map(_)) {
        report.error(
            model.at,
            format!("the file must be a mapping, and is {}", model.value.kind()),
            "write lines of `KEY: VALUE`, beginning with `services:`",
        );
        return;
    }
    object(model, &ROOT, &Path::Top, report);
}

fn walk(node: &Node, shape: &Shape, path: &Path, field: Option<&Field>, report: &mut Report) {
    let Some(shape) = shape.pick(&node.value) else {
        return wrong_kind(node, shape, path, field, report);
    };
    match (shape, &node.value) {
        (Shape::Choice(values), Value::Text(text)) if !values.contains(&text.as_str()) => {
            let hint = format!("write {}", advice::one_of(values));
            not_allowed(node, text, hint, path, report);
        }
        (Shape::Pattern(pattern), Value::Text(text)) if !(pattern.holds)(text) => {
            not_allowed(node, text, pattern.hint.to_owned(), path, report);
        }
        (Shape::Integer { min, max }, Value::Int(_) | Value::Float(_)) => {
            range(node, *min, *max, path, report);
        }
        (Shape::List { item, unique }, Value::List(items)) => {
            for (index, node) in items.iter().enumerate() {
                walk(node, item, &Path::Item(path, index, node.at), field, report);
            }
            if *unique {
                duplicates(items, path, report);
            }
        }
        (Shape::Map { keys, value }, Value::Map(entries)) => {
            for entry in entries {
                map_entry(entry, *keys, value, path, field, report);
            }
        }
        (Shape::Object(fields), _) => object(node, fields, path, report),
        _ => finite(node, path, report),
    }
}

fn wrong_kind(node: &Node, shape: &Shape, path: &Path, field: Option<&Field>, report: &mut Report) {
    let wants = advice::wants(shape, field);
    let message = match &node.value {
        Value::Null => format!("`{path}` has no value; it must be {wants}"),
        Value::Float(float) if whole(shape) => format!("`{path}` must be a whole number, and is {float}"),
        value => format!("`{path}` must be {wants}, and is {}", value.kind()),
    };
    let hint = advice::instead(node, shape, path, field);
    report.error(node.at, message, hint);
    if node.is_null() && STAND_FOR_A_WHOLE.contains(&path.key()) {
        // What the mapping lacks for it is the same mistake.
        report.hush(path.up().at());
    }
}

/// Whether of all numbers the shape allows whole ones only.
fn whole(shape: &Shape) -> bool {
    shape
        .alternatives()
        .iter()
        .any(|shape| matches!(shape, Shape::Integer { .. }))
}

fn not_allowed(node: &Node, text: &str, hint: String, path: &Path, report: &mut Report) {
    let (shown, hint) = match text {
        "" => ("an empty text".to_owned(), advice::with_default(&hint)),
        text => (format!("`{}`", cut(text, MAX_SHOWN)), hint),
    };
    report.error(node.at, format!("`{path}`: {shown} is not allowed here"), hint);
}

fn map_entry(
    entry: &Entry,
    keys: Keys,
    value: &Shape,
    path: &Path,
    field: Option<&Field>,
    report: &mut Report,
) {
    let path = path.entry(entry);
    match (keys.holds(&entry.key), keys.loose()) {
        (true, _) => walk(&entry.value, value, &path, field, report),
        (false, true) => finite(&entry.value, &path, report),
        (false, false) if keys != Keys::Names => report.error(
            entry.at,
            format!("`{path}`: a key must be one line that is not empty"),
            "write a name before the `:`",
        ),
        (false, false) => report.error(
            entry.at,
            format!("`{path}`: `{}` is not a name", cut(&entry.key, MAX_SHOWN)),
            "write letters, digits, `.`, `_` and `-` only",
        ),
    }
}

fn object(node: &Node, object: &'static Object, path: &Path, report: &mut Report) {
    let mut missing: Vec<&str> = object.required.to_vec();
    let mut told = false;
    for entry in node.entries() {
        missing.retain(|name| *name != entry.key);
        let below = path.entry(entry);
        match object.field(&entry.key) {
            Some(field) => walk(&entry.value, &field.shape, &below, Some(field), report),
            None if object.open || object.extends(&entry.key) => finite(&entry.value, &below, report),
            // The search for a similar name is not for free.
            None if report.full() => report.error(entry.at, "", ""),
            None => {
                let meant = advice::meant(entry, object);
                missing.retain(|name| Some(*name) != meant);
                told |= meant.is_some() || advice::lists_names(object);
                report.error(
                    entry.at,
                    format!("unknown key `{below}`"),
                    advice::unknown(entry, object, meant, path),
                );
            }
        }
    }
    for name in missing {
        report.error(
            path.at(),
            format!("`{path}` has no `{name}`"),
            advice::missing(name, object),
        );
    }
    if told {
        // What the mapping lacks for it is the same mistake.
        report.hush(path.at());
    }
}

fn range(node: &Node, min: Option<i64>, max: Option<i64>, path: &Path, report: &mut Report) {
    let (low, high) = match node.value {
        Value::Int(int) => (
            min.is_some_and(|min| int < min.into()),
            max.is_some_and(|max| int > max.into()),
        ),
        Value::Float(float) => (
            min.is_some_and(|min| float < min as f64),
            max.is_some_and(|max| float > max as f64),
        ),
        _ => return,
    };
    let Some(allowed) = advice::whole(min, max) else {
        return finite(node, path, report);
    };
    let shown = cut(&node.value.scalar().unwrap_or_default(), MAX_SHOWN);
    if low {
        report.error(node.at, format!("`{path}`: {shown} is too low"), allowed);
    } else if high {
        report.error(node.at, format!("`{path}`: {shown} is too high"), allowed);
    } else {
        finite(node, path, report);
    }
}

/// JSON has no infinite numbers, so nothing in a Compose file may be one.
fn finite(node: &Node, path: &Path, report: &mut Report) {
    match &node.value {
        Value::Float(float) if !float.is_finite() => report.error(
            node.at,
            format!("`{path}`: a number must be finite"),
            "write digits, or put it in quotes",
        ),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                finite(item, &Path::Item(path, index, item.at), report);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                finite(&entry.value, &path.entry(entry), report);
            }
        }
        _ => {}
    }
}

fn duplicates(items: &[Node], path: &Path, report: &mut Report) {
    if items.len() < 2 {
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let mut key = String::new();
        identity(item, &mut key);
        if !seen.insert(key) {
            report.error(
                item.at,
                format!("`{path}[{index}]` is in the list already"),
                "remove one of the two",
            );
        }
    }
}

/// Equal texts for values that JSON Schema calls equal: numbers by value, mappings in any order.
fn identity(node: &Node, key: &mut String) {
    // Writing to a String never fails.
    let _ = match &node.value {
        Value::Null => key.write_char('0'),
        Value::Bool(value) => write!(key, "{value}"),
        Value::Int(int) => write!(key, "n{};", *int as f64),
        Value::Float(float) => write!(key, "n{float};"),
        Value::Text(text) => write!(key, "t{}:{text}", text.len()),
        Value::List(items) => {
            let _ = write!(key, "l{}:", items.len());
            items.iter().for_each(|item| identity(item, key));
            Ok(())
        }
        Value::Map(entries) => {
            let _ = write!(key, "m{}:", entries.len());
            let mut entries: Vec<_> = entries.iter().collect();
            entries.sort_by(|a, b| a.key.cmp(&b.key));
            for entry in entries {
                let _ = write!(key, "{}:{}", entry.key.len(), entry.key);
                identity(&entry.value, key);
            }
            Ok(())
        }
    };
}
