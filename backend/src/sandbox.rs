//! A user namespace, a network namespace it owns, and what the shim holds in and for them.

mod furnish;
mod holder;
pub mod pause;

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use reconciler::spec::{PortBinding, Protocol, SandboxSpec, Space};
use serde::{Deserialize, Serialize};

pub use furnish::ResolverSockets;
pub use holder::Holder;

use crate::{
    rootfs::{Step, StepError},
    shim::protocol::Reason,
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
    /// of `holder` or new ones; and the sockets of the resolver in a network of its own. The holder is killed, and
    /// to be reaped by the caller.
    ///
    /// # Errors
    /// As the calls say; a namespace that is to be joined was not lent.
    pub fn new(
        sandbox: &SandboxSpec,
        holder: Result<Holder, StepError>,
        mut lent: Lent,
    ) -> Result<(Self, Option<ResolverSockets>), StepError> {
        let spaces = &sandbox.spaces;
        if !spaces.host_ids && spaces.of.is_none() {
            let (namespaces, sockets) = holder?.assign(sandbox.id_base)?;
            return Ok((namespaces, Some(sockets)));
        }
        if let Ok(holder) = holder {
            holder.kill();
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
        let mut sockets = None;
        let net = match joined(Kind::Net, spaces.network == Space::Joined)? {
            Some(net) => net,
            None if spaces.network == Space::Host => File::open(HOME).step("open", HOME)?.into(),
            None => {
                let net = holder::network(user.as_ref().map(AsFd::as_fd))?;
                sockets = Some(furnish::furnish(net.as_fd())?);
                furnish::open_to_users(net.as_fd())?;
                net
            }
        };
        let namespaces = Namespaces {
            net,
            user,
            ipc: joined(Kind::Ipc, spaces.ipc == Space::Joined)?,
            shm: joined(Kind::Shm, spaces.ipc == Space::Joined)?,
            pid: joined(Kind::Pid, spaces.pid == Space::Joined)?,
        };
        Ok((namespaces, sockets))
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
