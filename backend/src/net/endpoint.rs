//! The interfaces of a sandbox: attached, repaired, compared, taken away.

use std::{net::Ipv4Addr, os::fd::BorrowedFd};

use nix::{errno::Errno, sys::socket::SockProtocol};
use reconciler::{
    key::InstanceKey,
    spec::{Endpoint, SandboxSpec, Subnet},
};

use super::{
    Net, NetError, asked, home, neighbour,
    netlink::{Batch, Netlink, NetlinkError},
    route, sysctl,
};
use crate::names;

impl Net {
    /// Gives the sandbox this interface, or repairs what of it differs. `default_route`: this is the
    /// first endpoint with a gateway.
    ///
    /// # Errors
    /// The bridge is missing, the namespace cannot be entered, or what the kernel refused.
    pub fn attach(
        &self,
        instance: &InstanceKey,
        endpoint: &Endpoint,
        default_route: bool,
        netns: BorrowedFd<'_>,
    ) -> Result<(), NetError> {
        let host_end = names::veth(&self.mark, instance, &endpoint.interface);
        let failed = |what| {
            let link = format!("{} of {instance}", endpoint.inside());
            move |source: NetlinkError| NetError::Link { what, link, source }
        };
        let bridge_name = names::bridge(&self.mark, &endpoint.network);
        let bridge = route::link_by_name(&self.route, &bridge_name)
            .map_err(NetError::Read)?
            .filter(|link| link.is_bridge)
            .ok_or(NetError::BridgeMissing(bridge_name))?
            .index;
        let inside = self.quiet_inside(&instance.to_string(), netns)?;
        let alias = self.alias(&instance.to_string());
        let pair = self.pair(&inside, endpoint.inside(), &host_end, &alias)?;
        let mut batch = Batch::default();
        match &pair {
            Pair::Whole(_, port) => {
                if !port.up || port.bridge != Some(bridge) {
                    route::set_port(&mut batch, &host_end, bridge);
                }
                let odd = !port.port_drift.is_empty() || port.mtu != route::MTU;
                if odd || port.alias != alias || port.bridge != Some(bridge) {
                    route::open_port(&mut batch, &host_end, &alias);
                }
                if port.blocked {
                    route::unblock_port(&mut batch, &host_end);
                }
            }
            Pair::Taken => {
                return Err(NetError::InterfaceTaken {
                    instance: instance.to_string(),
                    interface: endpoint.inside().to_owned(),
                });
            }
            Pair::Missing => {
                route::add_veth(&mut batch, &host_end, bridge, endpoint, netns);
                route::open_port(&mut batch, &host_end, &alias);
            }
        }
        self.route.request(&batch).map_err(failed("attach"))?;
        // The host speaks with containers through the bridge alone.
        self.quiet_ipv6(&host_end)?;
        let inner = match pair {
            Pair::Whole(inner, _) => {
                let setting = sysctl::of_link("ipv6", endpoint.inside(), "disable_ipv6");
                self.inside(&instance.to_string(), netns, || sysctl::give(&setting, "1"))??;
                *inner
            }
            // Born in a namespace whose interfaces have no IPv6.
            _ => route::link_by_name(&inside, endpoint.inside())
                .map_err(NetError::Read)?
                .ok_or(NetlinkError::Answer("the new interface is missing".to_owned()))
                .map_err(failed("find"))?,
        };
        configure(&inside, &inner, endpoint, default_route).map_err(failed("configure"))?;
        match endpoint.settings.is_empty() {
            true => Ok(()),
            false => self.inside(&instance.to_string(), netns, || asked::set(endpoint))?,
        }
    }

    /// Both ends of an interface; an end that was renamed gets its name back, one that has lost its
    /// other end is taken away.
    fn pair(&self, inside: &Netlink, interface: &str, host_end: &str, alias: &str) -> Result<Pair, NetError> {
        let mut inner = route::link_by_name(inside, interface).map_err(NetError::Read)?;
        let mut outer = route::link_by_name(&self.route, host_end).map_err(NetError::Read)?;
        let failed = |what| {
            let link = format!("{interface} or {host_end}");
            move |source: NetlinkError| NetError::Link { what, link, source }
        };
        match (&inner, &outer) {
            (None, Some(port)) => {
                let links = route::links(inside).map_err(NetError::Read)?;
                let renamed = links
                    .into_iter()
                    .find(|link| link.is_veth && link.peer == Some(port.index));
                inner = rename(inside, renamed, interface).map_err(failed("rename"))?;
            }
            (Some(inner), None) => {
                let renamed = self
                    .links()?
                    .into_iter()
                    .find(|link| link.is_veth && inner.peer == Some(link.index) && link.alias == alias);
                outer = rename(&self.route, renamed, host_end).map_err(failed("rename"))?;
            }
            _ => {}
        }
        match (inner, outer) {
            (Some(inner), Some(port)) if inner.is_veth && inner.peer == Some(port.index) => {
                Ok(Pair::Whole(Box::new(inner), Box::new(port)))
            }
            (Some(inner), _) if !inner.is_veth => Ok(Pair::Taken),
            (inner, outer) => {
                // One whose other end is elsewhere, or of a sandbox whose namespace is on its way out.
                for (netlink, name) in [
                    inner.map(|link| (inside, link.name)),
                    outer.map(|link| (&self.route, link.name)),
                ]
                .into_iter()
                .flatten()
                {
                    let mut batch = Batch::default();
                    route::delete_link(&mut batch, &name);
                    match netlink.request(&batch) {
                        Err(error) if !error.is(Errno::ENODEV) => return Err(failed("remove")(error)),
                        _ => {}
                    }
                }
                Ok(Pair::Missing)
            }
        }
    }

    /// Takes the interface away; gone already is fine. When the whole sandbox goes, close its
    /// namespace instead: the kernel removes links of a dead namespace in bulk and in the background,
    /// while each single removal costs 20 ms.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn detach(&self, instance: &InstanceKey, interface: &str) -> Result<(), NetError> {
        let mut batch = Batch::default();
        let link = names::veth(&self.mark, instance, interface);
        route::delete_link(&mut batch, &link);
        match self.route.request(&batch) {
            Err(source) if !source.is(Errno::ENODEV) => Err(NetError::Link {
                what: "detach",
                link,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// What of the sandbox's interfaces is not as its spec says, for people.
    ///
    /// # Errors
    /// The namespace cannot be entered, or the kernel could not be asked.
    pub fn endpoints_drift(
        &self,
        spec: &SandboxSpec,
        netns: BorrowedFd<'_>,
    ) -> Result<Vec<String>, NetError> {
        let inside = self
            .inside(&spec.key.to_string(), netns, || {
                Netlink::open(SockProtocol::NetlinkRoute)
            })?
            .map_err(NetError::Open)?;
        let inner = route::links(&inside).map_err(NetError::Read)?;
        let addresses = route::addresses(&inside).map_err(NetError::Read)?;
        let routes = route::routes(&inside).map_err(NetError::Read)?;
        let mut drift = Vec::new();
        if !inner.iter().any(|link| link.index == route::LOOPBACK && link.up) {
            drift.push("lo is down".to_owned());
        }
        if !addresses
            .iter()
            .any(|address| address.link == route::LOOPBACK && address.address == Ipv4Addr::LOCALHOST)
        {
            drift.push("address 127.0.0.1 is missing".to_owned());
        }
        let mut wants_default = true;
        for endpoint in &spec.endpoints {
            let name = endpoint.inside();
            let default = endpoint.gateway.filter(|_| wants_default);
            wants_default &= default.is_none();
            let Some(link) = inner.iter().find(|link| link.name == name) else {
                drift.push(format!("{name} is missing"));
                continue;
            };
            if !link.up {
                drift.push(format!("{name} is down"));
            }
            if link.mac != Some(endpoint.mac) {
                drift.push(format!("{name} has another MAC address"));
            }
            if link.mtu != route::MTU {
                drift.push(format!("{name} has an MTU of {}", link.mtu));
            }
            let subnet = Subnet::around(endpoint.address, endpoint.prefix);
            if !addresses.iter().any(|address| {
                address.link == link.index
                    && address.address == endpoint.address
                    && address.prefix == endpoint.prefix
            }) {
                drift.push(format!("address {} is missing", endpoint.address));
            } else if link.up
                && !routes
                    .iter()
                    .any(|route| route.main && route.destination == subnet && route.link == Some(link.index))
            {
                drift.push(format!(
                    "route to {}/{} is missing",
                    subnet.address, subnet.prefix
                ));
            }
            if let Some(gateway) = default
                && !routes.iter().any(|route| {
                    route.main
                        && route.destination.prefix == 0
                        && route.gateway == Some(gateway)
                        && route.link == Some(link.index)
                })
            {
                drift.push("default route is missing".to_owned());
            }
            drift.extend(self.port_drift(&spec.key, endpoint)?);
        }
        drift.extend(self.settings_drift(spec, netns)?);
        Ok(drift)
    }

    fn settings_drift(&self, spec: &SandboxSpec, netns: BorrowedFd<'_>) -> Result<Vec<String>, NetError> {
        self.inside(&spec.key.to_string(), netns, || {
            let of_link = |one: &Endpoint| {
                let ours = link_settings(one.inside()).into_iter();
                let ours: Vec<_> = ours.filter(|(name, _)| !asked::has(one, name)).collect();
                ours
            };
            let links = spec.endpoints.iter().flat_map(of_link);
            // It gets them with its first interface; without one, they are the kernel's.
            let namespace = NAMESPACE.into_iter().filter(|_| !spec.endpoints.is_empty());
            let namespace = namespace.map(|(name, value)| (name.to_owned(), value.to_owned()));
            // Missing in a kernel without IPv6, or with the interface, which is told of already.
            let differs = |(name, value): &(String, String)| sysctl::read(name).is_ok_and(|is| is != *value);
            let differing = links.chain(namespace).filter(differs).map(|(name, _)| name);
            let asked = spec.endpoints.iter().flat_map(asked::differing);
            differing
                .chain(asked)
                .map(|name| format!("setting {} was changed", name.replace('/', ".")))
                .collect()
        })
    }

    fn port_drift(&self, instance: &InstanceKey, endpoint: &Endpoint) -> Result<Vec<String>, NetError> {
        let find = |name: &str| route::link_by_name(&self.route, name).map_err(NetError::Read);
        let host_end = names::veth(&self.mark, instance, &endpoint.interface);
        let bridge = names::bridge(&self.mark, &endpoint.network);
        let interface = endpoint.inside();
        let Some(port) = find(&host_end)? else {
            return Ok(vec![format!("veth of {interface} is missing")]);
        };
        let bridge = find(&bridge)?.map(|link| link.index);
        let mut drift = Vec::new();
        if port.bridge.is_none() || port.bridge != bridge {
            drift.push(format!("veth of {interface} is not on its bridge"));
        } else if !port.port_drift.is_empty() {
            let settings = port.port_drift.join(", ");
            drift.push(format!(
                "the bridge port of {interface} has another setting of {settings}"
            ));
        }
        if !port.up {
            drift.push(format!("veth of {interface} is down"));
        } else if port.blocked {
            drift.push(format!("the bridge port of {interface} does not forward"));
        }
        if port.mtu != route::MTU {
            drift.push(format!("veth of {interface} has an MTU of {}", port.mtu));
        }
        if port.alias != self.alias(&instance.to_string()) {
            drift.push(format!("veth of {interface} has lost its alias"));
        }
        if !self.loud_ipv6(vec![host_end])?.is_empty() {
            drift.push(format!("IPv6 is on on the veth of {interface}"));
        }
        Ok(drift)
    }

    /// A socket inside the namespace, which is set up on the way: interfaces made from now on get no IPv6.
    fn quiet_inside(&self, instance: &str, netns: BorrowedFd<'_>) -> Result<Netlink, NetError> {
        self.inside(instance, netns, || {
            for (setting, value) in NAMESPACE {
                sysctl::give(setting, value)?;
            }
            Netlink::open(SockProtocol::NetlinkRoute).map_err(NetError::Open)
        })?
    }

    fn inside<T>(
        &self,
        instance: &str,
        netns: BorrowedFd<'_>,
        work: impl FnOnce() -> T,
    ) -> Result<T, NetError> {
        home::inside(netns, work).map_err(|source| NetError::Enter {
            instance: instance.to_owned(),
            source,
        })
    }
}

/// What there is of the two ends of an interface.
enum Pair {
    /// The end inside and the host's.
    Whole(Box<route::Link>, Box<route::Link>),
    Missing,
    /// The name inside belongs to something that is no veth.
    Taken,
}

fn rename(
    netlink: &Netlink,
    link: Option<route::Link>,
    name: &str,
) -> Result<Option<route::Link>, NetlinkError> {
    let Some(link) = link else { return Ok(None) };
    let mut batch = Batch::default();
    route::rename(&mut batch, link.index, name);
    netlink.request(&batch)?;
    Ok(Some(route::Link {
        name: name.to_owned(),
        up: false,
        ..link
    }))
}

/// What a namespace is set to. No IPv6 but the ::1 that the loopback has already; low ports and ping for every user.
const NAMESPACE: [(&str, &str); 3] = [
    ("ipv6/conf/default/disable_ipv6", "1"),
    ("ipv4/ip_unprivileged_port_start", "0"),
    ("ipv4/ping_group_range", "0\t2147483647"),
];

/// What an interface in it is set to; what could not be asked while something was being repaired is asked again at
/// once.
fn link_settings(interface: &str) -> [(String, String); 2] {
    [
        (
            sysctl::neighbour_retry(interface),
            sysctl::NEIGHBOUR_RETRY.to_string(),
        ),
        (sysctl::of_link("ipv6", interface, "disable_ipv6"), "1".to_owned()),
    ]
}

/// Everything inside the namespace, in one datagram.
fn configure(
    inside: &Netlink,
    link: &route::Link,
    endpoint: &Endpoint,
    default_route: bool,
) -> Result<(), NetlinkError> {
    let mut batch = Batch::default();
    neighbour::set_retry(&mut batch, link.index);
    route::set_up(&mut batch, route::LOOPBACK);
    route::add_address(&mut batch, route::LOOPBACK, Ipv4Addr::LOCALHOST, 8);
    if link.mac != Some(endpoint.mac) {
        route::set_mac(&mut batch, link.index, endpoint.mac);
    }
    if link.mtu != route::MTU {
        route::set_mtu(&mut batch, link.index);
    }
    route::set_up(&mut batch, link.index);
    route::add_address(&mut batch, link.index, endpoint.address, endpoint.prefix);
    route::add_connected_route(
        &mut batch,
        link.index,
        Subnet::around(endpoint.address, endpoint.prefix),
        endpoint.address,
    );
    if let Some(gateway) = endpoint.gateway
        && default_route
    {
        route::add_default_route(&mut batch, link.index, gateway);
    }
    inside.request(&batch).map(drop)
}
