//! Whether the tree of a layer still is what its stream says.

use std::{
    collections::{HashSet, hash_map::RandomState},
    ffi::OsStr,
    fmt,
    hash::BuildHasher,
    io::{self, Read},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FileType, OFlags, Stat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

use super::{
    Effect, Reader, RecipeError, Record,
    assemble::{Assembler, is_gone, open},
    damaged,
    walk::walk,
};
use crate::image::{
    config::Digest,
    tar::{Archive, Entry, Input, Kind},
    tree,
};

/// More are not named: the layer has to be unpacked again anyway.
const MOST: usize = 1000;

/// One thing that is not as the layer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Relative to the root of the layer; empty: the root, or the layer as a whole.
    pub path: PathBuf,
    /// A clause about it: `its content has changed`.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_os_str().is_empty() {
            true => f.write_str(&self.what),
            false => write!(f, "{}: {}", self.path.display(), self.what),
        }
    }
}

pub(super) fn note(damages: &mut Vec<Damage>, path: &[u8], what: &str) {
    if damages.len() < MOST {
        damages.push(Damage {
            path: PathBuf::from(OsStr::from_bytes(path)),
            what: what.to_owned(),
        });
    }
}

/// Compares the tree of a layer with its stream: content, kind, owner, mode, link target, device, the time of regular
/// files, the attributes that are kept; and finds what the stream does not know of. Empty: it is sound.
///
/// At most 1000 damages are told. Memory: 16 bytes for each entry.
///
/// # Errors
/// There is no recipe, it is damaged, or the layer cannot be read at all.
pub fn check(recipe: &Path, layer: &Path, diff_id: &Digest) -> Result<Vec<Damage>, RecipeError> {
    let places = Places::read(recipe)?;
    let mut assembler = Assembler::open(recipe, layer)?;
    let root = rustix::io::dup(&assembler.root).map_err(io::Error::from);
    let root = root.map_err(unreadable(layer))?;
    let mut archive = Archive::new(Hashing(&mut assembler, Sha256::new()), u64::MAX);
    let mut ordinal = 0;
    let told = loop {
        let entry = match archive.next() {
            Ok(Some(entry)) => entry,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        ordinal += 1;
        let stream = &mut *archive.input().0;
        let effect = stream.placed()?;
        compare(stream, &root, &places, ordinal, &entry, effect).map_err(unreadable(layer))?;
    };
    let (Hashing(_, hash), _) = archive.into_parts();
    if let Some(error) = assembler.failed.take() {
        return Err(error);
    }
    told.map_err(|error| RecipeError::Damaged {
        path: recipe.to_owned(),
        why: error.to_string(),
    })?;
    let mut damages = assembler.damages;
    let found = Digest::from_hash(&hash.finalize());
    if found != *diff_id && damages.is_empty() {
        note(
            &mut damages,
            b"",
            &format!("its content has the digest {found}, not {diff_id}"),
        );
    }
    walk(&root, &places, &mut damages).map_err(unreadable(layer))?;
    Ok(damages)
}

fn unreadable(layer: &Path) -> impl Fn(io::Error) -> RecipeError {
    move |source| RecipeError::Read {
        path: layer.to_owned(),
        source,
    }
}

struct Hashing<'a>(&'a mut Assembler, Sha256);

impl Read for Hashing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1.update(&buffer[..read]);
        Ok(read)
    }
}

impl Input for Hashing<'_> {}

/// Which entry rules each path: what entries became, by a hash of their paths.
pub(super) struct Places {
    hasher: RandomState,
    /// Sorted. The number is that of the entry in the stream, from 1.
    entries: Vec<(u64, u32, Did)>,
    /// Directories that something lies in.
    pub above: HashSet<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Did {
    Dress,
    Make,
    MakeOpaque,
    Opaque,
}

/// Of one path. 0: none.
#[derive(Default)]
pub(super) struct Ruling {
    pub made: u32,
    pub dressed: u32,
    pub opaque: bool,
    pub known: bool,
}

impl Places {
    fn read(recipe: &Path) -> Result<Self, RecipeError> {
        let mut reader = Reader::open(recipe)?;
        let mut places = Places {
            hasher: RandomState::new(),
            entries: Vec::new(),
            above: HashSet::new(),
        };
        let (mut ordinal, mut directory) = (0u32, None);
        loop {
            let effect = match reader.next().map_err(damaged(recipe))? {
                Record::Placed(effect) => effect,
                Record::End => break,
                _ => continue,
            };
            ordinal = ordinal.saturating_add(1);
            let did = match effect {
                Effect::Nothing => continue,
                Effect::Dressed => Did::Dress,
                Effect::Opaque => Did::Opaque,
                Effect::MadeOpaque => Did::MakeOpaque,
                Effect::Made | Effect::File(_) | Effect::Linked(_) | Effect::Hidden => Did::Make,
            };
            places.entries.push((places.key(&reader.path), ordinal, did));
            let above = parent(&reader.path);
            if directory.as_deref() != above {
                let mut up = above;
                while let Some(path) = up {
                    // What is above it is known as well then.
                    if !places.above.insert(places.key(path)) {
                        break;
                    }
                    up = parent(path);
                }
                directory = above.map(<[u8]>::to_vec);
            }
        }
        places.entries.sort_unstable();
        Ok(places)
    }

    pub fn key(&self, path: &[u8]) -> u64 {
        self.hasher.hash_one(path)
    }

    pub fn ruling(&self, path: &[u8]) -> Ruling {
        let key = self.key(path);
        let start = self.entries.partition_point(|(hash, _, _)| *hash < key);
        let mut ruling = Ruling::default();
        for (_, ordinal, did) in self.entries[start..]
            .iter()
            .take_while(|(hash, _, _)| *hash == key)
        {
            ruling.known = true;
            match did {
                Did::Dress => ruling.dressed = *ordinal,
                Did::Opaque => ruling.opaque = true,
                Did::Make | Did::MakeOpaque => {
                    (ruling.made, ruling.dressed) = (*ordinal, *ordinal);
                    ruling.opaque = *did == Did::MakeOpaque;
                }
            }
        }
        ruling
    }
}

/// `None` for the root.
fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => Some(&path[..slash]),
        None if path.is_empty() => None,
        None => Some(b""),
    }
}

/// One entry with what it became, unless a later one took its place.
fn compare(
    stream: &mut Assembler,
    root: &OwnedFd,
    places: &Places,
    ordinal: u32,
    entry: &Entry,
    effect: Effect,
) -> io::Result<()> {
    let path = stream.path().to_vec();
    if matches!(effect, Effect::Nothing | Effect::Opaque) || places.ruling(&path).dressed != ordinal {
        return Ok(());
    }
    let object = match open(root, &path, OFlags::PATH) {
        Ok(object) => object,
        Err(error) if is_gone(&error) => {
            // A file with content says so by itself.
            if entry.kind != Kind::File || entry.size == 0 {
                stream.damage("it is gone");
            }
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    let found = rustix::fs::fstat(&object)?;
    let kind = FileType::from_raw_mode(found.st_mode);
    match effect {
        Effect::Hidden => {
            if !tree::is_whiteout(&found) {
                stream.damage("it is no whiteout any more");
            }
            return Ok(());
        }
        Effect::Linked(_) => {
            let target = stream.target().to_vec();
            if places.ruling(&target).made > ordinal {
                stream.checks_links = kind == FileType::RegularFile;
                return Ok(());
            }
            let same = match open(root, &target, OFlags::PATH) {
                Ok(target) => {
                    let target = rustix::fs::fstat(target)?;
                    (target.st_dev, target.st_ino) == (found.st_dev, found.st_ino)
                }
                // Told where it is placed.
                Err(error) if is_gone(&error) => true,
                Err(error) => return Err(error),
            };
            if !same {
                let target = String::from_utf8_lossy(&target).into_owned();
                stream.damage(&format!("it is no other name of {target} any more"));
            }
            return Ok(());
        }
        _ => {}
    }
    let expected = match entry.kind {
        Kind::File | Kind::HardLink => FileType::RegularFile,
        Kind::Directory => FileType::Directory,
        Kind::Symlink => FileType::Symlink,
        Kind::Char => FileType::CharacterDevice,
        Kind::Block => FileType::BlockDevice,
        Kind::Fifo => FileType::Fifo,
    };
    if kind != expected {
        if kind == FileType::RegularFile || expected != FileType::RegularFile || entry.size == 0 {
            stream.damage(&format!("it should be {}", called(expected)));
        }
        return Ok(());
    }
    for what in differences(entry, &found, &object)? {
        stream.damage(&what);
    }
    if matches!(expected, FileType::RegularFile | FileType::Directory) {
        let readable = open(root, &path, OFlags::RDONLY)?;
        for what in attributes(entry, &readable)? {
            stream.damage(&what);
        }
    }
    Ok(())
}

fn differences(entry: &Entry, found: &Stat, object: &OwnedFd) -> io::Result<Vec<String>> {
    let mut told = Vec::new();
    if (found.st_uid, found.st_gid) != (entry.uid, entry.gid) {
        let (uid, gid) = (entry.uid, entry.gid);
        told.push(format!(
            "its owner is {}:{}, not {uid}:{gid}",
            found.st_uid, found.st_gid
        ));
    }
    let mode = found.st_mode & 0o7777;
    if entry.kind != Kind::Symlink && mode != entry.mode {
        told.push(format!("its mode is {mode:o}, not {:o}", entry.mode));
    }
    match entry.kind {
        Kind::File => {
            let size = u64::try_from(found.st_size).unwrap_or_default();
            if size != entry.size {
                told.push(format!("its size is {size}, not {}", entry.size));
            }
            let time = (
                found.st_mtime,
                u32::try_from(found.st_mtime_nsec).unwrap_or_default(),
            );
            if !same_time(time, entry.mtime) {
                told.push(format!(
                    "its time is {}.{:09}, not {}.{:09}",
                    time.0, time.1, entry.mtime.0, entry.mtime.1
                ));
            }
        }
        Kind::Symlink => {
            let target = rustix::fs::readlinkat(object, "", Vec::new())?;
            if target.as_bytes() != entry.link {
                told.push(format!(
                    "it points to {}, not to {}",
                    target.to_string_lossy(),
                    String::from_utf8_lossy(&entry.link)
                ));
            }
        }
        Kind::Char | Kind::Block => {
            let device = (rustix::fs::major(found.st_rdev), rustix::fs::minor(found.st_rdev));
            if device != entry.device {
                told.push(format!("it is the device {device:?}, not {:?}", entry.device));
            }
        }
        _ => {}
    }
    Ok(told)
}

/// A file system may keep whole seconds only, and times outside 32 bits at the edge of what it can.
fn same_time(found: (i64, u32), expected: (i64, u32)) -> bool {
    i32::try_from(expected.0).is_err() || (found.0 == expected.0 && (found.1 == expected.1 || found.1 == 0))
}

fn attributes(entry: &Entry, file: &OwnedFd) -> io::Result<Vec<String>> {
    let mut told = Vec::new();
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| tree::is_kept(name)) {
        let called = String::from_utf8_lossy(name);
        match attribute(file, name) {
            Ok(Some(found)) if found == *value => {}
            Ok(Some(_)) => told.push(format!("its attribute {called} has changed")),
            Ok(None) => told.push(format!("its attribute {called} is gone")),
            Err(Errno::NOTSUP) if name.starts_with(b"user.") => {}
            Err(error) => return Err(error.into()),
        }
    }
    let capability = b"security.capability".as_slice();
    if !entry.xattrs.contains_key(capability) && matches!(attribute(file, capability), Ok(Some(_))) {
        told.push("it has capabilities that it should not have".to_owned());
    }
    Ok(told)
}

pub(super) fn attribute(file: &OwnedFd, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 64 << 10];
    match rustix::fs::fgetxattr(file, OsStr::from_bytes(name), &mut value) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(error) => Err(error),
    }
}

fn called(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a directory",
        FileType::Symlink => "a symbolic link",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "a FIFO",
    }
}
