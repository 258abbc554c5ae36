//! Tells when something of the host's network changes: links, addresses, routes, rules.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    thread::JoinHandle,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::SockProtocol,
};

use super::{
    Net, NetError,
    netlink::{Message, Netlink, NetlinkError},
    route,
};
use crate::firewall::encode;

/// A hint; the truth is what is observed next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NetEvent {
    /// A link of ours changed or went.
    Link(String),
    Address,
    Route,
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

// RTNLGRP_LINK 1, RTNLGRP_IPV4_IFADDR 5, RTNLGRP_IPV4_ROUTE 7; NFNLGRP_NFTABLES 7 (netlink(7)).
const ROUTE_GROUPS: u32 = 1 | 1 << 4 | 1 << 6;
const NFTABLES_GROUP: u32 = 1 << 6;

impl Net {
    /// Calls `sink` on a thread of its own for every change in the namespace this [`Net`] is for.
    /// `ours`: see `Firewall::port`; what that socket does to the rules is not reported.
    ///
    /// # Errors
    /// No more descriptors or threads.
    pub fn watch(&self, ours: u32, sink: impl Fn(NetEvent) + Send + 'static) -> Result<Watch, NetError> {
        let open = || {
            let route = Netlink::subscribe(SockProtocol::NetlinkRoute, ROUTE_GROUPS)?;
            let nft = Netlink::subscribe(SockProtocol::NetlinkNetFilter, NFTABLES_GROUP)?;
            Ok((route, nft))
        };
        let (routes, nft) = self
            .worker
            .at_home(open)
            .map_err(NetError::Worker)?
            .map_err(NetError::Open)?;
        let (ended, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|errno| NetError::Worker(io::Error::from(errno)))?;
        let mark = self.mark.clone();
        let thread = std::thread::Builder::new()
            .name("netwatch".to_owned())
            .spawn(move || {
                let our_link = |name: &str| {
                    ["stb", "stv"].iter().any(|prefix| {
                        name.strip_prefix(prefix)
                            .is_some_and(|rest| rest.starts_with(&mark))
                    })
                };
                while wait(&[&routes.as_fd(), &nft.as_fd()], &ended) {
                    deliver(routes.events(), &sink, |message| route_event(message, our_link));
                    deliver(nft.events(), &sink, |message| rules_event(message, ours));
                }
            })
            .map_err(NetError::Worker)?;
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

/// Reports each kind of event of one datagram once.
fn deliver(
    events: Result<Vec<Message>, NetlinkError>,
    sink: &impl Fn(NetEvent),
    meaning: impl Fn(&Message) -> Option<NetEvent>,
) {
    match events {
        Ok(messages) => messages.iter().filter_map(meaning).for_each(sink),
        Err(error) => {
            tracing::debug!(%error, "network events were lost");
            sink(NetEvent::Lost);
        }
    }
}

fn route_event(message: &Message, our_link: impl Fn(&str) -> bool) -> Option<NetEvent> {
    const NEWLINK: u16 = 16;
    const DELLINK: u16 = 17;
    const NEWADDR: u16 = 20;
    const DELADDR: u16 = 21;
    const NEWROUTE: u16 = 24;
    const DELROUTE: u16 = 25;
    match message.kind {
        NEWLINK | DELLINK => {
            let link = route::link_event(message.kind, &message.body)?;
            our_link(&link.name).then_some(NetEvent::Link(link.name))
        }
        NEWADDR | DELADDR => Some(NetEvent::Address),
        NEWROUTE | DELROUTE => Some(NetEvent::Route),
        _ => None,
    }
}

/// Every transaction ends with one NEWGEN; it names the socket that asked for it.
fn rules_event(message: &Message, ours: u32) -> Option<NetEvent> {
    (message.kind == encode::kind(encode::NEWGEN) && message.port != ours).then_some(NetEvent::Firewall)
}
