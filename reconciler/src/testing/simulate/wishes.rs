//! What is wanted in one seed: the files, what operators ordered, and what they look like to the agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::types::Project;

use crate::{
    desired::{Desired, Intent, Target, Wish},
    testing::{
        generate::{Repertoire, Shape},
        sim_host::Random,
    },
};

const NAMES: [&str; 3] = ["shop", "blog", "wiki"];

/// What there is of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Run,
    Gone,
    Down {
        volumes: bool,
    },
    Hold,
    /// Its source cannot be read.
    Hidden,
}

/// One file.
pub struct File {
    pub shape: Shape,
    pub standing: Standing,
    history: Vec<Shape>,
    project: Arc<Project>,
    pub revision: String,
}

impl File {
    fn new(name: &str, shape: Shape) -> Self {
        File {
            standing: Standing::Run,
            history: Vec::new(),
            project: Arc::new(shape.project(name)),
            revision: shape.revision(),
            shape,
        }
    }

    fn set(&mut self, name: &str, shape: Shape) {
        self.project = Arc::new(shape.project(name));
        self.revision = shape.revision();
        let before = std::mem::replace(&mut self.shape, shape);
        self.history.push(before);
    }
}

pub struct Wishes {
    pub files: BTreeMap<String, File>,
    pub intents: BTreeMap<Target, Intent>,
    /// Host ports that somebody else took, at some time.
    pub foreign: BTreeSet<u16>,
    /// Every version that was ever wanted, by project and revision.
    versions: BTreeMap<(String, String), Shape>,
    desired: Arc<Desired>,
}

impl Wishes {
    pub fn draw(random: &mut Random, repertoire: Repertoire) -> Self {
        let count = 1 + random.below(2) + u64::from(random.chance(4));
        let files = NAMES.iter().take(count as usize);
        let files = files.map(|name| {
            (
                (*name).to_owned(),
                File::new(name, Shape::draw(random, repertoire)),
            )
        });
        let mut wishes = Wishes {
            files: files.collect(),
            intents: BTreeMap::new(),
            foreign: BTreeSet::new(),
            versions: BTreeMap::new(),
            desired: Arc::default(),
        };
        wishes.write();
        wishes
    }

    pub fn desired(&self) -> Arc<Desired> {
        self.desired.clone()
    }

    pub fn version(&self, project: &str, revision: &str) -> Option<&Shape> {
        self.versions.get(&(project.to_owned(), revision.to_owned()))
    }

    pub fn pick(&self, random: &mut Random) -> String {
        let number = random.below(self.files.len() as u64) as usize;
        self.files.keys().nth(number).cloned().unwrap_or_default()
    }

    /// An edit of the file of `name`.
    pub fn edit(&mut self, name: &str, random: &mut Random, repertoire: Repertoire) {
        if let Some(file) = self.files.get_mut(name) {
            let mut shape = file.shape.clone();
            shape.edit(random, repertoire);
            file.set(name, shape);
        }
        self.write();
    }

    /// An earlier version again. False: there is none.
    pub fn edit_back(&mut self, name: &str, random: &mut Random) -> bool {
        let Some(file) = self.files.get_mut(name) else {
            return false;
        };
        if file.history.is_empty() {
            return false;
        }
        // Mostly the one before.
        let back = match random.chance(3) {
            true => random.below(file.history.len() as u64) as usize,
            false => file.history.len() - 1,
        };
        let shape = file.history[back].clone();
        file.set(name, shape);
        self.write();
        true
    }

    pub fn stand(&mut self, name: &str, standing: Standing) {
        if let Some(file) = self.files.get_mut(name) {
            file.standing = standing;
        }
        self.write();
    }

    /// One order a service: what takes its place is forgotten.
    pub fn intend(&mut self, target: Target, intent: Option<Intent>) {
        let same = |other: &Target| (&other.project, &other.service) == (&target.project, &target.service);
        self.intents.retain(|other, _| !same(other));
        match intent {
            Some(intent) => self.intents.insert(target, intent),
            None => self.intents.remove(&target),
        };
        self.write();
    }

    /// The services of a project.
    pub fn services(&self, name: &str) -> BTreeSet<String> {
        let file = self.files.get(name).into_iter();
        let services = file.flat_map(|file| file.shape.expanded().services);
        services.map(|service| service.name).collect()
    }

    /// Every image that some version of today asks for.
    pub fn images(&self) -> BTreeSet<String> {
        let services = self.versions.values().flat_map(|shape| &shape.services);
        services.map(|service| service.image.to_owned()).collect()
    }

    /// How many images are asked for again and again.
    pub fn followed(&self) -> usize {
        let services = self.files.values().flat_map(|file| &file.shape.services);
        let followed = services.filter(|service| service.policy.follows());
        followed
            .map(|service| service.image)
            .collect::<BTreeSet<_>>()
            .len()
    }

    fn write(&mut self) {
        let mut desired = Desired::default();
        for (name, file) in &self.files {
            let wish = match file.standing {
                Standing::Run => Wish::Run {
                    project: file.project.clone(),
                    revision: file.revision.clone(),
                },
                Standing::Gone => continue,
                Standing::Down { volumes } => Wish::Down { volumes },
                Standing::Hold => Wish::Hold {
                    why: "compose.yaml:1: not understood; correct the file".to_owned(),
                },
                Standing::Hidden => {
                    desired.incomplete = Some("the directory could not be read".to_owned());
                    continue;
                }
            };
            let version = (name.clone(), file.revision.clone());
            self.versions.entry(version).or_insert_with(|| file.shape.clone());
            desired.projects.insert(name.clone(), wish);
        }
        desired.intents = self.intents.clone();
        self.desired = Arc::new(desired);
    }
}
