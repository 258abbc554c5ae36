//! `!reset` and `!override`: what a later file takes out of the model before it is merged into it
//! (Compose Specification, "Merge", "Reset value" and "Replace value").

use std::collections::BTreeMap;

use crate::tree::{Entry, Node, Tag, Value};

/// The paths that one document takes out of what came before it.
///
/// Paths go through mappings only: items of lists cannot be named. So `!reset` below `environment` does
/// nothing where the earlier file wrote that attribute as a list.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Paths {
    /// This very path is taken out, with all below it.
    gone: bool,
    /// `'*': !reset null`: each entry is taken out.
    every: bool,
    below: BTreeMap<String, Paths>,
}

/// Takes the tags out of a document: a value with `!reset` leaves it, one with `!override` stays, and the
/// paths of both are returned. Tags below an `!override` mean nothing.
///
/// To be called right after the document was parsed: what is reset is neither interpolated nor checked.
pub(crate) fn take(over: &mut Node) -> Paths {
    let mut paths = Paths::default();
    if !collect(over, &mut paths) {
        *over = Node::new(Value::Null, over.at);
    }
    paths
}

impl Paths {
    /// Takes the paths out of the model so far.
    pub fn apply(&self, model: &mut Node) {
        let Value::Map(entries) = &mut model.value else {
            return;
        };
        if !self.is_empty() {
            entries.retain_mut(|entry| self.keeps(entry));
        }
    }

    /// Takes the paths out of one resource that came from elsewhere under the name that it has here: the
    /// service that `name` extends (`section` is "services"), or an included resource that this document
    /// overrides. The resource itself stays, even when its own path is reset: it is merged all the same.
    pub fn apply_to(&self, section: &str, name: &str, resource: &mut Node) {
        let mut paths = self;
        for key in [section, name] {
            match paths.below.get(key) {
                Some(below) if !paths.every && !below.gone => paths = below,
                _ => return,
            }
        }
        paths.apply(resource);
    }

    fn keeps(&self, entry: &mut Entry) -> bool {
        if self.every {
            return false;
        }
        match self.below.get(&entry.key) {
            Some(below) if below.gone => false,
            Some(below) => {
                below.apply(&mut entry.value);
                true
            }
            None => true,
        }
    }

    fn is_empty(&self) -> bool {
        !self.gone && !self.every && self.below.is_empty()
    }
}

/// Whether the node stays in its document.
fn collect(node: &mut Node, paths: &mut Paths) -> bool {
    match node.tag {
        Tag::Reset => {
            paths.gone = true;
            return false;
        }
        Tag::Override => {
            paths.gone = true;
            untag(node);
            return true;
        }
        Tag::None => {}
    }
    match &mut node.value {
        Value::Map(entries) => entries.retain_mut(|entry| {
            let mut below = Paths::default();
            let stays = collect(&mut entry.value, &mut below);
            if below.gone && entry.key == "*" {
                paths.every = true;
            } else if !below.is_empty() {
                paths.below.insert(entry.key.clone(), below);
            }
            stays
        }),
        // A place in one file's list is none in another's.
        Value::List(items) => items.retain_mut(|item| collect(item, &mut Paths::default())),
        _ => {}
    }
    true
}

fn untag(node: &mut Node) {
    node.tag = Tag::None;
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().for_each(|entry| untag(&mut entry.value)),
        Value::List(items) => items.iter_mut().for_each(untag),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
