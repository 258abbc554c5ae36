//! A user namespace, a network namespace it owns, and what the shim holds in and for them.

use std::{
    fs::File,
    io,
    net::{Ipv4Addr, SocketAddrV4, TcpListener, UdpSocket},
    os::fd::{AsFd, OwnedFd},
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    sys::{
        signal::{Signal, kill},
        socket::{AddressFamily, SockFlag, SockType, socket},
        wait::waitpid,
    },
    unistd::{Pid, pipe2, read},
};
use reconciler::spec::{PortBinding, Protocol};

use crate::{
    procfs,
    rootfs::{Step, StepError, attach::sysctl},
    shim::protocol::Reason,
    sys::process::{self, Side},
};

/// Where names are asked inside a sandbox.
pub const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// Both namespaces, kept by descriptor.
#[derive(Debug)]
pub struct Namespaces {
    pub user: OwnedFd,
    pub net: OwnedFd,
}

/// A pair of namespaces whose id maps are not written yet, and the process that keeps that possible.
#[derive(Debug)]
pub struct Holder {
    pid: Pid,
    namespaces: Namespaces,
}

impl Holder {
    /// Forks the holder.
    ///
    /// # Errors
    /// The host forbids user namespaces.
    pub fn new() -> Result<Self, StepError> {
        let (ready, tell) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).step("make", "a pipe")?;
        let parent = Pid::this();
        let pid = match process::clone(0, None).step("fork", "the namespace holder")? {
            Side::Parent(pid) => Pid::from_raw(pid),
            Side::Child => {
                drop(ready);
                let _ = nix::sys::prctl::set_pdeathsig(Some(Signal::SIGKILL));
                // It was killed before it was to take its holder along.
                if Pid::parent() != parent {
                    process::exit(1);
                }
                let answer = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET);
                let code = answer.map_or_else(|errno| errno as i32, |()| 0);
                if code == 0 {
                    // No user namespace within this one: a second wall behind the filter. A kernel that does
                    // not let it be written leaves the filter.
                    let _ = sysctl("user/max_user_namespaces", "0");
                }
                let _ = nix::unistd::write(&tell, &[code as u8]);
                drop(tell);
                if code != 0 {
                    process::exit(1);
                }
                loop {
                    nix::unistd::pause();
                }
            }
        };
        drop(tell);
        let mut code = [255];
        let count = loop {
            match read(&ready, &mut code) {
                Err(nix::errno::Errno::EINTR) => {}
                other => break other.step("read", "the pipe of the namespace holder")?,
            }
        };
        if count != 1 || code[0] != 0 {
            let _ = waitpid(pid, None);
            let error = io::Error::from_raw_os_error(i32::from(code[0]));
            return Err(StepError {
                message: format!(
                    "this host does not let stead make a user namespace ({error}); set the sysctl \
                     user.max_user_namespaces to 15000 or more, see what `stead doctor` says, or do without: \
                     `userns_mode: host`"
                ),
                errno: error.raw_os_error(),
                reason: Reason::System,
            });
        }
        let open = |name: &str| {
            let path = format!("/proc/{pid}/ns/{name}");
            File::open(&path).map(OwnedFd::from).step("open", path)
        };
        let namespaces = Namespaces {
            user: open("user")?,
            net: open("net")?,
        };
        Ok(Holder { pid, namespaces })
    }

    /// Maps 65,536 ids from `base` on and ends the holder.
    ///
    /// # Errors
    /// The maps cannot be written.
    pub fn assign(self, base: u32) -> Result<Namespaces, StepError> {
        for name in ["uid_map", "gid_map"] {
            let path = format!("/proc/{}/{name}", self.pid);
            procfs::write(&path, &format!("0 {base} 65536\n")).step("write", &path)?;
        }
        self.end();
        Ok(self.namespaces)
    }

    pub fn end(&self) {
        let _ = kill(self.pid, Signal::SIGKILL);
        let _ = waitpid(self.pid, None);
    }
}

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
    let home = File::open("/proc/self/ns/net").step("open", "/proc/self/ns/net")?;
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
