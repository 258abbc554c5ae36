//! What the intake keeps on disk: the last good version of each project, and the operator's intents.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use backend::layout::Layout;
use model::{diagnostic::Span, source::Disk, types::Project};
use reconciler::{
    converge,
    desired::{Intent, Target},
    memory,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::source::generated;

/// Raised when a field changes its meaning.
const VERSION: u32 = 1;

/// The last version of a project that had no error.
#[derive(Debug, Clone)]
pub struct Good {
    pub manifest: PathBuf,
    pub origin: PathBuf,
    pub source: PathBuf,
    pub revision: String,
    pub project: Arc<Project>,
}

impl Good {
    /// Whether writing the other would leave the record as it is.
    pub fn is_like(&self, other: &Good) -> bool {
        self.manifest == other.manifest
            && self.source == other.source
            && self.revision == other.revision
            && self.project == other.project
    }
}

/// `state/projects/<name>/project.json`
#[derive(Serialize, Deserialize)]
struct Record {
    version: u32,
    manifest: PathBuf,
    origin: PathBuf,
    source: PathBuf,
    revision: String,
    project: Project,
    /// What `Project` leaves out of its own form.
    directory: PathBuf,
    origins: BTreeMap<String, Span>,
}

/// `state/intents/<project>.json`
#[derive(Serialize, Deserialize)]
struct Down {
    version: u32,
    intent: String,
    volumes: bool,
}

/// `state/intents/<project>/<service>[@<index>].json`
#[derive(Serialize, Deserialize)]
struct Ordered {
    version: u32,
    #[serde(flatten)]
    target: Target,
    #[serde(flatten)]
    intent: Intent,
}

/// A record of an operator's order that cannot be understood any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    pub project: String,
    pub path: PathBuf,
    pub why: String,
}

/// What an operator has ordered, as far as it can be read.
#[derive(Debug, Default)]
pub struct Intents {
    /// The value: with consent to remove volumes.
    pub down: BTreeMap<String, bool>,
    pub orders: BTreeMap<Target, Intent>,
    pub lost: Vec<Lost>,
}

/// The two directories.
pub struct Store {
    projects: PathBuf,
    intents: PathBuf,
}

impl Store {
    pub fn new(layout: &Layout) -> Self {
        Store {
            projects: layout.state.join("projects"),
            intents: layout.state.join("intents"),
        }
    }

    pub fn projects(&self) -> anyhow::Result<BTreeMap<String, Good>> {
        let mut projects = BTreeMap::new();
        for directory in names(&self.projects)? {
            let path = self.projects.join(&directory).join("project.json");
            let Some(record) = read::<Record>(&path)? else {
                continue;
            };
            let mut project = record.project;
            project.directory = record.directory;
            project.origins = record.origins;
            project.find_contents(&Disk);
            let good = Good {
                manifest: record.manifest,
                origin: record.origin,
                source: record.source,
                revision: record.revision,
                project: Arc::new(project),
            };
            projects.insert(directory, good);
        }
        Ok(projects)
    }

    pub fn write_project(&self, name: &str, good: &Good) -> anyhow::Result<()> {
        let record = Record {
            version: VERSION,
            manifest: good.manifest.clone(),
            origin: good.origin.clone(),
            source: good.source.clone(),
            revision: good.revision.clone(),
            project: (*good.project).clone(),
            directory: good.project.directory.clone(),
            origins: good.project.origins.clone(),
        };
        write(&self.projects.join(name).join("project.json"), &record)
    }

    pub fn forget_project(&self, name: &str) -> anyhow::Result<()> {
        for file in ["project.json", "good.json", "barred.json"] {
            remove(&self.projects.join(name).join(file))?;
        }
        // Stays where a removed manifest is kept in it.
        let _ = fs::remove_dir(self.projects.join(name));
        Ok(())
    }

    /// Where a manifest that `down` removes is kept, so that nothing that was typed is lost.
    pub fn removed_manifest(&self, name: &str) -> PathBuf {
        self.projects.join(name).join("removed.yaml")
    }

    /// # Errors
    /// One is of a newer version, or the directory cannot be listed.
    pub fn intents(&self) -> anyhow::Result<Intents> {
        let mut found = Intents::default();
        for file in names(&self.intents)? {
            let path = self.intents.join(&file);
            let Some(project) = file.strip_suffix(".json") else {
                if path.is_dir() {
                    self.orders(&file, &mut found)?;
                }
                continue;
            };
            match examine::<Down>(&path)? {
                Found::Missing => {}
                Found::Whole(down) => {
                    found.down.insert(project.to_owned(), down.volumes);
                }
                Found::Damaged(why) => found.lost.push(lost(project, path, why)),
            }
        }
        Ok(found)
    }

    fn orders(&self, project: &str, found: &mut Intents) -> anyhow::Result<()> {
        let directory = self.intents.join(project);
        for file in names(&directory)? {
            let path = directory.join(&file);
            match examine::<Ordered>(&path)? {
                Found::Missing => {}
                Found::Whole(record)
                    if order_file(&record.target) == file && record.target.project == project =>
                {
                    found.orders.insert(record.target, record.intent);
                }
                Found::Whole(_) => {
                    let why = "it speaks of another service than its name".to_owned();
                    found.lost.push(lost(project, path, why));
                }
                Found::Damaged(why) => found.lost.push(lost(project, path, why)),
            }
        }
        Ok(())
    }

    /// `None` clears it.
    pub fn write_order(&self, target: &Target, intent: Option<&Intent>) -> anyhow::Result<()> {
        let directory = self.intents.join(&target.project);
        let path = self.order(target);
        match intent {
            Some(intent) => {
                let record = Ordered {
                    version: VERSION,
                    target: target.clone(),
                    intent: intent.clone(),
                };
                write(&path, &record)
            }
            None => {
                remove(&path)?;
                // Stays where another order of the project is in it.
                let _ = fs::remove_dir(directory);
                Ok(())
            }
        }
    }

    /// Where an order for `target` is.
    pub fn order(&self, target: &Target) -> PathBuf {
        self.intents.join(&target.project).join(order_file(target))
    }

    /// Whether the record at `path` is of an order that one for `target` replaces.
    pub fn speaks_of(&self, path: &Path, target: &Target) -> bool {
        let instances = format!("{}@", target.service);
        let in_it = path.parent() == Some(&self.intents.join(&target.project));
        let one = path.file_name().and_then(|name| name.to_str());
        let one = one.is_some_and(|name| target.index.is_none() && name.starts_with(&instances));
        *path == self.order(target) || (in_it && one)
    }

    /// A damaged record goes: what it said has been said anew, or is of no use any more.
    pub fn forget_lost(&self, lost: &Lost) -> anyhow::Result<()> {
        remove(&lost.path)?;
        let _ = fs::remove_dir(self.intents.join(&lost.project));
        Ok(())
    }

    /// `None` clears it.
    pub fn write_intent(&self, project: &str, down: Option<bool>) -> anyhow::Result<()> {
        let path = self.intents.join(format!("{project}.json"));
        match down {
            Some(volumes) => {
                let intent = Down {
                    version: VERSION,
                    intent: "down".into(),
                    volumes,
                };
                write(&path, &intent)
            }
            None => remove(&path),
        }
    }
}

/// `state/projects/<name>/good.json`
#[derive(Serialize, Deserialize)]
struct Converged {
    version: u32,
    revision: String,
    project: Project,
    #[serde(default)]
    images: BTreeMap<String, String>,
    directory: PathBuf,
    origins: BTreeMap<String, Span>,
}

/// `state/projects/<name>/barred.json`
#[derive(Serialize, Deserialize)]
struct Refused {
    version: u32,
    revision: String,
    why: String,
    #[serde(default)]
    images: BTreeMap<String, String>,
}

/// What the loop is to know of the time before it.
pub fn kept(projects: &Path) -> anyhow::Result<converge::Kept> {
    let mut kept = converge::Kept::default();
    for name in names(projects)? {
        if let Some(record) = read::<Converged>(&projects.join(&name).join("good.json"))? {
            let mut project = record.project;
            project.directory = record.directory;
            project.origins = record.origins;
            project.find_contents(&Disk);
            let good = memory::Good::new(record.revision, Arc::new(project), record.images);
            kept.good.insert(name.clone(), good);
        }
        if let Some(record) = read::<Refused>(&projects.join(&name).join("barred.json"))? {
            let barred = memory::Barred {
                revision: record.revision,
                why: record.why,
                images: record.images,
            };
            kept.barred.insert(name, barred);
        }
    }
    Ok(kept)
}

/// References of images, as projects write them, to the projects: of the last good version, and of the one that would
/// be rolled back to. For who must know all of them, so a record that is damaged is an error here.
pub fn images(layout: &Layout) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    /// Of both records.
    #[derive(Deserialize)]
    struct Named {
        project: Images,
    }
    #[derive(Deserialize)]
    struct Images {
        services: BTreeMap<String, OfService>,
    }
    #[derive(Deserialize)]
    struct OfService {
        image: String,
    }
    let projects = layout.state.join("projects");
    let mut named: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for name in names(&projects)? {
        for file in ["project.json", "good.json"] {
            let path = projects.join(&name).join(file);
            match examine::<Named>(&path)? {
                Found::Missing => {}
                Found::Whole(record) => {
                    for service in record.project.services.into_values() {
                        named.entry(service.image).or_default().insert(name.clone());
                    }
                }
                Found::Damaged(why) => bail!(
                    "it is not known which images {name} names: {} is damaged ({why}); start the agent, which writes it again",
                    path.display()
                ),
            }
        }
    }
    Ok(named)
}

pub fn write_good(projects: &Path, name: &str, good: &memory::Good) -> anyhow::Result<()> {
    let record = Converged {
        version: VERSION,
        revision: good.revision.clone(),
        project: (*good.project).clone(),
        images: good.images.clone(),
        directory: good.project.directory.clone(),
        origins: good.project.origins.clone(),
    };
    write(&projects.join(name).join("good.json"), &record)
}

/// `None` clears it.
pub fn write_barred(projects: &Path, name: &str, barred: Option<&memory::Barred>) -> anyhow::Result<()> {
    let path = projects.join(name).join("barred.json");
    match barred {
        Some(barred) => {
            let record = Refused {
                version: VERSION,
                revision: barred.revision.clone(),
                why: barred.why.clone(),
                images: barred.images.clone(),
            };
            write(&path, &record)
        }
        None => remove(&path),
    }
}

fn names(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", directory.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(
            entry?
                .file_name()
                .into_string()
                .ok()
                .filter(|name| !name.starts_with('.')),
        );
    }
    names.sort();
    Ok(names)
}

fn lost(project: &str, path: PathBuf, why: String) -> Lost {
    tracing::error!(path = %path.display(), why, "an operator's order is lost; give it again");
    Lost {
        project: project.to_owned(),
        path,
        why,
    }
}

/// No name of a service has an `@`.
fn order_file(target: &Target) -> String {
    match target.index {
        Some(index) => format!("{}@{index}.json", target.service),
        None => format!("{}.json", target.service),
    }
}

enum Found<T> {
    Missing,
    /// Why it cannot be understood.
    Damaged(String),
    Whole(T),
}

/// `None` for a missing one and for one that cannot be understood: it is a copy, the manifest decides.
fn read<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Option<T>> {
    match examine(path)? {
        Found::Whole(record) => Ok(Some(record)),
        Found::Missing => Ok(None),
        Found::Damaged(why) => {
            tracing::warn!(path = %path.display(), why, "this record is damaged and will be written again");
            Ok(None)
        }
    }
}

fn examine<T: DeserializeOwned>(path: &Path) -> anyhow::Result<Found<T>> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Missing),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    if let Ok(Versioned { version }) = serde_json::from_slice(&text)
        && version > VERSION
    {
        bail!(
            "{} was written by a newer stead (version {version}, this one knows {VERSION}); use that one",
            path.display()
        );
    }
    Ok(match serde_json::from_slice(&text) {
        Ok(record) => Found::Whole(record),
        Err(error) => Found::Damaged(error.to_string()),
    })
}

fn write<T: Serialize>(path: &Path, record: &T) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(record)?;
    path.parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| generated::write(path, &bytes))
        .with_context(|| {
            format!(
                "cannot write {}; make room on that disk or make it writable",
                path.display()
            )
        })
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
