//! Somebody else's firewall that drops what is forwarded, and with it what passes through stead's bridges:
//! an accept of ours does not overrule a drop of theirs.

use nix::sys::socket::SockProtocol;

use super::{Finding, Host, ok, warn};
use crate::{
    firewall::encode::{self, GETCHAIN, GETRULE, find, kind, text},
    net::netlink::{Netlink, NetlinkError},
};

const NAME: &str = "foreign firewall";
/// What the name of each of stead's bridges starts with, in the rules that let them pass.
const BRIDGES: &[u8] = b"stb";
/// NF_INET_FORWARD
const FORWARD: [u8; 4] = [0, 0, 0, 2];
/// NF_DROP
const DROP: [u8; 4] = [0; 4];

/// A chain that drops what it forwards, unless a rule accepts it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Closed {
    /// `ip` or `inet`.
    family: &'static str,
    table: String,
    chain: String,
    /// A rule of its table speaks of stead's bridges.
    knows_us: bool,
    /// Docker's door for rules of others is in it.
    docker: bool,
}

/// In the network namespace of the calling thread.
pub fn foreign_forwarding() -> Finding {
    let host = Host { root: "/".into() };
    let legacy = host.read("proc/net/ip_tables_names").unwrap_or_default();
    let legacy = legacy.lines().any(|table| table == "filter");
    match Netlink::open(SockProtocol::NetlinkNetFilter).and_then(|nft| closed(&nft)) {
        Ok(closed) => finding(&closed, legacy),
        Err(error) => warn(
            NAME,
            &format!("the rules cannot be read: {error}"),
            "run it as root: sudo stead …",
        ),
    }
}

fn closed(nft: &Netlink) -> Result<Vec<Closed>, NetlinkError> {
    let mut closed = Vec::new();
    let mut doors = Vec::new();
    for message in nft.dump(kind(GETCHAIN), &[0; 4])? {
        let (Some(family), Some(body)) = (message.body.first(), message.body.get(4..)) else {
            continue;
        };
        let (Some(table), Some(chain)) = (text(body, 1), text(body, 3)) else {
            continue;
        };
        let family = match family {
            1 => "inet",
            2 => "ip",
            _ => continue,
        };
        if chain == "DOCKER-USER" {
            doors.push((family, table.to_owned()));
        }
        let forwards = find(body, 4).and_then(|hook| find(hook, 1)) == Some(&FORWARD);
        if forwards && find(body, 5) == Some(&DROP) && !table.starts_with("stead-") {
            closed.push(Closed {
                family,
                table: table.to_owned(),
                chain: chain.to_owned(),
                knows_us: false,
                docker: false,
            });
        }
    }
    if closed.is_empty() {
        return Ok(closed);
    }
    let rules = nft.dump(kind(GETRULE), &[0; 4])?;
    for chain in &mut closed {
        chain.docker = doors.contains(&(chain.family, chain.table.clone()));
        chain.knows_us = rules.iter().any(|rule| {
            let body = rule.body.get(4..).unwrap_or_default();
            encode::text(body, 1) == Some(&chain.table) && contains(body, BRIDGES)
        });
    }
    closed.sort();
    Ok(closed)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn finding(closed: &[Closed], legacy: bool) -> Finding {
    let Some(chain) = closed.iter().find(|chain| !chain.knows_us) else {
        return match (closed.first(), legacy) {
            (Some(chain), _) => ok(
                NAME,
                &format!(
                    "{} {} drops what is forwarded, with a rule for stead's bridges",
                    chain.table, chain.chain
                ),
            ),
            (None, true) => ok(
                NAME,
                "none in nftables; iptables-legacy is in use: `iptables-legacy -S FORWARD` shows its policy",
            ),
            (None, false) => ok(NAME, "none drops what is forwarded"),
        };
    };
    let Closed {
        family,
        table,
        chain: name,
        ..
    } = chain;
    let detail = format!(
        "chain {name} of table {family} {table} drops what is forwarded: host ports and the way out of services \
         do not work"
    );
    let remedy = match (chain.docker, *family, table.as_str()) {
        (true, ..) => {
            "let stead's bridges pass by Docker's own door: iptables -I DOCKER-USER -i stb+ -j ACCEPT; iptables -I \
             DOCKER-USER -o stb+ -j ACCEPT"
                .to_owned()
        }
        (false, "ip", "filter") => {
            "let stead's bridges pass: iptables -I FORWARD -i stb+ -j ACCEPT; iptables -I FORWARD -o stb+ -j ACCEPT"
                .to_owned()
        }
        _ => format!(
            "let stead's bridges pass: nft insert rule {family} {table} {name} iifname \"stb*\" accept; nft insert \
             rule {family} {table} {name} oifname \"stb*\" accept"
        ),
    };
    warn(NAME, &detail, &remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn a_chain_that_drops_is_named_with_the_way_through_it() {
        let chain = |family, table: &str, name: &str, knows_us, docker| Closed {
            family,
            table: table.to_owned(),
            chain: name.to_owned(),
            knows_us,
            docker,
        };
        let docker = chain("ip", "filter", "FORWARD", false, true);
        let iptables = chain("ip", "filter", "FORWARD", false, false);
        let own = chain("inet", "fw", "fwd", false, false);
        let passed = chain("inet", "fw", "fwd", true, false);
        for (closed, legacy, verdict, says) in [
            (vec![], false, Verdict::Ok, "none drops"),
            (vec![], true, Verdict::Ok, "iptables-legacy -S FORWARD"),
            (
                vec![docker],
                false,
                Verdict::Warn,
                "-I DOCKER-USER -i stb+ -j ACCEPT",
            ),
            (
                vec![iptables],
                false,
                Verdict::Warn,
                "iptables -I FORWARD -i stb+",
            ),
            (
                vec![own.clone()],
                true,
                Verdict::Warn,
                "nft insert rule inet fw fwd iifname \"stb*\"",
            ),
            (
                vec![passed.clone()],
                false,
                Verdict::Ok,
                "a rule for stead's bridges",
            ),
            (
                vec![passed, own],
                false,
                Verdict::Warn,
                "chain fwd of table inet fw",
            ),
        ] {
            let found = finding(&closed, legacy);
            let text = format!("{} {}", found.detail, found.remedy);
            assert_eq!(found.verdict, verdict, "{closed:?}: {text}");
            assert!(text.contains(says), "{closed:?}: {text}");
        }
    }
}
