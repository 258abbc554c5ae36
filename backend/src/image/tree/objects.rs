//! Makes and dresses one object by its last component, in a directory that is open.

use std::{
    ffi::OsStr,
    fs::File,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{TreeError, WHITEOUT, failed, refused};
use crate::image::{recipe::Effect, tar::Entry};

/// Owner first: chown(2) clears set-id bits and capabilities.
pub(super) fn dress(file: BorrowedFd<'_>, entry: &Entry) -> Result<(), TreeError> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(failed(&entry.path, "chown"))?;
    for (name, value) in &entry.xattrs {
        if !is_kept(name) {
            continue;
        }
        match rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
            // A file system without user attributes loses them; it must not lose capabilities.
            Err(Errno::NOTSUP) if name.starts_with(b"user.") => {}
            Err(Errno::NOSPC) if !disk_is_full(file) => {
                return Err(refused(entry, "it has more attributes than a file here can have"));
            }
            set => set.map_err(failed(&entry.path, "setxattr"))?,
        }
    }
    rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode)).map_err(failed(&entry.path, "chmod"))
}

/// ext4 says ENOSPC of one block of attributes that is full, too: attr(5).
fn disk_is_full(file: BorrowedFd<'_>) -> bool {
    rustix::fs::fstatvfs(file).is_ok_and(|found| found.f_bavail == 0)
}

/// Nothing that means something to overlayfs or to the host's security modules.
pub(in crate::image) fn is_kept(attribute: &[u8]) -> bool {
    attribute == b"security.capability"
        || (attribute.starts_with(b"user.") && !attribute.starts_with(b"user.overlay."))
}

pub(super) fn make_opaque(entry: &Entry, directory: BorrowedFd<'_>) -> Result<(), TreeError> {
    rustix::fs::fsetxattr(directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
        .map_err(failed(&entry.path, "set trusted.overlay.opaque"))
}

/// `None`: there is something of this name.
pub(super) fn create(entry: &Entry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Option<File>, TreeError> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => Ok(Some(File::from(file))),
        Err(Errno::EXIST) => Ok(None),
        Err(error) => Err(failed(&entry.path, "create")(error)),
    }
}

pub(super) fn node(
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

pub(super) fn own(parent: BorrowedFd<'_>, entry: &Entry, name: &[u8]) -> Result<(), TreeError> {
    let os = OsStr::from_bytes(name);
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    let nofollow = AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::chownat(parent, os, Some(uid), Some(gid), nofollow).map_err(failed(&entry.path, "chown"))?;
    rustix::fs::utimensat(parent, os, &times(entry), nofollow).map_err(failed(&entry.path, "utimens"))
}

pub(super) fn whiteout(entry: &Entry, parent: BorrowedFd<'_>, hidden: &[u8]) -> Result<Effect, TreeError> {
    if hidden.starts_with(WHITEOUT) {
        // `.wh..wh.plnk` and others: bookkeeping of aufs.
        return Ok(Effect::Nothing);
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(refused(entry, "it hides nothing that can be hidden"));
    }
    match stat(entry, parent, hidden)? {
        None => {
            let name = OsStr::from_bytes(hidden);
            rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(failed(&entry.path, "mknod"))?;
            Ok(Effect::Hidden)
        }
        // Whiteouts hide lower layers only; what this layer has itself stays, and hides them if opaque.
        Some(present) if FileType::from_raw_mode(present.st_mode) == FileType::Directory => {
            make_opaque(entry, open_directory(entry, parent, hidden)?.as_fd())?;
            Ok(Effect::Opaque)
        }
        Some(_) => Ok(Effect::Nothing),
    }
}

pub(super) fn stat(
    entry: &Entry,
    parent: BorrowedFd<'_>,
    name: &[u8],
) -> Result<Option<rustix::fs::Stat>, TreeError> {
    match rustix::fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(failed(&entry.path, "stat")(error)),
    }
}

pub(in crate::image) fn is_whiteout(stat: &rustix::fs::Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// One component, and only if it is a directory itself.
pub(super) fn open_directory(
    entry: &Entry,
    parent: BorrowedFd<'_>,
    name: &[u8],
) -> Result<OwnedFd, TreeError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, OsStr::from_bytes(name), flags, Mode::empty())
        .map_err(failed(&entry.path, "open"))
}

pub(super) fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: i64::from(entry.mtime.1),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}
