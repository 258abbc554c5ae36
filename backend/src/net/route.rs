//! Links, addresses and routes of one namespace, read and written with rtnetlink's message types.

use std::{
    mem::discriminant,
    net::{IpAddr, Ipv4Addr},
    os::fd::{AsRawFd, BorrowedFd},
};

use reconciler::spec::{Endpoint, Subnet};
use rtnetlink::{
    packet_core::{NetlinkDeserializable, NetlinkHeader, NetlinkSerializable},
    packet_route::{
        AddressFamily, RouteNetlinkMessage,
        address::{AddressAttribute, AddressMessage, AddressScope},
        link::{
            BridgePortState, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData,
            InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
        },
        route::{
            RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
        },
    },
};

use super::netlink::{Batch, CREATE, EXCLUSIVE, Netlink, NetlinkError, REPLACE};
use crate::firewall::encode::{Attributes, find};

/// The first link of every network namespace.
pub const LOOPBACK: u32 = 1;
/// What the kernel gives bridges and veths, and every link of stead keeps.
pub const MTU: u32 = 1500;

/// What decides whether a frame passes a port of a bridge, in the words of `bridge link`. A frame may
/// leave by the port it came in: with bridge-nf-call-iptables=1 a service reaches itself by the host's
/// address only so.
const PORT_SETTINGS: [(&str, InfoBridgePort); 10] = [
    ("hairpin", InfoBridgePort::HairpinMode(true)),
    ("learning", InfoBridgePort::Learning(true)),
    ("flood", InfoBridgePort::UnicastFlood(true)),
    ("mcast_flood", InfoBridgePort::MulticastFlood(true)),
    ("bcast_flood", InfoBridgePort::BroadcastFlood(true)),
    ("isolated", InfoBridgePort::Isolated(false)),
    ("locked", InfoBridgePort::Locked(false)),
    ("neigh_suppress", InfoBridgePort::NeighSupress(false)),
    ("guard", InfoBridgePort::Guard(false)),
    ("root_block", InfoBridgePort::Protect(false)),
];

/// A link as far as stead cares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub up: bool,
    pub mac: Option<[u8; 6]>,
    pub alias: String,
    /// Index of the bridge it is a port of.
    pub bridge: Option<u32>,
    pub is_bridge: bool,
    pub is_veth: bool,
    /// Index of the other end of a veth, in the namespace where that is.
    pub peer: Option<u32>,
    pub mtu: u32,
    /// Settings of a port that are not as stead sets them.
    pub port_drift: Vec<&'static str>,
    /// A port that could pass frames and does not.
    pub blocked: bool,
    pub stp: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub link: u32,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

/// An IPv4 route of the main or local table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub destination: Subnet,
    pub gateway: Option<Ipv4Addr>,
    pub link: Option<u32>,
    pub main: bool,
}

/// All links.
///
/// # Errors
/// The kernel could not be asked.
pub fn links(netlink: &Netlink) -> Result<Vec<Link>, NetlinkError> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    Ok(dump(netlink, &request)?
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewLink(message) => Some(link(message)),
            _ => None,
        })
        .collect())
}

/// One link by name; `None`: there is none.
///
/// # Errors
/// The kernel could not be asked.
pub fn link_by_name(netlink: &Netlink, name: &str) -> Result<Option<Link>, NetlinkError> {
    let mut request = LinkMessage::default();
    request.attributes.push(LinkAttribute::IfName(name.to_owned()));
    let mut batch = Batch::default();
    push(&mut batch, 0, &RouteNetlinkMessage::GetLink(request));
    match netlink.request(&batch) {
        Ok(answers) => Ok(answers
            .iter()
            .find_map(|answer| match parse(answer.kind, &answer.body) {
                Some(RouteNetlinkMessage::NewLink(message)) => Some(link(message)),
                _ => None,
            })),
        Err(error) if error.is(nix::errno::Errno::ENODEV) => Ok(None),
        Err(error) => Err(error),
    }
}

/// All IPv4 addresses.
///
/// # Errors
/// The kernel could not be asked.
pub fn addresses(netlink: &Netlink) -> Result<Vec<Address>, NetlinkError> {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    Ok(dump(netlink, &RouteNetlinkMessage::GetAddress(message))?
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewAddress(message) => {
                let address = message.attributes.iter().find_map(|attribute| match attribute {
                    AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                    _ => None,
                })?;
                Some(Address {
                    link: message.header.index,
                    address,
                    prefix: message.header.prefix_len,
                })
            }
            _ => None,
        })
        .collect())
}

/// The IPv4 unicast and local routes of the main and the local table.
///
/// # Errors
/// The kernel could not be asked.
pub fn routes(netlink: &Netlink) -> Result<Vec<Route>, NetlinkError> {
    const LOCAL: u8 = 255;
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    Ok(dump(netlink, &RouteNetlinkMessage::GetRoute(message))?
        .into_iter()
        .filter_map(|answer| match answer {
            RouteNetlinkMessage::NewRoute(message)
                if [RouteHeader::RT_TABLE_MAIN, LOCAL].contains(&message.header.table)
                    && message.header.kind != RouteType::Broadcast =>
            {
                Some(route(&message))
            }
            _ => None,
        })
        .collect())
}

fn route(message: &RouteMessage) -> Route {
    let mut route = Route {
        destination: Subnet {
            address: Ipv4Addr::UNSPECIFIED,
            prefix: message.header.destination_prefix_length,
        },
        gateway: None,
        link: None,
        main: message.header.table == RouteHeader::RT_TABLE_MAIN,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => route.destination.address = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(*address),
            RouteAttribute::Oif(index) => route.link = Some(*index),
            _ => {}
        }
    }
    route
}

fn link(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        up: message.header.flags.contains(LinkFlags::Up),
        ..Link::default()
    };
    let carrier = message.header.flags.contains(LinkFlags::LowerUp);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::IfAlias(alias) => link.alias = alias,
            LinkAttribute::Address(bytes) => link.mac = bytes.try_into().ok(),
            LinkAttribute::Controller(index) => link.bridge = Some(index),
            LinkAttribute::Link(index) => link.peer = Some(index),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(InfoKind::Bridge) => link.is_bridge = true,
                        LinkInfo::Kind(InfoKind::Veth) => link.is_veth = true,
                        LinkInfo::Data(InfoData::Bridge(data)) => {
                            link.stp = data.iter().any(|item| {
                                matches!(item, InfoBridge::StpState(state) if *state != BridgeStpState::Disabled)
                            });
                        }
                        LinkInfo::PortData(InfoPortData::BridgePort(data)) => {
                            let differs = |wanted: &InfoBridgePort| {
                                data.iter()
                                    .any(|item| discriminant(item) == discriminant(wanted) && item != wanted)
                            };
                            let settings = PORT_SETTINGS.iter().filter(|(_, wanted)| differs(wanted));
                            link.port_drift = settings.map(|(name, _)| *name).collect();
                            link.blocked = link.up
                                && carrier
                                && differs(&InfoBridgePort::State(BridgePortState::Forwarding));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    link
}

/// A bridge that is down, with its MAC.
pub fn add_bridge(batch: &mut Batch, name: &str, mac: [u8; 6]) {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::StpState(
                BridgeStpState::Disabled,
            )])),
        ]),
    ];
    push(batch, CREATE | EXCLUSIVE, &RouteNetlinkMessage::NewLink(message));
}

/// Sets what a bridge must be: MAC, alias, MTU, no spanning tree.
pub fn set_bridge(batch: &mut Batch, index: u32, mac: [u8; 6], alias: &str) {
    let mut message = by_index(index);
    message.attributes = vec![
        LinkAttribute::Address(mac.to_vec()),
        LinkAttribute::IfAlias(alias.to_owned()),
        LinkAttribute::Mtu(MTU),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::StpState(
                BridgeStpState::Disabled,
            )])),
        ]),
    ];
    push(batch, 0, &RouteNetlinkMessage::NewLink(message));
}

/// A pair: the host's end a port of `bridge`, the other made right in the namespace, down: a peer
/// that comes up before its pair is complete fails with ENOTCONN.
pub fn add_veth(batch: &mut Batch, name: &str, bridge: u32, endpoint: &Endpoint, netns: BorrowedFd<'_>) {
    // Or the kernel makes one for each processor, takes all but one away, and waits for the processors.
    let queues = [LinkAttribute::NumTxQueues(1), LinkAttribute::NumRxQueues(1)];
    let mut peer = LinkMessage::default();
    peer.attributes = vec![
        LinkAttribute::IfName(endpoint.inside().to_owned()),
        LinkAttribute::Address(endpoint.mac.to_vec()),
        LinkAttribute::NetNsFd(netns.as_raw_fd()),
    ];
    peer.attributes.extend_from_slice(&queues);
    let mut message = by_name(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.extend([
        LinkAttribute::Controller(bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ]);
    message.attributes.extend(queues);
    push(batch, CREATE | EXCLUSIVE, &RouteNetlinkMessage::NewLink(message));
}

/// The host's end is up and a port of `bridge`.
pub fn set_port(batch: &mut Batch, name: &str, bridge: u32) {
    let mut message = by_name(name);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes.push(LinkAttribute::Controller(bridge));
    push(batch, 0, &RouteNetlinkMessage::SetLink(message));
}

/// A port lets everything pass. The alias lets the link be found and adopted.
pub fn open_port(batch: &mut Batch, name: &str, alias: &str) {
    let settings = PORT_SETTINGS.iter().map(|(_, wanted)| wanted.clone()).collect();
    let mut message = by_name(name);
    message.attributes = vec![
        LinkAttribute::IfName(name.to_owned()),
        LinkAttribute::IfAlias(alias.to_owned()),
        LinkAttribute::Mtu(MTU),
        port_data(settings),
    ];
    push(batch, 0, &RouteNetlinkMessage::NewLink(message));
}

/// A port that was told not to pass frames does. Refused where it has no carrier.
pub fn unblock_port(batch: &mut Batch, name: &str) {
    let mut message = by_name(name);
    let state = InfoBridgePort::State(BridgePortState::Forwarding);
    message.attributes.push(port_data(vec![state]));
    push(batch, 0, &RouteNetlinkMessage::NewLink(message));
}

fn port_data(settings: Vec<InfoBridgePort>) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(settings)),
    ])
}

pub fn set_up(batch: &mut Batch, index: u32) {
    let mut message = by_index(index);
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    push(batch, 0, &RouteNetlinkMessage::SetLink(message));
}

/// Gives a link its name back. Down first: before Linux 6.2 a link that is up keeps its name.
pub fn rename(batch: &mut Batch, index: u32, name: &str) {
    let mut message = by_index(index);
    message.header.change_mask = LinkFlags::Up;
    push(batch, 0, &RouteNetlinkMessage::SetLink(message));
    let mut message = by_index(index);
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    push(batch, 0, &RouteNetlinkMessage::SetLink(message));
}

pub fn set_mac(batch: &mut Batch, index: u32, mac: [u8; 6]) {
    let mut message = by_index(index);
    message.attributes.push(LinkAttribute::Address(mac.to_vec()));
    push(batch, 0, &RouteNetlinkMessage::SetLink(message));
}

pub fn set_mtu(batch: &mut Batch, index: u32) {
    let mut message = by_index(index);
    message.attributes.push(LinkAttribute::Mtu(MTU));
    push(batch, 0, &RouteNetlinkMessage::SetLink(message));
}

pub fn delete_link(batch: &mut Batch, name: &str) {
    push(batch, 0, &RouteNetlinkMessage::DelLink(by_name(name)));
}

pub fn add_address(batch: &mut Batch, index: u32, address: Ipv4Addr, prefix: u8) {
    let message = address_message(index, address, prefix);
    push(batch, CREATE | REPLACE, &RouteNetlinkMessage::NewAddress(message));
}

pub fn delete_address(batch: &mut Batch, index: u32, address: Ipv4Addr, prefix: u8) {
    let message = address_message(index, address, prefix);
    push(batch, 0, &RouteNetlinkMessage::DelAddress(message));
}

fn address_message(index: u32, address: Ipv4Addr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    let all_ones = u32::from(address) | u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
    ];
    match index {
        LOOPBACK => message.header.scope = AddressScope::Host,
        _ => {
            let broadcast = AddressAttribute::Broadcast(Ipv4Addr::from(all_ones));
            message.attributes.push(broadcast);
        }
    }
    message
}

pub fn add_default_route(batch: &mut Batch, index: u32, gateway: Ipv4Addr) {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Static;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
        RouteAttribute::Oif(index),
    ];
    push(batch, CREATE | REPLACE, &RouteNetlinkMessage::NewRoute(message));
}

/// What the kernel itself adds with an address.
pub fn add_connected_route(batch: &mut Batch, index: u32, subnet: Subnet, address: Ipv4Addr) {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = subnet.prefix;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Kernel;
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::Inet(subnet.address)),
        RouteAttribute::PrefSource(RouteAddress::Inet(address)),
        RouteAttribute::Oif(index),
    ];
    push(batch, CREATE | REPLACE, &RouteNetlinkMessage::NewRoute(message));
}

/// The kernel's number of another namespace, as events name it; given to it where it has none.
///
/// # Errors
/// Not a network namespace, or the kernel refused.
pub fn namespace_number(netlink: &Netlink, netns: BorrowedFd<'_>) -> Result<i32, NetlinkError> {
    const NEW: u16 = 88;
    const GET: u16 = 90;
    const NSID: u16 = 1;
    const FD: u16 = 3;
    let message = |kind, number: Option<i32>| {
        let mut batch = Batch::default();
        batch.push(kind, 0, |bytes| {
            bytes.extend([0; 4]);
            bytes.attribute(FD, &netns.as_raw_fd().to_ne_bytes());
            if let Some(number) = number {
                bytes.attribute(NSID, &number.to_ne_bytes());
            }
        });
        batch
    };
    let get = || -> Result<Option<i32>, NetlinkError> {
        Ok(netlink.request(&message(GET, None))?.iter().find_map(|answer| {
            let number = find(answer.body.get(4..)?, NSID)?.first_chunk::<4>()?;
            Some(i32::from_ne_bytes(*number)).filter(|number| *number >= 0)
        }))
    };
    if let Some(number) = get()? {
        return Ok(number);
    }
    match netlink.request(&message(NEW, Some(-1))) {
        // An interface that leads there has given it one meanwhile.
        Err(error) if !error.is(nix::errno::Errno::EEXIST) => return Err(error),
        _ => {}
    }
    get()?.ok_or_else(|| NetlinkError::Answer("the namespace has no number".to_owned()))
}

fn by_index(index: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message
}

fn by_name(name: &str) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_owned()));
    message
}

fn push(batch: &mut Batch, flags: u16, message: &RouteNetlinkMessage) {
    batch.push(message.message_type(), flags, |bytes| bytes.extend(body(message)));
}

fn body(message: &RouteNetlinkMessage) -> Vec<u8> {
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

fn dump(netlink: &Netlink, request: &RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
    Ok(netlink
        .dump(request.message_type(), &body(request))?
        .into_iter()
        .filter_map(|answer| parse(answer.kind, &answer.body))
        .collect())
}

fn parse(kind: u16, body: &[u8]) -> Option<RouteNetlinkMessage> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    RouteNetlinkMessage::deserialize(&header, body).ok()
}
