//! The interfaces of a sandbox: attached, repaired, compared, taken away.

use std::os::fd::BorrowedFd;

use nix::{errno::Errno, sys::socket::SockProtocol};
use reconciler::{
    key::InstanceKey,
    spec::{Endpoint, SandboxSpec},
};

use super::{
    Net, NetError,
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
            let link = format!("{} of {instance}", endpoint.interface);
            move |source: NetlinkError| NetError::Link { what, link, source }
        };
        let bridge_name = names::bridge(&self.mark, &endpoint.network);
        let bridge = route::link_by_name(&self.route, &bridge_name)
            .map_err(NetError::Read)?
            .filter(|link| link.is_bridge)
            .ok_or(NetError::BridgeMissing(bridge_name))?
            .index;
        let inside = self.open_inside(&instance.to_string(), netns)?;
        let inner = route::link_by_name(&inside, &endpoint.interface).map_err(NetError::Read)?;
        let outer = route::link_by_name(&self.route, &host_end).map_err(NetError::Read)?;
        let alias = self.alias(&instance.to_string());
        let mut batch = Batch::default();
        match (&inner, &outer) {
            (Some(_), Some(port)) => {
                if !port.up || port.bridge != Some(bridge) {
                    route::set_port(&mut batch, &host_end, bridge);
                }
                if !port.hairpin || port.alias != alias || port.bridge != Some(bridge) {
                    route::set_hairpin(&mut batch, &host_end, &alias);
                }
            }
            // The ends of a pair go together: this one is somebody else's, made inside.
            (Some(_), None) => {
                return Err(NetError::InterfaceTaken {
                    instance: instance.to_string(),
                    interface: endpoint.interface.clone(),
                });
            }
            (None, outer) => {
                if outer.is_some() {
                    // Of a sandbox that is gone; its namespace is on its way out.
                    route::delete_link(&mut batch, &host_end);
                }
                route::add_veth(&mut batch, &host_end, bridge, endpoint, netns);
                route::set_hairpin(&mut batch, &host_end, &alias);
            }
        }
        self.route.request(&batch).map_err(failed("attach"))?;
        // The host speaks with containers through the bridge alone.
        self.quiet_ipv6(&host_end)?;
        let inner = match inner {
            Some(inner) => inner,
            None => route::link_by_name(&inside, &endpoint.interface)
                .map_err(NetError::Read)?
                .ok_or(NetlinkError::Answer("the new interface is missing".to_owned()))
                .map_err(failed("find"))?,
        };
        configure(&inside, &inner, endpoint, default_route).map_err(failed("configure"))
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
        let inside = self.open_inside(&spec.key.to_string(), netns)?;
        let inner = route::links(&inside).map_err(NetError::Read)?;
        let addresses = route::addresses(&inside).map_err(NetError::Read)?;
        let routes = route::routes(&inside).map_err(NetError::Read)?;
        let mut drift = Vec::new();
        if !inner.iter().any(|link| link.index == route::LOOPBACK && link.up) {
            drift.push("lo is down".to_owned());
        }
        let mut wants_default = true;
        for endpoint in &spec.endpoints {
            let name = &endpoint.interface;
            let default = endpoint.gateway.filter(|_| wants_default);
            wants_default &= default.is_none();
            let Some(link) = inner.iter().find(|link| link.name == *name) else {
                drift.push(format!("{name} is missing"));
                continue;
            };
            if !link.up {
                drift.push(format!("{name} is down"));
            }
            if link.mac != Some(endpoint.mac) {
                drift.push(format!("{name} has another MAC address"));
            }
            if !addresses.iter().any(|address| {
                address.link == link.index
                    && address.address == endpoint.address
                    && address.prefix == endpoint.prefix
            }) {
                drift.push(format!("address {} is missing", endpoint.address));
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
        Ok(drift)
    }

    fn port_drift(&self, instance: &InstanceKey, endpoint: &Endpoint) -> Result<Vec<String>, NetError> {
        let find = |name: &str| route::link_by_name(&self.route, name).map_err(NetError::Read);
        let host_end = names::veth(&self.mark, instance, &endpoint.interface);
        let bridge = names::bridge(&self.mark, &endpoint.network);
        let interface = &endpoint.interface;
        let Some(port) = find(&host_end)? else {
            return Ok(vec![format!("veth of {interface} is missing")]);
        };
        let bridge = find(&bridge)?.map(|link| link.index);
        let mut drift = Vec::new();
        if port.bridge.is_none() || port.bridge != bridge {
            drift.push(format!("veth of {interface} is not on its bridge"));
        } else if !port.hairpin {
            drift.push(format!("veth of {interface} has lost its hairpin mode"));
        }
        if !port.up {
            drift.push(format!("veth of {interface} is down"));
        }
        Ok(drift)
    }

    /// A socket inside the namespace. On the way, interfaces made from now on get no IPv6; the
    /// loopback keeps its ::1.
    fn open_inside(&self, instance: &str, netns: BorrowedFd<'_>) -> Result<Netlink, NetError> {
        self.worker
            .inside(netns, || {
                // Missing in a kernel without IPv6.
                let _ = sysctl::set(&sysctl::of_link("ipv6", "default", "disable_ipv6"), "1");
                Netlink::open(SockProtocol::NetlinkRoute)
            })
            .map_err(|source| NetError::Enter {
                instance: instance.to_owned(),
                source,
            })?
            .map_err(NetError::Open)
    }
}

/// Everything inside the namespace, in one datagram.
fn configure(
    inside: &Netlink,
    link: &route::Link,
    endpoint: &Endpoint,
    default_route: bool,
) -> Result<(), NetlinkError> {
    let mut batch = Batch::default();
    route::set_up(&mut batch, route::LOOPBACK);
    if link.mac != Some(endpoint.mac) {
        route::set_mac(&mut batch, link.index, endpoint.mac);
    }
    route::set_up(&mut batch, link.index);
    route::add_address(&mut batch, link.index, endpoint.address, endpoint.prefix);
    if let Some(gateway) = endpoint.gateway
        && default_route
    {
        route::add_default_route(&mut batch, link.index, gateway);
    }
    inside.request(&batch).map(drop)
}
