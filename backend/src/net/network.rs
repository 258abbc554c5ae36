//! The bridge of a network: made, repaired, compared, removed.

use std::collections::{BTreeMap, BTreeSet};

use nix::errno::Errno;
use reconciler::{key::ResourceKey, spec::NetworkSpec};
use sha2::{Digest, Sha256};

use super::{
    Net, NetError, neighbour,
    netlink::{Batch, NetlinkError},
    overlap, route, sysctl,
};
use crate::names;

const QUIET: [(&str, &str); 2] = [("accept_ra", "0"), ("disable_ipv6", "1")];

impl Net {
    /// Makes the bridge as the spec says, or repairs whatever of it differs.
    ///
    /// # Errors
    /// [`NetError::SubnetOverlap`]: the host has a route of its own there. Otherwise what the kernel
    /// refused.
    pub fn ensure_network(&self, spec: &NetworkSpec) -> Result<(), NetError> {
        let name = names::bridge(&self.mark, &spec.key);
        let mac = bridge_mac(&spec.key);
        let failed = |what| {
            let link = name.clone();
            move |source: NetlinkError| NetError::Link { what, link, source }
        };
        let alias = self.alias(&spec.key.to_string());
        let bridge = match self.bridge(&name, &alias)? {
            Some(bridge) if bridge.name == name => bridge,
            Some(renamed) => {
                let mut batch = Batch::default();
                route::rename(&mut batch, renamed.index, &name);
                self.route.request(&batch).map_err(failed("rename bridge"))?;
                route::Link { up: false, ..renamed }
            }
            None => {
                if let Some(taken) = self
                    .routes()?
                    .into_iter()
                    .find(|taken| overlap(*taken, spec.subnet))
                {
                    return Err(NetError::SubnetOverlap {
                        subnet: spec.subnet,
                        route: taken,
                    });
                }
                let mut batch = Batch::default();
                route::add_bridge(&mut batch, &name, mac);
                self.route.request(&batch).map_err(failed("make bridge"))?;
                self.bridge(&name, &alias)?
                    .ok_or_else(|| NetError::BridgeMissing(name.clone()))?
            }
        };
        // Before it comes up, so that it never has an address of its own making.
        self.quiet_ipv6(&name)?;
        let mut batch = Batch::default();
        neighbour::set_retry(&mut batch, bridge.index);
        let odd = bridge.stp || bridge.mtu != route::MTU;
        if odd || bridge.alias != alias || bridge.mac != Some(mac) {
            route::set_bridge(&mut batch, bridge.index, mac, &alias);
        }
        let addresses = route::addresses(&self.route).map_err(NetError::Read)?;
        let mut has_gateway = false;
        for address in addresses.iter().filter(|address| address.link == bridge.index) {
            if address.address == spec.gateway && address.prefix == spec.subnet.prefix {
                has_gateway = true;
            } else {
                route::delete_address(&mut batch, bridge.index, address.address, address.prefix);
            }
        }
        if !has_gateway {
            route::add_address(&mut batch, bridge.index, spec.gateway, spec.subnet.prefix);
        }
        if !bridge.up {
            route::set_up(&mut batch, bridge.index);
        }
        route::add_connected_route(&mut batch, bridge.index, spec.subnet, spec.gateway);
        self.route.request(&batch).map_err(failed("set up bridge"))?;
        Ok(())
    }

    /// Removes the bridge; gone already is fine.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn remove_network(&self, key: &ResourceKey) -> Result<(), NetError> {
        let name = names::bridge(&self.mark, key);
        let mut batch = Batch::default();
        route::delete_link(&mut batch, &name);
        match self.route.request(&batch) {
            Err(source) if !source.is(Errno::ENODEV) => Err(NetError::Link {
                what: "remove bridge",
                link: name,
                source,
            }),
            _ => Ok(()),
        }
    }

    /// What of each network is not as its spec says, for people; an empty list: nothing.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn observe_networks(
        &self,
        specs: &[NetworkSpec],
    ) -> Result<BTreeMap<ResourceKey, Vec<String>>, NetError> {
        let links: BTreeMap<String, route::Link> = self
            .links()?
            .into_iter()
            .map(|link| (link.name.clone(), link))
            .collect();
        let addresses = route::addresses(&self.route).map_err(NetError::Read)?;
        let routes = route::routes(&self.route).map_err(NetError::Read)?;
        let foreign = self.foreign(&routes, links.values());
        let names: Vec<String> = specs
            .iter()
            .map(|spec| names::bridge(&self.mark, &spec.key))
            .collect();
        let loud = self.loud_ipv6(names.clone())?;
        Ok(specs
            .iter()
            .zip(&names)
            .map(|(spec, name)| {
                let link = links.get(name);
                let mut drift = self.network_drift(spec, link, &addresses, &routes);
                if loud.contains(name) {
                    drift.push("IPv6 is on on the bridge".to_owned());
                }
                // Reported, never repaired: renumbering would cut what runs.
                if let Some(taken) = foreign.iter().find(|taken| overlap(**taken, spec.subnet)) {
                    tracing::warn!(
                        network = %spec.key,
                        route = %format_args!("{}/{}", taken.address, taken.prefix),
                        "the host has a route into this network's subnet"
                    );
                }
                if link.is_some_and(|link| !link.is_bridge) {
                    drift = vec!["its link is not a bridge".to_owned()];
                }
                (spec.key.clone(), drift)
            })
            .collect())
    }

    fn network_drift(
        &self,
        spec: &NetworkSpec,
        link: Option<&route::Link>,
        addresses: &[route::Address],
        routes: &[route::Route],
    ) -> Vec<String> {
        let Some(link) = link else {
            return vec!["bridge is missing".to_owned()];
        };
        let mut drift = Vec::new();
        let mut expect = |right: bool, what: &str| {
            if !right {
                drift.push(what.to_owned());
            }
        };
        expect(link.up, "bridge is down");
        expect(
            link.mac == Some(bridge_mac(&spec.key)),
            "bridge has another MAC address",
        );
        expect(
            link.alias == self.alias(&spec.key.to_string()),
            "bridge has lost its alias",
        );
        expect(!link.stp, "bridge runs the spanning tree protocol");
        expect(
            link.mtu == route::MTU,
            &format!("bridge has an MTU of {}", link.mtu),
        );
        let own = || addresses.iter().filter(|address| address.link == link.index);
        let right = |address: &route::Address| {
            address.address == spec.gateway && address.prefix == spec.subnet.prefix
        };
        expect(
            own().any(right),
            &format!("address {}/{} is missing", spec.gateway, spec.subnet.prefix),
        );
        for address in own().filter(|address| !right(address)) {
            expect(
                false,
                &format!("address {}/{} is not ours", address.address, address.prefix),
            );
        }
        let connected = |route: &route::Route| {
            route.main && route.destination == spec.subnet && route.link == Some(link.index)
        };
        // The route goes with the address, and with the link when that is down.
        expect(
            !link.up || !own().any(right) || routes.iter().any(connected),
            &format!(
                "route to {}/{} is missing",
                spec.subnet.address, spec.subnet.prefix
            ),
        );
        drift
    }

    /// `None`: there is no such link, nor one that was renamed.
    fn bridge(&self, name: &str, alias: &str) -> Result<Option<route::Link>, NetError> {
        let link = route::link_by_name(&self.route, name).map_err(NetError::Read)?;
        match link {
            Some(link) if !link.is_bridge => Err(NetError::NotABridge(link.name)),
            Some(link) => Ok(Some(link)),
            None => Ok(self
                .links()?
                .into_iter()
                .find(|link| link.is_bridge && link.alias == alias)),
        }
    }

    /// What adoption and `ip link` read on a link.
    pub(super) fn alias(&self, key: &str) -> String {
        // IFALIASZ is 256 with the closing zero.
        format!("stead {} {key}", self.mark).chars().take(255).collect()
    }

    /// IPv6 off on a link of the host. A kernel without IPv6 is fine.
    pub(super) fn quiet_ipv6(&self, link: &str) -> Result<(), NetError> {
        self.home
            .at_home(|| {
                QUIET.iter().try_for_each(|(setting, value)| {
                    sysctl::give(&sysctl::of_link("ipv6", link, setting), value)
                })
            })
            .map_err(NetError::Home)?
    }

    /// Those of the links that are not as [`Net::quiet_ipv6`] left them.
    pub(super) fn loud_ipv6(&self, links: Vec<String>) -> Result<BTreeSet<String>, NetError> {
        self.home
            .at_home(move || {
                let loud = |link: &String| {
                    QUIET.iter().any(|(setting, value)| {
                        sysctl::read(&sysctl::of_link("ipv6", link, setting)).is_ok_and(|is| is != *value)
                    })
                };
                links.into_iter().filter(loud).collect()
            })
            .map_err(NetError::Home)
    }
}

/// Locally administered, unicast, and the same for the same network for ever: containers keep it in
/// their ARP tables while a bridge is repaired.
fn bridge_mac(key: &ResourceKey) -> [u8; 6] {
    let hash = Sha256::digest(format!("bridge {key}"));
    [0x02, hash[0], hash[1], hash[2], hash[3], hash[4]]
}
