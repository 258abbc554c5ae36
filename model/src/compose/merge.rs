//! Merges a later file into an earlier one (Compose Specification, "Merge").
//!
//! Mappings merge key by key, lists are joined, other values are replaced; `rules` names the attributes
//! that differ. A value that is taken over keeps its position; what is made of both files has the
//! position of the earlier one.

mod convert;
mod ipam;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    compose::path::Path,
    report::Report,
    tree::{Entry, Node, Value},
};
use rules::Rule;

/// Mappings up to this size are searched, larger ones are indexed.
const SMALL: usize = 16;

/// Merges the whole file `over` into the model so far.
///
/// Reports every clash: a mapping or list that `over` gives as something else. The earlier value stays.
pub(crate) fn merge(base: Node, over: Node, report: &mut Report) -> Node {
    merge_at(&[], base, over, report)
}

/// Merges the service `over`, called `name`, into the service that it extends.
pub(crate) fn extend_service(base: Node, over: Node, name: &str, report: &mut Report) -> Node {
    merge_at(&["services", name], base, over, report)
}

/// Merges what two files say of the same `path`, as `["networks", "front"]`: for resources that a file
/// has and includes.
pub(crate) fn merge_at(path: &[&str], base: Node, over: Node, report: &mut Report) -> Node {
    let mut merge = Merge {
        path: Path::new(path),
        report,
    };
    merge.node(base, over)
}

struct Merge<'r> {
    path: Path,
    report: &'r mut Report,
}

impl Merge<'_> {
    fn node(&mut self, base: Node, over: Node) -> Node {
        match rules::of(&self.path) {
            None => self.plain(base, over),
            Some(Rule::Replace) => over,
            Some(Rule::List) => self.lists(base, over),
            Some(Rule::Hosts) => self.hosts(base, over),
            Some(Rule::Build) => self.mappings(base, over, Merge::build),
            Some(Rule::Names) => self.mappings(base, over, Merge::names),
            Some(Rule::Dependencies) => self.mappings(base, over, Merge::dependencies),
            Some(Rule::Logging) => self.logging(base, over),
            Some(Rule::Pools) => self.pools(base, over),
        }
    }

    fn plain(&mut self, base: Node, over: Node) -> Node {
        if over.is_null() {
            return base;
        }
        match (base.value, over.value) {
            (Value::Map(entries), Value::Map(others)) => {
                Node::new(Value::Map(self.entries(entries, others)), base.at)
            }
            (Value::List(mut items), Value::List(others)) => {
                items.extend(others);
                Node::new(Value::List(items), base.at)
            }
            (earlier @ (Value::Map(_) | Value::List(_)), later) => {
                let base = Node::new(earlier, base.at);
                self.clash(&base, &Node::new(later, over.at));
                base
            }
            (_, value) => Node::new(value, over.at),
        }
    }

    /// Key by key; new keys are appended.
    fn entries(&mut self, mut base: Vec<Entry>, over: Vec<Entry>) -> Vec<Entry> {
        let index: Option<BTreeMap<String, usize>> = (base.len() > SMALL).then(|| {
            let keys = base.iter().enumerate();
            keys.map(|(place, entry)| (entry.key.clone(), place)).collect()
        });
        let mut added = Vec::new();
        for entry in over {
            let place = match &index {
                Some(index) => index.get(&entry.key).copied(),
                None => base.iter().position(|earlier| earlier.key == entry.key),
            };
            let Some(slot) = place.and_then(|place| base.get_mut(place)) else {
                added.push(entry);
                continue;
            };
            let earlier = std::mem::replace(&mut slot.value, Node::new(Value::Null, slot.at));
            let over_at = entry.value.at;
            self.path.push(&entry.key);
            slot.value = self.node(earlier, entry.value);
            self.path.pop();
            if slot.value.at == over_at {
                slot.at = entry.at;
            }
        }
        base.extend(added);
        base
    }

    /// Both sides as lists, joined. Repeated keys are the business of `unique`.
    fn lists(&mut self, base: Node, over: Node) -> Node {
        let at = if base.is_null() { over.at } else { base.at };
        let mut items = self.list(base);
        items.extend(self.list(over));
        Node::new(Value::List(items), at)
    }

    /// As [`Merge::lists`], without the later items that the earlier list has already.
    fn hosts(&mut self, base: Node, over: Node) -> Node {
        let at = if base.is_null() { over.at } else { base.at };
        let mut items = self.list(base);
        let known: BTreeSet<String> = items
            .iter()
            .filter_map(|item| item.as_text().map(str::to_owned))
            .collect();
        let mut others = self.list(over);
        others.retain(|item| item.as_text().is_none_or(|text| !known.contains(text)));
        items.extend(others);
        Node::new(Value::List(items), at)
    }

    /// Both sides as mappings, merged. `None` of `convert`: the value has no long form.
    fn mappings(
        &mut self,
        base: Node,
        over: Node,
        convert: fn(&mut Self, Node) -> Result<Vec<Entry>, Node>,
    ) -> Node {
        let (base_at, over_at) = (base.at, over.at);
        match (convert(self, base), convert(self, over)) {
            (Ok(base), Ok(over)) => Node::new(Value::Map(self.entries(base, over)), base_at),
            (Ok(base), Err(over)) => {
                self.dropped(&over);
                Node::new(Value::Map(base), base_at)
            }
            (Err(base), Ok(over)) => {
                let over = Node::new(Value::Map(over), over_at);
                if !over.entries().is_empty() {
                    self.clash(&base, &over);
                }
                over
            }
            (Err(_), Err(_)) => Node::new(Value::Map(Vec::new()), over_at),
        }
    }

    /// Options mean nothing to another driver: then the earlier ones go.
    fn logging(&mut self, base: Node, over: Node) -> Node {
        let (Value::Map(_), Value::Map(_)) = (&base.value, &over.value) else {
            self.clash(&base, &over);
            return base;
        };
        match (base.get("driver"), over.get("driver")) {
            (Some(earlier), Some(later)) if earlier.value != later.value => over,
            _ => self.plain(base, over),
        }
    }

    fn clash(&mut self, base: &Node, over: &Node) {
        let path = self.report.path(base.at.file).display().to_string();
        let (earlier, later) = (base.value.kind(), over.value.kind());
        let message = format!(
            "cannot override `{}`: {later} cannot be merged into {earlier}",
            self.path
        );
        let hint = format!(
            "the earlier value is {earlier} at {path}:{}:{}; write this one in the same form, \
             or put `!override` before it to replace the earlier one",
            base.at.line, base.at.column
        );
        self.report.error(over.at, message, hint);
    }

    /// Compose merges as if such a value had not been written.
    fn dropped(&mut self, node: &Node) {
        if node.is_null() {
            return;
        }
        let message = format!("`{}`: {} is left out by the merge", self.path, node.value.kind());
        let hint = "write a list or a mapping, or take the line out";
        self.report.warning(node.at, message, hint);
    }
}
