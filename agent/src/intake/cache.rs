//! One manifest as it was last read, and whether it must be read again.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use model::{diagnostic::Diagnostic, load::load, source::Sources, types::Project};

use crate::{source, source::Candidate, text};

/// What tells that a file is the one that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// `None`: there is none, or it cannot be looked at.
    pub fn of(path: &Path) -> Option<Stamp> {
        let metadata = fs::metadata(path).ok()?;
        Some(Stamp {
            inode: (metadata.dev(), metadata.ino()),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// The disk, with a stamp of each file from before it was read: a change while it is read shows as a
/// difference.
struct Stamping {
    inputs: RefCell<BTreeMap<PathBuf, Option<Stamp>>>,
}

impl Sources for Stamping {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut inputs = self.inputs.borrow_mut();
        if !inputs.contains_key(path) {
            inputs.insert(path.to_owned(), Stamp::of(path));
        }
        text::Disk.read(path)
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        text::Disk.real_path(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut inputs = self.inputs.borrow_mut();
        let stamp = || Stamp::of(directory);
        inputs.entry(directory.to_owned()).or_insert_with(stamp);
        text::Disk.list(directory)
    }
}

/// A manifest after reading.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub source: PathBuf,
    pub origin: PathBuf,
    /// The project and its revision.
    pub good: Option<(Arc<Project>, String)>,
    pub diagnostics: Vec<Diagnostic>,
    /// Everything that was looked at, as it was before it was read.
    pub inputs: BTreeMap<PathBuf, Option<Stamp>>,
    files: Vec<PathBuf>,
    /// It was left alone because of a write; the stamps are not those of what was read.
    skipped: bool,
}

impl Entry {
    pub fn load(candidate: &Candidate, environment: BTreeMap<String, String>) -> Entry {
        if let Some(problem) = &candidate.problem {
            return Entry::refused(candidate, problem.clone());
        }
        let sources = Stamping {
            inputs: RefCell::new(candidate_inputs(candidate)),
        };
        let (files, options) = candidate.to_load(environment);
        let loaded = load(&sources, &files, &options);
        let name = text::name(&loaded).unwrap_or_else(|| fallback_name(candidate));
        let mut inputs = sources.inputs.into_inner();
        for path in loaded.inputs {
            inputs.entry(path).or_insert_with_key(|path| Stamp::of(path));
        }
        Entry {
            name,
            source: candidate.source.clone(),
            origin: candidate.origin.clone(),
            good: loaded.project.map(|project| {
                let revision = text::revision(&project);
                (Arc::new(project), revision)
            }),
            diagnostics: loaded.diagnostics,
            inputs,
            files: candidate.files.clone(),
            skipped: false,
        }
    }

    /// One that is not read at all.
    pub fn refused(candidate: &Candidate, problem: Diagnostic) -> Entry {
        Entry {
            name: fallback_name(candidate),
            source: candidate.source.clone(),
            origin: candidate.origin.clone(),
            good: None,
            diagnostics: vec![problem],
            inputs: candidate_inputs(candidate),
            files: candidate.files.clone(),
            skipped: true,
        }
    }

    /// Whether reading it again would give the same.
    pub fn is_current(&self, candidate: &Candidate) -> bool {
        !self.skipped
            && self.files == candidate.files
            && self.source == candidate.source
            && candidate.problem.is_none()
            && self.inputs.iter().all(|(path, stamp)| Stamp::of(path) == *stamp)
    }

    /// Whether one of the files it is made of is among these.
    pub fn is_made_of(&self, paths: &BTreeSet<PathBuf>) -> bool {
        paths
            .iter()
            .any(|path| self.inputs.contains_key(path) || self.files.contains(path))
    }

    /// Kept for another round; with `written`, as something that is to be read when it is complete.
    pub fn seen_again(mut self, written: bool) -> Entry {
        if written {
            for (path, stamp) in &mut self.inputs {
                *stamp = Stamp::of(path);
            }
            self.skipped = true;
        }
        self
    }
}

/// A file that somebody has open for writing and that differs from the last look. A link that was put
/// in place is complete as it is.
pub fn is_being_written(path: &Path, entries: &BTreeMap<PathBuf, Entry>) -> bool {
    if fs::symlink_metadata(path).map_or(true, |metadata| !metadata.is_file()) {
        return false;
    }
    let now = Stamp::of(path);
    entries
        .values()
        .all(|entry| entry.inputs.get(path).is_none_or(|before| *before != now))
}

fn candidate_inputs(candidate: &Candidate) -> BTreeMap<PathBuf, Option<Stamp>> {
    let mut inputs = BTreeMap::new();
    let mut add = |path: PathBuf| {
        let stamp = Stamp::of(&path);
        inputs.insert(path, stamp);
    };
    // A directory's own stamp would change with every file in it.
    if candidate.manifest != candidate.directory {
        add(candidate.manifest.clone());
    }
    candidate.files.iter().cloned().for_each(&mut add);
    if candidate.source == candidate.directory {
        add(candidate.directory.join(".env"));
        let names = source::directory::COMPOSE_FILES
            .iter()
            .chain(&source::directory::OVERRIDES);
        names.for_each(|name| add(candidate.directory.join(name)));
    } else {
        add(candidate.source.clone());
    }
    inputs
}

fn fallback_name(candidate: &Candidate) -> String {
    let name = text::project_name(&candidate.fallback_name);
    if name.is_empty() {
        "unnamed".to_owned()
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_changes_while_it_is_read_differs_from_its_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let (file, missing) = (directory.path().join("file"), directory.path().join("missing"));
        fs::write(&file, "before").unwrap();
        let sources = Stamping {
            inputs: RefCell::default(),
        };
        assert_eq!(sources.read(&file).unwrap(), b"before");
        assert!(sources.read(&missing).is_err());
        for path in [&file, &missing] {
            assert_eq!(sources.inputs.borrow()[path], Stamp::of(path), "nothing changed");
            fs::write(path, "afterwards").unwrap();
            // The second time it is read is not the first.
            assert_eq!(sources.read(path).unwrap(), b"afterwards");
            assert_ne!(sources.inputs.borrow()[path], Stamp::of(path));
        }
    }
}
