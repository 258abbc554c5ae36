//! Bridges, sandbox interfaces and addresses of one root, on the host the agent runs on.

mod asked;
pub mod endpoint;
mod found;
pub(crate) mod home;
mod neighbour;
pub mod netlink;
mod network;
pub mod resolver;
pub(crate) mod route;
pub(crate) mod sysctl;
pub mod watch;

use std::{collections::BTreeSet, io, net::Ipv4Addr, os::fd::BorrowedFd};

use nix::sys::socket::SockProtocol;
use reconciler::spec::Subnet;

use self::{
    home::Home,
    netlink::{Netlink, NetlinkError},
};

#[derive(Debug, thiserror::Error)]
pub enum NetError {
    #[error("cannot open a route socket; stead needs root")]
    Open(#[source] NetlinkError),
    #[error("cannot enter the network namespace of the host")]
    Home(#[source] io::Error),
    #[error("cannot start the thread that hears of the network")]
    Thread(#[source] io::Error),
    #[error("cannot read the host's links, addresses or routes")]
    Read(#[source] NetlinkError),
    /// `route` is not ours.
    #[error(
        "subnet {}/{} overlaps the host's route to {}/{}: choose another subnet for the network, or remove \
         the route",
        subnet.address, subnet.prefix, route.address, route.prefix
    )]
    SubnetOverlap { subnet: Subnet, route: Subnet },
    #[error("link {0} exists and is not a bridge: remove it with `ip link delete {0}`")]
    NotABridge(String),
    #[error("cannot {what} {link}")]
    Link {
        /// `make bridge`, `attach`, …
        what: &'static str,
        link: String,
        #[source]
        source: NetlinkError,
    },
    #[error("bridge {0} is missing; stead makes it again in its next pass")]
    BridgeMissing(String),
    #[error("cannot set {setting} below /proc/sys/net; is /proc/sys writable?")]
    Sysctl {
        setting: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot enter the network namespace of {instance}")]
    Enter {
        instance: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot lead names to the resolver of the sandbox")]
    Resolver(#[source] NetlinkError),
    #[error("interface {interface} of {instance} is held by something else: recreate the container")]
    InterfaceTaken { instance: String, interface: String },
}

/// A link that carries the root's mark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OurLink {
    pub index: u32,
    pub name: String,
    /// `stead <mark> <key>`; empty when somebody removed it.
    pub alias: String,
    pub bridge: bool,
}

/// The network of one root. All calls block shortly.
#[derive(Debug)]
pub struct Net {
    mark: String,
    home: Home,
    route: Netlink,
}

impl Net {
    /// For the network namespace of the calling thread.
    ///
    /// # Errors
    /// Not root, or no more descriptors or threads.
    pub fn new(mark: &str) -> Result<Self, NetError> {
        Ok(Net {
            mark: mark.to_owned(),
            home: Home::here().map_err(NetError::Home)?,
            route: Netlink::open(SockProtocol::NetlinkRoute).map_err(NetError::Open)?,
        })
    }

    /// The links that carry this root's mark: for adoption, leaks and orphans.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn our_links(&self) -> Result<Vec<OurLink>, NetError> {
        let mut ours: Vec<_> = self
            .links()?
            .into_iter()
            .filter(|link| self.is_ours(link))
            .map(|link| OurLink {
                index: link.index,
                name: link.name,
                alias: link.alias,
                bridge: link.is_bridge,
            })
            .collect();
        ours.sort();
        Ok(ours)
    }

    /// Whether there is a link of this name.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn has_link(&self, name: &str) -> Result<bool, NetError> {
        let found = route::link_by_name(&self.route, name).map_err(NetError::Read)?;
        Ok(found.is_some())
    }

    /// IPv4 routes of the host that do not lead to our links: new subnets keep clear of them. No
    /// default route and nothing of 127.0.0.0/8 or multicast.
    ///
    /// # Errors
    /// The kernel could not be asked.
    pub fn routes(&self) -> Result<BTreeSet<Subnet>, NetError> {
        let routes = route::routes(&self.route).map_err(NetError::Read)?;
        Ok(self.foreign(&routes, self.links()?.iter()))
    }

    fn foreign<'l>(
        &self,
        routes: &[route::Route],
        links: impl Iterator<Item = &'l route::Link>,
    ) -> BTreeSet<Subnet> {
        let ours: BTreeSet<u32> = links
            .filter(|link| self.is_ours(link))
            .map(|link| link.index)
            .collect();
        routes
            .iter()
            .filter(|route| !route.link.is_some_and(|link| ours.contains(&link)))
            .map(|route| route.destination)
            .filter(|destination| {
                destination.prefix != 0
                    && !destination.address.is_loopback()
                    && !destination.address.is_multicast()
                    && destination.address != Ipv4Addr::BROADCAST
            })
            .collect()
    }

    /// Runs `work` in the namespace this is for.
    ///
    /// # Errors
    /// The thread for it is gone.
    pub fn at_home<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        self.home.at_home(work)
    }

    /// The kernel's number of the namespace of a sandbox, as [`watch::NetEvent::Inside`] names it.
    ///
    /// # Errors
    /// The kernel refused to number it.
    pub fn namespace_number(&self, netns: BorrowedFd<'_>) -> Result<i32, NetError> {
        route::namespace_number(&self.route, netns).map_err(NetError::Read)
    }

    fn links(&self) -> Result<Vec<route::Link>, NetError> {
        route::links(&self.route).map_err(NetError::Read)
    }

    /// By its name, or, where somebody renamed it, by its alias.
    fn is_ours(&self, link: &route::Link) -> bool {
        is_ours(&self.mark, &link.name)
            || link
                .alias
                .strip_prefix("stead ")
                .and_then(|rest| rest.strip_prefix(&self.mark))
                .is_some_and(|rest| rest.starts_with(' '))
    }
}

/// The name of a bridge or a veth of this root.
fn is_ours(mark: &str, link: &str) -> bool {
    ["stb", "stv"].iter().any(|prefix| {
        link.strip_prefix(prefix)
            .is_some_and(|rest| rest.starts_with(mark))
    })
}

/// One contains the other.
fn overlap(one: Subnet, other: Subnet) -> bool {
    let shorter = u32::from(one.prefix.min(other.prefix));
    let shift = 32 - shorter.min(32);
    let cut = |address: Ipv4Addr| u32::from(address).checked_shr(shift).unwrap_or(0);
    cut(one.address) == cut(other.address)
}

#[cfg(test)]
mod tests;
