//! The names of one network as a file: sorted lines `name address…`.
//!
//! Written by the agent, read by every shim at each question; replaced as a whole, never edited.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    net::Ipv4Addr,
    os::unix::fs::FileExt,
    path::Path,
};

use reconciler::spec::Zone;

/// A line longer than this is not ours.
const LINE: usize = 64 << 10;

/// Replaces the file in one step.
///
/// # Errors
/// The directory is missing or full.
pub fn write(path: &Path, zone: &Zone) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::create(&temporary)?;
    file.write_all(text(zone).as_bytes())?;
    drop(file);
    fs::rename(&temporary, path)
}

fn text(zone: &Zone) -> String {
    let mut text = String::new();
    for (name, addresses) in zone {
        text.push_str(name);
        for address in addresses {
            text.push(' ');
            text.push_str(&address.to_string());
        }
        text.push('\n');
    }
    text
}

/// The whole zone; `None`: somebody has written into it.
///
/// # Errors
/// The file cannot be read.
pub fn read(path: &Path) -> io::Result<Option<Zone>> {
    let bytes = fs::read(path)?;
    let zone: Zone = String::from_utf8_lossy(&bytes).lines().filter_map(line).collect();
    // A name that is out of order would not be found.
    Ok((text(&zone).as_bytes() == bytes).then_some(zone))
}

/// The addresses of `name` (lower case); `None`: the zone does not know it. Reads a few blocks of the
/// file, whatever its size.
///
/// # Errors
/// The file cannot be read.
pub fn lookup(file: &File, name: &str) -> io::Result<Option<BTreeSet<Ipv4Addr>>> {
    let (mut low, mut high) = (0, file.metadata()?.len());
    // Invariant: the line sought, if any, starts in low..high, and low is the start of a line.
    while low < high {
        let middle = low + (high - low) / 2;
        let start = line_start(file, middle, low)?;
        let text = line_at(file, start)?;
        let (found, addresses) = line(&text).unwrap_or_default();
        match name.cmp(found.as_str()) {
            std::cmp::Ordering::Equal => return Ok(Some(addresses)),
            std::cmp::Ordering::Less => high = start,
            std::cmp::Ordering::Greater => low = start + text.len() as u64 + 1,
        }
    }
    Ok(None)
}

/// The first name, in order, that has `address`.
///
/// # Errors
/// The file cannot be read.
pub fn name_of(file: &File, address: Ipv4Addr) -> io::Result<Option<String>> {
    let mut start = 0;
    let length = file.metadata()?.len();
    while start < length {
        let text = line_at(file, start)?;
        if let Some((name, addresses)) = line(&text)
            && addresses.contains(&address)
        {
            return Ok(Some(name));
        }
        start += text.len() as u64 + 1;
    }
    Ok(None)
}

fn line(text: &str) -> Option<(String, BTreeSet<Ipv4Addr>)> {
    let mut words = text.split(' ');
    let name = words.next().filter(|name| !name.is_empty())?;
    Some((
        name.to_owned(),
        words.filter_map(|word| word.parse().ok()).collect(),
    ))
}

/// Start of the line that `at` lies in; never before `floor`, which is the start of one.
fn line_start(file: &File, at: u64, floor: u64) -> io::Result<u64> {
    let mut block = [0; 512];
    let mut end = at;
    while end > floor {
        let begin = end.saturating_sub(block.len() as u64).max(floor);
        let bytes = &mut block[..(end - begin) as usize];
        file.read_exact_at(bytes, begin)?;
        if let Some(newline) = bytes.iter().rposition(|&byte| byte == b'\n') {
            return Ok(begin + newline as u64 + 1);
        }
        end = begin;
    }
    Ok(floor)
}

/// The line from `start`, without its end.
fn line_at(file: &File, start: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut block = [0; 512];
    loop {
        let read = file.read_at(&mut block, start + bytes.len() as u64)?;
        match block[..read].iter().position(|&byte| byte == b'\n') {
            Some(newline) => {
                bytes.extend(&block[..newline]);
                break;
            }
            None => bytes.extend(&block[..read]),
        }
        if read == 0 || bytes.len() > LINE {
            break;
        }
    }
    String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests;
