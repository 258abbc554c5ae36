//! The resolver of one sandbox, for the poll loop of its shim: never blocks, never starts a thread.
//!
//! Its two listening sockets are inside the sandbox; the questions it passes on leave from the host,
//! where the shim lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket},
    os::{fd::AsRawFd, fd::RawFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use super::{
    answer::{self, Names, Verdict},
    message::{self, Code},
    stream::Streams,
    upstream::{Questions, Reply, Servers},
    zone,
};
use crate::shim::protocol::Resolver;

/// Questions taken from the socket before anything else gets its turn.
const BURST: usize = 64;

/// Answers from zone files and passes the rest on to the host's name servers.
#[derive(Debug)]
pub struct Server {
    udp: UdpSocket,
    tcp: TcpListener,
    zones: Zones,
    forward: bool,
    servers: Servers,
    questions: Questions,
    streams: Streams,
}

impl Server {
    /// Both sockets are bound to the same port of 127.0.0.11 inside the sandbox.
    ///
    /// # Errors
    /// The sockets cannot be made non-blocking.
    pub fn new(udp: UdpSocket, tcp: TcpListener, resolver: Resolver) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok(Server {
            udp,
            tcp,
            zones: Zones::new(resolver.zones),
            forward: resolver.forward,
            servers: Servers::new(PathBuf::from("/etc/resolv.conf")),
            questions: Questions::default(),
            streams: Streams::default(),
        })
    }

    /// Another resolv.conf(5) than the host's.
    #[must_use]
    pub fn with_resolv_conf(mut self, path: PathBuf) -> Self {
        self.servers = Servers::new(path);
        self
    }

    /// What the container asks for: `dns` instead of the host's name servers, if any, and other names.
    pub fn follow(&mut self, dns: &[IpAddr], links: &BTreeMap<String, String>) {
        self.servers.instead(dns);
        self.zones.links.clone_from(links);
    }

    /// From now on answers come from these zones.
    pub fn update(&mut self, resolver: Resolver) {
        let links = std::mem::take(&mut self.zones.links);
        self.zones = Zones {
            links,
            ..Zones::new(resolver.zones)
        };
        self.forward = resolver.forward;
    }

    /// UDP and TCP, for the next program when the shim executes a new one. Questions on their way are
    /// asked again by those who asked.
    pub fn sockets(&self) -> [RawFd; 2] {
        [self.udp.as_raw_fd(), self.tcp.as_raw_fd()]
    }

    /// Appends what to wait for (poll(2)). Changes with every call of [`Server::ready`].
    pub fn poll_fds(&self, out: &mut Vec<(RawFd, i16)>) {
        out.push((self.udp.as_raw_fd(), libc::POLLIN));
        if self.streams.has_room() {
            out.push((self.tcp.as_raw_fd(), libc::POLLIN));
        }
        out.extend(self.questions.descriptors().map(|fd| (fd, libc::POLLIN)));
        self.streams.poll_fds(out);
    }

    /// A descriptor of [`Server::poll_fds`] is ready; one that is none of them is ignored.
    pub fn ready(&mut self, fd: RawFd, revents: i16) {
        if revents == 0 {
            return;
        }
        if fd == self.udp.as_raw_fd() {
            self.answer_datagrams();
        } else if fd == self.tcp.as_raw_fd() {
            self.streams.accept(&self.tcp);
        } else if let Some(reply) = self.questions.ready(fd, self.servers.current()) {
            self.send(reply);
        } else {
            let Server {
                zones,
                forward,
                servers,
                streams,
                ..
            } = self;
            streams.ready(fd, servers, |bytes| {
                zones.refresh();
                answer::answer(bytes, zones, *forward, Some(usize::from(u16::MAX)))
            });
        }
    }

    /// To be called on every turn of the loop. `now`: boot-clock milliseconds.
    pub fn tick(&mut self, now: u64) {
        for reply in self.questions.tick(now, self.servers.current()) {
            self.send(reply);
        }
        self.streams.tick(now, &mut self.servers);
    }

    /// When [`Server::tick`] is due at the latest, in boot-clock milliseconds; `None`: nothing waits.
    pub fn next_deadline(&self) -> Option<u64> {
        let deadlines = [self.questions.next_deadline(), self.streams.next_deadline()];
        deadlines.into_iter().flatten().min()
    }

    fn answer_datagrams(&mut self) {
        let mut buffer = [0; 4096];
        self.zones.refresh();
        for _ in 0..BURST {
            let Ok((length, asker)) = self.udp.recv_from(&mut buffer) else {
                return;
            };
            let bytes = &buffer[..length];
            match answer::answer(bytes, &self.zones, self.forward, None) {
                Verdict::Answer(bytes) => self.send(Reply { asker, bytes }),
                Verdict::Forward => {
                    if !self.questions.ask(asker, bytes, self.servers.current())
                        && let Some(bytes) = message::refuse(bytes, Code::ServerFailure)
                    {
                        self.send(Reply { asker, bytes });
                    }
                }
                Verdict::Drop => {}
            }
        }
    }

    /// Who does not take its answer asks again.
    fn send(&self, reply: Reply) {
        let _ = self.udp.send_to(&reply.bytes, reply.asker);
    }
}

/// The zone files, opened again when another file is in their place.
#[derive(Debug)]
struct Zones {
    files: Vec<ZoneFile>,
    /// Names that this sandbox alone knows, and what they stand for.
    links: BTreeMap<String, String>,
}

#[derive(Debug)]
struct ZoneFile {
    path: PathBuf,
    /// With its inode; `None`: it has never been there.
    open: Option<(u64, File)>,
}

impl Zones {
    fn new(paths: Vec<PathBuf>) -> Self {
        Zones {
            files: paths
                .into_iter()
                .map(|path| ZoneFile { path, open: None })
                .collect(),
            links: BTreeMap::new(),
        }
    }

    /// A file that is missing for a moment goes on answering as it was: an agent that dies must not
    /// break a name.
    fn refresh(&mut self) {
        for zone in &mut self.files {
            let Ok(inode) = fs::metadata(&zone.path).map(|metadata| metadata.ino()) else {
                continue;
            };
            if zone.open.as_ref().is_none_or(|(known, _)| *known != inode)
                && let Ok(file) = File::open(&zone.path)
                && let Ok(metadata) = file.metadata()
            {
                zone.open = Some((metadata.ino(), file));
            }
        }
    }

    fn files(&self) -> impl Iterator<Item = &File> {
        self.files
            .iter()
            .filter_map(|zone| zone.open.as_ref().map(|(_, file)| file))
    }
}

impl Names for Zones {
    fn addresses(&self, name: &str) -> Option<BTreeSet<Ipv4Addr>> {
        let name = self.links.get(name).map_or(name, String::as_str);
        self.files()
            .filter_map(|file| zone::lookup(file, name).ok().flatten())
            .reduce(|mut all, more| {
                all.extend(more);
                all
            })
    }

    fn name(&self, address: Ipv4Addr) -> Option<String> {
        self.files()
            .find_map(|file| zone::name_of(file, address).ok().flatten())
    }
}

#[cfg(test)]
mod tests;
