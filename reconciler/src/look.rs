//! Parts of an observation: cut out to be looked at again elsewhere, and put back.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    key::{InstanceKey, Key},
    observed::{Fact, Observed},
    port::{Ask, Scope},
};

impl Scope {
    pub fn is_empty(&self) -> bool {
        *self == Scope::default()
    }

    /// Looks at what both look at.
    pub fn add(&mut self, other: Scope) {
        self.all |= other.all;
        self.firewall |= other.firewall;
        self.zones |= other.zones;
        self.add_images(other.images);
        self.networks.extend(other.networks);
        self.volumes.extend(other.volumes);
        self.instances.extend(other.instances);
    }

    /// Of two wishes to ask a registry the stronger counts.
    pub fn add_images(&mut self, images: impl IntoIterator<Item = (String, Ask)>) {
        for (reference, ask) in images {
            let present = self.images.entry(reference).or_insert(ask);
            *present = ask.max(*present);
        }
    }

    /// What `key` stands for.
    pub fn key(key: &Key) -> Scope {
        let mut scope = Scope::default();
        match key {
            Key::Image { reference, .. } => {
                scope.images.insert(reference.clone(), Ask::default());
            }
            Key::Network(key) => {
                scope.networks.insert(key.clone());
            }
            Key::Volume(key) => {
                scope.volumes.insert(key.clone());
            }
            Key::Instance(key) => {
                scope.instances.insert(key.clone());
            }
            Key::Names(_) => scope.zones = true,
            Key::Firewall => scope.firewall = true,
        }
        scope
    }

    /// Takes out what is about `keys`, and returns it: it cannot be looked at now.
    pub fn without(&mut self, keys: &BTreeSet<Key>) -> Scope {
        let mut taken = Scope::default();
        for key in keys {
            match key {
                Key::Network(key) if self.networks.remove(key) => {
                    taken.networks.insert(key.clone());
                }
                Key::Volume(key) if self.volumes.remove(key) => {
                    taken.volumes.insert(key.clone());
                }
                Key::Instance(key) if self.instances.remove(key) => {
                    taken.instances.insert(key.clone());
                }
                Key::Image { reference, .. } => {
                    taken.images.extend(self.images.remove_entry(reference));
                }
                Key::Names(_) if self.zones => {
                    self.zones = false;
                    taken.zones = true;
                }
                Key::Firewall if self.firewall => {
                    self.firewall = false;
                    taken.firewall = true;
                }
                _ => {}
            }
        }
        taken
    }
}

impl Observed {
    /// Whether a part of `scope` has to be looked at as a whole, because it is unknown so far.
    pub fn needs_all(&self, scope: &Scope) -> bool {
        (!scope.networks.is_empty() && self.networks.known().is_none())
            || (!scope.volumes.is_empty() && self.volumes.known().is_none())
            || (!scope.instances.is_empty()
                && (self.instances.known().is_none()
                    || self.ended.known().is_none()
                    || self.remains.known().is_none()))
    }

    /// Whether some part could not be read.
    pub fn has_unknown(&self) -> bool {
        self.networks.known().is_none()
            || self.volumes.known().is_none()
            || self.instances.known().is_none()
            || self.ended.known().is_none()
            || self.remains.known().is_none()
            || self.firewall.known().is_none()
            || self.zones.known().is_none()
            || self.routes.known().is_none()
            || self.id_bases.known().is_none()
    }

    /// Whether a look at `scope` that saw `seen` has found nothing new.
    pub fn shows(&self, seen: &Observed, scope: &Scope) -> bool {
        let mut images = scope.images.keys();
        if !images.all(|reference| self.images.get(reference) == seen.images.get(reference)) {
            return false;
        }
        if scope.all {
            return self.boot_id == seen.boot_id
                && self.networks == seen.networks
                && self.volumes == seen.volumes
                && self.instances == seen.instances
                && self.ended == seen.ended
                && self.remains == seen.remains
                && self.firewall == seen.firewall
                && self.zones == seen.zones
                && self.routes == seen.routes
                && self.id_bases == seen.id_bases;
        }
        let remains = match (&self.remains, &seen.remains) {
            (Fact::Known(have), Fact::Known(seen)) => {
                let mut keys = scope.instances.iter();
                keys.all(|key| have.contains(key) == seen.contains(key))
            }
            (have, seen) => scope.instances.is_empty() || have == seen,
        };
        remains
            && same(&self.networks, &seen.networks, &scope.networks)
            && same(&self.volumes, &seen.volumes, &scope.volumes)
            && same(&self.instances, &seen.instances, &scope.instances)
            && same(&self.ended, &seen.ended, &scope.instances)
            && (!scope.firewall || self.firewall == seen.firewall)
            && (!scope.zones || self.zones == seen.zones)
    }

    /// The entries of `scope`, as a starting point for a new look. Cheap where the scope is small.
    pub fn cut(&self, scope: &Scope) -> Observed {
        if scope.all {
            return self.clone();
        }
        Observed {
            boot_id: self.boot_id.clone(),
            images: {
                let present = scope.images.keys();
                present
                    .filter_map(|reference| Some((reference.clone(), self.images.get(reference)?.clone())))
                    .collect()
            },
            networks: part(&self.networks, &scope.networks),
            volumes: part(&self.volumes, &scope.volumes),
            instances: part(&self.instances, &scope.instances),
            ended: part(&self.ended, &scope.instances),
            remains: match &self.remains {
                Fact::Known(remains) => Fact::Known(scope.instances.intersection(remains).cloned().collect()),
                Fact::Unknown(why) => Fact::Unknown(why.clone()),
            },
            firewall: whole(&self.firewall, scope.firewall),
            zones: whole(&self.zones, scope.zones),
            // Seen with everything only.
            routes: whole(&self.routes, false),
            id_bases: whole(&self.id_bases, false),
        }
    }

    /// Puts what was seen back, except for `busy` keys, which an action touched meanwhile. Returns the
    /// keys that differ from before.
    pub fn put(&mut self, seen: Observed, scope: &Scope, busy: &BTreeSet<Key>) -> BTreeSet<Key> {
        let mut changed = BTreeSet::new();
        for reference in scope.images.keys() {
            let new = seen.images.get(reference);
            if self.images.get(reference) != new {
                changed.insert(Key::Image {
                    project: String::new(),
                    reference: reference.clone(),
                });
            }
            match new {
                Some(image) => self.images.insert(reference.clone(), image.clone()),
                None => self.images.remove(reference),
            };
        }
        let all = scope.all;
        let mut skip = |key: Key| busy.contains(&key);
        let mut note = |key: Key| {
            changed.insert(key);
        };
        let touched = |kind: fn(&Key) -> bool| busy.iter().any(kind);
        put(
            &mut self.networks,
            seen.networks,
            (!all).then_some(&scope.networks),
            touched(|key| matches!(key, Key::Network(_))),
            Key::Network,
            &mut skip,
            &mut note,
        );
        put(
            &mut self.volumes,
            seen.volumes,
            (!all).then_some(&scope.volumes),
            touched(|key| matches!(key, Key::Volume(_))),
            Key::Volume,
            &mut skip,
            &mut note,
        );
        let instance_touched = touched(|key| matches!(key, Key::Instance(_)));
        put(
            &mut self.instances,
            seen.instances,
            (!all).then_some(&scope.instances),
            instance_touched,
            Key::Instance,
            &mut skip,
            &mut note,
        );
        put(
            &mut self.ended,
            seen.ended,
            (!all).then_some(&scope.instances),
            instance_touched,
            Key::Instance,
            &mut skip,
            &mut note,
        );
        if all || !scope.instances.is_empty() {
            match (&mut self.remains, seen.remains) {
                (Fact::Known(have), Fact::Known(seen)) => {
                    let looked_at: BTreeSet<InstanceKey> = match all {
                        true => have.union(&seen).cloned().collect(),
                        false => scope.instances.clone(),
                    };
                    for key in looked_at {
                        if !skip(Key::Instance(key.clone())) {
                            match seen.contains(&key) {
                                true => have.insert(key),
                                false => have.remove(&key),
                            };
                        }
                    }
                }
                // Entries of an unknown part say nothing about the others.
                (Fact::Unknown(_), Fact::Known(_)) if !all || instance_touched => {}
                (have, seen) => *have = seen,
            }
        }
        if (all || scope.firewall) && !skip(Key::Firewall) {
            if self.firewall != seen.firewall {
                note(Key::Firewall);
            }
            self.firewall = seen.firewall;
        }
        if all || scope.zones {
            put(
                &mut self.zones,
                seen.zones,
                None,
                touched(|key| matches!(key, Key::Names(_))),
                Key::Names,
                &mut skip,
                &mut note,
            );
        }
        if all {
            self.boot_id = seen.boot_id;
            self.routes = seen.routes;
            self.id_bases = seen.id_bases;
        }
        changed
    }
}

fn entries<K: Ord + Clone, V: Clone>(map: &BTreeMap<K, V>, keys: &BTreeSet<K>) -> BTreeMap<K, V> {
    keys.iter()
        .filter_map(|key| Some((key.clone(), map.get(key)?.clone())))
        .collect()
}

fn same<K: Ord, V: PartialEq>(
    have: &Fact<BTreeMap<K, V>>,
    seen: &Fact<BTreeMap<K, V>>,
    keys: &BTreeSet<K>,
) -> bool {
    match (have, seen) {
        (Fact::Known(have), Fact::Known(seen)) => keys.iter().all(|key| have.get(key) == seen.get(key)),
        (have, seen) => keys.is_empty() || have == seen,
    }
}

fn whole<T: Clone>(fact: &Fact<T>, wanted: bool) -> Fact<T> {
    match wanted {
        true => fact.clone(),
        false => Fact::Unknown(String::new()),
    }
}

fn part<K: Ord + Clone, V: Clone>(fact: &Fact<BTreeMap<K, V>>, keys: &BTreeSet<K>) -> Fact<BTreeMap<K, V>> {
    match fact {
        Fact::Known(map) => Fact::Known(entries(map, keys)),
        Fact::Unknown(why) => Fact::Unknown(why.clone()),
    }
}

/// `keys`: all, if there are none. `touched`: an action touched one of this kind meanwhile.
fn put<K: Ord + Clone, V: PartialEq>(
    have: &mut Fact<BTreeMap<K, V>>,
    seen: Fact<BTreeMap<K, V>>,
    keys: Option<&BTreeSet<K>>,
    touched: bool,
    key: impl Fn(K) -> Key,
    skip: &mut impl FnMut(Key) -> bool,
    note: &mut impl FnMut(Key),
) {
    if keys.is_some_and(BTreeSet::is_empty) {
        return;
    }
    let mut seen = match seen {
        Fact::Known(seen) => seen,
        Fact::Unknown(why) => {
            if !planted!("unknown-keeps-old") {
                *have = Fact::Unknown(why);
            }
            return;
        }
    };
    let Fact::Known(map) = have else {
        // Entries of an unknown part say nothing about the others, and of what an action touched nothing is known.
        if keys.is_none() && !touched {
            seen.keys().cloned().for_each(|one| note(key(one)));
            *have = Fact::Known(seen);
        }
        return;
    };
    let keys = match keys {
        Some(keys) => keys.clone(),
        None => map.keys().chain(seen.keys()).cloned().collect(),
    };
    for one in keys {
        if skip(key(one.clone())) {
            continue;
        }
        let new = seen.remove(&one);
        if map.get(&one) != new.as_ref() {
            note(key(one.clone()));
        }
        match new {
            Some(new) => map.insert(one, new),
            None if planted!("gone-entry-stays") => None,
            None => map.remove(&one),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Slot;

    #[test]
    fn a_look_at_everything_says_nothing_of_a_part_that_was_unknown_and_touched_meanwhile() {
        let key = InstanceKey {
            project: "shop".into(),
            service: "web".into(),
            index: 1,
            slot: Slot::A,
        };
        let seen = Observed {
            instances: Fact::Known(BTreeMap::new()),
            volumes: Fact::Known(BTreeMap::new()),
            ..Observed::nothing_known()
        };
        let mut observed = Observed::nothing_known();
        let touched = BTreeSet::from([Key::Instance(key)]);
        observed.put(seen.clone(), &Scope::all(), &touched);
        assert!(observed.instances.known().is_none(), "it may be there by now");
        assert!(observed.volumes.known().is_some());
        observed.put(seen, &Scope::all(), &BTreeSet::new());
        assert!(observed.instances.known().is_some());
    }
}
