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

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use flate2::{Compression, Crc, bufread::GzDecoder, write::GzEncoder};
use rustix::{
    fs::{AtFlags, Mode, OFlags},
    io::Errno,
};
use thiserror::Error;

pub use assemble::assemble;
pub use check::{Damage, check};

const MAGIC: &[u8] = b"stead recipe 1\n";
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

#[derive(Debug, PartialEq, Eq)]
enum Record {
    /// In [`Reader::bytes`].
    Literal,
    /// At [`Reader::path`], and linked to [`Reader::target`].
    Placed(Effect),
    Content {
        start: u64,
        length: u64,
        checksum: u32,
    },
    Also {
        length: u64,
        checksum: u32,
    },
    End,
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

/// What differs from the record before is told relative to it.
#[derive(Default)]
struct Last {
    path: Vec<u8>,
    inode: u64,
}

struct Writer {
    out: GzEncoder<File>,
    literal: Vec<u8>,
    last: Last,
}

impl Writer {
    fn new(work: BorrowedFd<'_>, name: &str) -> io::Result<Self> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(work, name, flags, Mode::RUSR | Mode::WUSR)?;
        let mut out = GzEncoder::new(File::from(file), Compression::fast());
        out.write_all(MAGIC)?;
        Ok(Writer {
            out,
            literal: Vec::with_capacity(CHUNK),
            last: Last::default(),
        })
    }

    fn literal(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.literal.len()));
            self.literal.extend_from_slice(now);
            bytes = later;
            if self.literal.len() == CHUNK {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.literal.is_empty() {
            self.out.write_all(b"l")?;
            self.number(self.literal.len() as u64)?;
            self.out.write_all(&self.literal)?;
            self.literal.clear();
        }
        Ok(())
    }

    fn placed(&mut self, path: &[u8], effect: Effect, target: &[u8]) -> io::Result<()> {
        self.flush()?;
        let (letter, inode) = match effect {
            Effect::Nothing => (b'n', None),
            Effect::Dressed => (b'd', None),
            Effect::Made => (b'm', None),
            Effect::MadeOpaque => (b'q', None),
            Effect::File(inode) => (b'f', Some(inode)),
            Effect::Linked(inode) => (b'h', Some(inode)),
            Effect::Opaque => (b'o', None),
            Effect::Hidden => (b'w', None),
        };
        self.out.write_all(&[letter])?;
        self.path(path)?;
        if let Effect::Linked(_) = effect {
            self.path(target)?;
        }
        if let Some(inode) = inode {
            let step = inode.wrapping_sub(self.last.inode).cast_signed();
            // Zigzag: small steps back are small numbers too.
            self.number(((step << 1) ^ (step >> 63)).cast_unsigned())?;
            self.last.inode = inode;
        }
        Ok(())
    }

    fn path(&mut self, path: &[u8]) -> io::Result<()> {
        let pairs = path.iter().zip(&self.last.path);
        let same = pairs.take_while(|(new, old)| new == old).count();
        self.number(same as u64)?;
        self.number((path.len() - same) as u64)?;
        self.out.write_all(&path[same..])?;
        self.last.path.truncate(same);
        self.last.path.extend_from_slice(&path[same..]);
        Ok(())
    }

    fn content(&mut self, start: u64, length: u64, checksum: u32) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(b"c")?;
        self.number(start)?;
        self.number(length)?;
        self.out.write_all(&checksum.to_le_bytes())
    }

    fn also(&mut self, length: u64, checksum: u32) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(b"a")?;
        self.number(length)?;
        self.out.write_all(&checksum.to_le_bytes())
    }

    /// Seven bits a byte, lowest first.
    fn number(&mut self, mut number: u64) -> io::Result<()> {
        let (mut bytes, mut used) = ([0; 10], 0);
        loop {
            bytes[used] = (number & 0x7f) as u8 | if number > 0x7f { 0x80 } else { 0 };
            used += 1;
            number >>= 7;
            if number == 0 {
                return self.out.write_all(&bytes[..used]);
            }
        }
    }

    fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        self.out.write_all(b"e")?;
        self.out.finish().map(drop)
    }
}

struct Reader {
    input: BufReader<GzDecoder<BufReader<File>>>,
    last: Last,
    /// Of the present literal.
    bytes: Vec<u8>,
    /// Of the present placed entry.
    path: Vec<u8>,
    /// What it is another name of.
    target: Vec<u8>,
    ended: bool,
}

impl Reader {
    fn new(file: File) -> io::Result<Self> {
        let mut input = BufReader::with_capacity(CHUNK, GzDecoder::new(BufReader::new(file)));
        let mut magic = [0; MAGIC.len()];
        input.read_exact(&mut magic)?;
        if magic != MAGIC {
            return Err(malformed("it begins with other words"));
        }
        Ok(Reader {
            input,
            last: Last::default(),
            bytes: Vec::new(),
            path: Vec::new(),
            target: Vec::new(),
            ended: false,
        })
    }

    fn open(recipe: &Path) -> Result<Self, RecipeError> {
        let file = fs::File::open(recipe).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RecipeError::Absent(recipe.to_owned()),
            _ => RecipeError::Read {
                path: recipe.to_owned(),
                source,
            },
        })?;
        Reader::new(file).map_err(damaged(recipe))
    }

    fn next(&mut self) -> io::Result<Record> {
        if self.ended {
            return Ok(Record::End);
        }
        let mut letter = [0];
        self.input.read_exact(&mut letter)?;
        let effect = match letter[0] {
            b'l' => {
                let length = self.length(CHUNK)?;
                self.bytes.resize(length, 0);
                self.input.read_exact(&mut self.bytes)?;
                return Ok(Record::Literal);
            }
            b'c' => {
                let (start, length) = (self.number()?, self.number()?);
                return Ok(Record::Content {
                    start,
                    length,
                    checksum: self.checksum()?,
                });
            }
            b'a' => {
                let length = self.number()?;
                return Ok(Record::Also {
                    length,
                    checksum: self.checksum()?,
                });
            }
            // What gzip says at the end is read as well: that the recipe is whole.
            b'e' if self.input.fill_buf()?.is_empty() => {
                self.ended = true;
                return Ok(Record::End);
            }
            b'e' => return Err(malformed("it goes on after its end")),
            letter => letter,
        };
        self.front()?;
        self.path.clone_from(&self.last.path);
        if effect == b'h' {
            self.front()?;
            self.target.clone_from(&self.last.path);
        }
        let effect = match effect {
            b'n' => Effect::Nothing,
            b'd' => Effect::Dressed,
            b'm' => Effect::Made,
            b'q' => Effect::MadeOpaque,
            b'f' => Effect::File(self.inode()?),
            b'h' => Effect::Linked(self.inode()?),
            b'o' => Effect::Opaque,
            b'w' => Effect::Hidden,
            _ => return Err(malformed("a record of an unknown kind")),
        };
        Ok(Record::Placed(effect))
    }

    fn front(&mut self) -> io::Result<()> {
        let (same, new) = (self.length(self.last.path.len())?, self.length(MAX_PATH)?);
        self.last.path.truncate(same);
        self.last.path.resize(same + new, 0);
        self.input.read_exact(&mut self.last.path[same..])
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(malformed("a number too large"))
    }

    fn length(&mut self, most: usize) -> io::Result<usize> {
        let length = usize::try_from(self.number()?).unwrap_or(usize::MAX);
        match length <= most {
            true => Ok(length),
            false => Err(malformed("a length too large")),
        }
    }

    fn inode(&mut self) -> io::Result<u64> {
        let step = self.number()?;
        let step = (step >> 1).cast_signed() ^ -((step & 1).cast_signed());
        self.last.inode = self.last.inode.wrapping_add_signed(step);
        Ok(self.last.inode)
    }

    fn checksum(&mut self) -> io::Result<u32> {
        let mut bytes = [0; 4];
        self.input.read_exact(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
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
