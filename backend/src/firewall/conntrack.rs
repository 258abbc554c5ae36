//! Forgets UDP flows that were decided by an older ruleset, and counts TCP connections.
//!
//! Address translation looks at the first packet of a flow only. A UDP flow has no end: without this,
//! a client that keeps sending stays on the old target for ever.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::encode::{Attributes, find};
use crate::net::netlink::{Batch, Message, Netlink, NetlinkError};

const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Which flows to forget.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stale {
    /// Host address (0.0.0.0: any) and port of changed UDP ports.
    pub published: BTreeSet<(Ipv4Addr, u16)>,
    /// Container addresses that are gone or belong to somebody else now.
    pub addresses: BTreeSet<Ipv4Addr>,
}

/// One UDP flow, in the direction of its first packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    port: u16,
    /// Who answers: the target after translation.
    answers: Ipv4Addr,
}

impl Stale {
    pub fn is_empty(&self) -> bool {
        self.published.is_empty() && self.addresses.is_empty()
    }

    /// `local`: the host's own addresses; a flow through the host to the same port of somebody else
    /// is none of ours.
    fn covers(&self, flow: Flow, local: &BTreeSet<Ipv4Addr>) -> bool {
        let published = [Ipv4Addr::UNSPECIFIED, flow.destination]
            .into_iter()
            .any(|address| self.published.contains(&(address, flow.port)));
        let to_host = local.contains(&flow.destination) || flow.destination.is_loopback();
        published && to_host
            || self.addresses.contains(&flow.source)
            || self.addresses.contains(&flow.destination)
            || self.addresses.contains(&flow.answers)
    }
}

/// Deletes the stale flows; returns how many there were.
///
/// # Errors
/// The table of connections cannot be read. A flow that ended meanwhile is no error.
pub fn forget(netfilter: &Netlink, stale: &Stale, local: &BTreeSet<Ipv4Addr>) -> Result<usize, NetlinkError> {
    if stale.is_empty() {
        return Ok(0);
    }
    let mut count = 0;
    let Some(messages) = dump(netfilter)? else {
        tracing::warn!(
            "this kernel has no nf_conntrack_netlink: UDP clients may be sent to an old target until they pause \
             for two minutes; load that module"
        );
        return Ok(0);
    };
    for message in messages {
        let Some(body) = message.body.get(4..) else {
            continue;
        };
        let Some(flow) = flow(body) else { continue };
        if !stale.covers(flow, local) {
            continue;
        }
        let mut batch = Batch::default();
        batch.push(DELETE, 0, |bytes| {
            bytes.extend([libc::AF_INET as u8, 0, 0, 0]);
            // Original direction, id and zone name exactly this entry.
            for kind in [1, 12, 18] {
                if let Some(value) = find(body, kind) {
                    let nested = if kind == 1 { 0x8000 } else { 0 };
                    bytes.attribute(kind | nested, value);
                }
            }
        });
        match netfilter.request(&batch) {
            Ok(_) => count += 1,
            Err(error) if error.is(nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// TCP connections whose destination was translated to one of `addresses`, from their first packet to
/// the end of both directions.
///
/// # Errors
/// The table of connections cannot be read.
pub fn open(netfilter: &Netlink, addresses: &BTreeSet<Ipv4Addr>) -> Result<usize, NetlinkError> {
    let Some(messages) = dump(netfilter)? else {
        tracing::warn!(
            "this kernel has no nf_conntrack_netlink: connections are not waited for; load that module"
        );
        return Ok(0);
    };
    let counts = |message: &&Message| {
        message
            .body
            .get(4..)
            .and_then(answers_open)
            .is_some_and(|answers| addresses.contains(&answers))
    };
    Ok(messages.iter().filter(counts).count())
}

/// Who answers an open TCP connection that was translated to it.
fn answers_open(body: &[u8]) -> Option<Ipv4Addr> {
    const TRANSLATED: u32 = 1 << 5;
    // From TCP_CONNTRACK_SYN_SENT to TCP_CONNTRACK_CLOSE_WAIT.
    const OPEN: std::ops::RangeInclusive<u8> = 1..=5;
    let (original, reply) = (find(body, 1)?, find(body, 2)?);
    let status = u32::from_be_bytes(*find(body, 3)?.first_chunk::<4>()?);
    let state = find(find(find(body, 4)?, 1)?, 1)?;
    (find(find(original, 2)?, 1)? == [TCP] && status & TRANSLATED != 0 && OPEN.contains(state.first()?))
        .then(|| address(reply, 1))?
}

/// `None`: nobody in this kernel lists connections.
fn dump(netfilter: &Netlink) -> Result<Option<Vec<Message>>, NetlinkError> {
    match netfilter.dump(GET, &[libc::AF_INET as u8, 0, 0, 0]) {
        Err(error) if error.is(nix::errno::Errno::EINVAL) => Ok(None),
        messages => messages.map(Some),
    }
}

/// 1 source, 2 destination.
fn address(tuple: &[u8], kind: u16) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::from(*find(find(tuple, 1)?, kind)?.first_chunk::<4>()?))
}

/// `None`: not UDP over IPv4.
fn flow(body: &[u8]) -> Option<Flow> {
    let original = find(body, 1)?;
    let reply = find(body, 2)?;
    let transport = find(original, 2)?;
    (find(transport, 1)? == [UDP]).then_some(())?;
    Some(Flow {
        source: address(original, 1)?,
        destination: address(original, 2)?,
        port: u16::from_be_bytes(*find(transport, 3)?.first_chunk::<2>()?),
        answers: address(reply, 1)?,
    })
}
