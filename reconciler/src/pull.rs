//! What a pull policy asks for: whether a registry is asked, and when again.

use std::collections::BTreeMap;

use model::types::{Project, PullPolicy, Service};

use crate::{
    backoff,
    observed::{Asked, Fact, Image, Observed},
    port::Ask,
    time::Now,
};

/// Milliseconds between two questions for `always`: nobody who follows a tag says how closely.
const OFTEN: u64 = 300_000;
/// Milliseconds of the shortest interval that is kept to.
const SHORTEST: u64 = 1_000;
/// Milliseconds before a registry that has not answered is asked again, at first and at most.
const RETRY: (u64, u64) = (60_000, 3_600_000);

/// Milliseconds after which a registry is asked whether the tag has moved. `None`: what was once had stays.
pub fn interval(service: &Service) -> Option<u64> {
    match service.container.pull_policy? {
        PullPolicy::Always => Some(OFTEN),
        PullPolicy::Every(time) => Some(time.as_millis().max(SHORTEST)),
        PullPolicy::Never | PullPolicy::Missing | PullPolicy::Build => None,
    }
}

/// Whether the registry may be asked for an image that is not here.
pub fn ask(service: &Service) -> Ask {
    match service.container.pull_policy {
        Some(PullPolicy::Never | PullPolicy::Build) => Ask::Never,
        _ => Ask::Missing,
    }
}

/// Whether the registry is asked also whenever somebody says what he wants.
pub fn at_each_change(service: &Service) -> bool {
    service.container.pull_policy == Some(PullPolicy::Always)
}

/// Whether `service` takes what its tag stands for now, and not what it stood for once.
pub fn follows(service: &Service) -> bool {
    interval(service).is_some()
}

/// What `service` runs of what its name stands for.
pub fn chosen<'i>(image: &'i Image, service: &Service) -> &'i Image {
    match &image.latest {
        Some(latest) if follows(service) => latest,
        _ => image,
    }
}

/// `project` as long as it keeps what its names stand for on this host, wherever its tags move.
pub fn still(project: &Project) -> Project {
    let mut still = project.clone();
    for service in still.services.values_mut().filter(|service| follows(service)) {
        service.container.pull_policy = Some(PullPolicy::Missing);
    }
    still
}

/// Whether `services` run what `images` has, as far as is known: quickly, since most do.
pub fn are_those<'s>(
    images: &BTreeMap<String, String>,
    mut services: impl Iterator<Item = &'s Service>,
    observed: &Observed,
) -> bool {
    services.all(|service| {
        let image = observed.images.get(&service.image).and_then(Fact::known);
        let digest = image.map(|image| &chosen(image, service).digest);
        digest.is_none_or(|digest| images.get(&service.image) == Some(digest))
    })
}

/// By reference: the digests that `services` run, as far as is known; of two, that of who follows the tag.
pub fn digests<'s>(
    services: impl Iterator<Item = &'s Service>,
    observed: &Observed,
) -> BTreeMap<String, String> {
    let (follow, keep): (Vec<_>, Vec<_>) = services.partition(|service| follows(service));
    let known = keep.into_iter().chain(follow).filter_map(|service| {
        let image = observed.images.get(&service.image)?.known()?;
        Some((service.image.clone(), chosen(image, service).digest.clone()))
    });
    known.collect()
}

/// How a name is wanted by all who want it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    pub ask: Ask,
    /// The shortest of them, milliseconds.
    pub interval: Option<u64>,
}

/// By reference.
pub fn wishes<'s>(services: impl IntoIterator<Item = &'s Service>) -> BTreeMap<String, Wish> {
    let mut wishes: BTreeMap<String, Wish> = BTreeMap::new();
    for service in services {
        let (ask, interval) = (ask(service), interval(service));
        match wishes.get_mut(&service.image) {
            Some(wish) => {
                wish.ask = wish.ask.max(ask);
                wish.interval = [wish.interval, interval].into_iter().flatten().min();
            }
            None => drop(wishes.insert(service.image.clone(), Wish { ask, interval })),
        }
    }
    wishes
}

/// When registries are asked again whether a tag has moved, of what this agent has asked.
#[derive(Debug, Clone, Default)]
pub struct Schedule(BTreeMap<String, Next>);

#[derive(Debug, Clone, Copy)]
struct Next {
    /// Boot-clock milliseconds.
    at: u64,
    /// Questions without an answer, in a row.
    failures: u32,
}

impl Schedule {
    /// Boot-clock milliseconds of the next question. An answer that an earlier agent had counts, unless it is of
    /// a time that is yet to come.
    pub fn due(&self, reference: &str, interval: u64, asked: Option<&Asked>, now: Now) -> u64 {
        if let Some(next) = self.0.get(reference) {
            return next.at;
        }
        let age = asked.and_then(|asked| now.wall.checked_sub(asked.at));
        let left = age.map_or(0, |age| interval.saturating_sub(age));
        now.boot.saturating_add(left)
    }

    /// It was asked just now. Who was asked out of turn, and does not answer still, is asked when he would have been.
    pub fn asked(&mut self, reference: &str, interval: u64, failed: bool, now: Now) {
        let before = self.0.get(reference);
        if failed && before.is_some_and(|next| next.failures > 0 && now.boot < next.at) {
            return;
        }
        let before = before.map_or(0, |next| next.failures);
        let failures = if failed { before.saturating_add(1) } else { 0 };
        let (first, longest) = RETRY;
        let delay = match failures {
            0 => interval,
            n => backoff::spread(
                reference,
                n,
                first.saturating_mul(1 << n.min(16) >> 1).min(longest),
            ),
        };
        let next = Next {
            at: now.boot.saturating_add(delay),
            failures,
        };
        self.0.insert(reference.to_owned(), next);
    }

    pub fn keep(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|reference, _| wanted(reference));
    }
}

#[cfg(test)]
mod tests;
