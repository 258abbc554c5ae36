//! A tar stream to a tree, below one directory that is held open: no name of the stream, and no symbolic link
//! that is or appears below, leads out of it.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat,
        fchmod, mkdirat, mknodat, openat, openat2, renameat, setxattr, statat, symlinkat, unlinkat,
        utimensat,
    },
    io::Errno,
};

use super::{CopyError, Warnings, pack::same};
use crate::image::tar::{Archive, Entry, Input, Kind};

/// More names than a copy is for.
const ENTRIES: u64 = 10_000_000;
/// Zeros are not written where a whole block of a file system is zero.
const HOLE: usize = 4096;

/// Whose the files become.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// `None`: as the stream says.
    pub ids: Option<(u32, u32)>,
    /// What comes from a container may not bring rights: set-id bits and file capabilities are left out.
    pub trusted: bool,
}

pub struct Stream(File);

impl From<OwnedFd> for Stream {
    fn from(fd: OwnedFd) -> Self {
        Stream(fd.into())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Input for Stream {}

/// # Errors
/// The stream is no archive, or what could not be made; what was made before stays.
pub(super) fn unpack(into: &OwnedFd, owner: Owner, stream: Stream) -> Result<Warnings, CopyError> {
    let mut archive = Archive::new(stream, ENTRIES);
    let mut warnings = Vec::new();
    // Their times change while they are filled, and some may not be written once they have their mode.
    let mut directories: Vec<(OwnedFd, Entry)> = Vec::new();
    let mut serial = 0;
    while let Some(entry) = archive
        .next()
        .map_err(|error| CopyError::Path(error.to_string()))?
    {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let wrong = |error: Errno| CopyError::Path(format!("{shown}: {}", said(error)));
        let path = PathBuf::from(OsString::from_vec(entry.path.clone()));
        let Some((parent, name)) = inside(&path).map_err(|()| {
            CopyError::Path(format!(
                "{shown}: a path that leads out of the destination is refused"
            ))
        })?
        else {
            // The destination itself stays whose it is.
            if entry.kind != Kind::Directory {
                return Err(CopyError::Path(format!(
                    "{shown}: an archive has directories there only"
                )));
            }
            continue;
        };
        let parent = below(into, &parent).map_err(wrong)?;
        let standing = standing(&parent, &name).map_err(wrong)?;
        if standing.is_some_and(|kind| (kind == FileType::Directory) != (entry.kind == Kind::Directory)) {
            return Err(CopyError::Path(format!(
                "{shown}: a directory does not take the place of something else, nor something else that of a \
                 directory; remove what is there first"
            )));
        }
        match entry.kind {
            Kind::Directory => {
                match mkdirat(&parent, &name, Mode::from(0o700)) {
                    Ok(()) => {
                        let made = open_directory(&parent, &name).map_err(wrong)?;
                        own(&made, &entry, owner).map_err(wrong)?;
                        directories.push((made, entry));
                        // Each holds a descriptor: those that are filled are the ones within each other.
                        settle(&mut directories, &path, owner).map_err(wrong)?;
                    }
                    Err(Errno::EXIST) => {}
                    Err(error) => return Err(wrong(error)),
                }
            }
            Kind::File if entry.sparse.is_some() => {
                return Err(CopyError::Path(format!(
                    "{shown}: it is stored as a sparse file; make the archive without --sparse"
                )));
            }
            Kind::File => {
                serial += 1;
                let content = archive.content();
                write_file(&parent, &name, &entry, owner, serial, content)
                    .map_err(|error| CopyError::Path(format!("{shown}: {}", said_io(&error))))?;
            }
            Kind::Symlink => {
                remove(&parent, &name, standing).map_err(wrong)?;
                symlinkat(OsStr::from_bytes(&entry.link), &parent, &name).map_err(wrong)?;
                special(&parent, &name, &entry, owner).map_err(wrong)?;
            }
            Kind::Fifo => {
                remove(&parent, &name, standing).map_err(wrong)?;
                mknodat(&parent, &name, FileType::Fifo, Mode::from(entry.mode & 0o777), 0).map_err(wrong)?;
                special(&parent, &name, &entry, owner).map_err(wrong)?;
            }
            Kind::HardLink => {
                let target = Path::new(OsStr::from_bytes(&entry.link));
                let Ok(Some((from, old))) = inside(target) else {
                    return Err(CopyError::Path(format!(
                        "{shown}: a link that leads out is refused"
                    )));
                };
                let from = below(into, &from).map_err(wrong)?;
                remove(&parent, &name, standing).map_err(wrong)?;
                rustix::fs::linkat(&from, &old, &parent, &name, AtFlags::empty()).map_err(wrong)?;
            }
            Kind::Char | Kind::Block => warnings.push(format!("{shown}: a device is not copied")),
        }
    }
    while let Some((made, entry)) = directories.pop() {
        finish(&made, &entry, owner).map_err(io::Error::from)?;
    }
    Ok(warnings)
}

fn said(error: Errno) -> String {
    said_io(&error.into())
}

fn said_io(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::EROFS) => {
            "the file system there is read-only; choose a volume or another destination".into()
        }
        Some(libc::ENOSPC | libc::EDQUOT) => "no space is left there".into(),
        Some(libc::ENOENT) => "there is no such directory; make it first".into(),
        Some(libc::ELOOP | libc::EXDEV) => {
            "a symbolic link there is not followed; name what it leads to".into()
        }
        Some(libc::EOVERFLOW) => "its owner has no number in the container; copy it without -a".into(),
        _ => error.to_string(),
    }
}

/// The parent and the name; `None` for the directory itself.
fn inside(path: &Path) -> Result<Option<(Vec<OsString>, OsString)>, ()> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_owned()),
            Component::CurDir => {}
            _ => return Err(()),
        }
    }
    let last = names.pop();
    Ok(last.map(|name| (names, name)))
}

fn below(into: &OwnedFd, parent: &[OsString]) -> rustix::io::Result<OwnedFd> {
    let mut path = b".".to_vec();
    for name in parent {
        path.push(b'/');
        path.extend_from_slice(name.as_bytes());
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(
            into,
            OsString::from_vec(path.clone()),
            flags,
            Mode::empty(),
            resolve,
        ) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn standing(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<FileType>> {
    match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(FileType::from_raw_mode(stat.st_mode))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn open_directory(parent: &OwnedFd, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

fn remove(parent: &OwnedFd, name: &OsStr, standing: Option<FileType>) -> rustix::io::Result<()> {
    match standing {
        None => Ok(()),
        Some(_) => unlinkat(parent, name, AtFlags::empty()),
    }
}

/// Written beside and put into its place, so that nobody sees half of it; where the place is a mount, written
/// into it.
fn write_file(
    parent: &OwnedFd,
    name: &OsStr,
    entry: &Entry,
    owner: Owner,
    serial: u64,
    mut content: impl Read,
) -> io::Result<()> {
    let temporary = format!(".stead-cp-{}-{serial}", std::process::id());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(parent, temporary.as_str(), flags, Mode::from(0o600))?;
    let mut file = File::from(made);
    let filled = fill(&mut file, &mut content, entry.size).and_then(|()| {
        let made = OwnedFd::from(file.try_clone()?);
        own(&made, entry, owner)?;
        finish(&made, entry, owner)?;
        Ok(())
    });
    let placed = filled.and_then(|()| match renameat(parent, temporary.as_str(), parent, name) {
        Err(Errno::BUSY) => {
            let flags =
                OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let mut place = File::from(openat(parent, name, flags, Mode::empty())?);
            let mut again = File::open(same(file.as_fd()))?;
            io::copy(&mut again, &mut place)?;
            unlinkat(parent, temporary.as_str(), AtFlags::empty())?;
            Ok(())
        }
        other => Ok(other?),
    });
    if placed.is_err() {
        let _ = unlinkat(parent, temporary.as_str(), AtFlags::empty());
    }
    placed
}

fn fill(file: &mut File, content: &mut impl Read, size: u64) -> io::Result<()> {
    let mut chunk = vec![0; 128 << 10];
    let mut done = 0;
    loop {
        let mut filled = 0;
        while filled < chunk.len() {
            match content.read(&mut chunk[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            break;
        }
        for block in chunk[..filled].chunks(HOLE) {
            if block.iter().all(|byte| *byte == 0) {
                file.seek(SeekFrom::Current(block.len() as i64))?;
            } else {
                file.write_all(block)?;
            }
        }
        done += filled as u64;
    }
    if done != size {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "the stream ends within it",
        ));
    }
    file.set_len(size)
}

fn own(made: &OwnedFd, entry: &Entry, owner: Owner) -> rustix::io::Result<()> {
    let (uid, gid) = owner.ids.unwrap_or((entry.uid, entry.gid));
    // An id that is not mapped is EINVAL; as EOVERFLOW it has a message of its own.
    let ids = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    match chownat(made, "", ids.0, ids.1, AtFlags::EMPTY_PATH) {
        Err(Errno::INVAL) => Err(Errno::OVERFLOW),
        other => other,
    }
}

/// Owner, mode and time of what has no content.
fn special(parent: &OwnedFd, name: &OsStr, entry: &Entry, owner: Owner) -> rustix::io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(parent, name, flags, Mode::empty())?;
    own(&made, entry, owner)?;
    if entry.kind == Kind::Fifo {
        rustix::fs::chmod(same(made.as_fd()), Mode::from(entry.mode & 0o777))?;
    }
    utimensat(&made, "", &times(entry), AtFlags::EMPTY_PATH)
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec {
        tv_sec: entry.mtime.0,
        tv_nsec: entry.mtime.1.into(),
    };
    Timestamps {
        last_access: time,
        last_modification: time,
    }
}

/// Mode, attributes and time, once the content is there.
fn finish(made: &OwnedFd, entry: &Entry, owner: Owner) -> rustix::io::Result<()> {
    let most = if owner.trusted || entry.kind == Kind::Directory {
        0o7777
    } else {
        0o777
    };
    fchmod(made, Mode::from(entry.mode & most))?;
    for (key, value) in &entry.xattrs {
        if key.starts_with(b"user.") || (owner.trusted && key == b"security.capability") {
            // Not every file system has them.
            let _ = setxattr(same(made.as_fd()), key.as_slice(), value, XattrFlags::empty());
        }
    }
    utimensat(made, "", &times(entry), AtFlags::EMPTY_PATH)
}

/// Finishes the directories that `path` is not in.
fn settle(directories: &mut Vec<(OwnedFd, Entry)>, path: &Path, owner: Owner) -> rustix::io::Result<()> {
    let mut kept = Vec::new();
    for (made, entry) in directories.drain(..) {
        if path.starts_with(OsStr::from_bytes(&entry.path)) {
            kept.push((made, entry));
        } else {
            finish(&made, &entry, owner)?;
        }
    }
    *directories = kept;
    Ok(())
}
