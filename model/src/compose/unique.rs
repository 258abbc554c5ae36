//! Repeated items of lists: the last one of a key stays, at the place of the first (Compose
//! Specification, "Merge", "Unique resources").

mod key;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::{
    compose::path::Path,
    report::Report,
    shape,
    tree::{Node, Value},
};
use key::{Fault, Key};

/// The lists whose items have a key. Lists elsewhere, and mappings in these places, are left alone.
const UNIQUE: &[(&[&str], Key)] = &[
    (&["networks", "*", "ipam", "options"], Key::Name),
    (&["networks", "*", "labels"], Key::Name),
    (&["services", "*", "annotations"], Key::Name),
    (&["services", "*", "build", "additional_contexts"], Key::Name),
    (&["services", "*", "build", "args"], Key::Name),
    (&["services", "*", "build", "labels"], Key::Name),
    (&["services", "*", "build", "platform"], Key::Name),
    (&["services", "*", "build", "tags"], Key::Name),
    (&["services", "*", "cap_add"], Key::Name),
    (&["services", "*", "cap_drop"], Key::Name),
    (&["services", "*", "configs"], Key::Mount { below: "" }),
    (&["services", "*", "deploy", "labels"], Key::Name),
    (&["services", "*", "devices"], Key::Device),
    (&["services", "*", "dns"], Key::Name),
    (&["services", "*", "dns_opt"], Key::Name),
    (&["services", "*", "dns_search"], Key::Name),
    (&["services", "*", "env_file"], Key::File),
    (&["services", "*", "environment"], Key::Name),
    (&["services", "*", "expose"], Key::Exposed),
    (&["services", "*", "labels"], Key::Name),
    (&["services", "*", "links"], Key::Name),
    (&["services", "*", "networks", "*", "aliases"], Key::Name),
    (&["services", "*", "networks", "*", "link_local_ips"], Key::Name),
    (&["services", "*", "ports"], Key::Port),
    (&["services", "*", "profiles"], Key::Name),
    (
        &["services", "*", "secrets"],
        Key::Mount {
            below: "/run/secrets",
        },
    ),
    (&["services", "*", "sysctls"], Key::Name),
    (&["services", "*", "tmpfs"], Key::Name),
    (&["services", "*", "volumes"], Key::Volume),
];

/// Takes repeated items out of the lists of the model.
///
/// Reports items that have no key: those of the wrong kind, and long forms without a target. They stay.
pub(crate) fn unique(model: &mut Node, report: &mut Report) {
    for (pattern, key) in UNIQUE {
        find(model, pattern, &mut Path::default(), &mut |node, path| {
            if let Value::List(items) = &mut node.value {
                *items = distinct(std::mem::take(items), *key, path, report);
            }
        });
    }
}

/// Calls `visit` for each node that the pattern names.
fn find(node: &mut Node, pattern: &[&str], path: &mut Path, visit: &mut impl FnMut(&mut Node, &Path)) {
    let Some((first, rest)) = pattern.split_first() else {
        visit(node, path);
        return;
    };
    for entry in node.entries_mut() {
        if *first == "*" || *first == entry.key {
            path.push(&entry.key);
            find(&mut entry.value, rest, path, visit);
            path.pop();
        }
    }
}

fn distinct(items: Vec<Node>, key: Key, path: &Path, report: &mut Report) -> Vec<Node> {
    let mut result: Vec<Node> = Vec::with_capacity(items.len());
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    for (index, item) in items.into_iter().enumerate() {
        let name = match key.of(&item, path.last()) {
            Ok(name) => name,
            Err(Fault {
                key,
                at,
                message,
                hint,
            }) => {
                let place = path.item(index);
                let place = match key {
                    Some(key) => format!("{place}.{key}"),
                    None => place,
                };
                let hint = shape::unquoted(&item, path.last()).unwrap_or(hint);
                report.last_error(at, format!("`{place}` {message}"), hint);
                None
            }
        };
        let Some(name) = name else {
            result.push(item);
            continue;
        };
        match places.get(&name).and_then(|place| result.get_mut(*place)) {
            Some(earlier) => *earlier = item,
            None => {
                places.insert(name, result.len());
                result.push(item);
            }
        }
    }
    result
}
