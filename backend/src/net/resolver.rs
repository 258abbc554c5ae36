//! Leads names asked at 127.0.0.11:53 in a sandbox to the resolver, which listens on another port.

use std::{net::Ipv4Addr, os::fd::BorrowedFd};

use nix::{errno::Errno, sys::socket::SockProtocol};

use super::{
    Net, NetError,
    netlink::{Batch, Netlink},
};
use crate::firewall::{
    encode::{Chain, Family, Hook, Transaction},
    rule::{Field::*, Part::*, Rule},
};

/// The resolver's address in every sandbox.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const TABLE: &str = "stead-resolver";

impl Net {
    /// From now on 127.0.0.11:53 inside `netns` is 127.0.0.11:`port`, over UDP and TCP.
    ///
    /// Loopback traffic of any other address stays untracked, so that a service in the sandbox may
    /// listen on 0.0.0.0:53 and answer from whatever address it likes.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel refused.
    pub fn prepare_resolver(&self, netns: BorrowedFd<'_>, port: u16) -> Result<(), NetError> {
        self.worker
            .inside(netns, || Netlink::open(SockProtocol::NetlinkNetFilter))
            .map_err(|source| NetError::Enter {
                instance: "the sandbox".to_owned(),
                source,
            })?
            .and_then(|nft| match nft.request(&ruleset(port, false)) {
                // Replacing costs the kernel a grace period of milliseconds; a new sandbox has nothing.
                Err(error) if error.is(Errno::EEXIST) => nft.request(&ruleset(port, true)),
                done => done,
            })
            .map(drop)
            .map_err(NetError::Resolver)
    }
}

fn ruleset(port: u16, replace: bool) -> Batch {
    let family = Family::Ip;
    let address = RESOLVER.octets();
    let mut transaction = Transaction::default();
    if replace {
        transaction.delete_table(family, TABLE);
    }
    transaction.add_new_table(family, TABLE);
    let raw = Chain {
        name: "raw",
        kind: "filter",
        hook: Hook::Output,
        priority: -300,
    };
    let nat = Chain {
        name: "output",
        kind: "nat",
        hook: Hook::Output,
        priority: -100,
    };
    let to_resolver = |protocol| {
        vec![
            Protocol(protocol),
            Address(DestinationAddress, address),
            Port(53),
            DnatTo(address, port),
        ]
    };
    let rules = [
        (
            &raw,
            Rule {
                note: "other loopback traffic",
                parts: vec![
                    OutputIsLo,
                    NotAddress(DestinationAddress, address),
                    NotAddress(SourceAddress, address),
                    Untracked,
                ],
            },
        ),
        (
            &nat,
            Rule {
                note: "names over UDP",
                parts: to_resolver(17),
            },
        ),
        (
            &nat,
            Rule {
                note: "names over TCP",
                parts: to_resolver(6),
            },
        ),
    ];
    transaction.add_chain(family, TABLE, &raw);
    transaction.add_chain(family, TABLE, &nat);
    for (chain, rule) in &rules {
        transaction.add_rule(family, TABLE, chain.name, rule.note, |bytes| rule.encode(bytes));
    }
    transaction.finish()
}
