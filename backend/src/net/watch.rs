//! Tells when something of the host's network changes: links, addresses, routes, rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, OwnedFd},
    thread::{self, JoinHandle},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::SockProtocol,
};
use rustix::process::setpriority_process;

use super::{
    Net, NetError, is_ours,
    netlink::{Message, Netlink, u32_at},
};
use crate::firewall::encode;

/// A hint; the truth is what is observed next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetEvent {
    /// A link of ours changed or went, or an address or route of it. The name is the one it should have.
    Link(String),
    /// Something changed in another namespace; see [`Net::namespace_number`].
    Inside(i32),
    /// Somebody else changed the host's rules.
    Firewall,
    /// The kernel had more to tell than there was room for: look at everything.
    Lost,
}

/// Watches until it is dropped.
#[derive(Debug)]
pub struct Watch {
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

// RTNLGRP_LINK 1, RTNLGRP_IPV4_IFADDR 5, RTNLGRP_IPV4_ROUTE 7, RTNLGRP_IPV6_IFADDR 9, RTNLGRP_IPV6_ROUTE 11;
// NFNLGRP_NFTABLES 7 (netlink(7)). Where somebody turns IPv6 on, its routes are told at once, its address
// only when it is known to be nobody else's: a second or two later.
const ROUTE_GROUPS: u32 = 1 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10;
const NFTABLES_GROUP: u32 = 1 << 6;
/// Milliseconds from the first news to a look at all there is: a link that is made tells of itself a dozen times, and
/// whoever makes it needs the processor.
const GATHER: u8 = 3;
/// Of the thread that listens: setpriority(2).
const PRIORITY: i32 = 10;

impl Net {
    /// Calls `sink` on a thread of its own for every change in the namespace this [`Net`] is for, and in
    /// those that have a number there. `ours`: see `Firewall::port`; what that socket does to the rules is
    /// not reported.
    ///
    /// # Errors
    /// No more descriptors or threads.
    pub fn watch(&self, ours: u32, sink: impl Fn(NetEvent) + Send + 'static) -> Result<Watch, NetError> {
        let open = || {
            let route = Netlink::subscribe(SockProtocol::NetlinkRoute, ROUTE_GROUPS)?;
            let nft = Netlink::subscribe(SockProtocol::NetlinkNetFilter, NFTABLES_GROUP)?;
            route.hear_all_namespaces()?;
            nft.hear_all_namespaces()?;
            Ok((route, nft))
        };
        let (routes, nft) = self
            .home
            .at_home(open)
            .map_err(NetError::Home)?
            .map_err(NetError::Open)?;
        let (ended, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| NetError::Thread(io::Error::from(errno)))?;
        // After the subscription, so that no link is missed.
        let mut links = Links {
            names: self
                .our_links()?
                .into_iter()
                .filter(|link| is_ours(&self.mark, &link.name))
                .map(|link| (link.index, link.name))
                .collect(),
            mark: self.mark.clone(),
        };
        let thread = thread::Builder::new()
            .name("netwatch".to_owned())
            .spawn(move || {
                let _ = setpriority_process(None, PRIORITY);
                while wait(&[&routes.as_fd(), &nft.as_fd()], &ended) {
                    let mut over = [PollFd::new(ended.as_fd(), PollFlags::empty())];
                    let _ = poll(&mut over, GATHER);
                    deliver(&routes, &sink, |message| links.event(message));
                    deliver(&nft, &sink, |message| rules_event(message, ours));
                }
            })
            .map_err(NetError::Thread)?;
        Ok(Watch {
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// False: the watch is over.
fn wait(sockets: &[&dyn AsFd], ended: &OwnedFd) -> bool {
    let mut waiting: Vec<PollFd<'_>> = sockets
        .iter()
        .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
        .collect();
    waiting.push(PollFd::new(ended.as_fd(), PollFlags::empty()));
    loop {
        match poll(&mut waiting, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(_) => return false,
            Ok(_) => {
                let over = waiting
                    .last()
                    .and_then(PollFd::revents)
                    .is_some_and(|events| !events.is_empty());
                return !over;
            }
        }
    }
}

/// Reports each event of all that has come once.
fn deliver(
    socket: &Netlink,
    sink: &impl Fn(NetEvent),
    mut meaning: impl FnMut(&Message) -> Option<NetEvent>,
) {
    let mut events = BTreeSet::new();
    loop {
        match socket.events() {
            Ok(messages) if messages.is_empty() => break,
            Ok(messages) => events.extend(messages.iter().filter_map(&mut meaning)),
            Err(error) => {
                tracing::debug!(%error, "network events were lost");
                events.insert(NetEvent::Lost);
                break;
            }
        }
    }
    events.into_iter().for_each(sink);
}

/// Our links by index: addresses and routes name nothing else, and a link that was renamed is still ours.
struct Links {
    names: BTreeMap<u32, String>,
    mark: String,
}

impl Links {
    fn event(&mut self, message: &Message) -> Option<NetEvent> {
        const NEWLINK: u16 = 16;
        const DELLINK: u16 = 17;
        const NEWADDR: u16 = 20;
        const DELADDR: u16 = 21;
        const NEWROUTE: u16 = 24;
        const DELROUTE: u16 = 25;
        const IFNAME: u16 = 3;
        const OIF: u16 = 4;
        if let Some(namespace) = message.namespace {
            return Some(NetEvent::Inside(namespace));
        }
        // struct ifinfomsg and struct ifaddrmsg have the index in their second word, struct rtmsg has none.
        let body = &message.body;
        let index = match message.kind {
            NEWLINK | DELLINK | NEWADDR | DELADDR => u32_at(body, 4)?,
            NEWROUTE | DELROUTE => u32_at(encode::find(body.get(12..)?, OIF)?, 0)?,
            _ => return None,
        };
        let known = self.names.get(&index).cloned();
        let name = match message.kind {
            NEWLINK | DELLINK => encode::text(body.get(16..)?, IFNAME)
                .filter(|name| is_ours(&self.mark, name))
                .map(str::to_owned)
                .or(known)?,
            _ => known?,
        };
        // A bridge that tells of a port it has lost is no end of the link.
        let ended = message.kind == DELLINK && body.first() == Some(&(libc::AF_UNSPEC as u8));
        match ended {
            true => drop(self.names.remove(&index)),
            false => drop(self.names.insert(index, name.clone())),
        }
        Some(NetEvent::Link(name))
    }
}

/// Every transaction ends with one NEWGEN; it names the socket that asked for it.
fn rules_event(message: &Message, ours: u32) -> Option<NetEvent> {
    if message.kind != encode::kind(encode::NEWGEN) {
        return None;
    }
    match message.namespace {
        Some(namespace) => Some(NetEvent::Inside(namespace)),
        None => (message.port != ours).then_some(NetEvent::Firewall),
    }
}
