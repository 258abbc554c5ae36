//! A host port moves from one sandbox to another: nobody is refused, and who holds a connection keeps it
//! until it is drained.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use backend::{LinuxBackend, cgroup, layout::Layout};
use reconciler::{
    key::{InstanceKey, Slot},
    observed::{Fact, Observed, State},
    plan::action::Action,
    port::{Ask, Backend, Scope},
    spec::{
        ContainerSpec, Endpoint, FirewallNetwork, FirewallSpec, Protocol, PublishKey, PublishTarget,
        SandboxSpec,
    },
};

use crate::{
    Test,
    host::{BASE, spec, until},
    rig::{Space, neighbour, network_spec, on_a_host},
};

pub const TESTS: &[Test] = &[("a_host_port_moves_and_the_old_service_is_drained", || {
    on_a_host(flip);
})];

const PORT: &str = "192.0.2.1:8080";

fn flip() {
    let lan = neighbour();
    let directory = tempfile::tempdir().unwrap();
    let image = format!("rootfs:{}", image(directory.path()).display());
    let layout = Layout::new(Some(&directory.path().join("root"))).unwrap();
    let backend = Arc::new(LinuxBackend::open(&layout).unwrap());
    let digest = digest(&backend, &image);
    let apply = |action: Action| backend.apply(&action).unwrap();
    let network = network_spec("front", 1, false);
    apply(Action::UnpackImage {
        reference: image,
        digest: digest.clone(),
        latest: false,
    });
    apply(Action::EnsureNetwork(network.clone()));
    apply(Action::SyncFirewall(firewall(None)));
    for slot in [Slot::A, Slot::B] {
        apply(Action::EnsureSandbox(sandbox(slot)));
        apply(start(slot, &digest));
    }
    apply(Action::SyncFirewall(firewall(Some(Slot::A))));
    until("the old one answers", || {
        (lan.run(|| ask().0) == Ok("a".to_owned())).then_some(())
    });

    let mut held = lan.run(Held::open);
    assert_eq!(held.first, "a");
    let load = Load::start(&lan);
    load.has_asked(50);
    let before = Instant::now();
    apply(Action::SyncFirewall(firewall(Some(Slot::B))));
    let after = Instant::now();
    let stopping = {
        let backend = Arc::clone(&backend);
        std::thread::spawn(move || {
            backend
                .apply(&Action::StopContainer {
                    key: key(Slot::A),
                    drain: 60_000,
                })
                .unwrap();
        })
    };
    load.has_asked(50);
    for word in 0..50 {
        held.says_back(word);
    }
    assert!(
        !stopping.is_finished(),
        "it is stopped while somebody speaks with it"
    );
    let last = Instant::now();
    drop(held);
    stopping.join().unwrap();
    assert!(
        last.elapsed() < Duration::from_secs(20),
        "it is not stopped when the last has gone"
    );
    assert!(matches!(state(&backend, Slot::A), State::Exited { .. }));
    assert!(matches!(state(&backend, Slot::B), State::Running { .. }));

    for (start, end, answer) in load.finish() {
        let expected: &[&str] = match (end < before, start > after) {
            (true, _) => &["a"],
            (_, true) => &["b"],
            _ => &["a", "b"],
        };
        let answer = answer.expect("nobody is refused");
        assert!(
            expected.contains(&answer.as_str()),
            "{answer}, not one of {expected:?}"
        );
    }

    apply(Action::SyncFirewall(FirewallSpec::default()));
    for slot in [Slot::A, Slot::B] {
        apply(Action::RemoveSandbox(key(slot)));
    }
    apply(Action::RemoveNetwork(network.key));
    drop(backend);
    let own = cgroup::root().unwrap().join(format!("stead-{}", layout.mark));
    cgroup::kill(&own).unwrap();
    until("every process of the root has ended", || {
        (!cgroup::populated(&own).unwrap()).then_some(())
    });
    cgroup::remove(&own).unwrap();
}

fn image(directory: &Path) -> std::path::PathBuf {
    let root = directory.join("image");
    for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    root
}

fn digest(backend: &LinuxBackend, image: &str) -> String {
    let mut observed = Observed::nothing_known();
    let scope = Scope {
        images: BTreeMap::from([(image.to_owned(), Ask::default())]),
        ..Scope::default()
    };
    backend.observe(&scope, &mut observed);
    match observed.images.get(image) {
        Some(Fact::Known(image)) => image.digest.clone(),
        other => panic!("{other:?}"),
    }
}

fn state(backend: &LinuxBackend, slot: Slot) -> State {
    let mut observed = Observed::nothing_known();
    backend.observe(&Scope::all(), &mut observed);
    observed.instances.known().unwrap()[&key(slot)].state.clone()
}

fn key(slot: Slot) -> InstanceKey {
    InstanceKey {
        project: "shop".to_owned(),
        service: "web".to_owned(),
        index: 1,
        slot,
    }
}

fn endpoint(slot: Slot) -> Endpoint {
    let network = network_spec("front", 1, false);
    let last = if slot == Slot::A { 2 } else { 3 };
    Endpoint {
        network: network.key,
        interface: "eth0".to_owned(),
        name: None,
        settings: Default::default(),
        address: Ipv4Addr::new(10, 64, 1, last),
        prefix: 24,
        gateway: Some(network.gateway),
        mac: [2, 0x5e, 64, 1, 0, last],
        mac_asked: false,
    }
}

fn sandbox(slot: Slot) -> SandboxSpec {
    SandboxSpec {
        key: key(slot),
        id_base: BASE,
        endpoints: vec![endpoint(slot)],
        ports: Vec::new(),
        spaces: Default::default(),
    }
}

/// Says its slot, then whatever it hears.
fn start(slot: Slot, digest: &str) -> Action {
    let script = format!("echo {slot}; exec /bin/busybox cat");
    let server = [
        "/bin/busybox",
        "nc",
        "-ll",
        "-p",
        "80",
        "-e",
        "/bin/busybox",
        "sh",
        "-c",
        &script,
    ];
    Action::StartContainer {
        key: key(slot),
        spec: Box::new(ContainerSpec {
            image_digest: digest.to_owned(),
            argv: server.iter().map(|word| (*word).to_owned()).collect(),
            ..spec()
        }),
        fresh: true,
        restarts: 0,
        streak: 0,
        flaps: 0,
    }
}

/// Both sandboxes are on the network; the port leads to one.
fn firewall(target: Option<Slot>) -> FirewallSpec {
    let network = network_spec("front", 1, false);
    let endpoints = [Slot::A, Slot::B].map(|slot| (endpoint(slot).address, endpoint(slot).mac));
    let port = PublishKey {
        host_ip: Ipv4Addr::UNSPECIFIED,
        published: 8080,
        protocol: Protocol::Tcp,
    };
    let target = target.map(|slot| PublishTarget {
        address: endpoint(slot).address,
        port: 80,
    });
    FirewallSpec {
        networks: BTreeMap::from([(
            network.key,
            FirewallNetwork {
                subnet: network.subnet,
                gateway: network.gateway,
                internal: false,
                endpoints: endpoints.into(),
            },
        )]),
        ports: target.map(|target| (port, target)).into_iter().collect(),
    }
}

/// One connection for one answer.
fn ask() -> (Result<String, String>, Instant) {
    let answer = Held::try_open().map(|held| held.first);
    (answer, Instant::now())
}

struct Held {
    stream: BufReader<TcpStream>,
    first: String,
}

impl Held {
    fn try_open() -> Result<Held, String> {
        let patience = Duration::from_secs(10);
        let address: SocketAddr = PORT.parse().unwrap();
        let stream = TcpStream::connect_timeout(&address, patience).map_err(|error| error.to_string())?;
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut held = Held {
            stream: BufReader::new(stream),
            first: String::new(),
        };
        held.first = held.line().map_err(|error| error.to_string())?;
        Ok(held)
    }

    fn open() -> Held {
        Held::try_open().unwrap()
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        Ok(line.trim().to_owned())
    }

    fn says_back(&mut self, number: u32) {
        writeln!(self.stream.get_mut(), "{number}").unwrap();
        assert_eq!(self.line().unwrap(), number.to_string());
    }
}

type Answers = Vec<(Instant, Instant, Result<String, String>)>;

struct Load {
    over: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Answers>>,
}

impl Load {
    fn start(lan: &Space) -> Load {
        let over = Arc::new(AtomicBool::new(false));
        let asked: Arc<AtomicUsize> = Arc::default();
        let (ends, count) = (Arc::clone(&over), Arc::clone(&asked));
        let threads = lan.run(move || {
            let ask_on = move || {
                let mut answers = Answers::new();
                while !ends.load(Ordering::Relaxed) {
                    let start = Instant::now();
                    let (answer, end) = ask();
                    answers.push((start, end, answer));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                answers
            };
            (0..3).map(|_| std::thread::spawn(ask_on.clone())).collect()
        });
        Load { over, asked, threads }
    }

    fn has_asked(&self, more: usize) {
        let now = self.asked.load(Ordering::Relaxed);
        until("more was asked", || {
            (self.asked.load(Ordering::Relaxed) >= now + more).then_some(())
        });
    }

    fn finish(self) -> Answers {
        self.over.store(true, Ordering::Relaxed);
        let answers = self.threads.into_iter().flat_map(|thread| thread.join().unwrap());
        answers.collect()
    }
}
