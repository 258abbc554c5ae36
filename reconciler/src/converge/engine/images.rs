//! Looks at image sources, apart from those at the host: a source that stalls delays only what needs its image.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::types::{Project, Service};

use super::Engine;
use crate::{
    desired::Desired,
    execute::Order,
    key::Key,
    memory::Memory,
    observed::Fact,
    port::{Ask, Scope},
    pull::{self, Schedule, Wish},
    time::Now,
};

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

/// Tags that somebody follows.
#[derive(Debug, Default)]
pub(super) struct Following {
    /// Milliseconds from one question to the next.
    intervals: BTreeMap<String, u64>,
    schedule: Schedule,
    /// Somebody waits for the answer.
    awaited: BTreeSet<String>,
}

impl Engine {
    /// Who wants what may be another by now.
    pub(super) fn follow(&mut self) {
        let wishes = wishes(&self.desired, &self.memory);
        let followed = wishes.into_iter();
        let followed = followed.filter_map(|(reference, wish)| Some((reference, wish.interval?)));
        self.following.intervals = followed.collect();
        let intervals = &self.following.intervals;
        self.following
            .schedule
            .keep(|reference| intervals.contains_key(reference));
        self.following
            .awaited
            .retain(|reference| intervals.contains_key(reference));
        self.touch_moved();
    }

    /// What becomes of an image whose tag has moved is the affair of all who want it.
    pub(super) fn touch_moved(&mut self) {
        let images = self.observed.images.iter();
        let moved = images.filter(|(_, image)| image.known().is_some_and(|image| image.latest.is_some()));
        let keys: Vec<Key> = moved
            .flat_map(|(reference, _)| self.image_keys(reference))
            .collect();
        keys.iter().for_each(|key| self.touched.key(key));
    }

    /// Others are wanted now; `anew` is asked for at once.
    pub(super) fn want_images(&mut self, anew: BTreeSet<String>) {
        let wanted = references(&self.desired, &self.memory);
        let shared: Vec<Key> = anew
            .iter()
            .flat_map(|reference| self.image_keys(reference))
            .collect();
        shared.iter().for_each(|key| self.touched.key(key));
        // What is about to be asked for is not known: who is changed is changed once.
        Arc::make_mut(&mut self.observed)
            .images
            .retain(|reference, _| wanted.contains_key(reference) && !anew.contains(reference));
        self.follow();
        self.ask_anew(anew);
    }

    /// Of every project, what is asked for whenever somebody says what he wants of it.
    pub(super) fn ask_all_anew(&mut self) {
        let projects = self.desired.projects.iter();
        let projects = projects.filter_map(|(name, wish)| self.memory.following(name, wish));
        let anew: BTreeSet<String> = projects.flat_map(asked_at_each_change).collect();
        self.ask_anew(anew);
    }

    /// Those of which nothing is known, when they may be tried again, and those that are to be asked for by now.
    pub(super) fn look_for_images(&mut self, now: Now) {
        for (reference, ask) in references(&self.desired, &self.memory) {
            let unknown = !matches!(self.observed.images.get(&reference), Some(Fact::Known(_)));
            let due = |key: &Key| self.memory.held(key, now).is_none();
            if unknown && self.image_keys(&reference).iter().all(due) {
                self.dirty.add_images([(reference, ask)]);
            }
        }
        self.ask_in_time(now);
    }

    /// Somebody waits for what these stand for now.
    fn ask_anew(&mut self, images: BTreeSet<String>) {
        self.following.awaited.extend(images.iter().cloned());
        self.dirty
            .add_images(images.into_iter().map(|reference| (reference, Ask::Anew)));
    }

    /// Boot-clock milliseconds at which a registry is to be asked next, of those of which something is known and that
    /// are not about to be asked.
    pub(super) fn next_question(&self, now: Now) -> Option<u64> {
        let known = self
            .following
            .intervals
            .iter()
            .filter_map(|(reference, interval)| {
                let image = self.observed.images.get(reference)?.known()?;
                let busy = self.images.0.contains_key(reference) || self.dirty.images.contains_key(reference);
                let schedule = &self.following.schedule;
                (!busy).then(|| schedule.due(reference, *interval, image.asked.as_ref(), now))
            });
        known.min()
    }

    /// Registries whose time has come are asked.
    fn ask_in_time(&mut self, now: Now) {
        let due = self.following.intervals.iter().filter(|(reference, interval)| {
            let image = self.observed.images.get(*reference).and_then(Fact::known);
            image.is_some_and(|image| {
                let asked = image.asked.as_ref();
                self.following.schedule.due(reference, **interval, asked, now) <= now.boot
            })
        });
        let due: Vec<_> = due.map(|(reference, _)| (reference.clone(), Ask::Anew)).collect();
        self.dirty.add_images(due);
    }

    /// A look that asked has ended, and what it saw is taken over.
    pub(super) fn answered(&mut self, scope: &Scope, now: Now) {
        for (reference, ask) in &scope.images {
            let Some(interval) = self.following.intervals.get(reference) else {
                continue;
            };
            if *ask != Ask::Anew {
                continue;
            }
            self.following.awaited.remove(reference);
            let image = self.observed.images.get(reference).and_then(Fact::known);
            let asked = image.and_then(|image| image.asked.as_ref());
            let failed = asked.and_then(|asked| asked.failed.as_ref());
            if let Some(why) = failed {
                tracing::warn!(
                    image = reference,
                    why,
                    "whether its tag has moved is not known; what is here stays"
                );
            }
            self.following
                .schedule
                .asked(reference, *interval, failed.is_some(), now);
        }
    }

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
        let due = due.filter(|(reference, _)| !self.images.0.contains_key(*reference) && !is_busy(reference));
        let due: Vec<(String, Ask)> = due.take(free).map(|(name, ask)| (name.clone(), *ask)).collect();
        for (reference, ask) in due {
            self.dirty.images.remove(&reference);
            self.images.0.insert(reference.clone(), false);
            let scope = Scope {
                images: BTreeMap::from([(reference, ask)]),
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
            images: BTreeMap::new(),
            ..scope.clone()
        };
        if !host.is_empty() || scope.images.is_empty() {
            return None;
        }
        let mut touched = false;
        for reference in scope.images.keys() {
            touched |= self.images.0.remove(reference).unwrap_or(false);
        }
        Some(touched)
    }

    /// References of which something is about to be known. That a tag is asked for by the clock delays nobody.
    pub(super) fn images_to_come(&self) -> BTreeSet<String> {
        let due = self.dirty.images.keys().chain(self.images.0.keys());
        let due = due.filter(|reference| {
            !self.following.intervals.contains_key(*reference)
                || self.following.awaited.contains(*reference)
                || self
                    .observed
                    .images
                    .get(*reference)
                    .and_then(Fact::known)
                    .is_none()
        });
        due.cloned().collect()
    }
}

/// Every image that some project is planned with, and what it is wanted for.
fn wishes(desired: &Desired, memory: &Memory) -> BTreeMap<String, Wish> {
    let projects = desired.projects.iter();
    let projects = projects.filter_map(|(name, wish)| memory.following(name, wish));
    pull::wishes(projects.flat_map(with_instances))
}

/// Every image that some project is planned with, and whether its registry may be asked.
pub(super) fn references(desired: &Desired, memory: &Memory) -> BTreeMap<String, Ask> {
    let wishes = wishes(desired, memory).into_iter();
    wishes.map(|(reference, wish)| (reference, wish.ask)).collect()
}

/// As [`references`], of one project. What another says of one of them is not asked.
pub(super) fn images_of(project: &Project) -> impl Iterator<Item = (String, Ask)> {
    with_instances(project).map(|service| (service.image.clone(), pull::ask(service)))
}

/// Of one project, what is asked for whenever somebody says what he wants of it.
pub(super) fn asked_at_each_change(project: &Project) -> impl Iterator<Item = String> {
    let always = with_instances(project).filter(|service| pull::at_each_change(service));
    always.map(|service| service.image.clone())
}

/// Of a service without instances, nobody needs the image.
pub(super) fn with_instances(project: &Project) -> impl Iterator<Item = &Service> {
    let services = project.services.values();
    services.filter(|service| service.container.scale != Some(0))
}
