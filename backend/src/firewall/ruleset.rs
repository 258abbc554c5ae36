//! From a [`FirewallSpec`] to tables: a fixed skeleton of rules, and sets that hold every fact.
//!
//! The skeleton never names a network or a port, so a change of either is a change of elements. The
//! elements carry enough to read the spec back from the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    net::Ipv4Addr,
};

use reconciler::{
    key::ResourceKey,
    spec::{self, FirewallNetwork, FirewallSpec, PublishKey, PublishTarget, Subnet},
};

use super::{
    encode::{Chain, Element, Family, Hook, Set, Type},
    rule::{Field::*, Part::*, Rule},
};
use crate::names;

/// A table without its elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub family: Family,
    pub sets: Vec<Set>,
    pub chains: Vec<(Chain, Vec<Rule>)>,
}

/// By family and set.
pub type Elements = BTreeMap<(Family, &'static str), BTreeSet<Element>>;

/// The rule that is there when stead turned forwarding on.
pub const STRICT: &str = "forwarding was off before stead";

/// `strict`: stead turned forwarding on, so what is not to or from its bridges stays closed.
pub fn skeleton(mark: &str, strict: bool) -> Vec<Table> {
    vec![inet(strict), bridge(mark)]
}

fn inet(strict: bool) -> Table {
    let rule = |note, parts: &[super::rule::Part]| Rule {
        note,
        parts: parts.to_vec(),
    };
    let published = || {
        vec![
            rule(
                "published on one address",
                &[
                    Ipv4,
                    ToThisHost,
                    DnatFrom(&[TransportProtocol, DestinationAddress, DestinationPort], "ports"),
                ],
            ),
            rule(
                "published on every address",
                &[
                    Ipv4,
                    ToThisHost,
                    DnatFrom(&[TransportProtocol, DestinationPort], "any_ports"),
                ],
            ),
        ]
    };
    let mut forward = vec![
        rule(
            "inside one network",
            &[
                Ipv4,
                In(&[InputName, SourceAddress], "networks"),
                In(&[OutputName, SourceAddress], "networks"),
                Accept,
            ],
        ),
        rule("answers", &[Established, Accept]),
        rule(
            "no way out of an internal network",
            &[In(&[InputName], "internal"), Drop],
        ),
        rule(
            "no way into an internal network",
            &[In(&[OutputName], "internal"), Drop],
        ),
        rule(
            "published ports",
            &[In(&[OutputName], "bridges"), Translated, Accept],
        ),
        rule("no other way in", &[In(&[OutputName], "bridges"), Drop]),
        rule(
            "nothing untranslatable leaves",
            &[In(&[InputName], "bridges"), Invalid, Drop],
        ),
        rule("out", &[In(&[InputName], "bridges"), Accept]),
    ];
    if strict {
        forward.push(rule(STRICT, &[Ipv4, Drop]));
    }
    let chain = |name, kind, hook, priority| Chain {
        name,
        kind,
        hook,
        priority,
    };
    Table {
        family: Family::Inet,
        sets: vec![
            set("bridges", &[Type::Ifname], &[], false),
            set("internal", &[Type::Ifname], &[], false),
            set("networks", &[Type::Ifname, Type::Ipv4], &[], true),
            set("subnets", &[Type::Ipv4], &[], true),
            set(
                "ports",
                &[Type::Protocol, Type::Ipv4, Type::Service],
                &[Type::Ipv4, Type::Service],
                false,
            ),
            set(
                "any_ports",
                &[Type::Protocol, Type::Service],
                &[Type::Ipv4, Type::Service],
                false,
            ),
        ],
        chains: vec![
            (
                // Before connection tracking: with route_localnet on the bridges, nothing but this
                // keeps a container from the services on the host's loopback.
                chain("guard", "filter", Hook::Prerouting, -300),
                vec![
                    rule(
                        "loopback from outside",
                        &[Ipv4, InputIsNotLo, Loopback(DestinationAddress), Drop],
                    ),
                    rule(
                        "loopback as a source",
                        &[Ipv4, InputIsNotLo, Loopback(SourceAddress), Drop],
                    ),
                    rule(
                        "the address of another network",
                        &[
                            Ipv4,
                            In(&[InputName], "bridges"),
                            NotIn(&[InputName, SourceAddress], "networks"),
                            Drop,
                        ],
                    ),
                ],
            ),
            (chain("prerouting", "nat", Hook::Prerouting, -100), published()),
            (chain("output", "nat", Hook::Output, -100), published()),
            (chain("forward", "filter", Hook::Forward, 0), forward),
            (
                chain("postrouting", "nat", Hook::Postrouting, 100),
                vec![
                    rule(
                        "from the host's loopback",
                        &[
                            Ipv4,
                            Loopback(SourceAddress),
                            In(&[OutputName], "bridges"),
                            Masquerade,
                        ],
                    ),
                    rule(
                        "back into the same network",
                        &[
                            Ipv4,
                            In(&[OutputName, SourceAddress], "networks"),
                            Translated,
                            Masquerade,
                        ],
                    ),
                    rule(
                        "out of a network",
                        &[
                            Ipv4,
                            In(&[SourceAddress], "subnets"),
                            NotIn(&[OutputName, SourceAddress], "networks"),
                            Masquerade,
                        ],
                    ),
                ],
            ),
        ],
    }
}

/// Frames between ports: nobody speaks with another's address.
fn bridge(mark: &str) -> Table {
    Table {
        family: Family::Bridge,
        sets: vec![set("endpoints", &[Type::Ether, Type::Ipv4], &[], false)],
        chains: vec![(
            Chain {
                name: "ports",
                kind: "filter",
                hook: Hook::Prerouting,
                priority: -300,
            },
            vec![
                Rule {
                    note: "not ours",
                    parts: vec![InputNotLike(names::veth_prefix(mark)), Accept],
                },
                Rule {
                    note: "own address",
                    parts: vec![FrameIpv4, In(&[SourceEther, SourceAddress], "endpoints"), Accept],
                },
                Rule {
                    note: "own name in ARP",
                    parts: vec![
                        FrameArp,
                        In(&[SourceEther, ArpSenderAddress], "endpoints"),
                        In(&[ArpSenderEther, ArpSenderAddress], "endpoints"),
                        Accept,
                    ],
                },
                Rule {
                    note: "anything else",
                    parts: vec![Drop],
                },
            ],
        )],
    }
}

fn set(name: &'static str, key: &'static [Type], data: &'static [Type], interval: bool) -> Set {
    Set {
        name,
        key,
        data,
        interval,
    }
}

/// The elements of every set, also of the empty ones.
pub fn elements(mark: &str, spec: &FirewallSpec) -> Elements {
    let mut all: Elements = skeleton(mark, false)
        .iter()
        .flat_map(|table| {
            table
                .sets
                .iter()
                .map(|set| ((table.family, set.name), BTreeSet::new()))
        })
        .collect();
    let mut add = |family, set, element| {
        all.entry((family, set)).or_default().insert(element);
    };
    for (key, network) in &spec.networks {
        let name = name_bytes(&names::bridge(mark, key));
        let range = range(network.subnet);
        let with_note = |note: String| Element {
            comment: Some(note),
            ..Element::key(name.clone())
        };
        add(Family::Inet, "bridges", with_note(key.project.clone()));
        if network.internal {
            add(Family::Inet, "internal", Element::key(name.clone()));
        }
        add(
            Family::Inet,
            "networks",
            Element {
                key_end: Some([&name[..], &range.1.octets()].concat()),
                comment: Some(format!("{} {}", network.gateway, key.name)),
                ..Element::key([&name[..], &range.0.octets()].concat())
            },
        );
        add(Family::Inet, "subnets", Element::key(range.0.octets().to_vec()));
        if let Some(after) = u32::from(range.1).checked_add(1) {
            add(
                Family::Inet,
                "subnets",
                Element {
                    starts: false,
                    ..Element::key(after.to_be_bytes().to_vec())
                },
            );
        }
        for (address, mac) in &network.endpoints {
            add(
                Family::Bridge,
                "endpoints",
                Element::key([&mac[..], &[0, 0], &address.octets()].concat()),
            );
        }
    }
    for (key, target) in &spec.ports {
        let mut bytes = vec![protocol_number(key.protocol), 0, 0, 0];
        let any = key.host_ip.is_unspecified();
        if !any {
            bytes.extend(key.host_ip.octets());
        }
        bytes.extend(key.published.to_be_bytes());
        bytes.extend([0, 0]);
        let mut data = target.address.octets().to_vec();
        data.extend(target.port.to_be_bytes());
        data.extend([0, 0]);
        add(
            Family::Inet,
            if any { "any_ports" } else { "ports" },
            Element {
                data: Some(data),
                ..Element::key(bytes)
            },
        );
    }
    all
}

/// The spec these elements came from, as far as they hold together.
pub fn spec_from(mark: &str, elements: &Elements) -> FirewallSpec {
    let of = |family, set| elements.get(&(family, set)).into_iter().flatten();
    let projects: BTreeMap<&[u8], &str> = of(Family::Inet, "bridges")
        .filter_map(|element| Some((&element.key[..], element.comment.as_deref()?)))
        .collect();
    let internal: BTreeSet<&[u8]> = of(Family::Inet, "internal")
        .map(|element| &element.key[..])
        .collect();
    let mut spec = FirewallSpec::default();
    for element in of(Family::Inet, "networks") {
        let network = (|| {
            let (name, first) = element.key.split_last_chunk::<4>()?;
            let (_, last) = element.key_end.as_ref()?.split_last_chunk::<4>()?;
            let (gateway, network) = element.comment.as_ref()?.split_once(' ')?;
            let key = ResourceKey {
                project: (*projects.get(name)?).to_owned(),
                name: network.to_owned(),
            };
            // Somebody else's element: the bridge is not the one of this network.
            if name_bytes(&names::bridge(mark, &key)) != name {
                return None;
            }
            let (first, last) = (Ipv4Addr::from(*first), Ipv4Addr::from(*last));
            let endpoints = of(Family::Bridge, "endpoints")
                .filter_map(|endpoint| {
                    let mac = endpoint.key.first_chunk::<6>()?;
                    Some((Ipv4Addr::from(*endpoint.key.last_chunk::<4>()?), *mac))
                })
                .filter(|(address, _)| (first..=last).contains(address))
                .collect();
            let size = u32::from(last).checked_sub(u32::from(first))?;
            Some((
                key,
                FirewallNetwork {
                    subnet: Subnet {
                        address: first,
                        prefix: size.leading_zeros() as u8,
                    },
                    gateway: gateway.parse().ok()?,
                    internal: internal.contains(name),
                    endpoints,
                },
            ))
        })();
        spec.networks.extend(network);
    }
    for element in of(Family::Inet, "ports").chain(of(Family::Inet, "any_ports")) {
        spec.ports.extend(port_from(element));
    }
    spec
}

/// What an element of one of the port maps says.
pub fn port_from(element: &Element) -> Option<(PublishKey, PublishTarget)> {
    let (protocol, rest) = element.key.split_first_chunk::<4>()?;
    let (host_ip, rest) = match rest.len() {
        4 => (Ipv4Addr::UNSPECIFIED, rest),
        _ => {
            let (address, rest) = rest.split_first_chunk::<4>()?;
            (Ipv4Addr::from(*address), rest)
        }
    };
    let (address, port) = element.data.as_ref()?.split_first_chunk::<4>()?;
    Some((
        PublishKey {
            host_ip,
            published: u16::from_be_bytes(*rest.first_chunk::<2>()?),
            protocol: if protocol[0] == 6 {
                spec::Protocol::Tcp
            } else {
                spec::Protocol::Udp
            },
        },
        PublishTarget {
            address: Ipv4Addr::from(*address),
            port: u16::from_be_bytes(*port.first_chunk::<2>()?),
        },
    ))
}

/// IANA's number.
pub fn protocol_number(protocol: spec::Protocol) -> u8 {
    match protocol {
        spec::Protocol::Tcp => 6,
        spec::Protocol::Udp => 17,
    }
}

/// First and last address.
fn range(subnet: Subnet) -> (Ipv4Addr, Ipv4Addr) {
    let size = u32::MAX.checked_shr(u32::from(subnet.prefix)).unwrap_or(0);
    let first = u32::from(subnet.address) & !size;
    (Ipv4Addr::from(first), Ipv4Addr::from(first | size))
}

/// IFNAMSIZ bytes.
fn name_bytes(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// The skeleton in the words of `nft list`.
pub fn text(tables: &[Table], name: &str) -> String {
    let mut text = String::new();
    for table in tables {
        let family = match table.family {
            Family::Bridge => "bridge",
            Family::Inet => "inet",
            Family::Ip => "ip",
        };
        let _ = writeln!(text, "table {family} {name} {{");
        for set in &table.sets {
            let types = |types: &[Type]| {
                types
                    .iter()
                    .map(|kind| kind.name())
                    .collect::<Vec<_>>()
                    .join(" . ")
            };
            let word = if set.data.is_empty() { "set" } else { "map" };
            let _ = write!(text, "    {word} {} {{ type {}", set.name, types(set.key));
            if !set.data.is_empty() {
                let _ = write!(text, " : {}", types(set.data));
            }
            let _ = writeln!(text, "{} }}", if set.interval { "; flags interval" } else { "" });
        }
        for (chain, rules) in &table.chains {
            let hook = format!("{:?}", chain.hook).to_lowercase();
            let _ = writeln!(
                text,
                "    chain {} {{ type {} hook {hook} priority {}; policy accept;",
                chain.name, chain.kind, chain.priority
            );
            for rule in rules {
                let _ = writeln!(text, "        {rule}");
            }
            text.push_str("    }\n");
        }
        text.push_str("}\n");
    }
    text
}

/// Differs when any rule, chain or set of the skeleton differs.
pub fn fingerprint(tables: &[Table]) -> String {
    format!("stead {}", names::short_hash(text(tables, "").as_bytes()))
}
