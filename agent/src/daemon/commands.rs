//! What others ask of the loop that reads the manifests.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail};
use backend::layout::Layout;
use model::types::Project;
use reconciler::{
    desired::{Desired, Target},
    observed::Observed,
    time::Now,
};
use tokio::sync::oneshot;

use crate::{
    host,
    intake::{Intake, Looked, Report},
    orders::{self, Order},
    source::{directory, generated},
};

type Reply<T> = oneshot::Sender<anyhow::Result<T>>;

pub enum Command {
    /// What would be wanted with these applied.
    Look { paths: Vec<PathBuf>, reply: Reply<Look> },
    /// Project and revision of each.
    Apply {
        paths: Vec<PathBuf>,
        reply: Reply<BTreeMap<String, String>>,
    },
    Down {
        projects: Vec<String>,
        volumes: bool,
        reply: Reply<Vec<String>>,
    },
    /// `stop`, `start`, `restart`: what is on record then, of those who were named.
    Order {
        order: Order,
        targets: Vec<String>,
        reply: Reply<Vec<Target>>,
    },
    /// `up` ends: what it brought along goes.
    End { projects: Vec<String>, reply: Reply<()> },
}

pub struct Look {
    pub desired: Desired,
    pub looked: Vec<Looked>,
}

impl Look {
    pub fn parts(self) -> (Desired, Vec<Looked>) {
        (self.desired, self.looked)
    }
}

/// Loads what is at `paths` by the intake's rules and keeps nothing.
pub fn look(intake: &Intake, desired: &Desired, paths: &[PathBuf]) -> anyhow::Result<Look> {
    let mut looked = Vec::new();
    for path in paths {
        let candidates =
            directory::at(path).with_context(|| format!("there is no project at {}", path.display()))?;
        looked.extend(candidates.iter().map(|candidate| intake.look(candidate)));
    }
    let good: Vec<(String, Arc<Project>, String)> = looked
        .iter()
        .filter_map(|looked| {
            let (project, revision) = looked.good.clone()?;
            Some((looked.name.clone(), project, revision))
        })
        .collect();
    Ok(Look {
        desired: intake.with(desired, &good),
        looked,
    })
}

/// Puts a generated manifest in place for each project at `paths`, and forgets that they were down.
pub fn apply(
    intake: &mut Intake,
    layout: &Layout,
    report: &Report,
    paths: &[PathBuf],
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut applied = BTreeMap::new();
    for looked in look(intake, &Desired::default(), paths)?.looked {
        let Some((_, revision)) = looked.good else {
            bail!(
                "the project {} has errors; correct them and try again",
                looked.name
            );
        };
        let known = report.projects.get(&looked.name);
        if let Some(other) =
            known.filter(|known| known.source != looked.source && !same_file(&known.source, &looked.source))
        {
            bail!(
                "the project {} is already defined by {}; take it down first, or give one of them another `name:`",
                looked.name,
                other.source.display()
            );
        }
        // What lies in the manifests directory, or was applied before, needs no other manifest.
        if known.is_none() && !looked.source.starts_with(&layout.manifests) {
            let manifest = layout.manifests.join(format!("{}.yaml", looked.name));
            let text = generated::text(&looked.name, &looked.source)?;
            generated::write(&manifest, text.as_bytes()).with_context(|| {
                format!(
                    "cannot write {}; make room or make it writable",
                    manifest.display()
                )
            })?;
        }
        intake.set_down(&looked.name, None)?;
        applied.insert(looked.name, revision);
    }
    Ok(applied)
}

/// A project directory and the Compose file in it are one source.
fn same_file(known: &Path, asked: &Path) -> bool {
    asked.parent() == Some(known) || known.parent() == Some(asked)
}

/// Records an order for each target. All of them are named right, or none is ordered anything.
pub fn order(
    intake: &mut Intake,
    report: &Report,
    order: Order,
    targets: &[String],
    observed: &Observed,
    at: Now,
) -> anyhow::Result<Vec<Target>> {
    let mut named = Vec::new();
    for text in targets {
        named.extend(orders::targets(text, report)?);
    }
    let boot_id = host::boot_id();
    let mut intents = intake.intents().clone();
    for target in &named {
        let scale = orders::scale(report, target).unwrap_or(1);
        intents = orders::give(order, target, scale, &intents, observed, &boot_id, at);
    }
    intake.set_intents(intents)?;
    named.iter().for_each(|target| intake.forget_lost(target));
    Ok(named)
}

/// Removes manifests from the instance's own directory; a source elsewhere is never deleted.
pub fn down(
    intake: &mut Intake,
    layout: &Layout,
    report: &Report,
    projects: &[String],
    volumes: bool,
) -> anyhow::Result<Vec<String>> {
    let mut notes = Vec::new();
    for project in projects {
        let seen = report.projects.get(project);
        let own = seen
            .and_then(|seen| seen.manifest.as_ref())
            .filter(|manifest| manifest.parent() == Some(&layout.manifests) && manifest.is_file());
        // Consent to remove volumes is an intent in any case: it must survive the end of the agent.
        if volumes || own.is_none() {
            intake.set_down(project, Some(volumes))?;
        }
        if let Some(manifest) = own {
            if generated::source_of(manifest).is_none() {
                let kept = intake.store().removed_manifest(project);
                if let Some(directory) = kept.parent() {
                    fs::create_dir_all(directory)?;
                }
                fs::copy(manifest, &kept)
                    .with_context(|| format!("cannot keep a copy as {}", kept.display()))?;
                notes.push(format!(
                    "{} is removed; a copy is {}",
                    manifest.display(),
                    kept.display()
                ));
            }
            fs::remove_file(manifest).with_context(|| format!("cannot remove {}", manifest.display()))?;
        } else if let Some(seen) = seen {
            notes.push(format!(
                "{} stays; {project} is down until `stead apply` or `stead up`",
                seen.source.display()
            ));
        }
    }
    Ok(notes)
}
