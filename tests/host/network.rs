//! The network of a test: a host and its neighbour, each a namespace without a name, joined by a veth.
//!
//! A namespace here is only a descriptor: it goes with this process, whatever happens. A socket or a
//! child belongs to the namespace of the thread that made it, so work is done on threads that entered one.

use std::{fs::File, os::fd::AsRawFd, process::Command, thread};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::geteuid,
};

use super::{HOST, LAN};

pub struct Network {
    host: File,
    lan: File,
}

/// Why this machine cannot run the tests, if so.
pub fn missing() -> Option<String> {
    if !geteuid().is_root() {
        return Some("this test needs root: run `sudo -E cargo test --workspace`".to_owned());
    }
    for tool in ["ip", "nft", "busybox"] {
        if Command::new(tool).arg("--help").output().is_err() {
            return Some(format!(
                "`{tool}` is missing: apt-get install iproute2 nftables busybox-static"
            ));
        }
    }
    thread::scope(|scope| {
        let attempt = scope.spawn(|| unshare(CloneFlags::CLONE_NEWNET).and_then(|()| user_namespace()));
        match attempt.join().expect("no panic") {
            Ok(()) => None,
            Err(error) => Some(format!(
                "the kernel refuses network or user namespaces ({error}): see `stead doctor`"
            )),
        }
    })
}

/// A process with several threads may not enter one itself, so a child tries.
fn user_namespace() -> nix::Result<()> {
    let made = Command::new("unshare").args(["--user", "--net", "true"]).status();
    match made.is_ok_and(|status| status.success()) {
        true => Ok(()),
        false => Err(nix::Error::EPERM),
    }
}

impl Network {
    /// `lan0` 198.51.100.2/24 — `up0` 198.51.100.1/24, the host's default route.
    pub fn new() -> Result<Network, String> {
        let network = Network {
            host: namespace()?,
            lan: namespace()?,
        };
        let host_end = format!("/proc/{}/fd/{}", std::process::id(), network.host.as_raw_fd());
        network.on_lan(|| {
            ip("link set lo up")?;
            ip(&format!("link add lan0 type veth peer name up0 netns {host_end}"))?;
            ip(&format!("address add {LAN}/24 dev lan0"))?;
            ip("link set lan0 up")?;
            // Room for a load of short connections.
            std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000").map_err(|e| e.to_string())
        })?;
        network.on_host(|| {
            ip("link set lo up")?;
            ip(&format!("address add {HOST}/24 dev up0"))?;
            ip("link set up0 up")?;
            // A new namespace has what the machine has right now.
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "0").map_err(|e| e.to_string())?;
            ip(&format!("route add default via {LAN}"))
        })?;
        Ok(network)
    }

    /// Runs `work` on a thread inside the host's namespace.
    pub fn on_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.host, work)
    }

    /// Runs `work` on a thread inside the neighbour's namespace.
    pub fn on_lan<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        inside(&self.lan, work)
    }
}

fn inside<T: Send>(namespace: &File, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("the namespace can be entered");
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn namespace() -> Result<File, String> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
            File::open("/proc/thread-self/ns/net").map_err(|error| error.to_string())
        });
        thread.join().expect("no panic")
    })
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments.split_whitespace())
        .output()
        .map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "ip {arguments}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )),
    }
}
