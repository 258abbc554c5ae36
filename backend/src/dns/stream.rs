//! Questions over TCP (RFC 7766): each message has its length in front. What no zone knows is passed
//! on over TCP too, one question of a connection at a time.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, RawFd},
};

use rustix::{
    io::Errno,
    net::{self, AddressFamily, SocketFlags, SocketType},
};

use super::{
    answer::Verdict,
    message::{self, Code},
    upstream::{ATTEMPTS, PATIENCE, Servers},
};

/// More connections than this wait to be accepted.
const CONNECTIONS: usize = 32;
/// A connection on which nothing happens is closed; milliseconds.
const IDLE: u64 = 10_000;

/// One direction each of bytes that are in and bytes that must go out.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    client: Line,
    /// The question that was passed on.
    relay: Option<Relay>,
    /// `None`: set at the next tick.
    deadline: Option<u64>,
}

#[derive(Debug)]
struct Relay {
    line: Line,
    query: Vec<u8>,
    attempt: usize,
    deadline: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Streams {
    connections: Vec<Connection>,
}

impl Line {
    fn new(stream: TcpStream) -> Self {
        Line {
            stream,
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    fn queue(&mut self, message: &[u8]) {
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        self.output.extend(length.to_be_bytes());
        self.output.extend(&message[..usize::from(length)]);
    }

    /// The next whole message.
    fn take(&mut self) -> Option<Vec<u8>> {
        let length = usize::from(u16::from_be_bytes(*self.input.first_chunk::<2>()?));
        let message = self.input.get(2..2 + length)?.to_vec();
        self.input.drain(..2 + length);
        Some(message)
    }

    /// Moves what can be moved; false: the other end is gone.
    fn exchange(&mut self) -> bool {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return false,
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if would_block(&error) => break,
                Err(_) => return false,
            }
        }
        let mut buffer = [0; 4096];
        // Two messages at most are held: who sends more waits.
        while self.input.len() < 2 * usize::from(u16::MAX) {
            match self.stream.read(&mut buffer) {
                Ok(0) => return false,
                Ok(count) => self.input.extend(&buffer[..count]),
                Err(error) if would_block(&error) => break,
                Err(_) => return false,
            }
        }
        true
    }

    fn interest(&self) -> i16 {
        if self.output.is_empty() {
            libc::POLLIN
        } else {
            libc::POLLOUT
        }
    }
}

impl Streams {
    pub fn has_room(&self) -> bool {
        self.connections.len() < CONNECTIONS
    }

    pub fn accept(&mut self, listener: &TcpListener) {
        while self.has_room() {
            let Ok((stream, _)) = listener.accept() else {
                return;
            };
            if stream.set_nonblocking(true).is_ok() {
                self.connections.push(Connection {
                    client: Line::new(stream),
                    relay: None,
                    deadline: None,
                });
            }
        }
    }

    pub fn poll_fds(&self, out: &mut Vec<(RawFd, i16)>) {
        for connection in &self.connections {
            match &connection.relay {
                // While a question is on its way, the client waits.
                Some(relay) => out.push((relay.line.stream.as_raw_fd(), relay.line.interest())),
                None => out.push((connection.client.stream.as_raw_fd(), connection.client.interest())),
            }
        }
    }

    pub fn ready(&mut self, fd: RawFd, servers: &mut Servers, mut answer: impl FnMut(&[u8]) -> Verdict) {
        let Some(at) = self.connections.iter().position(|connection| {
            connection.client.stream.as_raw_fd() == fd
                || connection
                    .relay
                    .as_ref()
                    .is_some_and(|relay| relay.line.stream.as_raw_fd() == fd)
        }) else {
            return;
        };
        let connection = &mut self.connections[at];
        connection.deadline = None;
        connection.turn_relay(servers);
        let mut open = connection.client.exchange();
        while connection.relay.is_none() {
            let Some(query) = connection.client.take() else {
                break;
            };
            match answer(&query) {
                Verdict::Answer(bytes) => connection.client.queue(&bytes),
                Verdict::Forward => connection.pass_on(query, 0, servers),
                Verdict::Drop => open = false,
            }
        }
        if !connection.client.output.is_empty() {
            open &= connection.client.exchange();
        }
        // Who has closed its side may still read what it asked for.
        if !open && connection.relay.is_none() {
            self.connections.swap_remove(at);
        }
    }

    pub fn tick(&mut self, now: u64, servers: &mut Servers) {
        for connection in &mut self.connections {
            connection.deadline.get_or_insert(now + IDLE);
            if let Some(relay) = &mut connection.relay
                && *relay.deadline.get_or_insert(now + PATIENCE) <= now
                && let Some(relay) = connection.relay.take()
            {
                connection.pass_on(relay.query, relay.attempt + 1, servers);
                connection.client.exchange();
            }
        }
        self.connections
            .retain(|connection| connection.deadline.is_none_or(|deadline| deadline > now));
    }

    pub fn next_deadline(&self) -> Option<u64> {
        self.connections
            .iter()
            .flat_map(|connection| {
                let relay = connection.relay.as_ref().map(|relay| relay.deadline.unwrap_or(0));
                [Some(connection.deadline.unwrap_or(0)), relay]
            })
            .flatten()
            .min()
    }
}

impl Connection {
    /// Connects to a server from `attempt` on, or answers that none can be reached.
    fn pass_on(&mut self, query: Vec<u8>, attempt: usize, servers: &mut Servers) {
        let addresses = servers.current();
        for attempt in attempt..ATTEMPTS.max(addresses.len()) {
            let Some(server) = addresses.get(attempt % addresses.len().max(1)) else {
                break;
            };
            if let Ok(stream) = connect(*server) {
                let mut line = Line::new(stream);
                line.queue(&query);
                self.relay = Some(Relay {
                    line,
                    query,
                    attempt,
                    deadline: None,
                });
                return;
            }
        }
        if let Some(bytes) = message::refuse(&query, Code::ServerFailure) {
            self.client.queue(&bytes);
        }
    }

    fn turn_relay(&mut self, servers: &mut Servers) {
        let Some(mut relay) = self.relay.take() else {
            return;
        };
        let open = relay.line.exchange();
        match relay.line.take() {
            Some(answer) => self.client.queue(&answer),
            None if open => self.relay = Some(relay),
            None => self.pass_on(relay.query, relay.attempt + 1, servers),
        }
    }
}

/// Starts to connect; what fails later shows at the first write.
fn connect(server: SocketAddr) -> io::Result<TcpStream> {
    let family = if server.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = net::socket_with(family, SocketType::STREAM, flags, None)?;
    match net::connect(&fd, &server) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(TcpStream::from(fd)),
        Err(errno) => Err(errno.into()),
    }
}

/// Nothing more right now; a connection that is not made yet says ENOTCONN.
fn would_block(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::NotConnected
    )
}
