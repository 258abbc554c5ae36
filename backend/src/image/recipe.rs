//! What the files of an unpacked layer do not tell of its tar stream: the recipe to assemble it again, byte by byte.
//!
//! A layer is kept unpacked only. Its recipe is one gzip file: a magic line, then records in the order of the stream.
//!
//! ```text
//!   literal   bytes as they are: headers, extension headers, maps, padding, the end, content that became no file
//!   placed    one for each entry, after its headers: what it became, at which path of the tree
//!   content   bytes that a range of the placed file holds, with their CRC-32
//!   also      the checksum of a file whose first name, and so its content, went to another entry
//!   end
//! ```
//!
//! Paths are those of the tree, no symbolic link among their directories; they are written as what differs from the
//! one before, and inodes too. A file that a later entry replaces is kept beside the tree until the end, so that its
//! inode stays its own; then the recipe is written once more, with its content as literals.

mod assemble;
mod check;
mod format;
mod walk;

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use flate2::Crc;
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use thiserror::Error;

pub use assemble::assemble;
pub use check::{Damage, check};
use format::{Reader, Record, Writer};

/// Longest literal of one record.
const CHUNK: usize = 64 << 10;
/// Longest path of a tree that is ever opened, PATH_MAX.
pub(super) const MAX_PATH: usize = 4096;
/// In the private directory of a layer that is being unpacked.
const NAME: &str = "recipe";
const REWRITTEN: &str = "recipe.rewritten";
const KEPT: &str = "kept";

#[derive(Debug, Error)]
pub enum RecipeError {
    #[error(
        "there is no recipe at {path}: the layer is built in, or an earlier version has unpacked it. Remove its image \
         and load it again",
        path = .0.display()
    )]
    Absent(PathBuf),
    #[error("cannot read {path}; check its permissions and the disk", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the recipe {path} is damaged: {why}. Remove its image and load it again", path = path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("the layer {layer} is damaged: {damage}. Remove its image and load it again", layer = layer.display())]
    Layer { layer: PathBuf, damage: Box<Damage> },
    #[error("cannot write the layer; check free space and permissions where it goes")]
    Write(#[source] io::Error),
}

/// What an entry became.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing at its path: bookkeeping of others, or a whiteout of what this layer has itself.
    Nothing,
    /// A directory that was there got its attributes.
    Dressed,
    /// A directory, a symbolic link or a node.
    Made,
    /// A directory in the place of a whiteout.
    MadeOpaque,
    /// A regular file of this inode.
    File(u64),
    /// Another name of this inode.
    Linked(u64),
    /// A directory that was there became opaque.
    Opaque,
    /// A whiteout.
    Hidden,
}

/// Writes the recipe of a layer while it is unpacked. A failure is told at the end, by [`Recorder::finish`].
pub(super) struct Recorder {
    work: OwnedFd,
    writer: Writer,
    kept: Option<OwnedFd>,
    failed: Option<io::Error>,
}

impl Recorder {
    /// `work`: the private directory beside the tree, which the recipe is written in.
    pub(super) fn new(work: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Recorder {
            writer: Writer::new(work, NAME)?,
            work: work.try_clone_to_owned()?,
            kept: None,
            failed: None,
        })
    }

    pub(super) fn literal(&mut self, bytes: &[u8]) {
        self.attempt(|recorder| recorder.writer.literal(bytes));
    }

    /// `path`: where it is in the tree, without links. `target`: what it is another name of.
    pub(super) fn placed(&mut self, path: &[u8], effect: Effect, target: &[u8]) {
        self.attempt(|recorder| recorder.writer.placed(path, effect, target));
    }

    /// The next `length` bytes of the stream are what the placed file holds from `start` on.
    pub(super) fn content(&mut self, start: u64, length: u64, checksum: u32) {
        self.attempt(|recorder| recorder.writer.content(start, length, checksum));
    }

    /// A file that is about to be replaced: what it holds is still needed.
    pub(super) fn keep(&mut self, parent: BorrowedFd<'_>, name: &[u8], inode: u64) {
        self.attempt(|recorder| {
            let kept = match recorder.kept.take() {
                Some(kept) => kept,
                None => {
                    rustix::fs::mkdirat(&recorder.work, KEPT, Mode::RWXU)?;
                    rustix::fs::openat(&recorder.work, KEPT, directory(), Mode::empty())?
                }
            };
            let name = std::ffi::OsStr::from_bytes(name);
            let linked = rustix::fs::linkat(parent, name, &kept, inode.to_string(), AtFlags::empty());
            recorder.kept = Some(kept);
            match linked {
                // By another of its names.
                Err(Errno::EXIST) => Ok(()),
                linked => Ok(linked?),
            }
        });
    }

    fn attempt(&mut self, write: impl FnOnce(&mut Self) -> io::Result<()>) {
        if self.failed.is_none() {
            self.failed = write(self).err();
        }
    }

    /// Ends the recipe: `recipe` in the private directory, not yet synced.
    pub(super) fn finish(self) -> io::Result<()> {
        match self.failed {
            Some(error) => return Err(error),
            None => self.writer.finish()?,
        }
        match self.kept {
            Some(kept) => rewrite(&self.work, &kept),
            None => Ok(()),
        }
    }
}

/// Where a finished recipe is.
pub(super) fn written(work: &Path) -> PathBuf {
    work.join(NAME)
}

/// What kept files hold goes into the recipe itself.
fn rewrite(work: &OwnedFd, kept: &OwnedFd) -> io::Result<()> {
    let open = |directory: &OwnedFd, name: &str| {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat(directory, name, flags, Mode::empty()).map(File::from)
    };
    let mut reader = Reader::new(open(work, NAME)?)?;
    let mut writer = Writer::new(work.as_fd(), REWRITTEN)?;
    let mut file = None;
    loop {
        match reader.next()? {
            Record::Literal => writer.literal(&reader.bytes)?,
            Record::Placed(effect) => {
                file = match effect {
                    Effect::File(inode) | Effect::Linked(inode) => match open(kept, &inode.to_string()) {
                        Ok(file) => Some(file),
                        Err(Errno::NOENT) => None,
                        Err(error) => return Err(error.into()),
                    },
                    _ => None,
                };
                writer.placed(&reader.path, effect, &reader.target)?;
                if let (Effect::Linked(_), Some(file)) = (effect, &file) {
                    let (length, checksum) = sum(file)?;
                    writer.also(length, checksum)?;
                }
            }
            Record::Content {
                start,
                length,
                checksum,
            } => match &file {
                None => writer.content(start, length, checksum)?,
                Some(file) => {
                    let mut buffer = vec![0; CHUNK];
                    let mut at = 0;
                    while at < length {
                        let room = buffer.len().min(usize::try_from(length - at).unwrap_or(CHUNK));
                        file.read_exact_at(&mut buffer[..room], start + at)?;
                        writer.literal(&buffer[..room])?;
                        at += room as u64;
                    }
                }
            },
            Record::Also { length, checksum } => writer.also(length, checksum)?,
            Record::End => break,
        }
    }
    writer.finish()?;
    Ok(rustix::fs::renameat(work, REWRITTEN, work, NAME)?)
}

/// Length and checksum of what a file holds.
fn sum(file: &File) -> io::Result<(u64, u32)> {
    let (mut checksum, mut length, mut buffer) = (Crc::new(), 0, vec![0; CHUNK]);
    loop {
        let read = file.read_at(&mut buffer, length)?;
        if read == 0 {
            return Ok((length, checksum.sum()));
        }
        checksum.update(&buffer[..read]);
        length += read as u64;
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

fn damaged(recipe: &Path) -> impl Fn(io::Error) -> RecipeError {
    let path = recipe.to_owned();
    move |error| RecipeError::Damaged {
        path: path.clone(),
        why: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
