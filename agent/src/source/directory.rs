//! A directory to candidates: what is a project, what is skipped, what is wrong.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{Candidate, Snapshot, error_at, generated};

/// In the order in which docker compose looks for them.
pub const COMPOSE_FILES: [&str; 4] = [
    "compose.yaml",
    "compose.yml",
    "docker-compose.yml",
    "docker-compose.yaml",
];
/// The same; any of them goes with any of the above.
pub const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What a project directory is read from.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The Compose file and its override, in the order in which they are merged.
    pub files: Vec<&'static str>,
    /// There too, and not read.
    pub passed_over: Vec<&'static str>,
}

/// Chooses among the names of a directory, as docker compose does; `None`: it is no project directory.
pub fn choose(is_there: impl Fn(&str) -> bool) -> Option<Chosen> {
    let mut chosen = Chosen::default();
    for names in [COMPOSE_FILES, OVERRIDES] {
        let mut found = names.into_iter().filter(|name| is_there(name));
        chosen.files.extend(found.next());
        chosen.passed_over.extend(found);
    }
    let first = chosen.files.first()?;
    COMPOSE_FILES.contains(first).then_some(chosen)
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    /// The names in it that Compose looks for.
    Directory(Vec<String>),
    /// Neither; the text says what.
    Odd(String),
}

/// What a listing means. Pure: the same listing gives the same candidates.
pub fn candidates(directory: &Path, origin: &Path, entries: &[Entry]) -> Vec<Candidate> {
    let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    if let Some(project) = project(directory, directory, origin, &names) {
        return vec![project];
    }
    let mut found: Vec<Candidate> = entries
        .iter()
        .filter_map(|entry| candidate(directory, origin, entry))
        .collect();
    found.sort_by(|a, b| a.manifest.cmp(&b.manifest));
    found
}

fn candidate(directory: &Path, origin: &Path, entry: &Entry) -> Option<Candidate> {
    let path = directory.join(&entry.name);
    if is_temporary(&entry.name) {
        return None;
    }
    match &entry.kind {
        Kind::Directory(names) => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            project(&path, &path, origin, &names)
        }
        Kind::File if is_yaml(&entry.name) => Some(file(&path, &path, origin)),
        Kind::Odd(what) if is_yaml(&entry.name) => {
            let mut odd = file(&path, &path, origin);
            odd.problem = Some(error_at(
                &path,
                format!("it is {what}, not a regular file"),
                "put a regular file of at most 4 MiB here, or remove it",
            ));
            Some(odd)
        }
        Kind::File | Kind::Odd(_) => None,
    }
}

/// A directory of the first kind, if it is one.
fn project(path: &Path, manifest: &Path, origin: &Path, names: &[&str]) -> Option<Candidate> {
    let chosen = choose(|name| names.contains(&name))?;
    Some(Candidate {
        manifest: manifest.to_owned(),
        source: path.to_owned(),
        files: chosen.files.into_iter().map(|name| path.join(name)).collect(),
        directory: path.to_owned(),
        fallback_name: name_of(path),
        origin: origin.to_owned(),
        problem: None,
        foreground: false,
    })
}

fn file(path: &Path, manifest: &Path, origin: &Path) -> Candidate {
    Candidate {
        manifest: manifest.to_owned(),
        source: path.to_owned(),
        files: vec![path.to_owned()],
        directory: path.parent().unwrap_or(Path::new("/")).to_owned(),
        fallback_name: path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        origin: origin.to_owned(),
        problem: None,
        foreground: false,
    }
}

pub fn name_of(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn is_yaml(name: &str) -> bool {
    name.ends_with(".yaml") || name.ends_with(".yml")
}

/// Dot-files and what editors leave while they write (vim's 4913 has no ending).
fn is_temporary(name: &str) -> bool {
    name.starts_with(['.', '#']) || name.ends_with(['~', '#'])
}

/// A directory that is looked at again and again, and must stay the same one.
#[derive(Debug)]
pub struct Directory {
    pub path: PathBuf,
    /// st_dev and st_ino of the first look that succeeded.
    identity: Option<(u64, u64)>,
}

impl Directory {
    pub fn new(path: PathBuf) -> Self {
        Directory { path, identity: None }
    }

    /// From now on the directory that is there is the right one.
    pub fn accept(&mut self) {
        self.identity = None;
    }

    /// Whether another look would find something else than the last: replaced, mounted over, gone.
    pub fn is_the_same(&self) -> bool {
        self.identity.is_none() || self.identity == identity(&self.path).ok()
    }

    /// Adds what is here to the snapshot. Unknown is not absent: a directory that is unreadable or
    /// another one than before removes nothing.
    pub fn scan(&mut self, snapshot: &mut Snapshot) {
        let unknown = match identity(&self.path) {
            Err(error) => Some(format!("{} cannot be read: {error}", self.path.display())),
            Ok(now) if self.identity.is_some_and(|before| before != now) => Some(format!(
                "{} is another directory than when stead started (replaced, mounted or unmounted)",
                self.path.display()
            )),
            Ok(now) => {
                self.identity = Some(now);
                None
            }
        };
        match list(&self.path) {
            Ok(entries) => {
                let found = candidates(&self.path, &self.path, &entries);
                snapshot.candidates.extend(found.into_iter().map(resolve));
            }
            Err(error) if unknown.is_none() => {
                let why = format!("{} cannot be listed: {error}", self.path.display());
                snapshot.unknown.insert(self.path.clone(), why);
            }
            Err(_) => {}
        }
        if let Some(why) = unknown {
            snapshot.unknown.insert(self.path.clone(), why);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// A path as given on the command line: a file, a project directory or a directory of manifests.
///
/// # Errors
/// It is missing, or has no project in it; the text says what was looked for.
pub fn at(path: &Path) -> io::Result<Vec<Candidate>> {
    let metadata = fs::metadata(path)?;
    let found = if metadata.is_dir() {
        candidates(path, path, &list(path)?)
    } else if COMPOSE_FILES.contains(&name_of(path).as_str()) {
        // `-f shop/compose.yaml` is the project `shop`.
        let mut found = file(path, path, path);
        found.fallback_name = name_of(&found.directory);
        vec![found]
    } else {
        vec![file(path, path, path)]
    };
    if found.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::NotFound,
            "it has no compose.yaml and no other *.yaml; name a Compose file or a directory that has one",
        ));
    }
    Ok(found.into_iter().map(resolve).collect())
}

/// Where a generated manifest points, that is the project; its manifest stays the generated one.
fn resolve(mut candidate: Candidate) -> Candidate {
    if candidate.problem.is_some() || candidate.files.len() != 1 {
        return candidate;
    }
    let manifest = candidate.files[0].clone();
    let Some(source) = generated::source_of(&manifest) else {
        return candidate;
    };
    let found = fs::metadata(&source).and_then(|metadata| {
        if metadata.is_dir() {
            let entries = list(&source)?;
            let names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
            project(&source, &manifest, &candidate.origin, &names)
                .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no compose.yaml in it"))
        } else {
            Ok(file(&source, &manifest, &candidate.origin))
        }
    });
    match found {
        Ok(found) => Candidate {
            fallback_name: candidate.fallback_name,
            ..found
        },
        Err(error) => {
            candidate.problem = Some(error_at(
                &source,
                format!(
                    "the source that {} points at cannot be read: {error}",
                    manifest.display()
                ),
                "bring it back, or take the project down with `stead down`",
            ));
            candidate.source = source;
            candidate
        }
    }
}

/// The directory's names, with what each is. Names that are not UTF-8 cannot be projects.
fn list(directory: &Path) -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        // The listing itself tells of a plain file: no call for each of thousands that are no manifest.
        if !is_yaml(&name) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            continue;
        }
        let kind = kind(&directory.join(&name));
        entries.push(Entry { name, kind });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn kind(path: &Path) -> Kind {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => Kind::File,
        Ok(metadata) if metadata.is_dir() => {
            let wanted = COMPOSE_FILES.iter().chain(&OVERRIDES);
            Kind::Directory(
                wanted
                    .filter(|name| fs::symlink_metadata(path.join(name)).is_ok())
                    .map(|name| (*name).to_owned())
                    .collect(),
            )
        }
        Ok(metadata) if metadata.file_type().is_fifo() => Kind::Odd("a FIFO".into()),
        Ok(metadata) if metadata.file_type().is_socket() => Kind::Odd("a socket".into()),
        Ok(_) => Kind::Odd("a device".into()),
        Err(error) => Kind::Odd(format!("something that cannot be looked at ({error})")),
    }
}

#[cfg(test)]
#[path = "directory/tests.rs"]
mod tests;
