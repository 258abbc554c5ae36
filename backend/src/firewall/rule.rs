//! Rules as values: what a packet must be and what happens then, as text for people and as nf_tables
//! expressions for the kernel.

use std::fmt;

use super::encode::Attributes;

/// Something of a packet that can be looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    InputName,
    OutputName,
    SourceAddress,
    DestinationAddress,
    TransportProtocol,
    DestinationPort,
    SourceEther,
    ArpSenderAddress,
    ArpSenderEther,
}

/// One part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// The concatenated fields are (not) an element of the set.
    In(&'static [Field], &'static str),
    NotIn(&'static [Field], &'static str),
    Ipv4,
    /// An IPv4 or ARP frame (`bridge` tables only).
    FrameIpv4,
    FrameArp,
    /// The address is in 127.0.0.0/8.
    Loopback(Field),
    Address(Field, [u8; 4]),
    NotAddress(Field, [u8; 4]),
    /// 6 TCP, 17 UDP.
    Protocol(u8),
    Port(u16),
    InputIsNotLo,
    /// The name of the link it came in by does not start so.
    InputNotLike(String),
    OutputIsLo,
    /// The destination is an address of this host.
    ToThisHost,
    Established,
    Invalid,
    /// Some rule has translated its destination.
    Translated,
    /// Destination from the map.
    DnatFrom(&'static [Field], &'static str),
    DnatTo([u8; 4], u16),
    Masquerade,
    Untracked,
    Accept,
    Drop,
}

/// Parts in order; `note` names it in `nft list` and when it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub note: &'static str,
    pub parts: Vec<Part>,
}

const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
/// The first 16-byte register, and the same place counted in words of four bytes.
const REGISTER: u32 = 1;
const WORD: u32 = 8;
const LINK_LAYER: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;

impl Rule {
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        for part in &self.parts {
            part.encode(bytes);
        }
    }
}

impl Field {
    fn words(self) -> u32 {
        match self {
            Field::InputName | Field::OutputName => 4,
            Field::SourceEther | Field::ArpSenderEther => 2,
            _ => 1,
        }
    }

    fn load(self, bytes: &mut Vec<u8>, register: u32) {
        match self {
            Field::InputName => meta(bytes, 6, register),
            Field::OutputName => meta(bytes, 7, register),
            Field::TransportProtocol => meta(bytes, 16, register),
            Field::SourceAddress => payload(bytes, NETWORK, 12, 4, register),
            Field::DestinationAddress => payload(bytes, NETWORK, 16, 4, register),
            Field::DestinationPort => payload(bytes, TRANSPORT, 2, 2, register),
            Field::SourceEther => payload(bytes, LINK_LAYER, 6, 6, register),
            Field::ArpSenderEther => payload(bytes, NETWORK, 8, 6, register),
            Field::ArpSenderAddress => payload(bytes, NETWORK, 14, 4, register),
        }
    }
}

fn load_all(fields: &[Field], bytes: &mut Vec<u8>) {
    let mut register = WORD;
    for field in fields {
        field.load(bytes, register);
        register += field.words();
    }
}

impl Part {
    fn encode(&self, bytes: &mut Vec<u8>) {
        match self {
            Part::In(fields, set) => {
                load_all(fields, bytes);
                lookup(bytes, set, None, false);
            }
            Part::NotIn(fields, set) => {
                load_all(fields, bytes);
                lookup(bytes, set, None, true);
            }
            Part::Ipv4 => {
                meta(bytes, 15, REGISTER);
                compare(bytes, EQUAL, &[2]);
            }
            Part::FrameIpv4 => {
                meta(bytes, 1, REGISTER);
                compare(bytes, EQUAL, &[0x08, 0x00]);
            }
            Part::FrameArp => {
                meta(bytes, 1, REGISTER);
                compare(bytes, EQUAL, &[0x08, 0x06]);
            }
            Part::Loopback(field) => {
                let offset = if *field == Field::SourceAddress { 12 } else { 16 };
                payload(bytes, NETWORK, offset, 1, REGISTER);
                compare(bytes, EQUAL, &[127]);
            }
            Part::Address(field, address) => {
                field.load(bytes, REGISTER);
                compare(bytes, EQUAL, address);
            }
            Part::NotAddress(field, address) => {
                field.load(bytes, REGISTER);
                compare(bytes, NOT_EQUAL, address);
            }
            Part::Protocol(number) => {
                Field::TransportProtocol.load(bytes, REGISTER);
                compare(bytes, EQUAL, &[*number]);
            }
            Part::Port(port) => {
                Field::DestinationPort.load(bytes, REGISTER);
                compare(bytes, EQUAL, &port.to_be_bytes());
            }
            Part::InputIsNotLo => name_is(bytes, Field::InputName, NOT_EQUAL),
            Part::InputNotLike(prefix) => {
                Field::InputName.load(bytes, REGISTER);
                compare(bytes, NOT_EQUAL, prefix.as_bytes());
            }
            Part::OutputIsLo => name_is(bytes, Field::OutputName, EQUAL),
            Part::ToThisHost => {
                expression(bytes, "fib", |fib| {
                    fib.number(1, REGISTER);
                    // Result: the type of the address; by: the destination.
                    fib.number(2, 3);
                    fib.number(3, 2);
                });
                // RTN_LOCAL
                compare(bytes, EQUAL, &2u32.to_ne_bytes());
            }
            Part::Established => conntrack(bytes, 0, 2 | 4),
            Part::Invalid => conntrack(bytes, 0, 1),
            Part::Translated => conntrack(bytes, 2, 1 << 5),
            Part::DnatFrom(fields, map) => {
                load_all(fields, bytes);
                lookup(bytes, map, Some(WORD), false);
                destination(bytes);
            }
            Part::DnatTo(address, port) => {
                immediate(bytes, WORD, address);
                immediate(bytes, WORD + 1, &port.to_be_bytes());
                destination(bytes);
            }
            Part::Masquerade => expression(bytes, "masq", |_| {}),
            Part::Untracked => expression(bytes, "notrack", |_| {}),
            Part::Accept => verdict(bytes, 1),
            Part::Drop => verdict(bytes, 0),
        }
    }
}

fn expression(bytes: &mut Vec<u8>, name: &str, body: impl FnOnce(&mut Vec<u8>)) {
    bytes.nest(1, |one| {
        one.text(1, name);
        one.nest(2, body);
    });
}

fn meta(bytes: &mut Vec<u8>, key: u32, register: u32) {
    expression(bytes, "meta", |meta| {
        meta.number(2, key);
        meta.number(1, register);
    });
}

fn payload(bytes: &mut Vec<u8>, base: u32, offset: u32, length: u32, register: u32) {
    expression(bytes, "payload", |payload| {
        payload.number(1, register);
        payload.number(2, base);
        payload.number(3, offset);
        payload.number(4, length);
    });
}

fn compare(bytes: &mut Vec<u8>, operation: u32, value: &[u8]) {
    expression(bytes, "cmp", |cmp| {
        cmp.number(1, REGISTER);
        cmp.number(2, operation);
        cmp.nest(3, |data| data.attribute(1, value));
    });
}

fn name_is(bytes: &mut Vec<u8>, field: Field, operation: u32) {
    let mut name = [0; 16];
    name[..2].copy_from_slice(b"lo");
    field.load(bytes, REGISTER);
    compare(bytes, operation, &name);
}

fn lookup(bytes: &mut Vec<u8>, set: &str, result: Option<u32>, inverted: bool) {
    expression(bytes, "lookup", |lookup| {
        lookup.text(1, set);
        lookup.number(2, WORD);
        if let Some(register) = result {
            lookup.number(3, register);
        }
        if inverted {
            lookup.number(5, 1);
        }
    });
}

/// Any of the bits of a conntrack key is set.
fn conntrack(bytes: &mut Vec<u8>, key: u32, bits: u32) {
    expression(bytes, "ct", |ct| {
        ct.number(1, REGISTER);
        ct.number(2, key);
    });
    expression(bytes, "bitwise", |bitwise| {
        bitwise.number(1, REGISTER);
        bitwise.number(2, REGISTER);
        bitwise.number(3, 4);
        bitwise.nest(4, |mask| mask.attribute(1, &bits.to_ne_bytes()));
        bitwise.nest(5, |xor| xor.attribute(1, &[0; 4]));
    });
    compare(bytes, NOT_EQUAL, &[0; 4]);
}

fn immediate(bytes: &mut Vec<u8>, register: u32, value: &[u8]) {
    expression(bytes, "immediate", |immediate| {
        immediate.number(1, register);
        immediate.nest(2, |data| data.attribute(1, value));
    });
}

/// Address in the first word, port in the second.
fn destination(bytes: &mut Vec<u8>) {
    expression(bytes, "nat", |nat| {
        // NFT_NAT_DNAT, for IPv4
        nat.number(1, 1);
        nat.number(2, 2);
        nat.number(3, WORD);
        nat.number(5, WORD + 1);
    });
}

fn verdict(bytes: &mut Vec<u8>, code: u32) {
    expression(bytes, "immediate", |immediate| {
        immediate.number(1, 0);
        immediate.nest(2, |data| data.nest(2, |verdict| verdict.number(1, code)));
    });
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Field::InputName => "iifname",
            Field::OutputName => "oifname",
            Field::SourceAddress => "ip saddr",
            Field::DestinationAddress => "ip daddr",
            Field::TransportProtocol => "meta l4proto",
            Field::DestinationPort => "th dport",
            Field::SourceEther => "ether saddr",
            Field::ArpSenderAddress => "arp saddr ip",
            Field::ArpSenderEther => "arp saddr ether",
        })
    }
}

fn joined(fields: &[Field]) -> String {
    fields
        .iter()
        .map(Field::to_string)
        .collect::<Vec<_>>()
        .join(" . ")
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = |address: &[u8; 4]| std::net::Ipv4Addr::from(*address);
        match self {
            Part::In(fields, set) => write!(f, "{} @{set}", joined(fields)),
            Part::NotIn(fields, set) => write!(f, "{} != @{set}", joined(fields)),
            Part::Ipv4 => f.write_str("meta nfproto ipv4"),
            Part::FrameIpv4 => f.write_str("meta protocol ip"),
            Part::FrameArp => f.write_str("meta protocol arp"),
            Part::Loopback(field) => write!(f, "{field} 127.0.0.0/8"),
            Part::Address(field, value) => write!(f, "{field} {}", address(value)),
            Part::NotAddress(field, value) => write!(f, "{field} != {}", address(value)),
            Part::Protocol(number) => write!(f, "meta l4proto {number}"),
            Part::Port(port) => write!(f, "th dport {port}"),
            Part::InputIsNotLo => f.write_str("iifname != \"lo\""),
            Part::InputNotLike(prefix) => write!(f, "iifname != \"{prefix}*\""),
            Part::OutputIsLo => f.write_str("oifname \"lo\""),
            Part::ToThisHost => f.write_str("fib daddr type local"),
            Part::Established => f.write_str("ct state established,related"),
            Part::Invalid => f.write_str("ct state invalid"),
            Part::Translated => f.write_str("ct status dnat"),
            Part::DnatFrom(fields, map) => write!(f, "dnat ip to {} map @{map}", joined(fields)),
            Part::DnatTo(value, port) => write!(f, "dnat ip to {}:{port}", address(value)),
            Part::Masquerade => f.write_str("masquerade"),
            Part::Untracked => f.write_str("notrack"),
            Part::Accept => f.write_str("accept"),
            Part::Drop => f.write_str("drop"),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.parts {
            write!(f, "{part} ")?;
        }
        write!(f, "comment \"{}\"", self.note)
    }
}
