//! Writes the entries of a layer below one directory, as the lower directory of an overlay.
//!
//! No path of an archive reaches the kernel as it is: its parent is opened with openat2(2) and
//! RESOLVE_IN_ROOT, so that `..` and symbolic links cannot lead out, and every object is made by its
//! last component in that descriptor, never through a link (CVE-2026-33056 and its ancestors).
//! Whiteouts become what overlayfs expects: a character device 0:0, or the attribute
//! `trusted.overlay.opaque` (image-spec, layer.md; kernel, overlayfs.rst).

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};
use thiserror::Error;

use super::tar::{Archive, Entry, Input, Kind, TarError};

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Directories whose time is restored at the end. Beyond it they keep the time of unpacking, so that an
/// archive of nothing but directories does not fill the memory.
const MAX_TIMES: usize = 65_536;

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
    times: Vec<(Vec<Vec<u8>>, Timestamps)>,
}

impl<'a> Tree<'a> {
    /// `root` gets mode 0755 unless the archive says otherwise.
    pub(super) fn new(root: &'a File) -> Result<Self, TreeError> {
        rustix::fs::fchmod(root, Mode::from_raw_mode(0o755)).map_err(failed(b".", "chmod"))?;
        Ok(Tree {
            root: root.as_fd(),
            times: Vec::new(),
        })
    }

    /// # Errors
    /// The archive is refused or the file system refuses. The tree is then to be thrown away.
    pub(super) fn write<R: Input>(mut self, archive: &mut Archive<R>) -> Result<(), TreeError> {
        while let Some(entry) = archive.next()? {
            let parts = components(&entry.path)?;
            match parts.split_last() {
                None if entry.kind == Kind::Directory => {
                    self.dress_directory(self.root, &entry, Vec::new())?
                }
                None => return Err(refused(&entry, "only a directory can be the root")),
                Some((name, parent)) => {
                    let directory = self.parent(&entry, parent)?;
                    self.place(&entry, &parts, directory.as_fd(), name, archive)?;
                }
            }
        }
        for (parts, times) in self.times.iter().rev() {
            // Gone or replaced since: then there is no time to restore.
            if let Ok(directory) = self.open(&parts.join(&b'/'), OFlags::NOFOLLOW) {
                rustix::fs::futimens(directory, times).map_err(failed(&parts.join(&b'/'), "utimens"))?;
            }
        }
        Ok(())
    }

    fn place<R: Input>(
        &mut self,
        entry: &Entry,
        parts: &[&[u8]],
        parent: BorrowedFd<'_>,
        name: &[u8],
        archive: &mut Archive<R>,
    ) -> Result<(), TreeError> {
        if name == OPAQUE {
            let io = failed(&entry.path, "set trusted.overlay.opaque");
            return rustix::fs::fsetxattr(parent, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(io);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            return whiteout(entry, parent, hidden);
        }
        let os = OsStr::from_bytes(name);
        let present = stat(entry, parent, name)?;
        let mut opaque = false;
        if let Some(present) = present {
            let is_directory = FileType::from_raw_mode(present.st_mode) == FileType::Directory;
            if is_directory && entry.kind == Kind::Directory {
                let directory = open_directory(entry, parent, name)?;
                return self.dress_directory(directory.as_fd(), entry, owned(parts));
            }
            // A whiteout of this layer hides the lower directory still when one takes its place.
            opaque = is_whiteout(&present) && entry.kind == Kind::Directory;
            let flags = if is_directory {
                AtFlags::REMOVEDIR
            } else {
                AtFlags::empty()
            };
            match rustix::fs::unlinkat(parent, os, flags) {
                Err(Errno::NOTEMPTY | Errno::EXIST) => {
                    return Err(refused(entry, "it would replace a directory that is not empty"));
                }
                removed => removed.map_err(failed(&entry.path, "replace"))?,
            }
        }
        match entry.kind {
            Kind::Directory => {
                rustix::fs::mkdirat(parent, os, Mode::RWXU).map_err(failed(&entry.path, "mkdir"))?;
                let directory = open_directory(entry, parent, name)?;
                if opaque {
                    let io = failed(&entry.path, "set trusted.overlay.opaque");
                    rustix::fs::fsetxattr(&directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                        .map_err(io)?;
                }
                self.dress_directory(directory.as_fd(), entry, owned(parts))
            }
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(parent, os, flags, Mode::RUSR | Mode::WUSR)
                    .map_err(failed(&entry.path, "create"))?;
                let mut file = File::from(file);
                let written =
                    io::copy(&mut archive.content(), &mut file).map_err(|source| TreeError::Io {
                        path: entry.path.clone(),
                        operation: "write",
                        source,
                    })?;
                if written != entry.size {
                    return Err(TarError::Truncated.into());
                }
                dress(file.as_fd(), entry)?;
                rustix::fs::futimens(&file, &times(entry)).map_err(failed(&entry.path, "utimens"))
            }
            Kind::Symlink => {
                if entry.link.is_empty() {
                    return Err(refused(entry, "its target is empty"));
                }
                rustix::fs::symlinkat(OsStr::from_bytes(&entry.link), parent, os)
                    .map_err(failed(&entry.path, "symlink"))?;
                own(parent, entry, name)
            }
            Kind::HardLink => {
                let target = components(&entry.link)?;
                let Some((target, directory)) = target.split_last() else {
                    return Err(refused(entry, "it links to the root"));
                };
                let linked = self
                    .open(&directory.join(&b'/'), OFlags::empty())
                    .and_then(|directory| {
                        // Without AT_SYMLINK_FOLLOW: a symbolic link is linked itself.
                        rustix::fs::linkat(directory, OsStr::from_bytes(target), parent, os, AtFlags::empty())
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
            Kind::Fifo => node(entry, parent, name, FileType::Fifo, 0),
            Kind::Char | Kind::Block => {
                let kind = match entry.kind {
                    Kind::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                // Without effect in a container, whose root is mounted nodev; kept to be complete.
                node(
                    entry,
                    parent,
                    name,
                    kind,
                    rustix::fs::makedev(entry.device.0, entry.device.1),
                )
            }
        }
    }

    /// The directory an entry belongs in; missing ones are made (root's, 0755).
    fn parent(&self, entry: &Entry, parts: &[&[u8]]) -> Result<OwnedFd, TreeError> {
        match self.open(&parts.join(&b'/'), OFlags::empty()) {
            Err(Errno::NOENT) => {}
            opened => return opened.map_err(|error| unreachable_parent(entry, error)),
        }
        let Some((name, above)) = parts.split_last() else {
            return Err(unreachable_parent(entry, Errno::NOENT));
        };
        let above = self.parent(entry, above)?;
        match rustix::fs::mkdirat(&above, OsStr::from_bytes(name), Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let made = open_directory(entry, above.as_fd(), name)?;
                rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))
                    .map_err(failed(&entry.path, "chmod"))?;
                Ok(made)
            }
            // It is there and yet leads nowhere: a link without target, or to outside.
            Err(error) => Err(unreachable_parent(entry, error)),
        }
    }

    /// A directory below the root by its path; the root itself for an empty one.
    fn open(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        rustix::fs::openat2(
            self.root,
            OsStr::from_bytes(path),
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | flags,
            Mode::empty(),
            ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV,
        )
    }

    fn dress_directory(
        &mut self,
        directory: BorrowedFd<'_>,
        entry: &Entry,
        parts: Vec<Vec<u8>>,
    ) -> Result<(), TreeError> {
        dress(directory, entry)?;
        if self.times.len() < MAX_TIMES {
            self.times.push((parts, times(entry)));
        }
        Ok(())
    }
}

/// Owner first: chown(2) clears set-id bits and capabilities.
fn dress(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), TreeError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(failed(&entry.path, "chown"))?;
    for (name, value) in &entry.xattrs {
        // Nothing that means something to overlayfs or to the host's security modules.
        let kept = name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."));
        if !kept {
            continue;
        }
        match rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            // A file system without user attributes loses them; it must not lose capabilities.
            Err(Errno::NOTSUP) if name.starts_with(b"user.") => {}
            set => set.map_err(failed(&entry.path, "setxattr"))?,
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(failed(&entry.path, "chmod"))
}

fn node(
    entry: &Entry,
    parent: BorrowedFd<'_>,
    name: &[u8],
    kind: FileType,
    device: u64,
) -> Result<(), TreeError> {
    let os = OsStr::from_bytes(name);
    let mode = Mode::from_raw_mode(entry.mode);
    rustix::fs::mknodat(parent, os, kind, mode, device).map_err(failed(&entry.path, "mknod"))?;
    own(parent, entry, name)?;
    // Not a link: it was made a moment ago, where nobody else can reach.
    rustix::fs::chmodat(parent, os, mode, AtFlags::empty()).map_err(failed(&entry.path, "chmod"))
}

fn own(parent: BorrowedFd<'_>, entry: &Entry, name: &[u8]) -> Result<(), TreeError> {
    let os = OsStr::from_bytes(name);
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, os, Some(uid), Some(gid), nofollow).map_err(failed(&entry.path, "chown"))?;
    rustix::fs::utimensat(parent, os, &times(entry), nofollow).map_err(failed(&entry.path, "utimens"))
}

fn whiteout(entry: &Entry, parent: BorrowedFd<'_>, hidden: &[u8]) -> Result<(), TreeError> {
    if hidden.starts_with(WHITEOUT) {
        // `.wh..wh.plnk` and others: bookkeeping of aufs.
        return Ok(());
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(refused(entry, "it hides nothing that can be hidden"));
    }
    match stat(entry, parent, hidden)? {
        None => {
            let name = OsStr::from_bytes(hidden);
            rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(failed(&entry.path, "mknod"))
        }
        // Whiteouts hide lower layers only; what this layer has itself stays, and hides them if opaque.
        Some(present) if FileType::from_raw_mode(present.st_mode) == FileType::Directory => {
            let directory = open_directory(entry, parent, hidden)?;
            rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(failed(&entry.path, "set trusted.overlay.opaque"))
        }
        Some(_) => Ok(()),
    }
}

fn stat(entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<rustix::fs::Stat>, TreeError> {
    match rustix::fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(&entry.path, "stat")(error)),
    }
}

fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// One component, and only if it is a directory itself.
fn open_directory(entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, TreeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
        .map_err(failed(&entry.path, "open"))
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

fn owned(parts: &[&[u8]]) -> Vec<Vec<u8>> {
    parts.iter().map(|part| part.to_vec()).collect()
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: i64::from(entry.mtime.1),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
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
