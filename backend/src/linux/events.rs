//! Hints for the loop: one thread waits on every subscribed shim, another on netlink.
//!
//! | what happens | what is heard |
//! |---|---|
//! | a container exits, its health changes | the shim's event on its subscription |
//! | a shim dies | end of file on its subscription |
//! | a link, address or route changes, here or in a sandbox | netlink, by [`crate::net`] |
//! | another process changes nftables, here or in a sandbox | netlink, by [`crate::net`] |
//! | a zone or a setting of the network is written | inotify, by [`super::files`] |

use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use reconciler::{key::InstanceKey, port::HostEvent, spec::NetworkSpec};
use rustix::io::Errno;
use tokio::sync::mpsc;

use super::{sandboxes::Sandboxes, settings::Files};
use crate::{
    names,
    net::{
        Net, NetError,
        watch::{NetEvent, Watch},
    },
    records,
};

/// Where hints are gathered.
pub struct Watcher {
    sender: mpsc::UnboundedSender<HostEvent>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<HostEvent>>>,
    subscriptions: Arc<Subscriptions>,
}

/// The token of `files`; streams count from 0.
const FILES: u64 = u64::MAX;

struct Subscriptions {
    epoll: Epoll,
    files: Arc<Files>,
    streams: Mutex<BTreeMap<u64, (InstanceKey, OwnedFd)>>,
}

/// Turns what netlink tells about our links and rules into hints.
///
/// # Errors
/// No descriptor or no thread to be had.
pub fn watch_network(
    net: &Net,
    ours: u32,
    mark: String,
    networks: records::Store<NetworkSpec>,
    sandboxes: Arc<Sandboxes>,
    hints: mpsc::UnboundedSender<HostEvent>,
) -> Result<Watch, NetError> {
    let veths = names::veth_prefix(&mark);
    net.watch(ours, move |event| {
        let known = || {
            networks
                .list()
                .unwrap_or_default()
                .into_values()
                .map(|spec| spec.key)
        };
        let heard: Vec<HostEvent> = match event {
            // By far the most, when sandboxes come and go: nothing is read for them.
            NetEvent::Link(name) if name.starts_with(&veths) => sandboxes
                .link_changed(&name)
                .map(HostEvent::Instance)
                .into_iter()
                .collect(),
            NetEvent::Link(name) => known()
                .find(|key| names::bridge(&mark, key) == name)
                .map(HostEvent::Network)
                .into_iter()
                .collect(),
            // Also of namespaces that are none of ours.
            NetEvent::Inside(namespace) => sandboxes
                .namespace_changed(namespace)
                .map(HostEvent::Instance)
                .into_iter()
                .collect(),
            NetEvent::Firewall => vec![HostEvent::Firewall],
            NetEvent::Lost => vec![HostEvent::Lost],
        };
        for hint in heard {
            // The loop is gone: the agent is ending.
            let _ = hints.send(hint);
        }
    })
}

impl Watcher {
    /// # Errors
    /// No descriptor or no thread to be had.
    pub fn new() -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let subscriptions = Arc::new(Subscriptions {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            files: Arc::new(Files::new()?),
            streams: Mutex::default(),
        });
        let readable = EpollEvent::new(EpollFlags::EPOLLIN, FILES);
        subscriptions.epoll.add(subscriptions.files.as_fd(), readable)?;
        let waiting = Arc::clone(&subscriptions);
        let hints = sender.clone();
        thread::Builder::new()
            .name("shim-events".into())
            .spawn(move || waiting.run(&hints))?;
        Ok(Watcher {
            sender,
            receiver: Mutex::new(Some(receiver)),
            subscriptions,
        })
    }

    pub fn sender(&self) -> mpsc::UnboundedSender<HostEvent> {
        self.sender.clone()
    }

    /// The one receiver; a second call gets one that never hears anything.
    pub fn receiver(&self) -> mpsc::UnboundedReceiver<HostEvent> {
        let mut receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
        receiver.take().unwrap_or_else(|| mpsc::unbounded_channel().1)
    }

    pub fn files(&self) -> &Arc<Files> {
        &self.subscriptions.files
    }

    /// Listens to a connection on which the shim pushes events.
    ///
    /// # Errors
    /// The kernel has no room for another watch.
    pub fn subscribe(&self, key: &InstanceKey, stream: OwnedFd) -> std::io::Result<()> {
        rustix::io::ioctl_fionbio(&stream, true)?;
        let mut streams = self
            .subscriptions
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let token = streams.keys().next_back().map_or(0, |last| last + 1);
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, token);
        self.subscriptions.epoll.add(stream.as_fd(), event)?;
        streams.insert(token, (key.clone(), stream));
        Ok(())
    }
}

impl Subscriptions {
    fn run(&self, hints: &mpsc::UnboundedSender<HostEvent>) {
        let mut events = [EpollEvent::empty(); 64];
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(_) => return,
            };
            for event in &events[..count] {
                let heard = match event.data() {
                    FILES => self.files.heard(),
                    stream => self.drain(stream).map(HostEvent::Instance).into_iter().collect(),
                };
                for hint in heard {
                    if hints.send(hint).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Swallows what arrived: the content of an event is only a hint where to look.
    fn drain(&self, token: u64) -> Option<InstanceKey> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let (key, stream) = streams.get(&token)?;
        let key = key.clone();
        let mut buffer = [0; 4096];
        loop {
            match rustix::io::read(stream, &mut buffer[..]) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Some(key),
                Err(_) => break,
            }
        }
        // Closing the descriptor takes it out of the epoll set.
        streams.remove(&token);
        Some(key)
    }
}
