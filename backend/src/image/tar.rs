//! Reads a tar stream entry by entry, and refuses whatever two readers could understand differently.
//!
//! Only the field decoding comes from the crate `tar`; the walk is ours, so that no limit, no extension
//! header and no trailing byte escapes a decision (CVE-2025-62518, RUSTSEC-2026-0068). Formats: v7,
//! ustar, GNU long names, PAX (POSIX.1-2024 pax, "Interchange Format").

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use tar::{EntryType, Header};
use thiserror::Error;

use super::{
    pax,
    recipe::{Effect, Recorder},
};

const BLOCK: usize = 512;
/// PATH_MAX: no longer path can be used, so none is stored.
const MAX_PATH: usize = 4096;
/// One extension header: room for a path and the largest set of attributes ext4 or xfs keep.
const MAX_EXTENSION: u64 = 1 << 20;
/// Largest number an octal size field holds (11 digits); larger ones may be in the PAX header alone.
const MAX_OCTAL: u64 = 0o77_777_777_777;

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
    /// Bytes of content that follow; 0 unless a file.
    pub size: u64,
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

/// What extension headers said about the next entry.
#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    pax: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
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
            verify_checksum(head, &block).map_err(|why| header(at, &why))?;
            let size = head
                .entry_size()
                .map_err(|error| header(at, &error.to_string()))?;
            match head.entry_type() {
                EntryType::GNULongName => {
                    let path = self.extension(at, size)?;
                    set_once(&mut extensions.path, long_name(path), at, "two long names")?;
                }
                EntryType::GNULongLink => {
                    let link = self.extension(at, size)?;
                    set_once(&mut extensions.link, long_name(link), at, "two long link names")?;
                }
                EntryType::XHeader => {
                    let records = pax::parse(&self.extension(at, size)?).map_err(|why| header(at, &why))?;
                    set_once(&mut extensions.pax, records, at, "two PAX headers")?;
                }
                EntryType::XGlobalHeader => {
                    let records = pax::parse(&self.extension(at, size)?).map_err(|why| header(at, &why))?;
                    // `git archive` writes a comment. What would change entries is not for all of them.
                    if let Some(key) = records.keys().find(|key| *key != b"comment") {
                        let key = String::from_utf8_lossy(key).into_owned();
                        return Err(header(at, &format!("global PAX record {key} is not supported")));
                    }
                }
                kind => {
                    let entry = entry(head, kind, size, extensions).map_err(|why| TarError::Entry {
                        path: String::from_utf8_lossy(&head.path_bytes()).into_owned(),
                        why,
                    })?;
                    self.expect_content(entry.size);
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn expect_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
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

impl Extensions {
    fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.pax.is_none()
    }
}

fn entry(head: &Header, kind: EntryType, size: u64, extensions: Extensions) -> Result<Entry, String> {
    let records = extensions.pax.unwrap_or_default();
    let mut path = choose("path", extensions.path, records.get(b"path".as_slice()), || {
        head.path_bytes().into_owned()
    })?;
    let link = choose(
        "link name",
        extensions.link,
        records.get(b"linkpath".as_slice()),
        || {
            head.link_name_bytes()
                .map_or_else(Vec::new, |name| name.into_owned())
        },
    )?;
    let kind = match kind {
        // v7 knows no directories: a trailing slash says it.
        EntryType::Regular
            if path.ends_with(b"/") && head.as_ustar().is_none() && head.as_gnu().is_none() =>
        {
            Kind::Directory
        }
        EntryType::Regular | EntryType::Continuous => Kind::File,
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::Char,
        EntryType::Block => Kind::Block,
        EntryType::Fifo => Kind::Fifo,
        EntryType::GNUSparse => return Err("sparse files are not supported".to_owned()),
        other => return Err(format!("unknown type {:?}", char::from(other.as_byte()))),
    };
    if kind == Kind::Directory {
        while path.len() > 1 && path.ends_with(b"/") {
            path.pop();
        }
    }
    for (what, text) in [("path", &path), ("link name", &link)] {
        if text.len() >= MAX_PATH {
            return Err(format!(
                "the {what} has {} bytes, more than a path can have",
                text.len()
            ));
        }
        if text.contains(&0) {
            return Err(format!("the {what} contains a zero byte"));
        }
    }
    if path.is_empty() {
        return Err("the path is empty".to_owned());
    }
    if let Some(key) = records
        .keys()
        .find(|key| key.starts_with(b"GNU.sparse") || *key == b"SCHILY.realsize")
    {
        return Err(format!(
            "{}: sparse files are not supported",
            String::from_utf8_lossy(key)
        ));
    }
    let size = match pax::number(&records, "size")? {
        None => size,
        Some(pax) if pax == size || (size == 0 && pax > MAX_OCTAL) => pax,
        Some(pax) => return Err(format!("its PAX size {pax} contradicts its header size {size}")),
    };
    if size != 0 && kind != Kind::File {
        return Err(format!("it has content ({size} bytes) but is no file"));
    }
    // An empty field is a zero to Go and to us; the size alone must be written out.
    let plain = |field: &[u8], value: io::Result<u64>| match field.iter().all(|byte| matches!(byte, 0 | b' '))
    {
        true => Ok(0),
        false => value.map_err(|error| error.to_string()),
    };
    let id = |key: &str, field: &[u8], value: io::Result<u64>| -> Result<u32, String> {
        let id = match pax::number(&records, key)? {
            Some(id) => id,
            None => plain(field, value)?,
        };
        // (uid_t) -1 means "leave it" to chown(2).
        (u32::try_from(id).ok())
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| format!("its {key} {id} is too large"))
    };
    let device = |part: io::Result<Option<u32>>| match kind {
        Kind::Char | Kind::Block => part
            .map(Option::unwrap_or_default)
            .map_err(|error| error.to_string()),
        _ => Ok(0),
    };
    let mtime = match records.get(b"mtime".as_slice()) {
        Some(text) => pax::timestamp(text).ok_or("its PAX mtime is not a time")?,
        None => (
            head.mtime()
                .ok()
                .and_then(|time| i64::try_from(time).ok())
                .unwrap_or(0),
            0,
        ),
    };
    let uid = id("uid", &head.as_old().uid, head.uid())?;
    let gid = id("gid", &head.as_old().gid, head.gid())?;
    let mode = plain(&head.as_old().mode, head.mode().map(u64::from))? as u32 & 0o7777;
    let xattrs = records
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value)))
        .collect();
    Ok(Entry {
        mode,
        device: (device(head.device_major())?, device(head.device_minor())?),
        path,
        link,
        kind,
        size,
        uid,
        gid,
        mtime,
        xattrs,
    })
}

/// A name has one source beyond the header, or the readers of this world disagree on it.
fn choose(
    what: &str,
    long: Option<Vec<u8>>,
    pax: Option<&Vec<u8>>,
    plain: impl FnOnce() -> Vec<u8>,
) -> Result<Vec<u8>, String> {
    match (long, pax) {
        (Some(_), Some(_)) => Err(format!("it has both a GNU and a PAX {what}")),
        (Some(name), None) => Ok(name),
        (None, Some(name)) => Ok(name.clone()),
        (None, None) => Ok(plain()),
    }
}

fn verify_checksum(head: &Header, block: &[u8; BLOCK]) -> Result<(), String> {
    let expected = head.cksum().map_err(|error| error.to_string())?;
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                u32::from(b' ')
            } else {
                u32::from(*byte)
            }
        })
        .sum();
    if sum == expected {
        Ok(())
    } else {
        Err(format!("its checksum is {expected}, its bytes give {sum}"))
    }
}

/// GNU long names end in one zero byte.
fn long_name(mut name: Vec<u8>) -> Vec<u8> {
    if name.last() == Some(&0) {
        name.pop();
    }
    name
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
