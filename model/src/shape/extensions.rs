//! `x-…` below the top level: part of a Compose file, and of what is printed as one, but not of the JSON.

use super::{Shape, table::ROOT};
use crate::tree::{Node, Value};

/// The model without the extensions of its parts, as the reference loader has it in JSON. Those of the top
/// level stay, and so do keys that the user chooses.
pub(crate) fn without_extensions(model: &Node) -> Node {
    let mut model = model.clone();
    for entry in model.entries_mut() {
        if let Some(field) = ROOT.field(&entry.key) {
            walk(&mut entry.value, &field.shape);
        }
    }
    model
}

fn walk(node: &mut Node, shape: &Shape) {
    let Some(shape) = shape.pick(&node.value) else {
        return;
    };
    match (shape, &mut node.value) {
        (Shape::Object(object), Value::Map(entries)) => {
            entries.retain(|entry| object.field(&entry.key).is_some() || !object.extends(&entry.key));
            for entry in entries {
                if let Some(field) = object.field(&entry.key) {
                    walk(&mut entry.value, &field.shape);
                }
            }
        }
        (Shape::Map { value, .. }, Value::Map(entries)) => {
            entries.iter_mut().for_each(|entry| walk(&mut entry.value, value));
        }
        (Shape::List { item, .. }, Value::List(items)) => {
            items.iter_mut().for_each(|node| walk(node, item));
        }
        _ => {}
    }
}
