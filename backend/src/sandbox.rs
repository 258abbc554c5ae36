//! A user namespace, a network namespace it owns, and what the shim holds in and for them.

mod holder;
pub mod pause;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};
use reconciler::spec::{PortBinding, Protocol, SandboxSpec, Space};
use serde::{Deserialize, Serialize};

pub use holder::Holder;

use crate::{
    rootfs::{Step, StepError, attach::sysctl},
    shim::protocol::Reason,
    sys::process,
};

/// Where names are asked inside a sandbox.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The namespaces that outlive a container, kept by descriptor.
#[derive(Debug)]
pub struct Namespaces {
    /// `None`: the host's.
    pub user: Option<OwnedFd>,
    pub net: OwnedFd,
    /// `None`: each container has one of its own, or the host's; likewise `pid`.
    pub ipc: Option<OwnedFd>,
    pub pid: Option<OwnedFd>,
    /// A mount namespace with the /dev/shm that goes with `ipc`.
    pub shm: Option<OwnedFd>,
}

impl Namespaces {
    pub fn user(&self) -> Option<BorrowedFd<'_>> {
        self.user.as_ref().map(AsFd::as_fd)
    }

    /// Those of the host where that is asked for, `lent` ones where they are to be joined, and for the rest those
    /// of `holder` or new ones.
    ///
    /// # Errors
    /// As the calls say; a namespace that is to be joined was not lent.
    pub fn new(
        sandbox: &SandboxSpec,
        holder: Result<Holder, StepError>,
        mut lent: Lent,
    ) -> Result<Self, StepError> {
        let spaces = &sandbox.spaces;
        if !spaces.host_ids && spaces.of.is_none() {
            return holder?.assign(sandbox.id_base);
        }
        if let Ok(holder) = holder {
            holder.end();
        }
        let mut joined = |kind: Kind, wanted: bool| match lent.remove(&kind) {
            _ if !wanted => Ok(None),
            Some(descriptor) => Ok(Some(descriptor)),
            None => Err(StepError {
                message: format!(
                    "a namespace to be shared ({kind:?}) was not handed over; it is asked for again"
                ),
                errno: None,
                reason: Reason::System,
            }),
        };
        let user = joined(Kind::User, !spaces.host_ids)?;
        let net = match joined(Kind::Net, spaces.network == Space::Joined)? {
            Some(net) => net,
            None if spaces.network == Space::Host => File::open(HOME).step("open", HOME)?.into(),
            None => holder::network(user.as_ref().map(AsFd::as_fd))?,
        };
        Ok(Namespaces {
            net,
            user,
            ipc: joined(Kind::Ipc, spaces.ipc == Space::Joined)?,
            shm: joined(Kind::Shm, spaces.ipc == Space::Joined)?,
            pid: joined(Kind::Pid, spaces.pid == Space::Joined)?,
        })
    }

    /// What others may join.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn lend(&self) -> io::Result<Lent> {
        let all = [
            (Kind::Net, Some(&self.net)),
            (Kind::User, self.user.as_ref()),
            (Kind::Ipc, self.ipc.as_ref()),
            (Kind::Shm, self.shm.as_ref()),
            (Kind::Pid, self.pid.as_ref()),
        ];
        let all = all.into_iter();
        all.filter_map(|(kind, descriptor)| Some((kind, descriptor?)))
            .map(|(kind, descriptor)| Ok((kind, descriptor.try_clone()?)))
            .collect()
    }
}

/// The network namespace that the caller lives in.
const HOME: &str = "/proc/self/ns/net";

/// A namespace that one sandbox lends another; `Shm`: the mount namespace with its /dev/shm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Net,
    User,
    Ipc,
    Shm,
    Pid,
}

pub type Lent = BTreeMap<Kind, OwnedFd>;

/// The resolver's sockets, bound inside, usable from outside.
#[derive(Debug)]
pub struct ResolverSockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
    pub port: u16,
}

/// Raises loopback, opens low ports and ping to every user, and binds the resolver's two sockets to one
/// port. The caller must be single-threaded: its network namespace changes for a moment.
///
/// # Errors
/// As the calls say; the caller's own namespace is restored in any case.
pub fn furnish(namespaces: &Namespaces) -> Result<ResolverSockets, StepError> {
    let home = File::open(HOME).step("open", HOME)?;
    setns(&namespaces.net, CloneFlags::CLONE_NEWNET).step("enter", "the sandbox's network namespace")?;
    let result = furnish_inside();
    setns(&home, CloneFlags::CLONE_NEWNET).step("leave", "the sandbox's network namespace")?;
    result
}

fn furnish_inside() -> Result<ResolverSockets, StepError> {
    for _ in 0..16 {
        let udp = {
            let any = socket(
                AddressFamily::Inet,
                SockType::Datagram,
                SockFlag::SOCK_CLOEXEC,
                None,
            )
            .step("make", "a socket")?;
            process::raise_loopback(any.as_fd()).step("raise", "lo")?;
            UdpSocket::bind(SocketAddrV4::new(RESOLVER, 0)).step("bind", RESOLVER)?
        };
        let port = udp.local_addr().step("look at", RESOLVER)?.port();
        let Ok(tcp) = TcpListener::bind(SocketAddrV4::new(RESOLVER, port)) else {
            continue;
        };
        udp.set_nonblocking(true)
            .step("set up", "the resolver's socket")?;
        tcp.set_nonblocking(true)
            .step("set up", "the resolver's socket")?;
        sysctl("net/ipv4/ip_unprivileged_port_start", "0")
            .step("set", "net.ipv4.ip_unprivileged_port_start")?;
        sysctl("net/ipv4/ping_group_range", "0 2147483647").step("set", "net.ipv4.ping_group_range")?;
        return Ok(ResolverSockets { udp, tcp, port });
    }
    Err(StepError::system(
        "bind",
        RESOLVER,
        io::Error::from_raw_os_error(libc::EADDRINUSE),
    ))
}

/// Takes a host port: bound, never listening, so that "taken" is the kernel's verdict.
///
/// # Errors
/// `PortTaken` when somebody holds it.
pub fn reserve(port: &PortBinding) -> Result<OwnedFd, StepError> {
    let kind = match port.protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let held = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None).step("make", "a socket")?;
    // No SO_REUSEADDR: with it two holders that never listen would both succeed.
    let address = SocketAddrV4::new(port.host_ip, port.published);
    let name = format!("{}:{}", port.host_ip, port.published);
    rustix::net::bind(&held, &address).map_err(|errno| match errno {
        rustix::io::Errno::ADDRINUSE => StepError {
            message: format!(
                "the host port {name} is taken; stop its holder (`ss -lntup 'sport = :{}'` shows it) or publish \
                 another",
                port.published
            ),
            errno: Some(libc::EADDRINUSE),
            reason: Reason::PortTaken,
        },
        other => StepError::system("bind the host port", name, other),
    })?;
    Ok(held)
}
