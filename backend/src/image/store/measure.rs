//! What the files of the store take on the disk, part by part.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{Store, list::Survey};
use crate::image::{ImageError, layer};

/// Layers that are being removed: `.gone-<hex>.<pid>-<number>`.
pub(super) const GONE: &str = ".gone-";
/// Damaged layers that containers still stand on: `.held-<hex>.<pid>-<number>`.
pub(super) const HELD: &str = ".held-";

/// A layer, a document, or what is left of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub kind: Kind,
    /// Bytes on the disk; what has several names there is counted at the first.
    pub size: u64,
    /// When it was put here, or last written to.
    pub changed: SystemTime,
    /// Device and inode.
    pub identity: (u64, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Layer,
    /// From which the exact tar stream of a layer is put together again.
    Recipe,
    /// A manifest or a configuration.
    Document,
    /// The path of a plain directory.
    Rootfs,
    /// What a broken transfer has brought.
    Pull,
    /// What somebody was making when he was killed.
    Unfinished,
    /// A damaged layer in whose place there is another, and that containers still stand on.
    Held,
    /// Not of stead.
    Foreign,
}

/// Where each kind lies.
const PLACES: [(&str, Kind); 5] = [
    ("blobs/sha256", Kind::Document),
    ("layers", Kind::Layer),
    ("pull", Kind::Pull),
    ("recipes", Kind::Recipe),
    ("rootfs", Kind::Rootfs),
];

impl Store {
    /// Parts and their sizes; no images yet.
    ///
    /// # Errors
    /// A directory of the store cannot be read.
    pub fn measure(&self) -> Result<Survey, ImageError> {
        let mut survey = Survey::default();
        let mut measured = Measured::default();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| ImageError::Store { path, source }
        };
        let known = |path: &Path| PLACES.iter().find(|(place, _)| Path::new(place) == path);
        // What holds the parts is counted, but is none.
        let holds = |path: &Path| PLACES.iter().any(|(place, _)| Path::new(place).starts_with(path));
        let mut open = vec![PathBuf::new()];
        while let Some(directory) = open.pop() {
            let full = self.directory.join(&directory);
            survey.total += measured.one(&full).map_err(failed(&full))?.unwrap_or(0);
            let entries = match fs::read_dir(&full) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed(&full)(error)),
            };
            for entry in entries {
                let entry = entry.map_err(failed(&full))?;
                let path = directory.join(entry.file_name());
                if holds(&path) {
                    open.push(path);
                    continue;
                }
                let kind = known(&directory).map_or(Kind::Foreign, |(_, kind)| *kind);
                let kind = kind_of(kind, entry.file_name().as_bytes());
                let Some(part) = measured
                    .part(&entry.path(), kind)
                    .map_err(failed(&entry.path()))?
                else {
                    continue;
                };
                survey.total += part.size;
                survey.parts.insert(path, part);
            }
        }
        Ok(survey)
    }
}

/// By its name, what lies at a place for `kind`.
fn kind_of(kind: Kind, name: &[u8]) -> Kind {
    let hex = name.len() == 64 && name.iter().all(u8::is_ascii_hexdigit);
    let begins = |with: &str| name.starts_with(with.as_bytes());
    match kind {
        Kind::Foreign => Kind::Foreign,
        Kind::Layer if begins(HELD) => Kind::Held,
        _ if begins(layer::NEW) || begins(GONE) || (begins(".") && name.ends_with(b".tmp")) => {
            Kind::Unfinished
        }
        kind if hex => kind,
        _ => Kind::Foreign,
    }
}

/// Files of several names that were counted already.
#[derive(Default)]
struct Measured {
    seen: BTreeSet<(u64, u64)>,
}

impl Measured {
    /// `None`: it is gone meanwhile.
    fn part(&mut self, path: &Path, kind: Kind) -> io::Result<Option<Part>> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // A directory's own time is that of the image; when it came here, only the inode says.
        let seconds = match metadata.is_dir() {
            true => metadata.ctime(),
            false => metadata.mtime(),
        };
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        let mut size = 0;
        let mut open = vec![path.to_owned()];
        while let Some(path) = open.pop() {
            size += self.one(&path)?.unwrap_or(0);
            if path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
                match fs::read_dir(&path) {
                    Ok(entries) => {
                        for entry in entries {
                            open.push(entry?.path());
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(Some(Part {
            kind,
            size,
            changed,
            identity: (metadata.dev(), metadata.ino()),
        }))
    }

    /// Bytes of a file or of a directory by itself; `None`: it is gone meanwhile.
    fn one(&mut self, path: &Path) -> io::Result<Option<u64>> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let again =
            !metadata.is_dir() && metadata.nlink() > 1 && !self.seen.insert((metadata.dev(), metadata.ino()));
        // stat(2): always of 512 bytes.
        Ok(Some(if again { 0 } else { metadata.blocks() * 512 }))
    }
}
