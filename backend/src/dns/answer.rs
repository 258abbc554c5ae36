//! What to do with one question: answer it, pass it on, or say nothing. Pure but for the zones.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::message::{self, Code, Data, Query};

/// Where names are looked up.
pub trait Names {
    /// The addresses of a name; `None`: unknown.
    fn addresses(&self, name: &str) -> Option<BTreeSet<Ipv4Addr>>;
    fn name(&self, address: Ipv4Addr) -> Option<String>;
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Answer(Vec<u8>),
    /// Ask the host's name servers; the answer goes back as it comes.
    Forward,
    /// Not a question.
    Drop,
}

/// `forward`: questions may leave the host. `room`: the largest answer, `None` for what the asker's
/// own buffer takes (UDP).
pub fn answer(bytes: &[u8], names: &impl Names, forward: bool, room: Option<usize>) -> Verdict {
    let Some(query) = message::parse(bytes) else {
        // Something only a real server understands may still be a fair question.
        if forward && bytes.len() >= 12 && !message::is_answer(bytes) && message::question(bytes).is_some() {
            return Verdict::Forward;
        }
        return message::refuse(bytes, Code::FormatError).map_or(Verdict::Drop, Verdict::Answer);
    };
    let reply = |code, records: &[Data]| {
        Verdict::Answer(message::answer(&query, code, records, room.unwrap_or(query.room)))
    };
    match local(&query, names) {
        Some(records) => reply(Code::NoError, &records),
        // A name of one label is never anybody else's.
        None if !forward || !query.name.contains('.') && address_question(&query) => {
            reply(Code::NoSuchName, &[])
        }
        None => Verdict::Forward,
    }
}

/// `None`: no zone knows the name. Empty: it has no record of this kind.
fn local(query: &Query, names: &impl Names) -> Option<Vec<Data>> {
    if !query.internet {
        return None;
    }
    if let Some(address) = message::reverse(&query.name) {
        let name = names.name(address)?;
        let asked = [message::PTR, message::ANY].contains(&query.kind);
        return Some(if asked { vec![Data::Name(name)] } else { Vec::new() });
    }
    let addresses = names.addresses(&query.name)?;
    let asked = [message::A, message::ANY].contains(&query.kind);
    Some(if asked {
        rotated(addresses, query.id)
    } else {
        Vec::new()
    })
}

/// Replicas take turns: each question starts with another one.
fn rotated(addresses: BTreeSet<Ipv4Addr>, turn: u16) -> Vec<Data> {
    let mut records: Vec<_> = addresses.into_iter().map(Data::Address).collect();
    if !records.is_empty() {
        let first = usize::from(turn) % records.len();
        records.rotate_left(first);
    }
    records
}

/// The root and the top-level domains have records of other kinds (NS, SOA) that may be asked for.
fn address_question(query: &Query) -> bool {
    !query.name.is_empty() && [message::A, message::AAAA, message::ANY].contains(&query.kind)
}

#[cfg(test)]
mod tests;
