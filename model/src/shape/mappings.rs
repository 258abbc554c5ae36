//! Mappings from names to texts, which may also be written as lists, as the reference loader reads them.

use std::collections::BTreeMap;

use super::{Form, path::Path, scalar, scalar::Wrong};
use crate::{
    report::Report,
    syntax::{host, mapping, ssh},
    tree::{Entry, Node, Value},
};

/// A mapping, or the list that stands for one, in the form in which it is printed.
pub(super) fn settle(node: &mut Node, form: Form, path: &Path, report: &mut Report) {
    match form {
        Form::Hosts => return hosts(node, path, report),
        Form::Keys => return keys(node, path, report),
        Form::Variables | Form::Labels => from_list(node, form == Form::Variables),
        _ => {}
    }
    for entry in node.entries_mut() {
        let path = Path::Key(path, &entry.key, entry.at);
        let value = &mut entry.value;
        let text = match form {
            Form::Lists => {
                values(value, &path, report);
                continue;
            }
            Form::Variables if value.is_null() => continue,
            Form::Strings => scalar::text(value),
            _ => scalar::printed(value),
        };
        match text {
            Ok(text) => value.value = Value::Text(text),
            Err(wrong) => scalar::tell(value, &path, &wrong, report),
        }
    }
}

/// One text is a list of one.
pub(super) fn to_list(node: &mut Node) {
    if let Value::Text(_) = node.value {
        let item = Node::new(std::mem::replace(&mut node.value, Value::Null), node.at);
        node.value = Value::List(vec![item]);
    }
}

/// `KEY=VALUE` items to a mapping; of two items with one key the later one counts. `KEY` alone is null
/// where `null` says so, else the empty text.
fn from_list(node: &mut Node, null: bool) {
    let Value::List(items) = &node.value else {
        return;
    };
    let mut index = BTreeMap::new();
    let mut entries: Vec<Entry> = Vec::with_capacity(items.len());
    for item in items {
        let text = item.value.scalar().unwrap_or_default();
        let (key, value) = match mapping::split(&text) {
            (key, Some(value)) => (key, Value::Text(value.to_owned())),
            (key, None) if null => (key, Value::Null),
            (key, None) => (key, Value::Text(String::new())),
        };
        let entry = Entry {
            key: key.to_owned(),
            at: item.at,
            value: Node::new(value, item.at),
        };
        let place = *index.entry(key.to_owned()).or_insert(entries.len());
        match entries.get_mut(place) {
            Some(earlier) => *earlier = entry,
            None => entries.push(entry),
        }
    }
    node.value = Value::Map(entries);
}

/// An option that may be given several times.
fn values(node: &mut Node, path: &Path, report: &mut Report) {
    if !matches!(node.value, Value::List(_)) {
        let item = Node::new(std::mem::replace(&mut node.value, Value::Null), node.at);
        node.value = Value::List(vec![item]);
    }
    let Value::List(items) = &mut node.value else {
        return;
    };
    for (index, item) in items.iter_mut().enumerate() {
        match scalar::printed(item) {
            Ok(text) => item.value = Value::Text(text),
            Err(wrong) => scalar::tell(item, &Path::Item(path, index, item.at), &wrong, report),
        }
    }
}

/// Identifiers with or without a path, as a list.
fn keys(node: &mut Node, path: &Path, report: &mut Report) {
    let entries = match &node.value {
        Value::Map(entries) => entries,
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                if let Err(error) = ssh::parse(item.as_text().unwrap_or_default()) {
                    let path = Path::Item(path, index, item.at);
                    scalar::tell(item, &path, &bad("a key with a path", error.hint()), report);
                }
            }
            return;
        }
        _ => return,
    };
    let items = entries.iter().map(|entry| {
        let path = entry.value.value.scalar().unwrap_or_default();
        let text = match path.as_str() {
            "" => entry.key.clone(),
            path => format!("{}={path}", entry.key),
        };
        Node::text(text, entry.at)
    });
    node.value = Value::List(items.collect());
}

/// `HOST=ADDRESS` for each address, sorted. Brackets around addresses are taken off.
fn hosts(node: &mut Node, path: &Path, report: &mut Report) {
    let mut found: Vec<Node> = Vec::new();
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                if let Err(error) = host::name(&entry.key) {
                    let key = Node::text(entry.key.clone(), entry.at);
                    let wrong = bad("a host name", error.hint());
                    scalar::tell(&key, &path.entry(entry), &wrong, report);
                    continue;
                }
                let single = std::slice::from_ref(&entry.value);
                let addresses = match &entry.value.value {
                    Value::List(items) => items,
                    _ => single,
                };
                for address in addresses {
                    let text = address.value.scalar().unwrap_or_default();
                    let line = format!("{}={}", entry.key, host::address(&text));
                    found.push(Node::text(line, entry.at));
                }
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                match host::parse(&item.value.scalar().unwrap_or_default()) {
                    Ok((name, addresses)) => {
                        let lines = addresses.iter().map(|address| format!("{name}={address}"));
                        found.extend(lines.map(|line| Node::text(line, item.at)));
                    }
                    Err(error) => {
                        let path = Path::Item(path, index, item.at);
                        let wrong = bad("a host with an address", error.hint());
                        scalar::tell(item, &path, &wrong, report);
                    }
                }
            }
        }
        _ => return,
    }
    found.sort_by(|a, b| a.as_text().cmp(&b.as_text()));
    node.value = Value::List(found);
}

fn bad(is_not: &'static str, hint: &str) -> Wrong {
    Wrong {
        is_not,
        hint: hint.to_owned(),
    }
}
