//! What is nobody's is found and removed. What is needed is an input, and the selection pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};

use super::{
    Store,
    lease::Hold,
    list::{Stored, Survey},
    measure::{GONE, Kind, Part},
};
use crate::{image::ImageError, records};

/// An image that came a moment ago stays: who has it brought has perhaps not said yet what for.
const YOUNG: Duration = Duration::from_secs(120);
/// So long after its last byte nobody goes on with a transfer, who is asked again within a minute.
const QUIET: Duration = Duration::from_secs(600);

/// Who needs what, all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Use {
    /// Digests of images to the containers that are made of them, running or not.
    pub digests: BTreeMap<String, BTreeSet<String>>,
    /// References in full to the projects that name them.
    pub names: BTreeMap<String, BTreeSet<String>>,
    /// Device and inode of directories that something running stands on.
    pub grounds: BTreeSet<(u64, u64)>,
}

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// What has no name and no user.
    Nobodys,
    /// Also what has a name.
    Unused,
    /// What was not used for longest, until so many bytes are free.
    Oldest { bytes: u64 },
}

/// What goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selected {
    pub names: BTreeSet<String>,
    /// Those that nothing is left of.
    pub images: Vec<Stored>,
    /// By their path below `state/images`.
    pub parts: BTreeMap<PathBuf, Part>,
}

impl Use {
    /// Who needs an image by whatever name: projects, then containers.
    pub fn of(&self, image: &Stored) -> (BTreeSet<String>, BTreeSet<String>) {
        let projects = image.all_names().filter_map(|name| self.names.get(name));
        let containers = self.digests.get(&image.digest);
        (
            projects.flatten().cloned().collect(),
            containers.into_iter().flatten().cloned().collect(),
        )
    }

    fn needs(&self, image: &Stored) -> bool {
        self.digests.contains_key(&image.digest)
            || image.all_names().any(|name| self.names.contains_key(name))
    }
}

impl Selected {
    pub fn bytes(&self) -> u64 {
        self.parts.values().map(|part| part.size).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.parts.is_empty()
    }
}

/// Never what `used` needs; of that `used` must know all.
///
/// # Errors
/// What stays of the store is not known, because this file of it cannot be read.
pub fn select(survey: &Survey, used: &Use, what: What, now: SystemTime) -> Result<Selected, PathBuf> {
    let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
    let mut free: Vec<&Stored> = survey
        .images
        .iter()
        .filter(|image| !used.needs(image))
        .filter(|image| match what {
            What::Nobodys => image.all_names().next().is_none(),
            What::Unused => true,
            What::Oldest { .. } => age(image.used) >= YOUNG,
        })
        .collect();
    free.sort_by_key(|image| (image.all_names().next().is_some(), image.used));
    let mut selected = Selected::default();
    let images = |selected: &mut Selected, gone: &[&Stored]| {
        let stays = |image: &&Stored| !gone.iter().any(|other| other.digest == image.digest);
        let kept: Vec<&Stored> = survey.images.iter().filter(stays).collect();
        if let Some(unreadable) = kept.iter().find_map(|image| image.unreadable.clone()) {
            return Err(unreadable);
        }
        let needed: BTreeSet<&PathBuf> = kept.iter().flat_map(|image| &image.parts).collect();
        let goes = |(path, part): &(&PathBuf, &Part)| {
            let quiet = match (part.kind, what) {
                (Kind::Foreign, _) => false,
                (Kind::Pull, _) => age(part.changed) >= QUIET,
                (Kind::Unfinished | Kind::Held, _) => true,
                (_, What::Oldest { .. }) => {
                    age(part.changed) >= QUIET || gone.iter().any(|image| image.parts.contains(*path))
                }
                _ => true,
            };
            quiet && !needed.contains(path) && !used.grounds.contains(&part.identity)
        };
        let parts = survey.parts.iter().filter(goes);
        selected.parts = parts.map(|(path, part)| (path.clone(), part.clone())).collect();
        Ok(())
    };
    let gone = match what {
        What::Nobodys | What::Unused => free,
        What::Oldest { bytes } => {
            let mut gone = Vec::new();
            images(&mut selected, &gone)?;
            for image in free {
                if selected.bytes() >= bytes {
                    break;
                }
                gone.push(image);
                images(&mut selected, &gone)?;
            }
            gone
        }
    };
    images(&mut selected, &gone)?;
    selected.names = gone.iter().flat_map(|image| image.all_names().cloned()).collect();
    selected.images = gone.into_iter().cloned().collect();
    Ok(selected)
}

impl Store {
    /// Names first, then what stood for them: whatever breaks this off, what is left is nobody's, and the next
    /// collection finds it. The store is held only until nothing of it can be found any more; that its bytes go
    /// takes longer.
    ///
    /// # Errors
    /// The disk refuses. What was done so far is done.
    pub fn collect(&self, hold: Hold, selected: &Selected) -> Result<(), ImageError> {
        for name in &selected.names {
            self.bindings.remove(name)?;
        }
        let mut gone = Vec::new();
        let mut parents = BTreeSet::new();
        // Documents before layers: without its configuration no image is found.
        let mut parts: Vec<_> = selected.parts.iter().collect();
        parts.sort_by_key(|(_, part)| part.kind != Kind::Document);
        for (path, _) in parts {
            let path = self.directory.join(path);
            let away = self.take_away(&path).map_err(|source| ImageError::Store {
                path: path.clone(),
                source,
            })?;
            gone.extend(away);
            parents.extend(path.parent().map(Path::to_owned));
        }
        for parent in parents {
            let synced = records::sync_directory(&parent);
            synced.map_err(|source| ImageError::Store { path: parent, source })?;
        }
        drop(hold);
        for path in gone {
            match fs::remove_dir_all(&path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(ImageError::Store { path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Of the file system that the store is on: bytes that are used, and bytes that are free for others than root, as
    /// df(1) counts its percentage.
    ///
    /// # Errors
    /// As statvfs(3); before there is a store, of what is above it.
    pub fn room(&self) -> io::Result<(u64, u64)> {
        let there = self.directory.ancestors().find(|path| path.exists());
        let found = rustix::fs::statvfs(there.unwrap_or(&self.directory))?;
        let used = found.f_blocks.saturating_sub(found.f_bfree);
        Ok((
            used.saturating_mul(found.f_frsize),
            found.f_bavail.saturating_mul(found.f_frsize),
        ))
    }

    /// A file goes at once; a directory gets a name under which nobody looks for it, which is given back.
    pub(super) fn take_away(&self, path: &Path) -> io::Result<Option<PathBuf>> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        let absent_is_fine = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            done => done.map(|()| true),
        };
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if !metadata.is_dir() {
            return absent_is_fine(fs::remove_file(path)).map(|_| None);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(GONE) {
            return Ok(Some(path.to_owned()));
        }
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = name.trim_start_matches('.');
        let away = path.with_file_name(format!("{GONE}{name}.{}-{number}", std::process::id()));
        Ok(absent_is_fine(fs::rename(path, &away))?.then_some(away))
    }

    /// An image of this digest was used just now. Only for who is to go first when room is needed, so a failure
    /// is none.
    pub fn touch(&self, digest: &str) {
        let Some(digest) = super::Digest::parse(digest) else {
            return;
        };
        if let Ok(document) = fs::File::open(self.blob(&digest)) {
            let _ = document.set_modified(SystemTime::now());
        }
    }
}

#[cfg(test)]
mod tests;
