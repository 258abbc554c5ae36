//! Where in the model a value stands, for messages: `services.web.ports[0]`. Nothing is written until it is shown.

use std::fmt;

use crate::{
    syntax::cut,
    tree::{At, Entry, Node, Value},
};

static LIMIT: [(&str, Value); 2] = [("soft", Value::Int(0)), ("hard", Value::Int(0))];
static DEVICE: [(&str, Value); 1] = [("capabilities", Value::List(Vec::new()))];

#[derive(Clone, Copy)]
pub(super) enum Place<'a> {
    Root,
    Key(&'a Place<'a>, &'a str),
    Item(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    pub fn key(&'a self, key: &'a str) -> Place<'a> {
        Place::Key(self, key)
    }

    pub fn item(&'a self, index: usize) -> Place<'a> {
        Place::Item(self, index)
    }
}

impl Place<'_> {
    /// The keys from the root on; `[]` for an item of a list.
    fn steps(&self) -> Vec<&str> {
        let mut steps = Vec::new();
        let mut place = self;
        loop {
            let step = match *place {
                Place::Root => break,
                Place::Key(parent, key) => (parent, key),
                Place::Item(parent, _) => (parent, "[]"),
            };
            steps.push(step.1);
            place = step.0;
        }
        steps.reverse();
        steps
    }

    /// Whether this is what a secret, or a config from a variable, has come to: it has its source beside it.
    pub fn is_read_content(&self, siblings: &[Entry]) -> bool {
        match self.steps()[..] {
            ["secrets", _, "content"] => true,
            ["configs", _, "content"] => siblings.iter().any(|entry| entry.key == "environment"),
            _ => false,
        }
    }

    /// Whether null here means that nothing is set, so that YAML has no need to say it.
    pub fn is_command(&self) -> bool {
        matches!(
            self.steps()[..],
            ["services", _, "command" | "entrypoint"]
                | [
                    "services",
                    _,
                    "post_start" | "pre_start" | "pre_stop",
                    "[]",
                    "command"
                ]
                | ["services", _, "develop", "watch", "[]", "exec", "command"]
        )
    }

    /// Keys of a mapping here that a file must write, also where their values say nothing.
    pub fn required_keys(&self) -> &'static [(&'static str, Value)] {
        match self.steps()[..] {
            ["services", _, "ulimits", _] | ["services", _, "build", "ulimits", _] => &LIMIT,
            [
                "services",
                _,
                "deploy",
                "resources",
                "reservations",
                "devices",
                "[]",
            ] => &DEVICE,
            _ => &[],
        }
    }

    /// The key of a limit for a block device, which JSON writes with a capital, and YAML without.
    pub fn is_rate(&self) -> bool {
        matches!(self.steps()[..], ["services", _, "blkio_config", _, "[]", _])
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Key(Place::Root, key) => f.write_str(&cut(key)),
            Place::Key(parent, key) => write!(f, "{parent}.{}", cut(key)),
            Place::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Visits every value of a list or a mapping; anything else has none.
pub(super) fn each(node: &mut Node, place: &Place, mut visit: impl FnMut(&mut Node, &Place)) {
    match &mut node.value {
        Value::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                visit(item, &place.item(index));
            }
        }
        Value::Map(entries) => {
            for Entry { key, value, .. } in entries {
                visit(value, &place.key(key));
            }
        }
        _ => {}
    }
}

/// As [`each`], without changing anything.
pub(super) fn each_ref(node: &Node, place: &Place, mut visit: impl FnMut(&Node, &Place)) {
    for (index, item) in node.items().iter().enumerate() {
        visit(item, &place.item(index));
    }
    for Entry { key, value, .. } in node.entries() {
        visit(value, &place.key(key));
    }
}

/// Visits the value of every entry of a mapping together with its key.
pub(super) fn each_entry(node: &mut Node, place: &Place, mut visit: impl FnMut(&str, &mut Node, &Place)) {
    for Entry { key, value, .. } in node.entries_mut() {
        visit(key, value, &place.key(key));
    }
}

/// A mapping all of whose entries stand at one place in the file.
pub(super) fn mapping<const N: usize>(at: At, entries: [(&str, Value); N]) -> Node {
    let entries = entries
        .into_iter()
        .map(|(key, value)| Entry {
            key: key.to_owned(),
            at,
            value: Node::new(value, at),
        })
        .collect();
    Node::new(Value::Map(entries), at)
}
