//! Writes the entries of a layer below one directory, as the lower directory of an overlay.
//!
//! No path of an archive reaches the kernel as it is: its parent is opened with openat2(2) and
//! RESOLVE_IN_ROOT, so that `..` and symbolic links cannot lead out, and every object is made by its
//! last component in that descriptor, never through a link (CVE-2026-33056 and its ancestors).
//! Whiteouts become what overlayfs expects: a character device 0:0, or the attribute
//! `trusted.overlay.opaque` (image-spec, layer.md; kernel, overlayfs.rst).

mod objects;

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
};

use flate2::Crc;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timestamps},
    io::Errno,
};
use thiserror::Error;

use objects::{create, dress, make_opaque, node, open_directory, own, stat, times, whiteout};
pub(super) use objects::{is_kept, is_whiteout};

use super::{
    recipe::{Effect, MAX_PATH},
    tar::{Archive, Entry, Input, Kind, TarError},
};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Directories whose time is restored at the end. Beyond it they keep the time of unpacking, so that an
/// archive of nothing but directories does not fill the memory.
const MAX_TIMES: usize = 65_536;
/// Of content on its way to a file.
const BUFFER: usize = 128 << 10;

#[derive(Debug, Error)]
pub enum TreeError {
    #[error(transparent)]
    Tar(#[from] TarError),
    #[error("entry {path}: {why}")]
    Refused { path: String, why: String },
    #[error("entry {path}: {operation} failed", path = String::from_utf8_lossy(.path))]
    Io {
        path: Vec<u8>,
        operation: &'static str,
        #[source]
        source: io::Error,
    },
}

/// A directory that nobody else sees while it is filled.
pub(super) struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// By their places.
    times: Vec<(Vec<u8>, Timestamps)>,
    /// The directory of the last entry: most lie beside the one before.
    last: Option<Parent>,
    buffer: Vec<u8>,
}

/// The directory that an entry belongs in.
struct Parent {
    /// As the archive says it, cleaned.
    path: Vec<u8>,
    /// Where that is in the tree, without links.
    place: Vec<u8>,
    directory: OwnedFd,
}

impl Parent {
    fn place_of(&self, name: &[u8]) -> Vec<u8> {
        match self.place.is_empty() {
            true => name.to_vec(),
            false => [&self.place, name].join(&b'/'),
        }
    }
}

impl<'a> Tree<'a> {
    /// `root` gets mode 0755 unless the archive says otherwise.
    pub(super) fn new(root: &'a File) -> Result<Self, TreeError> {
        rustix::fs::fchmod(root, Mode::from_raw_mode(0o755)).map_err(failed(b".", "chmod"))?;
        Ok(Tree {
            root: root.as_fd(),
            times: Vec::new(),
            last: None,
            buffer: vec![0; BUFFER],
        })
    }

    /// # Errors
    /// The archive is refused or the file system refuses. The tree is then to be thrown away.
    pub(super) fn write<R: Input>(mut self, archive: &mut Archive<R>) -> Result<(), TreeError> {
        while let Some(entry) = archive.next()? {
            let parts = components(&entry.path)?;
            match parts.split_last() {
                None if entry.kind == Kind::Directory => {
                    self.dress_directory(self.root, &entry, b"")?;
                    archive.placed(b"", Effect::Dressed, b"");
                }
                None => return Err(refused(&entry, "only a directory can be the root")),
                Some((name, above)) => {
                    let parent = match self.last.take() {
                        Some(last) if last.path == above.join(&b'/') => last,
                        _ => self.parent(&entry, above, archive)?,
                    };
                    let replaced = self.place(&entry, &parent, name, archive)?;
                    // What was replaced may have been on the way to it.
                    self.last = (!replaced).then_some(parent);
                }
            }
        }
        for (place, times) in self.times.iter().rev() {
            // Gone or replaced since: then there is no time to restore.
            if let Ok(directory) = self.open(place, ResolveFlags::NO_SYMLINKS) {
                rustix::fs::futimens(directory, times).map_err(failed(place, "utimens"))?;
            }
        }
        Ok(())
    }

    /// Whether it replaced something.
    fn place<R: Input>(
        &mut self,
        entry: &Entry,
        parent: &Parent,
        name: &[u8],
        archive: &mut Archive<R>,
    ) -> Result<bool, TreeError> {
        let (directory, place) = (parent.directory.as_fd(), parent.place_of(name));
        if place.len() >= MAX_PATH {
            return Err(refused(
                entry,
                "links lead to a place too deep to be reached by one path",
            ));
        }
        if name == OPAQUE {
            make_opaque(entry, directory)?;
            archive.placed(&parent.place, Effect::Opaque, b"");
            return Ok(false);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            let effect = whiteout(entry, directory, hidden)?;
            archive.placed(&parent.place_of(hidden), effect, b"");
            return Ok(false);
        }
        if entry.kind == Kind::File
            && let Some(file) = create(entry, directory, name)?
        {
            self.fill(entry, file, &place, archive)?;
            return Ok(false);
        }
        let os = OsStr::from_bytes(name);
        let present = stat(entry, directory, name)?;
        let mut opaque = false;
        if let Some(present) = present {
            let kind = FileType::from_raw_mode(present.st_mode);
            let is_directory = kind == FileType::Directory;
            if is_directory && entry.kind == Kind::Directory {
                let own = open_directory(entry, directory, name)?;
                self.dress_directory(own.as_fd(), entry, &place)?;
                archive.placed(&place, Effect::Dressed, b"");
                return Ok(false);
            }
            // A whiteout of this layer hides the lower directory still when one takes its place.
            opaque = is_whiteout(&present) && entry.kind == Kind::Directory;
            let flags = if is_directory {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            if kind == FileType::RegularFile
                && let Some(recorder) = archive.recorder()
            {
                recorder.keep(directory, name, present.st_ino);
            }
            match rustix::fs::unlinkat(directory, os, flags) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    return Err(refused(entry, "it would replace a directory that is not empty"));
                }
                removed => removed.map_err(failed(&entry.path, "replace"))?,
            }
        }
        let mut effect = Effect::Made;
        match entry.kind {
            Kind::Directory => {
                rustix::fs::mkdirat(directory, os, Mode::RWXU).map_err(failed(&entry.path, "mkdir"))?;
                let own = open_directory(entry, directory, name)?;
                if opaque {
                    make_opaque(entry, own.as_fd())?;
                    effect = Effect::MadeOpaque;
                }
                self.dress_directory(own.as_fd(), entry, &place)?;
            }
            Kind::File => {
                let file = create(entry, directory, name)?;
                let file = file.ok_or_else(|| failed(&entry.path, "create")(Errno::EXIST))?;
                self.fill(entry, file, &place, archive)?;
                return Ok(true);
            }
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(refused(entry, "its target is empty"));
                }
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), directory, os)
                    .map_err(failed(&entry.path, "symlink"))?;
                own(directory, entry, name)?;
            }
            Kind::HardLink => {
                let target = self.link(entry, directory, name)?;
                let inode = stat(entry, directory, name)?.map_or(0, |linked| linked.st_ino);
                archive.placed(&place, Effect::Linked(inode), &target);
                return Ok(present.is_some());
            }
            Kind::Fifo => node(entry, directory, name, FileType::Fifo, 0)?,
            Kind::Char | Kind::Block => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                // Without effect in a container, whose root is mounted nodev; kept to be complete.
                let device = rustix::fs::makedev(entry.device.0, entry.device.1);
                node(entry, directory, name, kind, device)?;
            }
        }
        archive.placed(&place, effect, b"");
        Ok(present.is_some())
    }

    /// Where the target is in the tree.
    fn link(&self, entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, TreeError> {
        let target = components(&entry.link)?;
        let Some((target, above)) = target.split_last() else {
            return Err(refused(entry, "it links to the root"));
        };
        let linked = self.open_above(&above.join(&b'/')).and_then(|above| {
            // Without AT_SYMLINK_FOLLOW: a symbolic link is linked itself.
            let (old, new) = (OsStr::from_bytes(target), OsStr::from_bytes(name));
            rustix::fs::linkat(&above.directory, old, parent, new, AtFlags::empty())?;
            Ok(above.place_of(target))
        });
        match linked {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::PERM) => {
                let target = String::from_utf8_lossy(&entry.link).into_owned();
                Err(refused(
                    entry,
                    &format!("it links to {target}, which is no file of this layer"),
                ))
            }
            linked => linked.map_err(failed(&entry.path, "link")),
        }
    }

    /// Content and attributes of a new file.
    fn fill<R: Input>(
        &mut self,
        entry: &Entry,
        file: File,
        place: &[u8],
        archive: &mut Archive<R>,
    ) -> Result<(), TreeError> {
        let made = rustix::fs::fstat(&file).map_err(failed(&entry.path, "stat"))?;
        archive.placed(place, Effect::File(made.st_ino), b"");
        match &entry.sparse {
            None => self.copy(entry, &file, (0, entry.size), archive)?,
            Some(parts) => {
                for part in parts {
                    self.copy(entry, &file, *part, archive)?;
                }
                // Between the parts, and after them, nothing was written.
                rustix::fs::ftruncate(&file, entry.size).map_err(failed(&entry.path, "truncate"))?;
            }
        }
        dress(file.as_fd(), entry)?;
        rustix::fs::futimens(&file, &times(entry)).map_err(failed(&entry.path, "utimens"))
    }

    /// The next `length` bytes of content to `start` of the file.
    fn copy<R: Input>(
        &mut self,
        entry: &Entry,
        file: &File,
        (start, length): (u64, u64),
        archive: &mut Archive<R>,
    ) -> Result<(), TreeError> {
        let (mut written, mut checksum) = (0, Crc::new());
        while written < length {
            let room = usize::try_from(length - written).unwrap_or(BUFFER).min(BUFFER);
            let read = match archive.content().read(&mut self.buffer[..room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Ok(0) => return Err(TarError::Truncated.into()),
                read => read.map_err(TarError::from)?,
            };
            let part = &self.buffer[..read];
            checksum.update(part);
            file.write_all_at(part, start + written)
                .map_err(|source| TreeError::Io {
                    path: entry.path.clone(),
                    operation: "write",
                    source,
                })?;
            written += read as u64;
        }
        if length > 0
            && let Some(recorder) = archive.recorder()
        {
            recorder.content(start, length, checksum.sum());
        }
        Ok(())
    }

    /// The directory an entry belongs in; missing ones are made (root's, 0755).
    fn parent<R: Input>(
        &self,
        entry: &Entry,
        parts: &[&[u8]],
        archive: &mut Archive<R>,
    ) -> Result<Parent, TreeError> {
        let path = parts.join(&b'/');
        match self.open_above(&path) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(|error| unreachable_parent(entry, error)),
        }
        let Some((name, above)) = parts.split_last() else {
            return Err(unreachable_parent(entry, Errno::NOENT));
        };
        let above = self.parent(entry, above, archive)?;
        archive.count()?;
        match rustix::fs::mkdirat(
            &above.directory,
            OsStr::from_bytes(name),
            Mode::from_raw_mode(0o755),
        ) {
            Ok(()) => {
                let directory = open_directory(entry, above.directory.as_fd(), name)?;
                rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755))
                    .map_err(failed(&entry.path, "chmod"))?;
                let place = above.place_of(name);
                Ok(Parent {
                    path,
                    place,
                    directory,
                })
            }
            // It is there and yet leads nowhere: a link without target, or to outside.
            Err(error) => Err(unreachable_parent(entry, error)),
        }
    }

    /// A directory by its path, and where it is in the tree.
    fn open_above(&self, path: &[u8]) -> rustix::io::Result<Parent> {
        let found = |directory, place: &[u8]| Parent {
            path: path.to_vec(),
            place: place.to_vec(),
            directory,
        };
        match self.open(path, ResolveFlags::NO_SYMLINKS) {
            Err(Errno::LOOP) => {}
            opened => return Ok(found(opened?, path)),
        }
        let directory = self.open(path, ResolveFlags::empty())?;
        // What has happened to links since, nobody can say later.
        let [root, place] = [self.root, directory.as_fd()].map(|directory| {
            let link = format!("/proc/self/fd/{}", directory.as_raw_fd());
            rustix::fs::readlink(link, Vec::new())
        });
        let (root, place) = (root?, place?);
        let place = place
            .as_bytes()
            .strip_prefix(root.as_bytes())
            .ok_or(Errno::XDEV)?;
        let place = place.strip_prefix(b"/").unwrap_or(place);
        Ok(found(directory, place))
    }

    /// A directory below the root by its path; the root itself for an empty one.
    fn open(&self, path: &[u8], resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(
            self.root,
            OsStr::from_bytes(path),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
            resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
        )
    }

    fn dress_directory(
        &mut self,
        directory: BorrowedFd<'_>,
        entry: &Entry,
        place: &[u8],
    ) -> Result<(), TreeError> {
        dress(directory, entry)?;
        if self.times.len() < MAX_TIMES {
            self.times.push((place.to_vec(), times(entry)));
        }
        Ok(())
    }
}

/// `./a//b/` → `a`, `b`. A leading slash means the root of the layer.
fn components(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    let mut parts = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                return Err(TreeError::Refused {
                    path: String::from_utf8_lossy(path).into_owned(),
                    why: "the path contains `..`".to_owned(),
                });
            }
            part => parts.push(part),
        }
    }
    Ok(parts)
}

fn refused(entry: &Entry, why: &str) -> TreeError {
    TreeError::Refused {
        path: String::from_utf8_lossy(&entry.path).into_owned(),
        why: why.to_owned(),
    }
}

fn unreachable_parent(entry: &Entry, error: Errno) -> TreeError {
    refused(
        entry,
        &format!("its directory cannot be reached inside the layer: {error}"),
    )
}

fn failed(path: &[u8], operation: &'static str) -> impl FnOnce(Errno) -> TreeError {
    let path = path.to_vec();
    move |source| TreeError::Io {
        path,
        operation,
        source: source.into(),
    }
}

#[cfg(test)]
mod tests;
