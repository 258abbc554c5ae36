//! From a snapshot to what is wanted: load what changed, keep the last good version of what is bad.

mod cache;
mod measure;
pub mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use backend::layout::Layout;
use model::{
    diagnostic::{Diagnostic, Severity},
    types::Project,
};
use reconciler::desired::{Desired, Intent, Target, Wish};

use crate::{
    environment as surroundings,
    source::{Candidate, Snapshot, error_at},
};
use cache::Entry;
use measure::Measure;
use store::{Good, Lost, Store};

/// What is known about one project before anything is done for it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub source: PathBuf,
    /// `None`: the manifest is gone or unknown; the project is kept.
    pub manifest: Option<PathBuf>,
    /// Of the manifest as it is now; `None` while it is bad.
    pub revision: Option<String>,
    /// What is in force: the above, or the last good one.
    pub project: Option<Arc<Project>>,
    pub diagnostics: Vec<Diagnostic>,
    /// An operator took it down.
    pub down: bool,
}

/// One reading of everything.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub projects: BTreeMap<String, Seen>,
    /// Every file that was looked at, also the missing ones.
    pub inputs: BTreeSet<PathBuf>,
    /// Why nothing is removed for want of a manifest.
    pub incomplete: Option<String>,
    /// Counts readings.
    pub reading: u64,
    /// What operators have ordered for services.
    pub intents: BTreeMap<Target, Intent>,
    /// Records of such orders that are damaged.
    pub lost: Vec<Lost>,
}

pub struct Intake {
    store: Store,
    entries: BTreeMap<PathBuf, Entry>,
    /// The last good version, by project.
    good: BTreeMap<String, Good>,
    /// Operator's `down`, by project; the value: with consent to remove volumes.
    down: BTreeMap<String, bool>,
    /// Operator's orders for services.
    intents: BTreeMap<Target, Intent>,
    lost: Vec<Lost>,
    /// Of orders whose record is to go.
    obsolete: BTreeSet<Target>,
    /// What `up` took down at its end: not written, it holds for this run.
    ended: BTreeSet<String>,
    environment: BTreeMap<String, String>,
    measure: Measure,
    /// For what `up` brought along.
    process_environment: BTreeMap<String, String>,
    /// Names whose record on disk is to follow.
    unsaved: BTreeSet<String>,
    readings: u64,
}

impl Intake {
    /// Reads back what an earlier agent kept.
    ///
    /// # Errors
    /// A record is of a newer version: nothing is touched.
    pub fn open(
        layout: &Layout,
        environment: BTreeMap<String, String>,
        process_environment: BTreeMap<String, String>,
    ) -> anyhow::Result<Self> {
        let store = Store::new(layout);
        let found = store.intents()?;
        let boot = surroundings::boot_id();
        // After a reboot everything was started anew.
        let is_of_today = |intent: &Intent| match intent {
            Intent::Stop { .. } => true,
            Intent::Run { boot_id, .. } => *boot_id == boot,
        };
        let (intents, past): (BTreeMap<_, _>, BTreeMap<_, _>) = found
            .orders
            .into_iter()
            .partition(|(_, intent)| is_of_today(intent));
        Ok(Intake {
            good: store.projects()?,
            down: found.down,
            intents,
            lost: found.lost,
            obsolete: past.into_keys().collect(),
            store,
            entries: BTreeMap::new(),
            ended: BTreeSet::new(),
            environment,
            measure: Measure::default(),
            process_environment,
            unsaved: BTreeSet::new(),
            readings: 0,
        })
    }

    pub fn set_environment(&mut self, environment: BTreeMap<String, String>) {
        if self.environment != environment {
            self.environment = environment;
            self.entries.clear();
        }
    }

    /// Decides what is wanted. Files whose inputs are unchanged are not parsed again; those in
    /// `writing` are left alone until they are closed or found the same twice, and then leave the set.
    pub fn take(&mut self, snapshot: &Snapshot, writing: &mut BTreeSet<PathBuf>) -> (Desired, Report) {
        self.readings += 1;
        self.measure.wants_more = false;
        writing.retain(|path| cache::is_being_written(path, &self.entries));
        let mut claims: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        let mut entries = std::mem::take(&mut self.entries);
        let mut now = BTreeMap::new();
        for candidate in &snapshot.candidates {
            let before = entries.remove(&candidate.manifest);
            let entry = self.read(candidate, before, writing);
            claims
                .entry(entry.name.clone())
                .or_default()
                .push(candidate.manifest.clone());
            now.insert(candidate.manifest.clone(), entry);
        }
        // Unknown is not absent: what came from a directory that cannot be read stays as it was.
        self.entries = now;

        let mut report = Report {
            reading: self.readings,
            incomplete: snapshot.unknown.values().next().cloned(),
            ..Report::default()
        };
        for (name, manifests) in &claims {
            let owner = self.owner(name, manifests);
            let seen = self.settle(name, &owner, manifests);
            report.projects.insert(name.clone(), seen);
        }
        self.keep_or_forget(snapshot, &claims, &mut report);
        for entry in self.entries.values() {
            report.inputs.extend(entry.inputs.keys().cloned());
        }
        if report.incomplete.is_none() {
            let is_known = |target: &Target| match self.good.get(&target.project) {
                Some(good) => good.project.services.contains_key(&target.service),
                None => report.projects.contains_key(&target.project),
            };
            let gone: BTreeSet<Target> = self
                .intents
                .keys()
                .filter(|target| !is_known(target))
                .cloned()
                .collect();
            self.drop_intents(|target| gone.contains(target));
        }
        report.intents.clone_from(&self.intents);
        report.lost.clone_from(&self.lost);
        (self.desired(&report), report)
    }

    fn read(&self, candidate: &Candidate, before: Option<Entry>, writing: &BTreeSet<PathBuf>) -> Entry {
        if let Some(before) = before {
            // Half an included file or half an env file may well be a valid one.
            let written =
                before.is_made_of(writing) || candidate.files.iter().any(|file| writing.contains(file));
            if written || before.is_current(candidate) {
                return before.seen_again(written);
            }
            return self.load(candidate, Some(&before), writing);
        }
        self.load(candidate, None, writing)
    }

    fn load(&self, candidate: &Candidate, before: Option<&Entry>, writing: &BTreeSet<PathBuf>) -> Entry {
        let mut environment = self.environment.clone();
        if candidate.foreground {
            environment.extend(self.process_environment.clone());
        }
        let mut entry = if let Some(file) = candidate.files.iter().find(|file| writing.contains(*file)) {
            let problem = error_at(
                file,
                "it is still being written",
                "stead reads it as soon as it is closed",
            );
            Entry::refused(candidate, problem)
        } else {
            Entry::load(candidate, environment)
        };
        if entry.good.is_none() {
            // A bad file may hide its name: it is the one it had.
            let known = before.map(|before| before.name.clone()).or_else(|| {
                let mut kept = self.good.iter();
                kept.find(|(_, good)| good.manifest == candidate.manifest)
                    .map(|(name, _)| name.clone())
            });
            entry.name = known.unwrap_or(entry.name);
        }
        entry
    }

    /// Who of several has the name: the one applied first.
    fn owner(&self, name: &str, manifests: &[PathBuf]) -> PathBuf {
        let kept = self.good.get(name).map(|good| &good.manifest);
        let first = || manifests.iter().find(|path| self.entries[*path].good.is_some());
        kept.filter(|path| manifests.contains(path))
            .or_else(first)
            .unwrap_or(&manifests[0])
            .clone()
    }

    fn settle(&mut self, name: &str, owner: &Path, manifests: &[PathBuf]) -> Seen {
        let entry = &self.entries[owner];
        let (good, mut diagnostics) = self.measured(entry);
        self.measure.wants_more |= diagnostics.len() > entry.diagnostics.len();
        for other in manifests.iter().filter(|path| *path != owner) {
            let other = &self.entries[other];
            diagnostics.extend(other.diagnostics.iter().cloned());
            diagnostics.push(error_at(
                &other.source,
                format!(
                    "the project `{name}` is also defined by {}, which was applied first and stays",
                    entry.source.display()
                ),
                "give one of them another `name:`, or remove one",
            ));
        }
        if let Some((project, revision)) = &good {
            let good = Good {
                manifest: owner.to_owned(),
                origin: entry.origin.clone(),
                source: entry.source.clone(),
                revision: revision.clone(),
                project: Arc::clone(project),
            };
            if self.good.get(name).is_none_or(|kept| !kept.is_like(&good)) {
                self.unsaved.insert(name.to_owned());
            }
            self.good.insert(name.to_owned(), good);
        }
        Seen {
            source: entry.source.clone(),
            manifest: Some(owner.to_owned()),
            revision: good.map(|(_, revision)| revision),
            project: self.good.get(name).map(|good| Arc::clone(&good.project)),
            diagnostics,
            down: self.down.contains_key(name) || self.ended.contains(name),
        }
    }

    /// Projects without a manifest: gone, or kept where their directory is unknown.
    fn keep_or_forget(
        &mut self,
        snapshot: &Snapshot,
        claims: &BTreeMap<String, Vec<PathBuf>>,
        report: &mut Report,
    ) {
        let without: Vec<String> = self
            .good
            .keys()
            .filter(|name| !claims.contains_key(*name))
            .cloned()
            .collect();
        for name in without {
            let good = &self.good[&name];
            if let Some(why) = snapshot.unknown.get(&good.origin) {
                let diagnostic = error_at(
                    &good.origin,
                    why.clone(),
                    "the project is kept as it is; bring the directory back, or accept what is there now with SIGHUP",
                );
                let seen = Seen {
                    source: good.source.clone(),
                    manifest: None,
                    revision: None,
                    project: Some(Arc::clone(&good.project)),
                    diagnostics: vec![diagnostic],
                    down: self.down.contains_key(&name),
                };
                report.projects.insert(name, seen);
            } else {
                self.good.remove(&name);
                self.unsaved.insert(name);
            }
        }
    }

    fn desired(&self, report: &Report) -> Desired {
        let mut projects = BTreeMap::new();
        for (name, seen) in &report.projects {
            let wish = match self.good.get(name) {
                _ if seen.down => Wish::Down {
                    volumes: self.down.get(name).copied().unwrap_or(false),
                },
                Some(good) => Wish::Run {
                    project: Arc::clone(&good.project),
                    revision: good.revision.clone(),
                },
                None => Wish::Hold {
                    why: first_error(&seen.diagnostics),
                },
            };
            projects.insert(name.clone(), wish);
        }
        for (name, volumes) in &self.down {
            projects
                .entry(name.clone())
                .or_insert(Wish::Down { volumes: *volumes });
        }
        Desired {
            projects,
            incomplete: report.incomplete.clone(),
            intents: self.intents.clone(),
        }
    }

    /// What is wanted if these were applied; nothing is kept.
    pub fn with(&self, desired: &Desired, loaded: &[(String, Arc<Project>, String)]) -> Desired {
        let mut desired = desired.clone();
        for (name, project, revision) in loaded {
            let wish = Wish::Run {
                project: Arc::clone(project),
                revision: revision.clone(),
            };
            desired.projects.insert(name.clone(), wish);
        }
        desired
    }

    /// Loads a candidate of the command line by the same rules.
    pub fn look(&self, candidate: &Candidate) -> Looked {
        let entry = self.load(candidate, None, &BTreeSet::new());
        let (good, diagnostics) = self.measured(&entry);
        Looked {
            name: entry.name,
            source: entry.source,
            good,
            diagnostics,
        }
    }

    /// Records or clears the operator's `down`.
    pub fn set_down(&mut self, project: &str, down: Option<bool>) -> anyhow::Result<()> {
        self.ended.remove(project);
        self.store.write_intent(project, down)?;
        match down {
            Some(volumes) => {
                self.down.insert(project.to_owned(), volumes);
                self.drop_intents(|target| target.project == project);
            }
            None => {
                self.down.remove(project);
            }
        }
        let store = &self.store;
        self.lost
            .retain(|lost| lost.project != project || store.forget_lost(lost).is_err());
        Ok(())
    }

    pub fn intents(&self) -> &BTreeMap<Target, Intent> {
        &self.intents
    }

    /// Brings the recorded orders of services to `wanted`: on disk before they count.
    ///
    /// # Errors
    /// One could not be written; those before it count.
    pub fn set_intents(&mut self, wanted: BTreeMap<Target, Intent>) -> anyhow::Result<()> {
        for (target, intent) in &wanted {
            if self.intents.get(target) != Some(intent) {
                self.store.write_order(target, Some(intent))?;
                self.obsolete.remove(target);
                self.intents.insert(target.clone(), intent.clone());
            }
        }
        self.drop_intents(|target| !wanted.contains_key(target));
        self.forget_obsolete();
        Ok(())
    }

    /// Their records go with the next saving.
    fn drop_intents(&mut self, mut gone: impl FnMut(&Target) -> bool) {
        let dropped: Vec<Target> = self
            .intents
            .keys()
            .filter(|target| gone(target))
            .cloned()
            .collect();
        for target in dropped {
            self.intents.remove(&target);
            self.obsolete.insert(target);
        }
    }

    fn forget_obsolete(&mut self) {
        let store = &self.store;
        self.obsolete
            .retain(|target| match store.write_order(target, None) {
                Ok(()) => false,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(%target, error, "the record of an order that is done cannot be removed");
                    true
                }
            });
    }

    /// An operator has spoken anew of this target: what a damaged record said of it does not matter any more.
    pub fn forget_lost(&mut self, target: &Target) {
        let (store, intents) = (&self.store, &self.intents);
        let is_written = |path: &Path| intents.keys().any(|target| store.order(target) == path);
        self.lost.retain(|lost| {
            !store.speaks_of(&lost.path, target)
                || (!is_written(&lost.path) && store.forget_lost(lost).is_err())
        });
    }

    pub fn down(&self) -> &BTreeMap<String, bool> {
        &self.down
    }

    pub fn has_manifest(&self, project: &str) -> bool {
        self.entries.values().any(|entry| entry.name == project)
    }

    /// `up` ends: what it brought along goes, volumes stay.
    pub fn end(&mut self, project: &str) {
        self.drop_intents(|target| target.project == project);
        self.ended.insert(project.to_owned());
    }

    /// Brings the disk to what is kept; called after the decision is on its way.
    pub fn save(&mut self) {
        self.forget_obsolete();
        for name in std::mem::take(&mut self.unsaved) {
            let written = match self.good.get(&name) {
                Some(good) => self.store.write_project(&name, good),
                None => self.store.forget_project(&name),
            };
            if let Err(error) = written {
                tracing::error!(
                    project = name,
                    error = format!("{error:#}"),
                    "cannot keep the last good version"
                );
            }
        }
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
}

/// A manifest of the command line, loaded.
pub struct Looked {
    pub name: String,
    pub source: PathBuf,
    pub good: Option<(Arc<Project>, String)>,
    pub diagnostics: Vec<Diagnostic>,
}

fn first_error(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .find(|diagnostic| diagnostic.severity == Severity::Error)
        .map_or_else(
            || "its manifest was never good".to_owned(),
            |diagnostic| diagnostic.message.clone(),
        )
}

#[cfg(test)]
mod tests;
