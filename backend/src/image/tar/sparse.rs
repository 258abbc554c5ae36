//! Sparse files: where the bytes of an entry belong (GNU tar manual, "Storing Sparse Files").
//!
//! The old GNU format has a map in the header and in blocks after it; PAX 0.0 and 0.1 have it in records, PAX 1.0
//! before the content. A part in the middle of a file has whole blocks: some readers look for the next part at the next
//! block, others at the next byte.

use tar::{EntryType, GnuSparseHeader, Header};

use super::{Archive, BLOCK, Input, TarError, entry::number, pax};

/// More parts than any file that somebody makes; 4 MiB of memory.
const MAX_PARTS: usize = 1 << 18;
/// In the old format: parts in the header, parts in each further block.
const FURTHER: usize = 21;

/// What the headers say of a sparse file.
pub(super) struct Map {
    /// Bytes of the file.
    pub real: u64,
    name: Option<Vec<u8>>,
    source: Source,
}

enum Source {
    /// In the header, and in blocks after it.
    Old,
    /// PAX 0.0 and 0.1.
    Records(Vec<(u64, u64)>),
    /// PAX 1.0.
    Content,
}

impl Map {
    pub fn name(&self) -> Option<&[u8]> {
        self.name.as_deref()
    }

    /// The parts, which are read as far as they are in the stream. The outer error is of the archive, the inner one of
    /// this entry.
    #[allow(
        clippy::type_complexity,
        reason = "two errors, told apart by who adds the path"
    )]
    pub fn read<R: Input>(
        self,
        archive: &mut Archive<R>,
        head: &Header,
    ) -> Result<Result<Vec<(u64, u64)>, String>, TarError> {
        match self.source {
            Source::Old => old(archive, head),
            Source::Records(parts) => Ok(Ok(parts)),
            Source::Content => content(archive),
        }
    }
}

/// `None`: not a sparse file.
pub(super) fn map(head: &Header, kind: EntryType, records: &pax::Records) -> Result<Option<Map>, String> {
    let all: Vec<_> = records
        .plain
        .keys()
        .filter_map(|key| key.strip_prefix(b"GNU.sparse."))
        .collect();
    if records.get(b"SCHILY.realsize").is_some() || records.get(b"SCHILY.filetype").is_some() {
        return Err("sparse files of star are not supported".to_owned());
    }
    if kind == EntryType::GNUSparse {
        let Some(gnu) = head.as_gnu() else {
            return Err("it is sparse, which its format knows nothing of".to_owned());
        };
        if !all.is_empty() || !records.parts.is_empty() {
            return Err("it is sparse in two ways".to_owned());
        }
        return Ok(Some(Map {
            real: number(&gnu.realsize).map_err(|why| format!("its real size {why}"))?,
            name: None,
            source: Source::Old,
        }));
    }
    if all.is_empty() && records.parts.is_empty() {
        return Ok(None);
    }
    if head.as_ustar().is_none() && head.as_gnu().is_none() {
        // To GNU tar it is a plain file then.
        return Err("it is sparse, which its format knows nothing of".to_owned());
    }
    let known = |keys: &[&str]| {
        let told: Vec<_> = all.iter().map(|key| String::from_utf8_lossy(key)).collect();
        told.iter().all(|key| keys.contains(&key.as_ref()))
    };
    let value = |key: &str| {
        let value = pax::number(records, &format!("GNU.sparse.{key}"))?;
        value.ok_or_else(|| format!("it is sparse but has no GNU.sparse.{key}"))
    };
    let name = records.get(b"GNU.sparse.name").cloned();
    if records.get(b"GNU.sparse.major").is_some() {
        let version = (value("major")?, value("minor")?);
        if version != (1, 0) || !known(&["major", "minor", "name", "realsize"]) || !records.parts.is_empty() {
            return Err("it is sparse in a way that nobody has described".to_owned());
        }
        return Ok(Some(Map {
            real: value("realsize")?,
            name: Some(name.ok_or("it is sparse but has no GNU.sparse.name")?),
            source: Source::Content,
        }));
    }
    let parts = match records.get(b"GNU.sparse.map") {
        Some(map) if records.parts.is_empty() && known(&["size", "numblocks", "map", "name"]) => {
            numbers(map).ok_or("its GNU.sparse.map is malformed")?
        }
        None if known(&["size", "numblocks"]) => records.parts.clone(),
        _ => return Err("it is sparse in a way that nobody has described".to_owned()),
    };
    if value("numblocks")? != parts.len() as u64 {
        return Err("its GNU.sparse.numblocks contradicts its map".to_owned());
    }
    Ok(Some(Map {
        real: value("size")?,
        name,
        source: Source::Records(parts),
    }))
}

/// `offset,length,offset,length`.
fn numbers(map: &[u8]) -> Option<Vec<(u64, u64)>> {
    if map.is_empty() {
        return Some(Vec::new());
    }
    let numbers: Option<Vec<u64>> = map.split(|byte| *byte == b',').map(pax::digits).collect();
    let (pairs, rest) = numbers.as_deref()?.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[offset, length]| (*offset, *length)).collect())
}

fn old<R: Input>(
    archive: &mut Archive<R>,
    head: &Header,
) -> Result<Result<Vec<(u64, u64)>, String>, TarError> {
    let Some(gnu) = head.as_gnu() else {
        return Ok(Ok(Vec::new()));
    };
    let mut parts = Vec::new();
    let mut more = gnu.isextended[0] != 0;
    let mut ended = false;
    for slot in &gnu.sparse {
        if let Err(why) = slot_of(slot, &mut parts, &mut ended) {
            return Ok(Err(why));
        }
    }
    while more {
        if ended || parts.len() > MAX_PARTS {
            return Ok(Err(match ended {
                true => "its map goes on after its end",
                false => "it has more parts than any sparse file",
            }
            .to_owned()));
        }
        let block = archive.block()?;
        for slot in block[..FURTHER * 24].as_chunks::<24>().0 {
            let mut one = GnuSparseHeader {
                offset: [0; 12],
                numbytes: [0; 12],
            };
            one.offset.copy_from_slice(&slot[..12]);
            one.numbytes.copy_from_slice(&slot[12..]);
            if let Err(why) = slot_of(&one, &mut parts, &mut ended) {
                return Ok(Err(why));
            }
        }
        more = block[FURTHER * 24] != 0;
    }
    Ok(Ok(parts))
}

/// The first empty slot ends the map.
fn slot_of(slot: &GnuSparseHeader, parts: &mut Vec<(u64, u64)>, ended: &mut bool) -> Result<(), String> {
    if slot.offset.iter().chain(&slot.numbytes).all(|byte| *byte == 0) {
        *ended = true;
        return Ok(());
    }
    if *ended {
        return Err("its map goes on after its end".to_owned());
    }
    let of = |field| number(field).map_err(|why| format!("a number of its map {why}"));
    parts.push((of(&slot.offset)?, of(&slot.numbytes)?));
    Ok(())
}

/// Lines of one number each: how many parts there are, then offset and length of each; then up to a whole block.
fn content<R: Input>(archive: &mut Archive<R>) -> Result<Result<Vec<(u64, u64)>, String>, TarError> {
    let (mut line, mut numbers, mut wanted) = (Vec::new(), Vec::new(), 1usize);
    while numbers.len() < wanted {
        if archive.remaining < BLOCK as u64 {
            return Ok(Err("its map is longer than its content".to_owned()));
        }
        let block = archive.block()?;
        archive.remaining -= BLOCK as u64;
        for byte in block {
            if numbers.len() == wanted {
                break;
            }
            if byte != b'\n' {
                line.push(byte);
                if line.len() > 20 {
                    return Ok(Err("a number of its map is too large".to_owned()));
                }
                continue;
            }
            let Some(number) = pax::digits(&line) else {
                return Ok(Err("a number of its map is not a number".to_owned()));
            };
            if numbers.is_empty() {
                if number > MAX_PARTS as u64 {
                    return Ok(Err("it has more parts than any sparse file".to_owned()));
                }
                wanted = number as usize * 2 + 1;
            }
            numbers.push(number);
            line.clear();
        }
    }
    let pairs = numbers[1..].as_chunks::<2>().0;
    Ok(Ok(pairs
        .iter()
        .map(|[offset, length]| (*offset, *length))
        .collect()))
}

/// In order, apart, within the file, of whole blocks, and all of what is stored.
pub(super) fn verify(parts: &[(u64, u64)], real: u64, stored: u64) -> Result<(), String> {
    let (mut end, mut sum) = (0u64, 0u64);
    let last = parts.iter().rposition(|(_, length)| *length > 0);
    for (at, (offset, length)) in parts.iter().enumerate() {
        if *offset < end {
            return Err("the parts of its map overlap or are out of order".to_owned());
        }
        end = (offset.checked_add(*length))
            .filter(|end| *end <= real)
            .ok_or("a part of its map is beyond its real size")?;
        // Each is within the file, and they are apart: no overflow.
        sum += length;
        if length % BLOCK as u64 != 0 && Some(at) != last {
            return Err("a part in the middle of its map has no whole blocks".to_owned());
        }
    }
    match sum == stored {
        true => Ok(()),
        false => Err(format!("its map is of {sum} bytes, it has {stored}")),
    }
}
