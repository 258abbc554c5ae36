//! From a header and what extension headers said to one entry.

use std::collections::BTreeMap;

use tar::{EntryType, Header};

use super::{
    BLOCK, Entry, Kind, pax,
    sparse::{self, Map},
};

/// PATH_MAX: no longer path can be used, so none is stored.
const MAX_PATH: usize = 4096;
/// Largest number an octal size field holds (11 digits); larger ones may be in the PAX header alone.
const MAX_OCTAL: u64 = 0o77_777_777_777;
/// Readers count in signed numbers.
const MAX_SIZE: u64 = i64::MAX as u64;

/// What extension headers said about the next entry.
#[derive(Default)]
pub(super) struct Extensions {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub pax: Option<pax::Records>,
    /// There was a header for all entries, whose records say nothing.
    pub global: bool,
}

impl Extensions {
    pub fn is_empty(&self) -> bool {
        self.path.is_none() && self.link.is_none() && self.pax.is_none() && !self.global
    }
}

/// The entry, the bytes that follow it, and where a sparse file says what they are.
pub(super) fn decode(
    head: &Header,
    kind: EntryType,
    size: u64,
    extensions: Extensions,
) -> Result<(Entry, u64, Option<Map>), String> {
    let records = extensions.pax.unwrap_or_default();
    let map = sparse::map(head, kind, &records)?;
    let long = match map.as_ref().and_then(Map::name) {
        // It replaces every other name, which is made up.
        Some(name) if extensions.path.is_none() => Some(name.to_vec()),
        Some(_) => return Err("it has both a GNU and a PAX path".to_owned()),
        None => None,
    };
    let mut path = match long {
        Some(name) => name,
        None => choose("path", extensions.path, records.get(b"path"), || {
            head.path_bytes().into_owned()
        })?,
    };
    let link = choose("link name", extensions.link, records.get(b"linkpath"), || {
        head.link_name_bytes()
            .map_or_else(Vec::new, |name| name.into_owned())
    })?;
    let kind = kind_of(head, kind, &path)?;
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
    if link.is_empty() && matches!(kind, Kind::Symlink | Kind::HardLink) {
        return Err("its target is empty".to_owned());
    }
    let stored = match pax::number(&records, "size")? {
        None => size,
        Some(pax) if pax == size || (size == 0 && pax > MAX_OCTAL) => pax,
        Some(pax) => return Err(format!("its PAX size {pax} contradicts its header size {size}")),
    };
    let size = map.as_ref().map_or(stored, |map| map.real);
    if stored > MAX_SIZE || size > MAX_SIZE {
        return Err("its size is beyond what any file can have".to_owned());
    }
    if (size != 0 || stored != 0 || map.is_some()) && kind != Kind::File {
        return Err(format!("it has content ({stored} bytes) but is no file"));
    }
    let id = |key: &str, field: &[u8]| -> Result<u32, String> {
        let id = match pax::number(&records, key)? {
            Some(id) => id,
            None => plain(key, field)?,
        };
        // (uid_t) -1 means "leave it" to chown(2).
        (u32::try_from(id).ok())
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| format!("its {key} {id} is too large"))
    };
    let mtime = match records.get(b"mtime") {
        Some(text) => pax::timestamp(text).ok_or("its PAX mtime is not a time")?,
        None => (time(&head.as_old().mtime)?, 0),
    };
    // Kept by nobody, but GNU tar stops at one that is none.
    for key in ["atime", "ctime"] {
        if records
            .get(key.as_bytes())
            .is_some_and(|text| pax::timestamp(text).is_none())
        {
            return Err(format!("its PAX {key} is not a time"));
        }
    }
    let uid = id("uid", &head.as_old().uid)?;
    let gid = id("gid", &head.as_old().gid)?;
    let mode = plain("mode", &head.as_old().mode)? as u32 & 0o7777;
    let xattrs: BTreeMap<_, _> = records
        .plain
        .into_iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value)))
        .collect();
    let entry = Entry {
        mode,
        device: device(head, kind)?,
        path,
        link,
        kind,
        size,
        sparse: None,
        uid,
        gid,
        mtime,
        xattrs,
    };
    Ok((entry, stored, map))
}

fn kind_of(head: &Header, kind: EntryType, path: &[u8]) -> Result<Kind, String> {
    Ok(match kind {
        // v7 knows no directories: a trailing slash says it; but to some readers only where the type is a zero byte.
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            let own = head.path_bytes().ends_with(b"/");
            match (path.ends_with(b"/"), own, head.as_old().linkflag[0]) {
                (true, true, 0) => Kind::Directory,
                (false, false, _) | (false, true, b'1'..) => Kind::File,
                _ => return Err("its path is that of a directory but it is a file".to_owned()),
            }
        }
        EntryType::Directory => Kind::Directory,
        EntryType::Symlink => Kind::Symlink,
        EntryType::Link => Kind::HardLink,
        EntryType::Char => Kind::Char,
        EntryType::Block => Kind::Block,
        EntryType::Fifo => Kind::Fifo,
        other => return Err(format!("unknown type {:?}", char::from(other.as_byte()))),
    })
}

fn device(head: &Header, kind: Kind) -> Result<(u32, u32), String> {
    if !matches!(kind, Kind::Char | Kind::Block) {
        return Ok((0, 0));
    }
    let fields = match (head.as_ustar(), head.as_gnu()) {
        (Some(ustar), _) => (ustar.dev_major, ustar.dev_minor),
        (_, Some(gnu)) => (gnu.dev_major, gnu.dev_minor),
        _ => return Err("it is a device, which its format knows nothing of".to_owned()),
    };
    let part = |field: &[u8]| {
        let number = number(field).map_err(|why| format!("its device number {why}"))?;
        u32::try_from(number).map_err(|_| "its device number is too large".to_owned())
    };
    Ok((part(&fields.0)?, part(&fields.1)?))
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

/// Checksum and format: everything that is understood by what the header says of itself.
pub(super) fn verify(head: &Header, block: &[u8; BLOCK]) -> Result<(), String> {
    let expected = number(&head.as_old().cksum).map_err(|why| format!("its checksum {why}"))?;
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                u64::from(b' ')
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    if sum != expected {
        return Err(format!("its checksum is {expected}, its bytes give {sum}"));
    }
    // Also what nobody uses: to Python, an archive ends before a header with a field that is no number.
    for (what, from, to) in [
        ("mode", 100, 108),
        ("uid", 108, 116),
        ("gid", 116, 124),
        ("device number", 329, 337),
        ("device number", 337, 345),
    ] {
        plain(what, &block[from..to])?;
    }
    time(&head.as_old().mtime)?;
    if head.as_ustar().is_some() {
        return Ok(());
    }
    if block[257..].starts_with(b"ustar") && head.as_gnu().is_none() {
        return Err("it is of a format that nobody has described".to_owned());
    }
    // Elsewhere it is the rest of a path (Python, and Go before 1.8 that wrote it), or times (GNU tar).
    if block[345..369].iter().any(|byte| *byte != 0) {
        return Err("it has more of a path, or times, where readers do not agree which".to_owned());
    }
    Ok(())
}

/// An empty field is a zero to Go and to us; the size alone must be written out.
fn plain(what: &str, field: &[u8]) -> Result<u64, String> {
    match field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        true => Ok(0),
        false => number(field).map_err(|why| format!("its {what} {why}")),
    }
}

/// A time before 1970 is a negative number of GNU tar.
fn time(field: &[u8; 12]) -> Result<i64, String> {
    if field[0] == 0xff {
        let (high, low) = field.split_at(4);
        let low = low.try_into().map_or(0, i64::from_be_bytes);
        return match high.iter().all(|byte| *byte == 0xff) && low < 0 {
            true => Ok(low),
            false => Err("its time is too early".to_owned()),
        };
    }
    plain("time", field)?
        .try_into()
        .map_err(|_| "its time is too late".to_owned())
}

/// Octal digits up to a zero byte or spaces, or a positive number in base 256; what every reader takes.
pub(super) fn number(field: &[u8]) -> Result<u64, String> {
    let not = || "is not a number".to_owned();
    if let [0x80, rest @ ..] = field {
        let (high, low) = rest.split_at(rest.len().saturating_sub(8));
        let value = low.iter().fold(0u64, |value, byte| value << 8 | u64::from(*byte));
        return match high.iter().all(|byte| *byte == 0) && value <= MAX_SIZE {
            true => Ok(value),
            false => Err("is too large".to_owned()),
        };
    }
    let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
    let text = field[..end].trim_ascii();
    if text.is_empty()
        || field
            .first()
            .is_some_and(|byte| byte.is_ascii_whitespace() && *byte != b' ')
    {
        return Err(not());
    }
    text.iter().try_fold(0u64, |value, byte| match byte {
        b'0'..=b'7' => Ok(value << 3 | u64::from(byte - b'0')),
        _ => Err(not()),
    })
}
