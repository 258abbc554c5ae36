//! The host's name servers, and questions on their way to them over UDP.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::{fd::AsRawFd, fd::RawFd, unix::fs::MetadataExt},
    path::PathBuf,
};

use rustix::rand::GetRandomFlags;

use super::message;

/// A server that has not answered by then is passed over; milliseconds.
pub const PATIENCE: u64 = 2000;
/// A question is given up after as many servers, some of them asked again.
pub const ATTEMPTS: usize = 4;
/// More questions than this at a time are not passed on.
const PENDING: usize = 256;
/// resolv.conf(5): MAXNS.
const SERVERS: usize = 3;

/// The name servers of resolv.conf(5), read again when the file changes.
#[derive(Debug)]
pub struct Servers {
    path: PathBuf,
    /// Device, inode, seconds and nanoseconds of its change.
    seen: Option<(u64, u64, i64, i64)>,
    addresses: Vec<SocketAddr>,
    /// Asked and nobody else, if there are any.
    instead: Vec<SocketAddr>,
}

impl Servers {
    pub fn new(path: PathBuf) -> Self {
        Servers {
            path,
            seen: None,
            addresses: Vec::new(),
            instead: Vec::new(),
        }
    }

    /// From now on these are asked; none: those of the file again.
    pub fn instead(&mut self, servers: &[IpAddr]) {
        let servers = servers.iter().take(SERVERS);
        self.instead = servers.map(|address| SocketAddr::new(*address, 53)).collect();
    }

    /// In the order they are to be asked. A file that is missing right now changes nothing.
    pub fn current(&mut self) -> &[SocketAddr] {
        if !self.instead.is_empty() {
            return &self.instead;
        }
        if let Ok(metadata) = fs::metadata(&self.path) {
            let seen = (
                metadata.dev(),
                metadata.ino(),
                metadata.mtime(),
                metadata.mtime_nsec(),
            );
            if self.seen != Some(seen)
                && let Ok(text) = fs::read_to_string(&self.path)
            {
                self.addresses = parse(&text);
                self.seen = Some(seen);
            }
        }
        &self.addresses
    }
}

/// Our own address would be a circle.
fn parse(text: &str) -> Vec<SocketAddr> {
    text.lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter_map(|rest| rest.split_whitespace().next()?.parse::<IpAddr>().ok())
        .filter(|address| *address != IpAddr::V4(crate::net::resolver::RESOLVER))
        .take(SERVERS)
        .map(|address| SocketAddr::new(address, 53))
        .collect()
}

/// A question that waits for its answer. Each has a socket of its own: another port and another id
/// each time is what makes a forged answer hard (RFC 5452).
#[derive(Debug)]
struct Pending {
    socket: UdpSocket,
    asker: SocketAddr,
    asked_id: u16,
    sent_id: u16,
    query: Vec<u8>,
    attempt: usize,
    /// `None`: set at the next tick.
    deadline: Option<u64>,
}

/// What is to be sent to the asker.
pub struct Reply {
    pub asker: SocketAddr,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Questions {
    pending: Vec<Pending>,
}

impl Questions {
    /// Sends a question to the first server; false: no room or no server.
    pub fn ask(&mut self, asker: SocketAddr, query: &[u8], servers: &[SocketAddr]) -> bool {
        let Some(asked_id) = message::id(query) else {
            return false;
        };
        if self.pending.len() >= PENDING {
            return false;
        }
        match send(query, 0, servers) {
            Some((socket, sent_id, attempt)) => {
                self.pending.push(Pending {
                    socket,
                    asker,
                    asked_id,
                    sent_id,
                    query: query.to_vec(),
                    attempt,
                    deadline: None,
                });
                true
            }
            None => false,
        }
    }

    pub fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        self.pending.iter().map(|pending| pending.socket.as_raw_fd())
    }

    /// Reads from `fd`, if it is one of these sockets.
    pub fn ready(&mut self, fd: RawFd, servers: &[SocketAddr]) -> Option<Reply> {
        let at = self
            .pending
            .iter()
            .position(|pending| pending.socket.as_raw_fd() == fd)?;
        let mut bytes = vec![0; 65_535];
        match self.pending[at].socket.recv(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                let pending = &self.pending[at];
                let fits = message::id(&bytes) == Some(pending.sent_id)
                    && message::is_answer(&bytes)
                    && message::question(&bytes)
                        .is_none_or(|question| Some(question) == message::question(&pending.query));
                if !fits {
                    return None;
                }
                message::set_id(&mut bytes, pending.asked_id);
                let pending = self.pending.swap_remove(at);
                Some(Reply {
                    asker: pending.asker,
                    bytes,
                })
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            // Refused: nobody listens there.
            Err(_) => self.next_server(at, servers),
        }
    }

    /// Passes over servers that took too long; returns failures for those nobody answered.
    pub fn tick(&mut self, now: u64, servers: &[SocketAddr]) -> Vec<Reply> {
        let mut failed = Vec::new();
        let mut at = 0;
        while at < self.pending.len() {
            let deadline = *self.pending[at].deadline.get_or_insert(now + PATIENCE);
            if deadline > now {
                at += 1;
                continue;
            }
            match self.next_server(at, servers) {
                // It was taken out: the one that took its place comes next.
                Some(reply) => failed.push(reply),
                None => {
                    self.pending[at].deadline = Some(now + PATIENCE);
                    at += 1;
                }
            }
        }
        failed
    }

    /// 0: something waits for its deadline to be set.
    pub fn next_deadline(&self) -> Option<u64> {
        self.pending
            .iter()
            .map(|pending| pending.deadline.unwrap_or(0))
            .min()
    }

    fn next_server(&mut self, at: usize, servers: &[SocketAddr]) -> Option<Reply> {
        let pending = &mut self.pending[at];
        match send(&pending.query, pending.attempt + 1, servers) {
            Some((socket, id, attempt)) => {
                pending.socket = socket;
                pending.sent_id = id;
                pending.attempt = attempt;
                pending.deadline = None;
                None
            }
            None => {
                let pending = self.pending.swap_remove(at);
                let bytes = message::refuse(&pending.query, message::Code::ServerFailure)?;
                Some(Reply {
                    asker: pending.asker,
                    bytes,
                })
            }
        }
    }
}

/// Tries servers from `attempt` on; the socket, the id and the attempt it worked at.
fn send(query: &[u8], attempt: usize, servers: &[SocketAddr]) -> Option<(UdpSocket, u16, usize)> {
    (attempt..ATTEMPTS.max(servers.len())).find_map(|attempt| {
        let server = servers.get(attempt % servers.len().max(1))?;
        let any = match server {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let mut id = [0; 2];
        // From the kernel: numbers of a generator in this process are those of all that are forked from one seed.
        rustix::rand::getrandom(&mut id, GetRandomFlags::empty()).ok()?;
        let id = u16::from_ne_bytes(id);
        let mut query = query.to_vec();
        message::set_id(&mut query, id);
        let try_it = || -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind(any)?;
            socket.set_nonblocking(true)?;
            socket.connect(server)?;
            socket.send(&query)?;
            Ok(socket)
        };
        Some((try_it().ok()?, id, attempt))
    })
}
