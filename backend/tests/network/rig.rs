//! A host of its own for each test: a network namespace, services in sandboxes, and a neighbour.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::{AsFd, OwnedFd},
    process::Command,
    sync::mpsc,
    time::{Duration, Instant},
};

use backend::{firewall::Firewall, net::Net};
use nix::sched::{CloneFlags, setns, unshare};
use reconciler::{
    key::{InstanceKey, ResourceKey, Slot},
    spec::{
        Endpoint, FirewallNetwork, FirewallSpec, NetworkSpec, Protocol, PublishKey, PublishTarget,
        SandboxSpec, Subnet,
    },
};

/// Runs `test` in a thread with a network namespace of its own; a host that cannot is said so.
pub fn on_a_host(test: impl FnOnce() + Send + 'static) {
    let outcome = std::thread::spawn(move || {
        if let Err(errno) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip(&format!("no network namespace: {errno}"));
        }
        for tool in ["ip", "nft"] {
            if Command::new(tool).arg("--version").output().is_err()
                && Command::new(tool).arg("-V").output().is_err()
            {
                return skip(&format!("{tool} is not installed"));
            }
        }
        sh("ip link set lo up");
        test();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

fn skip(reason: &str) {
    assert!(
        std::env::var_os("STEAD_REQUIRE_KERNEL").is_none(),
        "must not be skipped: {reason}"
    );
    eprintln!("skipped: {reason}");
}

/// Runs a command line in the namespace of this thread and gives back what it says.
pub fn sh(line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !done() {
        assert!(Instant::now() < deadline, "not within 5 s: {what}");
        std::thread::yield_now();
    }
}

/// A network namespace kept by a descriptor.
pub struct Space {
    pub fd: OwnedFd,
}

impl Space {
    pub fn new() -> Self {
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            sender.send(here()).unwrap();
        });
        Space {
            fd: receiver.recv().unwrap(),
        }
    }

    /// Runs `work` inside, on a thread of its own.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let fd = self.fd.try_clone().unwrap();
        let done = std::thread::spawn(move || {
            setns(&fd, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        })
        .join();
        match done {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    pub fn sh(&self, line: &str) -> String {
        let line = line.to_owned();
        self.run(move || sh(&line))
    }

    /// Answers each connection and each datagram with `name`, until the test ends.
    pub fn serve(&self, name: &'static str, address: &str) {
        let address: SocketAddr = address.parse().unwrap();
        let (tcp, udp) = self.run(move || {
            (
                TcpListener::bind(address).unwrap(),
                UdpSocket::bind(address).unwrap(),
            )
        });
        std::thread::spawn(move || {
            for connection in tcp.incoming() {
                let _ = connection.and_then(|mut stream| stream.write_all(name.as_bytes()));
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(name.as_bytes(), from);
            }
        });
    }

    pub fn tcp(&self, address: &str) -> String {
        let address = address.to_owned();
        self.run(move || tcp(&address))
    }

    pub fn udp(&self, address: &str) -> String {
        let address = address.to_owned();
        self.run(move || udp(&address))
    }
}

fn here() -> OwnedFd {
    File::open("/proc/thread-self/ns/net").unwrap().into()
}

/// Who answers, or `-`.
pub fn tcp(address: &str) -> String {
    let wait = Duration::from_millis(400);
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address.parse().unwrap(), wait)?;
        stream.set_read_timeout(Some(wait))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    };
    ask().unwrap_or_else(|_| "-".to_owned())
}

pub fn udp(address: &str) -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    udp_from(&socket, address)
}

/// The same flow each time.
pub fn udp_from(socket: &UdpSocket, address: &str) -> String {
    socket.set_read_timeout(Some(Duration::from_millis(400))).unwrap();
    let mut buffer = [0; 64];
    let mut ask = || -> std::io::Result<usize> {
        socket.send_to(b"?", address)?;
        socket.recv(&mut buffer)
    };
    match ask() {
        Ok(length) => String::from_utf8_lossy(&buffer[..length]).into_owned(),
        Err(_) => "-".to_owned(),
    }
}

/// One root on the host of this thread.
pub struct Root {
    pub mark: &'static str,
    pub net: Net,
    pub firewall: Firewall,
    pub spec: FirewallSpec,
    pub sandboxes: BTreeMap<&'static str, (Space, SandboxSpec)>,
    pub directory: tempfile::TempDir,
}

pub fn network(name: &str) -> ResourceKey {
    ResourceKey {
        project: "shop".to_owned(),
        name: format!("shop_{name}"),
    }
}

pub fn network_spec(name: &str, third: u8, internal: bool) -> NetworkSpec {
    NetworkSpec {
        key: network(name),
        subnet: Subnet {
            address: Ipv4Addr::new(10, 64, third, 0),
            prefix: 24,
        },
        gateway: Ipv4Addr::new(10, 64, third, 1),
        internal,
    }
}

impl Root {
    pub fn new(mark: &'static str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Root {
            mark,
            net: Net::new(mark).unwrap(),
            firewall: Firewall::new(mark, &directory.path().join("forwarding")).unwrap(),
            spec: FirewallSpec::default(),
            sandboxes: BTreeMap::new(),
            directory,
        }
    }

    pub fn network(&mut self, name: &str, third: u8, internal: bool) {
        let spec = network_spec(name, third, internal);
        self.net.ensure_network(&spec).unwrap();
        self.spec.networks.insert(
            spec.key.clone(),
            FirewallNetwork {
                subnet: spec.subnet,
                gateway: spec.gateway,
                internal,
                endpoints: BTreeSet::new(),
            },
        );
    }

    /// A service on one network that answers with its name on port 80.
    pub fn service(&mut self, name: &'static str, on: &str, last: u8) {
        let network = network(on);
        let firewall = self.spec.networks.get_mut(&network).unwrap();
        let mut octets = firewall.gateway.octets();
        octets[3] = last;
        let endpoint = Endpoint {
            network,
            interface: "eth0".to_owned(),
            name: None,
            settings: Default::default(),
            address: Ipv4Addr::from(octets),
            prefix: 24,
            gateway: (!firewall.internal).then_some(firewall.gateway),
            mac: [2, 0x5e, octets[1], octets[2], 0, last],
            mac_asked: false,
        };
        firewall.endpoints.insert((endpoint.address, endpoint.mac));
        let spec = SandboxSpec {
            key: InstanceKey {
                project: "shop".to_owned(),
                service: name.to_owned(),
                index: 1,
                slot: Slot::A,
            },
            id_base: 0,
            endpoints: vec![endpoint],
            ports: Vec::new(),
            spaces: Default::default(),
        };
        let space = Space::new();
        self.net
            .attach(&spec.key, &spec.endpoints[0], true, space.fd.as_fd())
            .unwrap();
        space.serve(name, "0.0.0.0:80");
        self.sandboxes.insert(name, (space, spec));
    }

    pub fn publish(&mut self, host_ip: &str, published: u16, service: &str) {
        let address = self.sandboxes[service].1.endpoints[0].address;
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            self.spec.ports.insert(
                PublishKey {
                    host_ip: host_ip.parse().unwrap(),
                    published,
                    protocol,
                },
                PublishTarget { address, port: 80 },
            );
        }
    }

    pub fn sync(&self) {
        self.firewall.sync(&self.spec).unwrap();
    }

    pub fn space(&self, service: &str) -> &Space {
        &self.sandboxes[service].0
    }

    pub fn drift(&self, service: &str) -> Vec<String> {
        let (space, spec) = &self.sandboxes[service];
        self.net.endpoints_drift(spec, space.fd.as_fd()).unwrap()
    }
}

/// A machine on the same wire as the host: it is 192.0.2.2, the host 192.0.2.1.
pub fn neighbour() -> Space {
    let space = Space::new();
    let fd = std::os::fd::AsRawFd::as_raw_fd(&space.fd);
    let path = format!("/proc/{}/fd/{fd}", std::process::id());
    sh(&format!(
        "ip link add uplink type veth peer name wire netns {path}; ip addr add 192.0.2.1/24 dev uplink; ip \
         link set uplink up"
    ));
    space.sh(
        "ip link set lo up; ip addr add 192.0.2.2/24 dev wire; ip link set wire up; ip route add default via \
         192.0.2.1",
    );
    space
}

/// Median of twenty, in microseconds.
pub fn median(mut work: impl FnMut(u32)) -> u128 {
    let mut times: Vec<_> = (0..20)
        .map(|turn| {
            let started = Instant::now();
            work(turn);
            started.elapsed().as_micros()
        })
        .collect();
    times.sort_unstable();
    times[10]
}
