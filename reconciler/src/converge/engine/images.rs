//! Looks at image sources, apart from those at the host: a source that stalls delays only what needs its image.

use std::collections::{BTreeMap, BTreeSet};

use model::types::Project;

use super::Engine;
use crate::{desired::Desired, execute::Order, key::Key, memory::Memory, port::Scope};

/// So many sources are asked at once; each for one image.
const AT_ONCE: usize = 8;

/// References that are being looked at; the value: a step has touched it since.
#[derive(Debug, Default)]
pub(super) struct Looking(BTreeMap<String, bool>);

impl Looking {
    /// A step on this key begins or has ended: what is seen meanwhile may be from before.
    pub fn touch(&mut self, key: &Key) {
        if let Key::Image { reference, .. } = key
            && let Some(touched) = self.0.get_mut(reference)
        {
            *touched = true;
        }
    }
}

impl Engine {
    /// Takes the images out of what is to be looked at, and orders a look at each that may be.
    pub(super) fn look_at_images(&mut self) {
        if self.dirty.images.is_empty() {
            return;
        }
        let is_busy = |reference: &String| {
            self.running
                .iter()
                .any(|step| matches!(&step.key, Key::Image { reference: other, .. } if other == reference))
        };
        let free = AT_ONCE.saturating_sub(self.images.0.len());
        let due = self.dirty.images.iter();
        let due = due.filter(|reference| !self.images.0.contains_key(*reference) && !is_busy(reference));
        let due: Vec<String> = due.take(free).cloned().collect();
        for reference in due {
            self.dirty.images.remove(&reference);
            self.images.0.insert(reference.clone(), false);
            let scope = Scope {
                images: BTreeSet::from([reference]),
                ..Scope::default()
            };
            let before = self.observed.cut(&scope);
            self.orders.push(Order::Look {
                scope,
                before: Box::new(before),
            });
        }
    }

    /// Whether a look that has ended was one at images. `true`: it is to be done again, what it saw is old.
    pub(super) fn ends_at_images(&mut self, scope: &Scope) -> Option<bool> {
        let host = Scope {
            images: BTreeSet::new(),
            ..scope.clone()
        };
        if !host.is_empty() || scope.images.is_empty() {
            return None;
        }
        let mut touched = false;
        for reference in &scope.images {
            touched |= self.images.0.remove(reference).unwrap_or(false);
        }
        Some(touched)
    }

    /// References of which something is about to be known.
    pub(super) fn images_to_come(&self) -> BTreeSet<String> {
        let due = self.dirty.images.iter();
        due.chain(self.images.0.keys()).cloned().collect()
    }
}

/// Every image that some project is planned with.
pub(super) fn references(desired: &Desired, memory: &Memory) -> BTreeSet<String> {
    let projects = desired.projects.iter();
    let projects = projects.filter_map(|(name, wish)| memory.effective(name, wish));
    let images: BTreeSet<&String> = projects.flat_map(images_of).collect();
    images.into_iter().cloned().collect()
}

/// Of a service without instances, nobody needs the image.
pub(super) fn images_of(project: &Project) -> impl Iterator<Item = &String> {
    let services = project.services.values();
    let some = services.filter(|service| service.container.scale != Some(0));
    some.map(|service| &service.image)
}
