//! One netlink socket: batches of requests in one datagram, dumps, and what the kernel refused.
//!
//! The kernel works through a datagram inside `sendmsg` and queues every answer before it returns, so
//! nothing here ever waits. No acknowledgement is asked for: a refusal is always reported.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::sys::socket::{
    self, AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, sockopt,
};

use crate::sys::message;

/// Room for a whole ruleset, and for the events of one.
const BUFFER: usize = 8 << 20;
/// The largest datagram.
const DATAGRAM: usize = 64 << 10;
const HEADER: usize = 16;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;
/// The dump was interrupted by a change: what was read is a mix of two states.
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// How often an interrupted dump is started again.
const DUMP_ATTEMPTS: u32 = 8;

/// Make the object when it is missing, and refuse when it is there (netlink(7)).
pub const CREATE: u16 = 0x400;
pub const EXCLUSIVE: u16 = 0x200;
pub const REPLACE: u16 = 0x100;
/// Add at the end of the list (rules).
pub const APPEND: u16 = 0x800;

/// A request the kernel answered with an error.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    #[error("the netlink socket failed")]
    Socket(#[source] io::Error),
    /// `request` counts the requests of the batch from 0.
    #[error("the kernel refused request {request}")]
    Refused {
        request: u32,
        #[source]
        source: io::Error,
    },
    #[error("the kernel's answer could not be read: {0}")]
    Answer(String),
}

impl NetlinkError {
    /// The error number behind it, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            NetlinkError::Socket(source) | NetlinkError::Refused { source, .. } => source.raw_os_error(),
            NetlinkError::Answer(_) => None,
        }
    }

    pub fn is(&self, errno: nix::errno::Errno) -> bool {
        self.errno() == Some(errno as i32)
    }
}

/// Requests for one datagram.
#[derive(Debug, Default, Clone)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    /// Appends one request; `body` writes what follows the netlink header.
    pub fn push(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend([0; 4]);
        body(&mut self.bytes);
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.count += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// One message from the kernel, without its netlink header.
#[derive(Debug, Clone)]
pub struct Message {
    pub kind: u16,
    /// Port id of the socket whose request caused it, 0 for the kernel itself.
    pub port: u32,
    pub body: Vec<u8>,
    /// Of an event: the number of the namespace where it happened, if that is not the socket's own.
    pub namespace: Option<i32>,
}

/// Bound to the network namespace its creator was in, wherever it is used later.
#[derive(Debug)]
pub struct Netlink {
    socket: OwnedFd,
    /// This socket's address: what the kernel names in the events our requests cause.
    port: u32,
    /// Requests and their answers must not mix between threads.
    turn: Mutex<()>,
    dumps: AtomicU32,
}

impl Netlink {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The protocol is not in this kernel, or no more descriptors.
    pub fn open(protocol: SockProtocol) -> Result<Self, NetlinkError> {
        Self::subscribe(protocol, 0)
    }

    /// As [`Netlink::open`], with multicast `groups` as a bit mask (group 1 is bit 0).
    ///
    /// # Errors
    /// As [`Netlink::open`].
    pub fn subscribe(protocol: SockProtocol, groups: u32) -> Result<Self, NetlinkError> {
        let open = || -> nix::Result<(OwnedFd, u32)> {
            let socket = socket::socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                protocol,
            )?;
            // Without the right to exceed the limit the default must do.
            let _ = socket::setsockopt(&socket, sockopt::RcvBufForce, &BUFFER);
            let _ = socket::setsockopt(&socket, sockopt::SndBufForce, &BUFFER);
            socket::bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
            let port = socket::getsockname::<NetlinkAddr>(socket.as_raw_fd())?.pid();
            Ok((socket, port))
        };
        let (socket, port) = open().map_err(|errno| NetlinkError::Socket(errno.into()))?;
        Ok(Netlink {
            socket,
            port,
            turn: Mutex::new(()),
            dumps: AtomicU32::new(1 << 20),
        })
    }

    /// The address of this socket.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Sends a batch and returns what the kernel answered, if anything.
    ///
    /// # Errors
    /// The first request that was refused. Whether the others were carried out is up to the protocol:
    /// netfilter batches are all or nothing, route requests each stand alone.
    pub fn request(&self, batch: &Batch) -> Result<Vec<Message>, NetlinkError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.drain()?;
        self.send(batch.bytes())?;
        let mut answers = Vec::new();
        let mut refused = None;
        while let Some(bytes) = self.receive()? {
            for (header, body) in messages(&bytes) {
                match header.kind {
                    NLMSG_ERROR => {
                        if let Some(source) = error_in(body) {
                            refused.get_or_insert(NetlinkError::Refused {
                                request: header.sequence,
                                source,
                            });
                        }
                    }
                    NLMSG_DONE => {}
                    _ => answers.push(header.message(body)),
                }
            }
        }
        match refused {
            Some(error) => Err(error),
            None => Ok(answers),
        }
    }

    /// Reads a whole table of the kernel; a dump that a change interrupted is done again.
    ///
    /// # Errors
    /// The kernel refused, or changes never ceased.
    pub fn dump(&self, kind: u16, body: &[u8]) -> Result<Vec<Message>, NetlinkError> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..DUMP_ATTEMPTS {
            self.drain()?;
            let mut batch = Batch {
                bytes: Vec::new(),
                count: self.dumps.fetch_add(1, Ordering::Relaxed),
            };
            batch.push(kind, NLM_F_DUMP, |bytes| bytes.extend(body));
            self.send(batch.bytes())?;
            if let Some(answers) = self.collect()? {
                return Ok(answers);
            }
        }
        Err(NetlinkError::Answer(
            "it changed all the time while it was read".to_owned(),
        ))
    }

    /// `None`: the dump was interrupted.
    fn collect(&self) -> Result<Option<Vec<Message>>, NetlinkError> {
        let mut answers = Vec::new();
        let mut whole = true;
        while let Some(bytes) = self.receive()? {
            for (header, body) in messages(&bytes) {
                whole &= header.flags & NLM_F_DUMP_INTR == 0;
                match header.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        if let Some(source) = error_in(body) {
                            return Err(NetlinkError::Refused { request: 0, source });
                        }
                        return Ok(whole.then_some(answers));
                    }
                    _ => answers.push(header.message(body)),
                }
            }
        }
        Err(NetlinkError::Answer("the end is missing".to_owned()))
    }

    /// Hears of every namespace that has a number in this one, too.
    ///
    /// # Errors
    /// The kernel does not know the option.
    pub fn hear_all_namespaces(&self) -> Result<(), NetlinkError> {
        message::hear_all_namespaces(self.as_fd()).map_err(NetlinkError::Socket)
    }

    /// The events of the next datagram; empty when there is none.
    ///
    /// # Errors
    /// `ENOBUFS`: events were lost.
    pub fn events(&self) -> Result<Vec<Message>, NetlinkError> {
        let mut bytes = vec![0; DATAGRAM];
        let (length, namespace) = loop {
            match message::datagram(self.as_fd(), &mut bytes) {
                Ok(received) => break received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(NetlinkError::Socket(error)),
            }
        };
        let event = |(header, body): (Header, &[u8])| Message {
            namespace,
            ..header.message(body)
        };
        Ok(messages(&bytes[..length]).map(event).collect())
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        let sent = socket::sendto(
            self.socket.as_raw_fd(),
            bytes,
            &NetlinkAddr::new(0, 0),
            MsgFlags::empty(),
        );
        match sent {
            Ok(_) => Ok(()),
            Err(errno) => Err(NetlinkError::Socket(errno.into())),
        }
    }

    /// One datagram, or `None` when there is none.
    fn receive(&self) -> Result<Option<Vec<u8>>, NetlinkError> {
        let mut bytes = vec![0; DATAGRAM];
        loop {
            match socket::recv(self.socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => {
                    bytes.truncate(length);
                    return Ok(Some(bytes));
                }
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(NetlinkError::Socket(errno.into())),
            }
        }
    }

    /// Throws away what an earlier, failed request left behind.
    fn drain(&self) -> Result<(), NetlinkError> {
        loop {
            match self.receive() {
                Ok(None) => return Ok(()),
                Ok(Some(_)) => {}
                Err(error) if error.is(nix::errno::Errno::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

struct Header {
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

impl Header {
    fn message(&self, body: &[u8]) -> Message {
        Message {
            kind: self.kind,
            port: self.port,
            body: body.to_vec(),
            namespace: None,
        }
    }
}

/// The messages of one datagram; stops at the first that does not fit.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32_at(bytes, 0)? as usize;
        if length < HEADER {
            return None;
        }
        let header = Header {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
        };
        // The echo of a refused request may be cut off: what is there is enough.
        let body = bytes.get(HEADER..length.min(bytes.len()))?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, body))
    })
}

fn error_in(body: &[u8]) -> Option<io::Error> {
    let code = u32_at(body, 0)? as i32;
    (code != 0).then(|| io::Error::from_raw_os_error(-code))
}

pub fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
