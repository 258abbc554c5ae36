//! Text that interpolation left where Compose wants a number or a boolean: cast before anything looks at it.

use super::{
    Field, Form, Object, Shape,
    path::Path,
    scalar::{self, Wrong},
    table::ROOT,
};
use crate::{
    report::Report,
    tree::{Node, Tag, Value},
};

/// Casts text at the places where the reference loader does, in one document before any merge. Text that
/// is no number or boolean is an error and stays.
pub(crate) fn cast(node: &mut Node, report: &mut Report) {
    object(node, &ROOT, &Path::Top, report);
}

fn object(node: &mut Node, object: &Object, path: &Path, report: &mut Report) {
    for entry in node.entries_mut() {
        let Some(field) = object.field(&entry.key) else {
            continue;
        };
        let path = Path::Key(path, &entry.key, entry.at);
        match field.form {
            Form::Ulimits if field.cast => ulimits(&mut entry.value, &path, report),
            _ if field.cast => scalar(&mut entry.value, field, &path, report),
            _ => below(&mut entry.value, &field.shape, &path, report),
        }
    }
}

fn below(node: &mut Node, shape: &Shape, path: &Path, report: &mut Report) {
    match (shape.pick(&node.value).copied(), &mut node.value) {
        (Some(Shape::Object(fields)), _) => object(node, fields, path, report),
        (Some(Shape::Map { value, .. }), Value::Map(entries)) => {
            for entry in entries {
                below(
                    &mut entry.value,
                    value,
                    &Path::Key(path, &entry.key, entry.at),
                    report,
                );
            }
        }
        (Some(Shape::List { item, .. }), Value::List(items)) => {
            for (index, node) in items.iter_mut().enumerate() {
                let at = node.at;
                below(node, item, &Path::Item(path, index, at), report);
            }
        }
        _ => {}
    }
}

fn ulimits(node: &mut Node, path: &Path, report: &mut Report) {
    for entry in node.entries_mut() {
        let path = Path::Key(path, &entry.key, entry.at);
        to_int(&mut entry.value, &path, report);
        for limit in entry.value.entries_mut() {
            if matches!(limit.key.as_str(), "soft" | "hard") {
                to_int(&mut limit.value, &Path::Key(&path, &limit.key, limit.at), report);
            }
        }
    }
}

fn to_int(node: &mut Node, path: &Path, report: &mut Report) {
    replace(node, path, report, |node, _| {
        scalar::int(node).map(|int| Value::Int(int.into()))
    });
}

fn scalar(node: &mut Node, field: &Field, path: &Path, report: &mut Report) {
    replace(node, path, report, |node, report| {
        let read = match field.form {
            Form::Bool(_) => scalar::boolean(node, path, report).map(Value::Bool),
            Form::Float => scalar::float(node),
            _ => scalar::int(node).map(|int| Value::Int(int.into())),
        };
        read.map_err(|wrong| wrong.of(field))
    });
}

fn replace(
    node: &mut Node,
    path: &Path,
    report: &mut Report,
    read: impl FnOnce(&Node, &mut Report) -> Result<Value, Wrong>,
) {
    // What is reset is never read.
    if node.as_text().is_none() || node.tag == Tag::Reset {
        return;
    }
    match read(node, report) {
        Ok(value) => node.value = value,
        Err(wrong) => scalar::tell(node, path, &wrong, report),
    }
}
