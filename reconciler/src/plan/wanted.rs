//! What the manifests ask for, expanded to networks, volumes and instances.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
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
};

/// One service of a project that shall run.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    pub project: &'a Project,
    pub service: &'a Service,
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
    pub instances: BTreeMap<InstanceKey, Wanted<'a>>,
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
    /// By project and service: what is compared.
    pub fields: BTreeMap<(&'a str, &'a str), Looks<'a>>,
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
pub fn projects<'a>(desired: &'a Desired, memory: &'a Memory) -> BTreeMap<&'a str, &'a Project> {
    let wishes = desired.projects.iter();
    wishes
        .filter_map(|(name, wish)| Some((name.as_str(), memory.effective(name, wish)?)))
        .collect()
}

impl<'a> Wants<'a> {
    pub fn new(
        desired: &'a Desired,
        projects: BTreeMap<&'a str, &'a Project>,
        order: Vec<(&'a str, Wanted<'a>)>,
        pass: Pass<'a>,
    ) -> Self {
        let mut wants = Wants {
            whole: desired.incomplete.is_none(),
            fields: container::all_compared(&order, pass.observed),
            order,
            projects,
            ..Wants::default()
        };
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
                wants.expand(asked, pass);
            }
        }
        wants
    }

    fn expand(&mut self, asked: Asked<'a>, pass: Pass<'a>) {
        let project = asked.project;
        let mut failed = Vec::new();
        for (name, service) in &project.services {
            let wanted = Wanted { project, service };
            let Some(looks) = self.fields.get(&(project.name.as_str(), name.as_str())) else {
                continue;
            };
            let seats = slots::seats(pass, asked, name, service, looks);
            self.instances
                .extend(seats.wanted.into_iter().map(|key| (key, wanted)));
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
            for key in service.networks.keys() {
                if let Some((full, internal)) = network(project, key) {
                    let resource = Resource {
                        project,
                        name: key,
                        internal,
                    };
                    self.networks.insert(full, resource);
                }
            }
            for mount in &service.volumes {
                if let Mount::Volume {
                    source: Some(key), ..
                } = mount
                {
                    let resource = Resource {
                        project,
                        name: key,
                        internal: false,
                    };
                    self.volumes.insert(volume(project, key), resource);
                }
            }
        }
        if !failed.is_empty() {
            self.rollbacks.push(Rollback {
                project: project.name.clone(),
                revision: asked.revision.to_owned(),
                why: failed.join("; "),
            });
        }
    }

    /// Nothing of this project is to be touched: it is held, or the list of projects is not whole.
    pub fn left_alone(&self, project: &str) -> bool {
        match self.named.get(project) {
            Some(Wish::Hold { .. }) => !planted!("hold-not-respected"),
            // The revision is barred, and which one was good before it is not known.
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

    /// The wanted instances of a service, in order.
    pub fn of(&self, project: &str, service: &str) -> impl Iterator<Item = (&InstanceKey, &Wanted<'a>)> {
        self.instances.range(every(project, service))
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
