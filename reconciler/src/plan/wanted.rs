//! What the manifests ask for, expanded to networks, volumes and instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    ops::{Range, RangeInclusive},
};

use model::types::{Mount, Project, Service};

use super::{
    container::{self, Looks},
    slots::{self, Asked, Held, Pair, Pass},
    step::{Cause, Rollback},
};
use crate::{
    desired::{Desired, Wish},
    key::{InstanceKey, ResourceKey, Slot},
    memory::Memory,
    observed::Instance,
};

/// One service of a project that shall run.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub project: &'a Project,
    pub service: &'a Service,
}

/// One instance that there shall be.
pub struct Member<'a> {
    pub key: InstanceKey,
    pub wanted: Wanted<'a>,
    pub looks: &'a Looks<'a>,
    /// `None`: it is not there, or the instances could not be read.
    pub seen: Option<&'a Instance>,
}

/// A network or volume that some service uses.
#[derive(Clone, Copy)]
pub struct Resource<'a> {
    pub project: &'a Project,
    /// Its key in the file.
    pub name: &'a str,
    pub internal: bool,
}

#[derive(Default)]
pub struct Wants<'a> {
    /// In key order. What the plan finds out about each stands at the same place of a list of its own:
    /// among a thousand, a search for a key costs more than all else that is done with one.
    pub instances: Vec<Member<'a>>,
    /// What is seen and not wanted, in key order.
    pub others: Vec<(&'a InstanceKey, &'a Instance)>,
    pub networks: BTreeMap<ResourceKey, Resource<'a>>,
    pub volumes: BTreeMap<ResourceKey, Resource<'a>>,
    /// Some of `instances`: they stay as they are for now.
    pub held: BTreeMap<InstanceKey, Held>,
    /// New slots, with the ones that they take the place of.
    pub pairs: BTreeMap<InstanceKey, Pair>,
    /// The other way round.
    pub replaced: BTreeMap<InstanceKey, InstanceKey>,
    /// By project and service: why it is stopped before it is started, against its manifest.
    pub alone: BTreeMap<(&'a str, &'a str), String>,
    /// Updated ones that have not settled, what they wait for, and when they will have.
    pub watched: Vec<(InstanceKey, String, Option<u64>)>,
    pub rollbacks: Vec<Rollback>,
    /// Every service, after those it depends on.
    pub order: Vec<(&'a str, Wanted<'a>)>,
    /// What each project that runs is planned for.
    pub projects: BTreeMap<&'a str, &'a Project>,
    /// Projects that are wanted, held or taken down.
    named: BTreeMap<&'a str, &'a Wish>,
    /// What `named` does not have may be removed.
    whole: bool,
}

/// What each project that runs is planned for: the last good revision while the wanted one is barred.
pub fn projects<'a>(
    focus: Option<&BTreeSet<String>>,
    desired: &'a Desired,
    memory: &'a Memory,
) -> BTreeMap<&'a str, &'a Project> {
    let wishes = desired.projects.iter();
    wishes
        .filter(|(name, _)| focus.is_none_or(|focus| focus.contains(*name)))
        .filter_map(|(name, wish)| Some((name.as_str(), memory.effective(name, wish)?)))
        .collect()
}

impl<'a> Wants<'a> {
    pub fn new(
        desired: &'a Desired,
        projects: BTreeMap<&'a str, &'a Project>,
        order: Vec<(&'a str, Wanted<'a>)>,
        looks: &'a container::AllLooks<'a>,
        pass: Pass<'a>,
    ) -> Self {
        let mut wants = Wants {
            whole: desired.incomplete.is_none(),
            order,
            projects,
            ..Wants::default()
        };
        let mut volumes = Vec::new();
        for (name, wish) in &desired.projects {
            wants.named.insert(name, wish);
            if let Wish::Run {
                project: manifest,
                revision,
            } = wish
                && let Some(project) = wants.projects.get(name.as_str()).copied()
            {
                let asked = Asked {
                    project,
                    manifest,
                    revision,
                };
                wants.expand(asked, looks, pass);
                wants.networks.extend(networks(project));
                volumes.extend(self::volumes(project));
            }
        }
        // At once: the map is not searched for the place of each.
        wants.volumes = volumes.into_iter().collect();
        wants.instances.sort_by(|one, other| one.key.cmp(&other.key));
        wants.instances.dedup_by(|one, other| one.key == other.key);
        wants.meet(pass);
        wants
    }

    /// Looks up who of the wanted ones is there, and who else.
    fn meet(&mut self, pass: Pass<'a>) {
        let seen = pass.observed.instances.known();
        let met: Vec<_> = self.in_step(seen.into_iter().flatten()).collect();
        for (key, instance, place) in met {
            match place.and_then(|place| self.instances.get_mut(place)) {
                Some(member) => member.seen = Some(instance),
                None => self.others.push((key, instance)),
            }
        }
    }

    fn expand(&mut self, asked: Asked<'a>, looks: &'a container::AllLooks<'a>, pass: Pass<'a>) {
        let project = asked.project;
        let looks = looks.get(project.name.as_str());
        let seen = pass.observed.instances.known();
        let own = seen.map(|seen| seen.range(first(&project.name)..));
        let mut own = own
            .into_iter()
            .flatten()
            .take_while(|(key, _)| key.project == project.name)
            .peekable();
        let mut failed = Vec::new();
        for (name, service) in &project.services {
            let wanted = Wanted { project, service };
            let Some(looks) = looks.and_then(|looks| looks.get(name.as_str())) else {
                continue;
            };
            // Both are in order of names.
            while own.next_if(|(key, _)| key.service < *name).is_some() {}
            let there: Vec<_> = iter::from_fn(|| own.next_if(|(key, _)| key.service == *name)).collect();
            let seats = slots::seats(pass, asked, name, service, looks, &there);
            self.instances.extend(seats.wanted.into_iter().map(|key| Member {
                key,
                wanted,
                looks,
                seen: None,
            }));
            self.held.extend(seats.held);
            for (new, pair) in seats.pairs {
                self.replaced.insert(pair.old.clone(), new.clone());
                self.pairs.insert(new, pair);
            }
            self.watched.extend(seats.watched);
            failed.extend(seats.back);
            if let Some(why) = seats.alone {
                self.alone.insert((&project.name, name), why);
            }
        }
        if !failed.is_empty() {
            let moved = project.services.values().filter_map(|service| {
                let digest = pass.memory.on_trial(&project.name, service, pass.observed)?;
                Some((service.image.clone(), digest.to_owned()))
            });
            self.rollbacks.push(Rollback {
                project: project.name.clone(),
                revision: asked.revision.to_owned(),
                images: moved.collect(),
                why: failed.join("; "),
            });
        }
    }

    /// Nothing of this project is to be touched: it is held, or the list of projects is not whole.
    pub fn left_alone(&self, project: &str) -> bool {
        match self.named.get(project) {
            Some(Wish::Hold { .. }) => !planted!("hold-not-respected"),
            // The revision is barred, and which one was good before it is not known; or it is at rest.
            Some(Wish::Run { .. }) => !self.projects.contains_key(project),
            Some(Wish::Down { .. }) => false,
            None => !self.whole && !planted!("incomplete-is-whole"),
        }
    }

    /// Why what is not wanted of `project` goes.
    pub fn farewell(&self, project: &str) -> &'static str {
        match self.named.get(project) {
            Some(Wish::Down { .. }) => "down",
            _ => "manifest",
        }
    }

    pub fn runs(&self, project: &str) -> bool {
        matches!(self.named.get(project), Some(Wish::Run { .. }))
    }

    /// Where the wanted instances of a service stand.
    pub fn of(&self, project: &str, service: &str) -> Range<usize> {
        let of = |member: &Member<'_>| (&*member.key.project, &*member.key.service).cmp(&(project, service));
        let start = self.instances.partition_point(|member| of(member).is_lt());
        let rest = self.instances.get(start..).unwrap_or_default();
        start..start + rest.partition_point(|member| of(member).is_eq())
    }

    /// Where the wanted instance with this key stands.
    pub fn place(&self, key: &InstanceKey) -> Option<usize> {
        self.instances.binary_search_by(|member| member.key.cmp(key)).ok()
    }

    /// Each of `keyed`, which is in key order, and where the wanted instance with its key stands.
    pub fn in_step<'k, T>(
        &self,
        keyed: impl IntoIterator<Item = (&'k InstanceKey, T)>,
    ) -> impl Iterator<Item = (&'k InstanceKey, T, Option<usize>)> {
        let mut members = self.instances.iter().enumerate().peekable();
        keyed.into_iter().map(move |(key, value)| {
            while members.next_if(|(_, member)| member.key < *key).is_some() {}
            let place = members.peek().filter(|(_, member)| member.key == *key);
            (key, value, place.map(|(place, _)| *place))
        })
    }

    /// Projects whose volumes an operator agreed to remove.
    pub fn consent(&self) -> BTreeSet<&'a str> {
        self.named
            .iter()
            .filter(|(_, wish)| match wish {
                Wish::Down { volumes } => *volumes || planted!("volume-without-consent"),
                _ => false,
            })
            .map(|(name, _)| *name)
            .collect()
    }
}

/// How many instances of `service` there shall be.
pub fn scale(service: &Service) -> u32 {
    service.container.scale.unwrap_or(1)
}

/// The networks of a project that some service uses.
fn networks(project: &Project) -> impl Iterator<Item = (ResourceKey, Resource<'_>)> {
    let used: BTreeSet<&str> = project
        .services
        .values()
        .flat_map(|service| service.networks.keys())
        .map(String::as_str)
        .collect();
    used.into_iter().filter_map(move |name| {
        let (full, internal) = network(project, name)?;
        let resource = Resource {
            project,
            name,
            internal,
        };
        Some((full, resource))
    })
}

/// The named volumes of a project that some service uses.
fn volumes(project: &Project) -> impl Iterator<Item = (ResourceKey, Resource<'_>)> {
    let used: BTreeSet<&str> = project.services.values().flat_map(mounted).collect();
    used.into_iter().map(move |name| {
        let resource = Resource {
            project,
            name,
            internal: false,
        };
        (volume(project, name), resource)
    })
}

/// The volumes that a service mounts, by their keys in the file.
pub fn mounted(service: &Service) -> impl Iterator<Item = &str> {
    service.volumes.iter().filter_map(|mount| match mount {
        Mount::Volume { source, .. } => source.as_deref(),
        Mount::Bind { .. } | Mount::Tmpfs { .. } => None,
    })
}

/// Before all keys that instances of a project can have.
fn first(project: &str) -> InstanceKey {
    InstanceKey {
        project: project.to_owned(),
        service: String::new(),
        index: 0,
        slot: Slot::A,
    }
}

/// The keys that instances of a service can have.
pub fn every(project: &str, service: &str) -> RangeInclusive<InstanceKey> {
    let end = |index, slot| InstanceKey {
        project: project.to_owned(),
        service: service.to_owned(),
        index,
        slot,
    };
    end(0, Slot::A)..=end(u32::MAX, Slot::B)
}

/// The full key of a network by its key in the file, and whether it is internal.
pub fn network(project: &Project, key: &str) -> Option<(ResourceKey, bool)> {
    let network = project.networks.get(key)?;
    let full = ResourceKey {
        project: project.name.clone(),
        name: network.name.clone(),
    };
    Some((full, network.internal))
}

/// Whether that is the full key of a network, by its key in the file.
pub fn is_network(project: &Project, key: &str, full: &ResourceKey) -> bool {
    let network = project.networks.get(key);
    network.is_some_and(|network| network.name == full.name && project.name == full.project)
}

/// The full name of a volume, where the file gives it another one than it would have by itself.
pub fn renamed<'a>(project: &'a Project, key: &str) -> Option<&'a str> {
    let name = project.volumes.get(key)?.name.as_str();
    let rest = name.strip_prefix(project.name.as_str());
    let own = rest.and_then(|rest| rest.strip_prefix('_'));
    (own != Some(key)).then_some(name)
}

/// The full key of a volume by its key in the file.
pub fn volume(project: &Project, key: &str) -> ResourceKey {
    ResourceKey {
        project: project.name.clone(),
        name: project
            .volumes
            .get(key)
            .map_or_else(|| format!("{}_{key}", project.name), |volume| volume.name.clone()),
    }
}

/// A cause that stands in a manifest.
pub fn cause(project: &Project, field: String, old: Option<String>, new: Option<String>) -> Cause {
    Cause {
        span: project.origin(&field).cloned(),
        field,
        old,
        new,
    }
}

/// A cause that stands in no manifest.
pub fn noun(field: &str, new: Option<String>) -> Cause {
    Cause {
        field: field.to_owned(),
        old: None,
        new,
        span: None,
    }
}
