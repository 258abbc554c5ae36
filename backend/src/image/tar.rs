//! Reads a tar stream entry by entry, and refuses whatever two readers could understand differently.
//!
//! Only the layout of headers comes from the crate `tar`; the walk and the numbers are ours, so that no limit, no
//! extension header and no trailing byte escapes a decision (CVE-2025-62518, RUSTSEC-2026-0068). Formats: v7, ustar,
//! GNU long names, PAX (POSIX.1-2024 pax, "Interchange Format"), sparse files of GNU tar.

mod entry;
mod sparse;

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use tar::{EntryType, Header};
use thiserror::Error;

use entry::Extensions;

use super::{
    pax,
    recipe::{Effect, Recorder},
};

const BLOCK: usize = 512;
/// One extension header: room for a path and the largest set of attributes ext4 or xfs keep.
const MAX_EXTENSION: u64 = 1 << 20;

#[derive(Debug, Error)]
pub enum TarError {
    #[error("the archive cannot be read")]
    Read(#[from] io::Error),
    #[error("the archive ends in the middle of an entry")]
    Truncated,
    #[error("entry {path}: {why}")]
    Entry { path: String, why: String },
    #[error("the header at byte {offset} is damaged: {why}")]
    Header { offset: u64, why: String },
    #[error("there is data after the end marker")]
    Trailing,
    #[error("it has more than {0} entries")]
    Entries(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// Target: [`Entry::link`].
    Symlink,
    /// Another path of the same archive: [`Entry::link`].
    HardLink,
    Char,
    Block,
    Fifo,
}

/// One member, without its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// As written, not cleaned.
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    /// Bytes of the file; 0 unless a file.
    pub size: u64,
    /// Of a sparse file: offset and length of each part whose bytes follow, in this order; all else is holes.
    /// `None`: all its bytes follow.
    pub sparse: Option<Vec<(u64, u64)>>,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, u32),
    pub device: (u32, u32),
    /// From `SCHILY.xattr.*`.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an archive is read from.
pub trait Input: Read + Sized {
    /// Passes over up to `count` bytes, and says how many there were.
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        io::copy(&mut self.by_ref().take(count), &mut io::sink())
    }
}

/// A tar stream. Read the content of an entry from [`Archive::content`] before the next entry.
pub struct Archive<R> {
    input: R,
    /// Bytes taken from `input`.
    offset: u64,
    /// Content of the present entry not yet read.
    remaining: u64,
    /// Filler after it.
    padding: u64,
    entries: u64,
    max_entries: u64,
    /// Gets every byte of the stream but the content that files are made of.
    recorder: Option<Recorder>,
}

impl<R: Input> Archive<R> {
    pub fn new(input: R, max_entries: u64) -> Self {
        Archive {
            input,
            offset: 0,
            remaining: 0,
            padding: 0,
            entries: 0,
            max_entries,
            recorder: None,
        }
    }

    pub(super) fn recorded(self, recorder: Recorder) -> Self {
        Archive {
            recorder: Some(recorder),
            ..self
        }
    }

    pub(super) fn recorder(&mut self) -> Option<&mut Recorder> {
        self.recorder.as_mut()
    }

    /// What the present entry became; see [`Recorder::placed`].
    pub(super) fn placed(&mut self, path: &[u8], effect: Effect, target: &[u8]) {
        if let Some(recorder) = &mut self.recorder {
            recorder.placed(path, effect, target);
        }
    }

    pub fn input(&mut self) -> &mut R {
        &mut self.input
    }

    pub(super) fn into_parts(self) -> (R, Option<Recorder>) {
        (self.input, self.recorder)
    }

    /// Counts one more thing that the archive makes, as if it had a header of its own.
    ///
    /// # Errors
    /// There are too many.
    pub fn count(&mut self) -> Result<(), TarError> {
        self.entries += 1;
        match self.entries > self.max_entries {
            true => Err(TarError::Entries(self.max_entries)),
            false => Ok(()),
        }
    }

    /// The content of the present entry; ends where it ends. Recorded it is by who reads it.
    pub fn content(&mut self) -> impl Read + '_ {
        Content(self)
    }

    /// Where the content of the present entry begins in the stream.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next member; `None` at the end, when everything up to the end of the stream has been read.
    ///
    /// # Errors
    /// The stream cannot be read, or is ambiguous, malformed or beyond a limit.
    pub fn next(&mut self) -> Result<Option<Entry>, TarError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip(self.remaining + self.padding)?;
            (self.remaining, self.padding) = (0, 0);
            let at = self.offset;
            let mut block = [0; BLOCK];
            let read = self.read_full(&mut block)?;
            if read != 0 && read != BLOCK {
                return Err(TarError::Truncated);
            }
            if read == 0 || block.iter().all(|byte| *byte == 0) {
                if !extensions.is_empty() {
                    return Err(header(at, "an extension header describes no entry"));
                }
                return self.finish().map(|()| None);
            }
            self.count()?;
            let head = Header::from_byte_slice(&block);
            entry::verify(head, &block).map_err(|why| header(at, &why))?;
            let size =
                entry::number(&head.as_old().size).map_err(|why| header(at, &format!("its size {why}")))?;
            match head.entry_type() {
                EntryType::GNULongName => {
                    let path = self.extension(at, size)?;
                    set_once(&mut extensions.path, long_name(path, at)?, at, "two long names")?;
                }
                EntryType::GNULongLink => {
                    let link = self.extension(at, size)?;
                    set_once(
                        &mut extensions.link,
                        long_name(link, at)?,
                        at,
                        "two long link names",
                    )?;
                }
                EntryType::XHeader => {
                    let records = pax::parse(&self.extension(at, size)?).map_err(|why| header(at, &why))?;
                    set_once(&mut extensions.pax, records, at, "two PAX headers")?;
                }
                EntryType::XGlobalHeader => {
                    let records = pax::parse(&self.extension(at, size)?).map_err(|why| header(at, &why))?;
                    if !records.parts.is_empty() {
                        return Err(header(at, "a global map of a sparse file is not supported"));
                    }
                    // `git archive` writes a comment. What would change entries is not for all of them.
                    if let Some(key) = records.plain.keys().find(|key| *key != b"comment") {
                        let key = String::from_utf8_lossy(key).into_owned();
                        return Err(header(at, &format!("global PAX record {key} is not supported")));
                    }
                    extensions.global = true;
                }
                kind => {
                    let of_entry = |why| TarError::Entry {
                        path: String::from_utf8_lossy(&head.path_bytes()).into_owned(),
                        why,
                    };
                    let (mut entry, stored, map) =
                        entry::decode(head, kind, size, extensions).map_err(of_entry)?;
                    self.expect_content(stored);
                    if let Some(map) = map {
                        let parts = map.read(self, head)?.map_err(of_entry)?;
                        sparse::verify(&parts, entry.size, self.remaining).map_err(of_entry)?;
                        entry.sparse = Some(parts);
                    }
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn expect_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// One block more, in the middle of an entry.
    fn block(&mut self) -> Result<[u8; BLOCK], TarError> {
        let mut block = [0; BLOCK];
        match self.read_full(&mut block)? {
            BLOCK => Ok(block),
            _ => Err(TarError::Truncated),
        }
    }

    fn extension(&mut self, at: u64, size: u64) -> Result<Vec<u8>, TarError> {
        if size > MAX_EXTENSION {
            return Err(header(at, &format!("extension header of {size} bytes")));
        }
        self.expect_content(size);
        let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
        if self.read_full(&mut data)? != data.len() {
            return Err(TarError::Truncated);
        }
        self.remaining = 0;
        Ok(data)
    }

    /// After the first zero block only zeros may follow.
    fn finish(&mut self) -> Result<(), TarError> {
        let mut buffer = [0; 16 * BLOCK];
        loop {
            let read = self.read_full(&mut buffer)?;
            if buffer[..read].iter().any(|byte| *byte != 0) {
                return Err(TarError::Trailing);
            }
            if read < buffer.len() {
                return Ok(());
            }
        }
    }

    fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        if self.recorder.is_some() {
            let mut buffer = [0; 16 * BLOCK];
            while count > 0 {
                let room = buffer.len().min(usize::try_from(count).unwrap_or(buffer.len()));
                if self.read_full(&mut buffer[..room])? != room {
                    return Err(TarError::Truncated);
                }
                count -= room as u64;
            }
            return Ok(());
        }
        let skipped = self.input.skip(count)?;
        self.offset += skipped;
        if skipped == count {
            Ok(())
        } else {
            Err(TarError::Truncated)
        }
    }

    fn read_full(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.offset += filled as u64;
        if let Some(recorder) = &mut self.recorder {
            recorder.literal(&buffer[..filled]);
        }
        Ok(filled)
    }
}

struct Content<'a, R>(&'a mut Archive<R>);

impl<R: Input> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = buffer
            .len()
            .min(usize::try_from(self.0.remaining).unwrap_or(usize::MAX));
        if room == 0 {
            return Ok(0);
        }
        let read = self.0.input.read(&mut buffer[..room])?;
        self.0.offset += read as u64;
        self.0.remaining -= read as u64;
        Ok(read)
    }
}

/// GNU long names end in one zero byte, and where it is missing others read on.
fn long_name(mut name: Vec<u8>, at: u64) -> Result<Vec<u8>, TarError> {
    match name.pop() {
        Some(0) => Ok(name),
        _ => Err(header(at, "its long name does not end in a zero byte")),
    }
}

fn set_once<T>(slot: &mut Option<T>, value: T, at: u64, twice: &str) -> Result<(), TarError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(header(at, &format!("{twice} for one entry"))),
    }
}

fn header(offset: u64, why: &str) -> TarError {
    TarError::Header {
        offset,
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests;
