//! The nf_tables netlink encoding: attributes, tables, chains, sets, elements, rules.
//!
//! Numbers are those of linux/netfilter/nf_tables.h and libnftnl's userdata.

use crate::net::netlink::{APPEND, Batch, CREATE, EXCLUSIVE, u16_at};

pub const NEWTABLE: u16 = 0;
pub const GETTABLE: u16 = 1;
pub const DELTABLE: u16 = 2;
pub const NEWCHAIN: u16 = 3;
pub const GETCHAIN: u16 = 4;
pub const NEWRULE: u16 = 6;
pub const GETRULE: u16 = 7;
pub const NEWSET: u16 = 9;
pub const NEWSETELEM: u16 = 12;
pub const GETSETELEM: u16 = 13;
pub const DELSETELEM: u16 = 14;
pub const NEWGEN: u16 = 15;

/// The table belongs to the socket that made it: nobody else may change it (since Linux 5.12).
pub const TABLE_OWNER: u32 = 0x2;
/// Its chains are not in force.
pub const TABLE_DORMANT: u32 = 0x1;
/// It stays when that socket closes (since Linux 6.9).
pub const TABLE_PERSIST: u32 = 0x4;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NESTED: u16 = 0x8000;

/// `NFPROTO_*`: which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    Inet = 1,
    Ip = 2,
    Bridge = 7,
}

/// Full message type.
pub fn kind(message: u16) -> u16 {
    SUBSYSTEM | message
}

/// Appends netlink attributes. Numbers in nf_tables attributes are big-endian.
pub trait Attributes {
    fn attribute(&mut self, kind: u16, value: &[u8]);
    fn text(&mut self, kind: u16, value: &str);
    fn number(&mut self, kind: u16, value: u32);
    fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Vec<u8>));
}

impl Attributes for Vec<u8> {
    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.extend(((value.len() + 4) as u16).to_ne_bytes());
        self.extend(kind.to_ne_bytes());
        self.extend(value);
        self.resize(self.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes);
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    fn nest(&mut self, kind: u16, inner: impl FnOnce(&mut Vec<u8>)) {
        let start = self.len();
        self.extend([0; 2]);
        self.extend((kind | NESTED).to_ne_bytes());
        inner(self);
        let length = (self.len() - start) as u16;
        self[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }
}

/// The attributes in `bytes`: type without flags, and value.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

pub fn find(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find_map(|(kind, value)| (kind == wanted).then_some(value))
}

/// A text attribute without its closing zero.
pub fn text(bytes: &[u8], wanted: u16) -> Option<&str> {
    std::str::from_utf8(find(bytes, wanted)?)
        .ok()
        .map(|value| value.trim_end_matches('\0'))
}

/// The header all netfilter messages start with (struct nfgenmsg).
pub fn family_header(bytes: &mut Vec<u8>, family: Family) {
    bytes.extend([family as u8, 0, 0, 0]);
}

/// libnftnl's comment: type 0, length, text with its closing zero. At most 255 bytes of text.
pub fn comment(text: &str) -> Vec<u8> {
    let mut bytes = vec![0, (text.len() + 1) as u8];
    bytes.extend(text.as_bytes());
    bytes.push(0);
    bytes
}

/// The text of [`comment`].
pub fn comment_text(userdata: &[u8]) -> Option<&str> {
    let (&[0, length], rest) = userdata.split_first_chunk::<2>()? else {
        return None;
    };
    std::str::from_utf8(rest.get(..usize::from(length).checked_sub(1)?)?).ok()
}

/// One transaction: all of it happens or nothing.
#[derive(Debug)]
pub struct Transaction {
    batch: Batch,
    next_set: u32,
}

/// A chain on a hook. `priority` orders chains of one hook; the policy is accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub name: &'static str,
    /// `filter` or `nat`.
    pub kind: &'static str,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    Prerouting = 0,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

/// The type of one field of a key: libnftables' number, and its length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Ipv4,
    Ether,
    Protocol,
    Service,
    Ifname,
}

impl Type {
    fn number(self) -> u32 {
        match self {
            Type::Ipv4 => 7,
            Type::Ether => 9,
            Type::Protocol => 12,
            Type::Service => 13,
            Type::Ifname => 41,
        }
    }

    pub fn length(self) -> usize {
        match self {
            Type::Ipv4 => 4,
            Type::Ether => 6,
            Type::Protocol => 1,
            Type::Service => 2,
            Type::Ifname => 16,
        }
    }

    /// Fields of a concatenation start at multiples of four bytes.
    pub fn padded(self) -> usize {
        self.length().next_multiple_of(4)
    }

    pub fn name(self) -> &'static str {
        match self {
            Type::Ipv4 => "ipv4_addr",
            Type::Ether => "ether_addr",
            Type::Protocol => "inet_proto",
            Type::Service => "inet_service",
            Type::Ifname => "ifname",
        }
    }
}

/// A set, or a map when `data` is not empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    pub name: &'static str,
    pub key: &'static [Type],
    pub data: &'static [Type],
    pub interval: bool,
}

/// One element; `end` closes an interval, `comment` is for people and for reading back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    pub key: Vec<u8>,
    pub key_end: Option<Vec<u8>>,
    /// False for the first address after an interval, in interval sets of one field. An end sorts
    /// before a start at the same address: the kernel refuses them the other way round.
    pub starts: bool,
    pub data: Option<Vec<u8>>,
    pub comment: Option<String>,
}

impl Element {
    pub fn key(key: Vec<u8>) -> Self {
        Element {
            key,
            key_end: None,
            starts: true,
            data: None,
            comment: None,
        }
    }
}

fn type_number(types: &[Type]) -> u32 {
    types.iter().fold(0, |sum, field| sum << 6 | field.number())
}

pub fn padded_length(types: &[Type]) -> usize {
    match types {
        [one] => one.length(),
        many => many.iter().map(|field| field.padded()).sum(),
    }
}

impl Default for Transaction {
    fn default() -> Self {
        let mut batch = Batch::default();
        batch.push(BATCH_BEGIN, 0, |bytes| {
            bytes.extend([0, 0]);
            bytes.extend((SUBSYSTEM >> 8).to_be_bytes());
        });
        Transaction { batch, next_set: 1 }
    }
}

impl Transaction {
    fn push(&mut self, message: u16, flags: u16, family: Family, body: impl FnOnce(&mut Vec<u8>)) {
        self.batch.push(kind(message), flags, |bytes| {
            family_header(bytes, family);
            body(bytes);
        });
    }

    pub fn add_table(&mut self, family: Family, name: &str, flags: u32, note: Option<&str>) {
        self.push(NEWTABLE, CREATE, family, |bytes| {
            bytes.text(1, name);
            bytes.number(2, flags);
            if let Some(note) = note {
                bytes.attribute(6, &comment(note));
            }
        });
    }

    /// Refused (`EEXIST`) when there is one.
    pub fn add_new_table(&mut self, family: Family, name: &str, note: &str) {
        self.push(NEWTABLE, CREATE | EXCLUSIVE, family, |bytes| {
            bytes.text(1, name);
            bytes.attribute(6, &comment(note));
        });
    }

    pub fn delete_table(&mut self, family: Family, name: &str) {
        self.push(DELTABLE, 0, family, |bytes| bytes.text(1, name));
    }

    pub fn add_chain(&mut self, family: Family, table: &str, chain: &Chain) {
        self.push(NEWCHAIN, CREATE, family, |bytes| {
            bytes.text(1, table);
            bytes.text(3, chain.name);
            bytes.nest(4, |hook| {
                hook.number(1, chain.hook as u32);
                hook.number(2, chain.priority as u32);
            });
            // NF_ACCEPT
            bytes.number(5, 1);
            bytes.text(7, chain.kind);
        });
    }

    pub fn add_set(&mut self, family: Family, table: &str, set: &Set) {
        const INTERVAL: u32 = 0x4;
        const MAP: u32 = 0x8;
        const CONCAT: u32 = 0x80;
        let id = self.next_set;
        self.next_set += 1;
        let ranges = set.interval && set.key.len() > 1;
        let flags = if set.interval { INTERVAL } else { 0 }
            | if set.data.is_empty() { 0 } else { MAP }
            | if ranges { CONCAT } else { 0 };
        self.push(NEWSET, CREATE, family, |bytes| {
            bytes.text(1, table);
            bytes.text(2, set.name);
            bytes.number(3, flags);
            bytes.number(4, type_number(set.key));
            bytes.number(5, padded_length(set.key) as u32);
            if !set.data.is_empty() {
                bytes.number(6, type_number(set.data));
                bytes.number(7, padded_length(set.data) as u32);
            }
            if ranges {
                bytes.nest(9, |description| {
                    description.nest(2, |fields| {
                        for field in set.key {
                            fields.nest(1, |one| one.number(1, field.length() as u32));
                        }
                    });
                });
            }
            bytes.number(10, id);
            if set.key == [Type::Ifname] {
                // Byte order of the key: host. Without it `nft list` prints empty names.
                bytes.attribute(13, &[0, 4, 1, 0, 0, 0]);
            }
        });
    }

    pub fn add_elements(&mut self, family: Family, table: &str, set: &str, elements: &[Element]) {
        self.elements(NEWSETELEM, CREATE, family, table, set, elements);
    }

    pub fn delete_elements(&mut self, family: Family, table: &str, set: &str, elements: &[Element]) {
        self.elements(DELSETELEM, 0, family, table, set, elements);
    }

    fn elements(
        &mut self,
        message: u16,
        flags: u16,
        family: Family,
        table: &str,
        set: &str,
        elements: &[Element],
    ) {
        // An attribute holds 64 KiB; an element with a comment takes up to 400 bytes.
        for chunk in elements.chunks(100) {
            self.push(message, flags, family, |bytes| {
                bytes.text(1, table);
                bytes.text(2, set);
                bytes.nest(3, |list| {
                    for element in chunk {
                        list.nest(1, |one| encode_element(one, element));
                    }
                });
            });
        }
    }

    /// `body` writes the expressions.
    pub fn add_rule(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        note: &str,
        body: impl FnOnce(&mut Vec<u8>),
    ) {
        self.push(NEWRULE, CREATE | APPEND, family, |bytes| {
            bytes.text(1, table);
            bytes.text(2, chain);
            bytes.nest(4, body);
            bytes.attribute(7, &comment(note));
        });
    }

    pub fn finish(mut self) -> Batch {
        self.batch.push(BATCH_END, 0, |bytes| {
            bytes.extend([0, 0]);
            bytes.extend((SUBSYSTEM >> 8).to_be_bytes());
        });
        self.batch
    }
}

fn encode_element(bytes: &mut Vec<u8>, element: &Element) {
    bytes.nest(1, |key| key.attribute(1, &element.key));
    if let Some(end) = &element.key_end {
        bytes.nest(10, |key| key.attribute(1, end));
    }
    if let Some(data) = &element.data {
        bytes.nest(2, |value| value.attribute(1, data));
    }
    if !element.starts {
        bytes.number(3, 1);
    }
    if let Some(note) = &element.comment {
        bytes.attribute(6, &comment(note));
    }
}

/// The elements in one answer to `GETSETELEM`.
pub fn decode_elements(message: &[u8]) -> Vec<Element> {
    let Some(list) = message.get(4..).and_then(|body| find(body, 3)) else {
        return Vec::new();
    };
    let value = |bytes: &[u8], wanted| {
        find(bytes, wanted)
            .and_then(|data| find(data, 1))
            .map(<[u8]>::to_vec)
    };
    attributes(list)
        .filter_map(|(_, one)| {
            Some(Element {
                key: value(one, 1)?,
                key_end: value(one, 10),
                starts: find(one, 3).and_then(<[u8]>::last).is_none_or(|low| low & 1 == 0),
                data: value(one, 2),
                comment: find(one, 6).and_then(comment_text).map(str::to_owned),
            })
        })
        .collect()
}
