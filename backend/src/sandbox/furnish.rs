//! What every network namespace of a sandbox has: loopback, and the way to its resolver.

use std::{
    fs::File,
    io,
    net::{SocketAddrV4, TcpListener, UdpSocket},
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{AddressFamily, SockFlag, SockType, socket},
};

use super::{HOME, RESOLVER};
use crate::{
    net::resolver,
    rootfs::{Step, StepError, attach::sysctl},
    sys::process,
};

/// The resolver's sockets, bound inside, usable from outside.
#[derive(Debug)]
pub struct ResolverSockets {
    pub udp: UdpSocket,
    pub tcp: TcpListener,
    pub port: u16,
}

/// Raises loopback, binds the resolver's two sockets to one port, and leads to it what is asked at
/// [`RESOLVER`]. The caller must be single-threaded: its network namespace changes for a moment.
///
/// # Errors
/// As the calls say; the caller's own namespace is restored in any case.
pub fn furnish(net: BorrowedFd<'_>) -> Result<ResolverSockets, StepError> {
    inside(net, || {
        let sockets = bind()?;
        resolver::lead_to(sockets.port).map_err(|error| StepError {
            message: format!("cannot lead names to the resolver of a sandbox: {error}"),
            errno: error.errno(),
            reason: crate::shim::protocol::Reason::System,
        })?;
        Ok(sockets)
    })
}

/// Opens low ports and ping to every user: what takes the id map of the sandbox.
///
/// # Errors
/// As [`furnish`].
pub fn open_to_users(net: BorrowedFd<'_>) -> Result<(), StepError> {
    inside(net, || {
        sysctl("net/ipv4/ip_unprivileged_port_start", "0")
            .step("set", "net.ipv4.ip_unprivileged_port_start")?;
        sysctl("net/ipv4/ping_group_range", "0 2147483647").step("set", "net.ipv4.ping_group_range")
    })
}

fn inside<T>(net: BorrowedFd<'_>, work: impl FnOnce() -> Result<T, StepError>) -> Result<T, StepError> {
    let home = File::open(HOME).step("open", HOME)?;
    setns(net, CloneFlags::CLONE_NEWNET).step("enter", "the sandbox's network namespace")?;
    let result = work();
    setns(&home, CloneFlags::CLONE_NEWNET).step("leave", "the sandbox's network namespace")?;
    result
}

fn bind() -> Result<ResolverSockets, StepError> {
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
        return Ok(ResolverSockets { udp, tcp, port });
    }
    Err(StepError::system(
        "bind",
        RESOLVER,
        io::Error::from_raw_os_error(libc::EADDRINUSE),
    ))
}
