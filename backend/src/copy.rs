//! `stead cp`: files between this host and the tree of a running container, its mounts included.
//!
//! Both sides speak tar. The container's side is a process of its own ([`worker`]) that has become the root of the
//! container's user namespace and holds its root directory open: it may do there what that root may, and every path
//! is resolved below that directory by openat2(2). It stays in the host's other namespaces, where the container
//! cannot see it, and runs nothing of the container.

mod pack;
mod rules;
mod unpack;
mod worker;

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::{Deserialize, Serialize};

pub use rules::{Landing, Refusal, land};
pub use worker::{Worker, dispatch};

use crate::rootfs::tree;

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    Nothing,
    Directory,
    /// Anything else.
    File,
}

#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// A path and what is wrong with it.
    #[error("{0}")]
    Path(String),
    #[error("the container cannot be reached; it may have just ended")]
    Container(#[source] io::Error),
    #[error("cannot be copied: {0}")]
    Io(#[from] io::Error),
}

/// How to copy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// A symbolic link that is named is followed.
    pub follow: bool,
    /// Owners stay as they are, by number.
    pub archive: bool,
}

/// What was not copied, a line each.
pub type Warnings = Vec<String>;

/// The tree that paths are of: a pinned root, or the host's own.
enum Tree<'a> {
    Container(&'a OwnedFd),
    Host,
}

impl Tree<'_> {
    fn open(&self, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        match self {
            Tree::Container(root) => tree::open(root.as_fd(), path, flags),
            Tree::Host => openat(CWD, path, flags | OFlags::CLOEXEC, Mode::empty()),
        }
    }

    fn look(&self, path: &Path, follow: bool) -> Result<Found, CopyError> {
        let follow = follow || path.as_os_str().as_bytes().ends_with(b"/");
        let flags = if follow {
            OFlags::PATH
        } else {
            OFlags::PATH | OFlags::NOFOLLOW
        };
        match self.open(path, flags) {
            Ok(found) => Ok(match pack::kind(&found)? {
                rustix::fs::FileType::Directory => Found::Directory,
                _ => Found::File,
            }),
            Err(rustix::io::Errno::NOENT) => Ok(Found::Nothing),
            Err(error) => Err(CopyError::Path(format!("{}: {error}", path.display()))),
        }
    }
}

/// From the host into the container. `source`: a path of the host.
///
/// # Errors
/// As the rules of docker refuse it, or what failed first; what was copied before stays.
pub fn copy_in(
    worker: &mut Worker,
    source: &Path,
    target: &Path,
    how: Options,
) -> Result<Warnings, CopyError> {
    let from = Tree::Host.look(source, how.follow)?;
    let landing = land(source, from, target, worker.look(target)?)?;
    let (read_end, write_end) = io::pipe()?;
    let (source, name) = (source.to_owned(), landing.name.clone());
    let packer = std::thread::spawn(move || {
        pack::pack(
            &Tree::Host,
            &source,
            how.follow,
            &name,
            &mut File::from(OwnedFd::from(write_end)),
        )
    });
    let mut unpacked = worker.unpack(&landing.directory, how.archive, read_end.into());
    let packed = packer
        .join()
        .unwrap_or_else(|_| Err(io::Error::other("the reader failed").into()));
    finish(packed, &mut unpacked)
}

/// From the container to the host. `target`: a path of the host.
///
/// # Errors
/// As [`copy_in`].
pub fn copy_out(
    worker: &mut Worker,
    source: &Path,
    target: &Path,
    how: Options,
) -> Result<Warnings, CopyError> {
    let from = worker.look_as(source, how.follow)?;
    let landing = land(source, from, target, Tree::Host.look(target, true)?)?;
    let (read_end, write_end) = io::pipe()?;
    let owner = unpack::Owner {
        ids: (!how.archive).then(|| {
            (
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            )
        }),
        trusted: false,
    };
    let directory = landing.directory.clone();
    let unpacker = std::thread::spawn(move || {
        let into = Tree::Host.open(&directory, OFlags::PATH | OFlags::DIRECTORY);
        let into = into.map_err(|error| CopyError::Path(format!("{}: {error}", directory.display())))?;
        unpack::unpack(&into, owner, OwnedFd::from(read_end).into())
    });
    let packed = worker.pack(source, how.follow, &landing.name, write_end.into());
    let failed = || Err(io::Error::other("the writer failed").into());
    let mut unpacked = unpacker.join().unwrap_or_else(|_| failed());
    finish(packed, &mut unpacked)
}

/// From the container as a tar stream. What is named is at its top.
///
/// # Errors
/// As [`copy_in`].
pub fn stream_out(
    worker: &mut Worker,
    source: &Path,
    to: OwnedFd,
    how: Options,
) -> Result<Warnings, CopyError> {
    if worker.look_as(source, how.follow)? == Found::Nothing {
        return Err(Refusal::NoSource(source.to_owned()).into());
    }
    worker.pack(source, how.follow, &rules::name(source), to)
}

/// A tar stream into a directory of the container.
///
/// # Errors
/// As [`copy_in`].
pub fn stream_in(
    worker: &mut Worker,
    from: OwnedFd,
    target: &Path,
    how: Options,
) -> Result<Warnings, CopyError> {
    match worker.look(target)? {
        Found::Directory => worker.unpack(target, how.archive, from),
        Found::Nothing => Err(Refusal::NoDirectory(target.to_owned()).into()),
        Found::File => Err(Refusal::NotADirectory(target.to_owned()).into()),
    }
}

/// One side breaks off when the other has failed: that one says why.
fn finish(
    packed: Result<Warnings, CopyError>,
    unpacked: &mut Result<Warnings, CopyError>,
) -> Result<Warnings, CopyError> {
    let unpacked = std::mem::replace(unpacked, Ok(Vec::new()));
    match (packed, unpacked) {
        (Ok(mut warnings), Ok(more)) => {
            warnings.extend(more);
            Ok(warnings)
        }
        (Err(CopyError::Io(error)), Err(other)) if error.kind() == io::ErrorKind::BrokenPipe => Err(other),
        (Err(error), _) | (_, Err(error)) => Err(error),
    }
}

/// `-` and `TARGET:PATH` are told apart by whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Container { target: String, path: PathBuf },
    Host(PathBuf),
    Stream,
}

impl Place {
    /// As docker does: what begins with `/` or `.` is of the host, whatever colons it has.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            _ if text == "-" => Place::Stream,
            Some((target, path)) if !target.is_empty() && !text.starts_with(['/', '.']) => Place::Container {
                target: target.to_owned(),
                path: PathBuf::from(OsString::from(path)),
            },
            _ => Place::Host(PathBuf::from(text)),
        }
    }
}
