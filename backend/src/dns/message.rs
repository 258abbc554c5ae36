//! As much of the DNS wire format (RFC 1035) as a resolver needs that answers for its own zones and
//! passes everything else on verbatim. Hostile bytes give `None`, never a panic.

use std::{fmt::Write, net::Ipv4Addr};

pub const A: u16 = 1;
pub const PTR: u16 = 12;
pub const AAAA: u16 = 28;
pub const ANY: u16 = 255;
const IN: u16 = 1;
const OPT: u16 = 41;
const HEADER: usize = 12;
/// What fits into UDP without EDNS.
const CLASSIC: usize = 512;
/// A name on the wire is at most this long (RFC 1035, 2.3.4).
const NAME: usize = 255;
const LABEL: usize = 63;

/// A standard query with one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub id: u16,
    pub recursion_desired: bool,
    /// Lower case, without the closing dot; bytes outside printable ASCII are escaped (`\DDD`).
    pub name: String,
    pub kind: u16,
    pub internet: bool,
    /// The largest answer the asker takes over UDP.
    pub room: usize,
    /// The question as it was asked, to be repeated letter for letter.
    question: Vec<u8>,
    edns: bool,
}

/// RFC 1035, 4.1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    NoError = 0,
    FormatError = 1,
    ServerFailure = 2,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    Address(Ipv4Addr),
    Name(String),
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The id of any message.
pub fn id(bytes: &[u8]) -> Option<u16> {
    number(bytes, 0)
}

pub fn set_id(bytes: &mut [u8], id: u16) {
    if let Some(place) = bytes.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
}

/// It is an answer, not a query.
pub fn is_answer(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER && bytes[2] & 0x80 != 0
}

/// The question section of a message with one question, as it stands there.
pub fn question(bytes: &[u8]) -> Option<&[u8]> {
    if number(bytes, 4)? != 1 {
        return None;
    }
    let (_, end) = name(bytes, HEADER)?;
    bytes.get(HEADER..end + 4)
}

/// A question without compression in it; anything else is hostile.
pub fn parse(bytes: &[u8]) -> Option<Query> {
    let flags = number(bytes, 2)?;
    let opcode = flags >> 11 & 0xf;
    if is_answer(bytes) || opcode != 0 || number(bytes, 4)? != 1 {
        return None;
    }
    let (text, end) = name(bytes, HEADER)?;
    let question = bytes.get(HEADER..end + 4)?.to_vec();
    let room = edns(bytes, end + 4);
    Some(Query {
        id: id(bytes)?,
        recursion_desired: flags & 0x100 != 0,
        name: text,
        kind: number(bytes, end)?,
        internet: [IN, 255].contains(&number(bytes, end + 2)?),
        room: room.map_or(CLASSIC, |room| usize::from(room).max(CLASSIC)),
        question,
        edns: room.is_some(),
    })
}

/// The name at `at` in lower case, and where it ends.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let start = at;
    let mut text = String::new();
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        if length == 0 {
            return (at - start <= NAME).then_some((text, at));
        }
        if length > LABEL {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        for &byte in bytes.get(at..at + length)? {
            // A dot inside a label must not look like the end of one.
            if byte.is_ascii_graphic() && byte != b'.' && byte != b'\\' {
                text.push(char::from(byte.to_ascii_lowercase()));
            } else {
                let _ = write!(text, "\\{byte:03}");
            }
        }
        at += length;
    }
}

/// The asker's buffer size, if it speaks EDNS (RFC 6891) and nothing else is said.
fn edns(bytes: &[u8], at: usize) -> Option<u16> {
    let sections = (number(bytes, 6)?, number(bytes, 8)?, number(bytes, 10)?);
    let is_opt = sections == (0, 0, 1) && bytes.get(at) == Some(&0) && number(bytes, at + 1)? == OPT;
    if is_opt { number(bytes, at + 3) } else { None }
}

/// The answer to `query`. `room`: the most bytes it may take; what does not fit is left out, marked
/// as truncated. Every record has a lifetime of 0 s: names move with their containers.
pub fn answer(query: &Query, code: Code, records: &[Data], room: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(CLASSIC);
    bytes.extend(query.id.to_be_bytes());
    // An answer, by an authority, recursion available; recursion desired repeated.
    let flags = 0x8480 | u16::from(query.recursion_desired) << 8 | code as u16;
    bytes.extend(flags.to_be_bytes());
    bytes.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(&query.question);
    let reserved = if query.edns { 11 } else { 0 };
    let mut count: u16 = 0;
    for record in records {
        let mut data = Vec::new();
        let kind = match record {
            Data::Address(address) => {
                data.extend(address.octets());
                A
            }
            Data::Name(name) => {
                write_name(&mut data, name);
                PTR
            }
        };
        if bytes.len() + 12 + data.len() + reserved > room || count == u16::MAX {
            bytes[2] |= 0x02;
            break;
        }
        // The name is the question's.
        bytes.extend([0xc0, HEADER as u8]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend(IN.to_be_bytes());
        bytes.extend([0; 4]);
        bytes.extend((data.len() as u16).to_be_bytes());
        bytes.extend(data);
        count += 1;
    }
    bytes[6..8].copy_from_slice(&count.to_be_bytes());
    if query.edns {
        bytes[11] = 1;
        bytes.push(0);
        bytes.extend(OPT.to_be_bytes());
        bytes.extend(1232u16.to_be_bytes());
        bytes.extend([0; 6]);
    }
    bytes
}

/// `query` without an answer, for what cannot even be parsed.
pub fn refuse(bytes: &[u8], code: Code) -> Option<Vec<u8>> {
    if bytes.len() < HEADER || is_answer(bytes) {
        return None;
    }
    let mut answer = bytes[..HEADER].to_vec();
    answer[2] = answer[2] & 0x79 | 0x80;
    answer[3] = 0x80 | code as u8;
    answer[4..].fill(0);
    Some(answer)
}

fn write_name(bytes: &mut Vec<u8>, name: &str) {
    let start = bytes.len();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(LABEL)];
        if bytes.len() - start + label.len() + 2 > NAME {
            break;
        }
        bytes.push(label.len() as u8);
        bytes.extend(label);
    }
    bytes.push(0);
}

/// `4.3.2.1.in-addr.arpa` is 1.2.3.4.
pub fn reverse(name: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u8> = name
        .strip_suffix(".in-addr.arpa")?
        .split('.')
        .map(|part| part.parse().ok())
        .collect::<Option<_>>()?;
    let [d, c, b, a] = parts[..] else { return None };
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests;
