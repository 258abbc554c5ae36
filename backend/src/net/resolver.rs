//! Leads names asked at 127.0.0.11:53 in a sandbox to the resolver, which listens on another port.

use std::{net::Ipv4Addr, os::fd::BorrowedFd};

use nix::sys::socket::SockProtocol;

use super::{
    Net, NetError, home,
    netlink::{Batch, Netlink, NetlinkError},
};
use crate::firewall::{
    encode::{Chain, Family, Hook, Transaction},
    kernel,
    rule::{Field::*, Part::*, Rule},
    ruleset::{self, Table},
};

/// The resolver's address in every sandbox.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const TABLE: &str = "stead-resolver";

/// As [`Net::prepare_resolver`] repairs it, in the namespace of the caller, which has no such rules yet.
///
/// # Errors
/// The kernel refused.
pub fn lead_to(port: u16) -> Result<(), NetlinkError> {
    let nft = Netlink::open(SockProtocol::NetlinkNetFilter)?;
    nft.request(&ruleset(port, false)).map(drop)
}

impl Net {
    /// Whatever was there before: from now on 127.0.0.11:53 inside `netns` is 127.0.0.11:`port`, over UDP and TCP.
    ///
    /// Loopback traffic of any other address stays untracked, so that a service in the sandbox may
    /// listen on 0.0.0.0:53 and answer from whatever address it likes.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel refused.
    pub fn prepare_resolver(&self, netns: BorrowedFd<'_>, port: u16) -> Result<(), NetError> {
        let nft = self.rules_inside(netns)?;
        let done = nft.request(&ruleset(port, true));
        done.map(drop).map_err(NetError::Resolver)
    }

    /// What of these rules is not as they were made, for people.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel could not be asked.
    pub fn resolver_drift(&self, netns: BorrowedFd<'_>, port: u16) -> Result<Vec<String>, NetError> {
        let nft = self.rules_inside(netns)?;
        let wanted = table(port);
        let note = ruleset::fingerprint(std::slice::from_ref(&wanted));
        let found = kernel::table(&nft, Family::Ip, TABLE).map_err(NetError::Resolver)?;
        Ok(match found {
            None => vec!["the way to the resolver is missing".to_owned()],
            Some(found) => found.differences(&wanted, &note),
        })
    }

    fn rules_inside(&self, netns: BorrowedFd<'_>) -> Result<Netlink, NetError> {
        home::inside(netns, || Netlink::open(SockProtocol::NetlinkNetFilter))
            .map_err(|source| NetError::Enter {
                instance: "the sandbox".to_owned(),
                source,
            })?
            .map_err(NetError::Resolver)
    }
}

fn ruleset(port: u16, replace: bool) -> Batch {
    let family = Family::Ip;
    let wanted = table(port);
    let mut transaction = Transaction::default();
    // Costs the kernel a grace period of milliseconds.
    if replace {
        // What is not there cannot be deleted.
        transaction.add_table(family, TABLE, 0, None);
        transaction.delete_table(family, TABLE);
    }
    let note = ruleset::fingerprint(std::slice::from_ref(&wanted));
    transaction.add_new_table(family, TABLE, &note);
    for (chain, rules) in &wanted.chains {
        transaction.add_chain(family, TABLE, chain);
        for rule in rules {
            transaction.add_rule(family, TABLE, chain.name, rule.note, |bytes| rule.encode(bytes));
        }
    }
    transaction.finish()
}

fn table(port: u16) -> Table {
    let address = RESOLVER.octets();
    let to_resolver = |note, protocol| Rule {
        note,
        parts: vec![
            Protocol(protocol),
            Address(DestinationAddress, address),
            Port(53),
            DnatTo(address, port),
        ],
    };
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
    let other = Rule {
        note: "other loopback traffic",
        parts: vec![
            OutputIsLo,
            NotAddress(DestinationAddress, address),
            NotAddress(SourceAddress, address),
            Untracked,
        ],
    };
    Table {
        family: Family::Ip,
        sets: Vec::new(),
        chains: vec![
            (raw, vec![other]),
            (
                nat,
                vec![
                    to_resolver("names over UDP", 17),
                    to_resolver("names over TCP", 6),
                ],
            ),
        ],
    }
}
