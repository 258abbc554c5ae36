//! The address pools of a network, merged by their subnet.
//!
//! The reference loader's order of work decides what comes of several pools: the later pools are held
//! against each earlier one in turn, a later pool of a new subnet is added once, and when its subnet is
//! in the result already it is merged into the earlier pool at hand, whatever that one's subnet. Earlier
//! pools that no later one meets are left out.

use super::Merge;
use crate::tree::{At, Entry, Node, Value};

/// Earlier pools times the size of the later ones: their merge is quadratic by definition.
const MAX_WORK: usize = 4096;
/// Bytes of text that count as one node.
const TEXT_UNIT: usize = 64;

/// `None`: what is no mapping and no list of names, and takes no attributes.
struct Pool {
    at: At,
    attributes: Option<Vec<Entry>>,
}

impl Pool {
    fn subnet(&self) -> Option<&Value> {
        let entries = self.attributes.as_ref()?;
        let entry = entries.iter().find(|entry| entry.key == "subnet")?;
        Some(&entry.value.value).filter(|value| **value != Value::Null)
    }
}

impl Merge<'_> {
    pub(super) fn pools(&mut self, base: Node, over: Node) -> Node {
        let (Value::List(_), Value::List(_)) = (&base.value, &over.value) else {
            self.clash(&base, &over);
            return base;
        };
        let work = base.items().len().saturating_mul(size(&over));
        if work > MAX_WORK {
            let message = format!("`{}`: too many address pools to merge", self.path);
            self.report
                .refuse(over.at, message, "write the pools of one network in one file");
            return base;
        }
        let at = base.at;
        let (Value::List(earlier), Value::List(later)) = (base.value, over.value) else {
            return Node::new(Value::Null, at);
        };
        let mut pools: Vec<Pool> = later.into_iter().map(|item| self.pool(item)).collect();
        let later = pools.len();
        // Numbers in `pools`: a pool may be met again, changed, at its old place in the result.
        let mut result: Vec<usize> = Vec::new();
        for item in earlier {
            let number = pools.len();
            let pool = self.pool(item);
            pools.push(pool);
            for other in 0..later {
                self.meet(&mut pools, &mut result, number, other);
            }
        }
        let items = result.into_iter().filter_map(|number| pools.get(number));
        let items = items.map(|pool| {
            let entries = pool.attributes.clone().unwrap_or_default();
            Node::new(Value::Map(entries), pool.at)
        });
        Node::new(Value::List(items.collect()), at)
    }

    fn meet(&mut self, pools: &mut [Pool], result: &mut Vec<usize>, number: usize, other: usize) {
        let find = |pools: &[Pool], result: &[usize], subnet: Option<&Value>| {
            result
                .iter()
                .position(|kept| pools.get(*kept).is_some_and(|pool| pool.subnet() == subnet))
        };
        let (Some(pool), Some(later)) = (pools.get(number), pools.get(other)) else {
            return;
        };
        let subnet = later.subnet();
        if subnet != pool.subnet() && find(pools, result, subnet).is_none() {
            result.push(other);
            return;
        }
        let added = later.attributes.clone().unwrap_or_default();
        if let Some(pool) = pools.get_mut(number) {
            let attributes = pool.attributes.take().unwrap_or_default();
            pool.attributes = Some(self.entries(attributes, added));
        }
        let subnet = pools.get(number).and_then(Pool::subnet);
        match find(pools, result, subnet) {
            Some(place) => {
                if let Some(kept) = result.get_mut(place) {
                    *kept = number;
                }
            }
            None => result.push(number),
        }
    }

    fn pool(&mut self, item: Node) -> Pool {
        let at = item.at;
        match self.names(item) {
            Ok(attributes) => Pool {
                at,
                attributes: Some(attributes),
            },
            Err(item) => {
                let message = format!(
                    "`{}`: an address pool is a mapping, not {}",
                    self.path,
                    item.value.kind()
                );
                self.report
                    .last_error(at, message, "write `- subnet: 172.28.0.0/16`");
                Pool { at, attributes: None }
            }
        }
    }
}

fn size(node: &Node) -> usize {
    let below: usize = match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries
            .iter()
            .map(|entry| entry.key.len() / TEXT_UNIT + size(&entry.value))
            .sum(),
        Value::Text(text) => text.len() / TEXT_UNIT,
        _ => 0,
    };
    below.saturating_add(1)
}
