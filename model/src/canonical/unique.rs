//! A mapping made from a list: the order of the first mention, the value of the last.

use std::collections::BTreeMap;

use crate::tree::{At, Entry, Node, Value};

#[derive(Default)]
pub(super) struct Unique {
    entries: Vec<Entry>,
    index: BTreeMap<String, usize>,
}

impl Unique {
    pub fn set(&mut self, key: &str, value: Node) {
        match self.index.get(key) {
            Some(&at) => {
                if let Some(entry) = self.entries.get_mut(at) {
                    entry.value = value;
                }
            }
            None => {
                self.index.insert(key.to_owned(), self.entries.len());
                self.entries.push(Entry {
                    key: key.to_owned(),
                    at: value.at,
                    value,
                });
            }
        }
    }

    pub fn into_node(self, at: At) -> Node {
        Node::new(Value::Map(self.entries), at)
    }
}
