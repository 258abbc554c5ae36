//! From a recipe and the files of its layer to the tar stream.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use flate2::Crc;
use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::{CHUNK, Damage, Effect, Reader, RecipeError, Record, check::note, damaged, malformed};
use crate::image::tar::Input;

/// Writes the tar stream of a layer, exactly as it was.
///
/// # Errors
/// There is no recipe, it is damaged, a file of the layer is not what it was, or `out` takes no more. What has been
/// written by then is of no use.
pub fn assemble(recipe: &Path, layer: &Path, out: &mut dyn Write) -> Result<(), RecipeError> {
    let mut assembler = Assembler::open(recipe, layer)?;
    while assembler.fill()? {
        if let Some(damage) = assembler.damages.pop() {
            return Err(RecipeError::Layer {
                layer: layer.to_owned(),
                damage: Box::new(damage),
            });
        }
        out.write_all(&assembler.bytes[assembler.at..])
            .map_err(RecipeError::Write)?;
        assembler.at = assembler.bytes.len();
    }
    match assembler.damages.pop() {
        None => Ok(()),
        Some(damage) => Err(RecipeError::Layer {
            layer: layer.to_owned(),
            damage: Box::new(damage),
        }),
    }
}

/// The stream, to be read. What a damaged file no longer holds is read as zeros, and the damage is noted.
pub(super) struct Assembler {
    reader: Reader,
    recipe: PathBuf,
    layer: PathBuf,
    pub root: OwnedFd,
    /// Literals or content, read up to `at`.
    bytes: Vec<u8>,
    at: usize,
    /// The file that the last entry became; `None`: not opened.
    file: Option<File>,
    segment: Option<Segment>,
    /// Whether the content of the last entry is compared where the stream has it for another one.
    pub checks_links: bool,
    pub damages: Vec<Damage>,
    /// Why reading it as a stream broke off.
    pub failed: Option<RecipeError>,
}

/// Content that is under way.
struct Segment {
    at: u64,
    end: u64,
    checksum: u32,
    found: Crc,
    /// Its damage has been told.
    lost: bool,
}

impl Assembler {
    pub fn open(recipe: &Path, layer: &Path) -> Result<Self, RecipeError> {
        let reader = Reader::open(recipe)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(layer, flags, Mode::empty()).map_err(|error| RecipeError::Read {
            path: layer.to_owned(),
            source: error.into(),
        })?;
        Ok(Assembler {
            reader,
            recipe: recipe.to_owned(),
            layer: layer.to_owned(),
            root,
            bytes: Vec::with_capacity(CHUNK),
            at: 0,
            file: None,
            segment: None,
            checks_links: false,
            damages: Vec::new(),
            failed: None,
        })
    }

    /// What the entry whose headers have just been read became; where, [`Assembler::path`] says.
    pub fn placed(&mut self) -> Result<Effect, RecipeError> {
        let record = match self.at == self.bytes.len() && self.segment.is_none() {
            true => self.reader.next().map_err(damaged(&self.recipe))?,
            false => Record::End,
        };
        match record {
            Record::Placed(effect) => {
                (self.file, self.checks_links) = (None, false);
                Ok(effect)
            }
            _ => Err(damaged(&self.recipe)(malformed(
                "an entry without a word on what it became",
            ))),
        }
    }

    /// Where the last entry is in the tree.
    pub fn path(&self) -> &[u8] {
        &self.reader.path
    }

    /// And what it is another name of.
    pub fn target(&self) -> &[u8] {
        &self.reader.target
    }

    /// Sees to it that there is something to read; false: the stream is over.
    fn fill(&mut self) -> Result<bool, RecipeError> {
        while self.at == self.bytes.len() {
            if self.segment.is_some() {
                self.fill_from_file()?;
                continue;
            }
            match self.reader.next().map_err(damaged(&self.recipe))? {
                Record::Literal => {
                    std::mem::swap(&mut self.bytes, &mut self.reader.bytes);
                    self.at = 0;
                }
                Record::Placed(_) => self.file = None,
                Record::Content {
                    start,
                    length,
                    checksum,
                } => {
                    self.segment = Some(Segment {
                        at: start,
                        end: start.saturating_add(length),
                        checksum,
                        found: Crc::new(),
                        lost: false,
                    })
                }
                Record::Also { length, checksum } if self.checks_links => self.also(length, checksum)?,
                Record::Also { .. } => {}
                Record::End => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The next bytes of the segment; at its end its checksum is compared.
    fn fill_from_file(&mut self) -> Result<(), RecipeError> {
        let Some(mut segment) = self.segment.take() else {
            return Ok(());
        };
        if segment.at == segment.end {
            if !segment.lost && segment.found.sum() != segment.checksum {
                self.damage("its content has changed");
            }
            return Ok(());
        }
        let room = usize::try_from(segment.end - segment.at)
            .unwrap_or(CHUNK)
            .min(CHUNK);
        self.bytes.resize(room, 0);
        let read = match segment.lost {
            true => 0,
            false => self.read_at(room, segment.at)?,
        };
        if read == 0 {
            if !segment.lost && self.file.is_some() {
                self.damage("its content is cut short");
            }
            segment.lost = true;
            self.bytes.fill(0);
        } else {
            self.bytes.truncate(read);
            segment.found.update(&self.bytes);
        }
        segment.at += self.bytes.len() as u64;
        self.at = 0;
        self.segment = Some(segment);
        Ok(())
    }

    /// 0: there is no such file, or it ends there.
    fn read_at(&mut self, room: usize, at: u64) -> Result<usize, RecipeError> {
        if self.file.is_none() {
            self.file = self.open_placed()?;
        }
        let Some(file) = &self.file else { return Ok(0) };
        loop {
            match file.read_at(&mut self.bytes[..room], at) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The disk cannot give it back: the very damage that is looked for.
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                    self.damage("its content cannot be read");
                    self.file = None;
                    return Ok(0);
                }
                read => {
                    return read.map_err(|source| RecipeError::Read {
                        path: self.layer.join(OsStr::from_bytes(&self.reader.path)),
                        source,
                    });
                }
            }
        }
    }

    fn open_placed(&mut self) -> Result<Option<File>, RecipeError> {
        match open_regular(&self.root, &self.reader.path) {
            Ok(Some(file)) => Ok(Some(file)),
            Ok(None) => {
                self.damage("it is no regular file any more");
                Ok(None)
            }
            Err(error) if is_gone(&error) => {
                self.damage("it is gone");
                Ok(None)
            }
            Err(source) => Err(RecipeError::Read {
                path: self.layer.join(OsStr::from_bytes(&self.reader.path)),
                source,
            }),
        }
    }

    /// A file whose content is told nowhere else in the recipe.
    fn also(&mut self, length: u64, checksum: u32) -> Result<(), RecipeError> {
        if let Some(file) = self.open_placed()? {
            let found = super::sum(&file).map_err(|source| RecipeError::Read {
                path: self.layer.join(OsStr::from_bytes(&self.reader.path)),
                source,
            })?;
            if found != (length, checksum) {
                self.damage("its content has changed");
            }
        }
        Ok(())
    }

    /// Something is wrong with the last entry.
    pub fn damage(&mut self, what: &str) {
        note(&mut self.damages, &self.reader.path, what);
    }
}

impl Read for Assembler {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.fill() {
            Ok(true) => {}
            Ok(false) => return Ok(0),
            Err(error) => {
                let told = io::Error::other(error.to_string());
                self.failed = Some(error);
                return Err(told);
            }
        }
        let there = &self.bytes[self.at..];
        let read = there.len().min(buffer.len());
        buffer[..read].copy_from_slice(&there[..read]);
        self.at += read;
        Ok(read)
    }
}

impl Input for Assembler {}

/// An object of the layer by its path, never through a link; not waiting for whoever writes to a FIFO.
pub(super) fn open(root: &impl AsFd, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let waiting = match flags.contains(OFlags::PATH) {
        true => OFlags::empty(),
        false => OFlags::NONBLOCK | OFlags::NOCTTY,
    };
    let flags = OFlags::CLOEXEC | OFlags::NOFOLLOW | waiting | flags;
    Ok(rustix::fs::openat2(
        root,
        OsStr::from_bytes(path),
        flags,
        Mode::empty(),
        resolve,
    )?)
}

/// `None`: it is something else. First by its name only: opening a device may do something.
fn open_regular(root: &OwnedFd, path: &[u8]) -> io::Result<Option<File>> {
    let found = rustix::fs::fstat(open(root, path, OFlags::PATH)?)?;
    if rustix::fs::FileType::from_raw_mode(found.st_mode) != rustix::fs::FileType::RegularFile {
        return Ok(None);
    }
    Ok(Some(File::from(open(root, path, OFlags::RDONLY)?)))
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP, Errno::XDEV];
    gone.iter()
        .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
