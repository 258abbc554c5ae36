//! Scalars in the form in which `docker compose config --format json` prints them.

use super::{
    Field, Form, Object, Shape, Zero, mappings,
    path::Path,
    scalar::{self, Wrong},
    table::ROOT,
};
use crate::{
    report::Report,
    tree::{Entry, Node, Value},
};

/// Brings a project of long forms into the form in which it is printed: sizes as decimal text, durations
/// with their units, numbers and booleans out of text and text out of numbers. What is not set, because it
/// is empty, zero or false where that means nothing, is left out. Done twice it changes nothing more.
///
/// Values that cannot be read (`mem_limit: 5x`) are errors and stay as they are.
pub(crate) fn settle(model: &mut Node, report: &mut Report) {
    object(model, &ROOT, &Path::Top, report);
}

/// The entries of an object by their fields. Returns nothing: an object is kept also when it is empty.
fn object(node: &mut Node, object: &'static Object, path: &Path, report: &mut Report) {
    let at = node.at;
    let Value::Map(entries) = &mut node.value else {
        return;
    };
    let mut kept = Vec::with_capacity(entries.len());
    for Entry {
        key,
        at,
        value: mut node,
    } in std::mem::take(entries)
    {
        let told = match object.field(&key) {
            Some(known) => field(&mut node, known, &Path::Key(path, &key, at), report),
            None if object.extends(&key) => {
                extension(&mut node);
                true
            }
            None => false,
        };
        if told {
            kept.push(Entry { key, at, value: node });
        }
    }
    for field in object.fields {
        let absent = || !kept.iter().any(|entry| entry.key == field.name);
        if let Some(value) = standing_for_absent(field.form).filter(|_| absent()) {
            kept.push(Entry {
                key: field.name.to_owned(),
                at,
                value: Node::new(value, at),
            });
        }
    }
    node.value = Value::Map(kept);
}

/// What is printed for an attribute that is not there.
fn standing_for_absent(form: Form) -> Option<Value> {
    match form {
        Form::Words => Some(Value::Null),
        Form::Text(Zero::Always) => Some(Value::Text(String::new())),
        Form::Bool(Zero::Always) => Some(Value::Bool(false)),
        Form::Int(Zero::Always) | Form::Uint(_, Zero::Always) => Some(Value::Int(0)),
        Form::Bytes(Zero::Always) => Some(Value::Text("0".to_owned())),
        _ => None,
    }
}

/// Settles the value of a field; `false`: it is left out.
fn field(node: &mut Node, field: &Field, path: &Path, report: &mut Report) -> bool {
    let settled = match field.form {
        Form::Parts => return parts(node, &field.shape, path, report),
        Form::Dropped => return false,
        Form::Words => {
            texts(node, path, report);
            return true;
        }
        Form::Texts => {
            mappings::to_list(node);
            texts(node, path, report);
            return !node.items().is_empty();
        }
        Form::Test => {
            test(node);
            texts(node, path, report);
            return !node.items().is_empty();
        }
        Form::Variables | Form::Labels | Form::Strings | Form::Lists | Form::Hosts | Form::Keys => {
            mappings::settle(node, field.form, path, report);
            return !node.items().is_empty() || !node.entries().is_empty();
        }
        Form::Ulimits => {
            ulimits(node, path, report);
            return !node.entries().is_empty();
        }
        _ if node.is_null() => return false,
        Form::Text(zero) => scalar::text(node).map(|text| scalar::keep(Value::Text(text), zero)),
        Form::Printed => scalar::printed(node).map(|text| scalar::keep(Value::Text(text), Zero::Omit)),
        Form::Bool(zero) => {
            scalar::boolean(node, path, report).map(|value| scalar::keep(Value::Bool(value), zero))
        }
        Form::OptOut => {
            scalar::boolean(node, path, report).map(|value| Some(Value::Bool(value)).filter(|_| !value))
        }
        Form::Int(zero) => scalar::int(node).map(|int| scalar::keep(Value::Int(int.into()), zero)),
        Form::Uint(bits, zero) => scalar::uint(node, bits).map(|int| scalar::keep(Value::Int(int), zero)),
        Form::Float => scalar::float(node).map(|number| scalar::keep(number, Zero::Omit)),
        Form::Bytes(zero) => scalar::bytes(node, path, report).map(|bytes| number_text(bytes, zero)),
        Form::Duration(zero) => duration(node, zero),
        Form::Mode => scalar::mode(node).map(|mode| Some(Value::Text(mode))),
        Form::Count => scalar::count(node).map(|int| scalar::keep(Value::Int(int.into()), Zero::Omit)),
    };
    match settled {
        Ok(Some(value)) => node.value = value,
        Ok(None) => return false,
        Err(wrong) => scalar::tell(node, path, &wrong.of(field), report),
    }
    true
}

fn number_text(number: i64, zero: Zero) -> Option<Value> {
    (number != 0 || zero != Zero::Omit).then(|| Value::Text(number.to_string()))
}

fn duration(node: &Node, zero: Zero) -> Result<Option<Value>, Wrong> {
    let text = scalar::duration(node)?;
    Ok((text != "0s" || zero != Zero::Omit).then_some(Value::Text(text)))
}

/// A value whose parts have forms; `false`: it is empty and means "not set".
fn parts(node: &mut Node, shape: &Shape, path: &Path, report: &mut Report) -> bool {
    if node.is_null() {
        // A section of the top level is reported as such, and is not the same as none.
        return matches!(path, Path::Key(Path::Top, ..));
    }
    match (shape.pick(&node.value).copied(), &mut node.value) {
        (Some(Shape::Object(fields)), _) => {
            object(node, fields, path, report);
            true
        }
        (Some(Shape::Map { value, .. }), Value::Map(entries)) => {
            for entry in &mut *entries {
                let path = Path::Key(path, &entry.key, entry.at);
                // Null stands for an entry without details here.
                parts(&mut entry.value, value, &path, report);
            }
            !entries.is_empty() || matches!(path, Path::Key(Path::Top, "services", _))
        }
        (Some(Shape::List { item, .. }), Value::List(items)) => {
            for (index, node) in items.iter_mut().enumerate() {
                let at = node.at;
                parts(node, item, &Path::Item(path, index, at), report);
            }
            !items.is_empty()
        }
        _ => true,
    }
}

/// Scalars of a list become text.
fn texts(node: &mut Node, path: &Path, report: &mut Report) {
    let Value::List(items) = &mut node.value else {
        return;
    };
    for (index, node) in items.iter_mut().enumerate() {
        match scalar::printed(node) {
            Ok(text) => node.value = Value::Text(text),
            Err(wrong) => scalar::tell(node, &Path::Item(path, index, node.at), &wrong, report),
        }
    }
}

/// A test as one text is a command of the shell.
fn test(node: &mut Node) {
    if let Value::Text(text) = &node.value {
        let at = node.at;
        let items = ["CMD-SHELL", text].map(|text| Node::text(text, at));
        node.value = Value::List(items.into());
    }
}

fn ulimits(node: &mut Node, path: &Path, report: &mut Report) {
    for entry in node.entries_mut() {
        let path = Path::Key(path, &entry.key, entry.at);
        match &mut entry.value.value {
            Value::Null => {}
            Value::Map(limits) => limits.retain_mut(|limit| {
                let known = matches!(limit.key.as_str(), "soft" | "hard");
                let path = Path::Key(&path, &limit.key, limit.at);
                known && ulimit(&mut limit.value, &path, report)
            }),
            // A limit of 0 for both is printed as an empty pair.
            _ => {
                if !ulimit(&mut entry.value, &path, report) {
                    entry.value.value = Value::Map(Vec::new());
                }
            }
        }
    }
}

/// `false`: it is 0. Text was cast where the reference casts it; where it does not (`build.ulimits`), it is
/// an error.
fn ulimit(node: &mut Node, path: &Path, report: &mut Report) -> bool {
    let read = match node.value {
        Value::Int(_) => scalar::int(node),
        _ => Err(Wrong {
            is_not: "a limit",
            hint: "write a whole number without quotes".to_owned(),
        }),
    };
    match read {
        Ok(0) => return false,
        Ok(int) => node.value = Value::Int(int.into()),
        Err(wrong) => scalar::tell(node, path, &wrong, report),
    }
    true
}

/// A value of the user's own, with numbers as JSON prints them.
fn extension(node: &mut Node) {
    match &mut node.value {
        Value::Float(float) if float.abs() < 1e21 => node.value = scalar::number(&float.to_string()),
        Value::List(items) => items.iter_mut().for_each(extension),
        Value::Map(entries) => entries.iter_mut().for_each(|entry| extension(&mut entry.value)),
        _ => {}
    }
}
