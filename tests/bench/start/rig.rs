//! A backend of its own, one network, and one service that is started again and again.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use backend::{LinuxBackend, layout::Layout};
use model::types::RestartPolicy;
use reconciler::{
    key::{InstanceKey, ResourceKey, Slot},
    observed::{Fact, Observed},
    plan::action::Action,
    port::{ActionError, Ask, Backend, Scope},
    spec::{ContainerSpec, Endpoint, Limits, MountSpec, NetworkSpec, SandboxSpec, Subnet},
};

use crate::{host::Host, milliseconds, read_stamp};

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Net {
    None,
    Bridge,
}

/// A root file system with the program that says when it began, and what every image has.
pub fn image(place: &Path) -> PathBuf {
    let image = place.join("image");
    for directory in ["dev", "etc", "out", "proc", "sys"].map(|name| image.join(name)) {
        fs::create_dir_all(directory).expect("a directory");
    }
    fs::create_dir_all(place.join("out")).expect("a directory");
    for name in ["hosts", "hostname", "resolv.conf"] {
        fs::write(image.join("etc").join(name), "").expect("a file");
    }
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/bench/start/stamp.rs");
    let built = Command::new("rustc")
        .args([
            "--edition=2024",
            "-O",
            "-Cpanic=abort",
            "-Ctarget-feature=+crt-static",
            "-o",
        ])
        .args([&image.join("stamp"), &source])
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "rustc makes {}",
        source.display()
    );
    image
}

/// The stamps of `count` programs.
pub fn stamps(out: &Path, count: usize) -> Vec<f64> {
    crate::host::wait(&format!("{count} have run"), Duration::from_secs(60), || {
        let names = fs::read_dir(out).ok()?.flatten().map(|entry| entry.file_name());
        let mut names = names
            .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
            .collect::<Vec<_>>();
        (names.len() >= count).then(|| names.drain(..).map(|name| read_stamp(&out.join(name))).collect())
    })
}

pub fn forget(out: &Path) {
    for entry in fs::read_dir(out).into_iter().flatten().flatten() {
        let _ = fs::remove_file(entry.path());
    }
}

pub struct Rig<'a> {
    host: &'a Host,
    backend: Option<LinuxBackend>,
    out: PathBuf,
    digest: String,
    /// What is started ends after its first act.
    once: bool,
    /// Sandboxes, to be removed.
    made: Vec<InstanceKey>,
}

/// How the program ended that is started again.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    OfItself,
    Stopped,
}

impl Rig<'_> {
    /// The caller is in the host's network, and stays there.
    pub fn new(host: &Host) -> Rig<'_> {
        let place = host.root.join("rig");
        let reference = format!("rootfs:{}", image(&place).display());
        let layout = Layout::new(Some(&place)).expect("a root");
        let backend = LinuxBackend::open(&layout).expect("a backend");
        let mut observed = Observed::nothing_known();
        let scope = Scope {
            images: [(reference.clone(), Ask::default())].into(),
            ..Scope::default()
        };
        backend.observe(&scope, &mut observed);
        let Some(Fact::Known(found)) = observed.images.get(&reference) else {
            panic!("no image: {observed:?}");
        };
        let digest = found.digest.clone();
        let rig = Rig {
            host,
            backend: Some(backend),
            out: place.join("out"),
            digest: digest.clone(),
            once: false,
            made: Vec::new(),
        };
        rig.apply(&Action::UnpackImage {
            reference,
            digest,
            latest: false,
        });
        rig.apply(&Action::EnsureNetwork(NetworkSpec {
            key: network(),
            subnet: Subnet {
                address: Ipv4Addr::new(10, 99, 0, 0),
                prefix: 20,
            },
            gateway: Ipv4Addr::new(10, 99, 0, 1),
            internal: false,
        }));
        rig
    }

    fn apply(&self, action: &Action) {
        self.done(|backend| backend.apply(action));
    }

    fn done(&self, ask: impl FnOnce(&LinuxBackend) -> Result<(), ActionError>) {
        let backend = self.backend.as_ref().expect("it is open");
        ask(backend).unwrap_or_else(|error| panic!("{error}: {:?}", error.source));
    }

    /// The pool is full again: what a service finds that comes after a while.
    fn rest(&self) {
        let end = Instant::now() + Duration::from_millis(250);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Milliseconds from the order to the first act. Each round is a service of its own, and all go at the end: a file
    /// system does not soon give out again what was just removed.
    pub fn starts(&mut self, rounds: usize, net: Net, limits: &Limits) -> Vec<f64> {
        let mut times = Vec::new();
        // The first warms caches and is not counted.
        for key in (0..=rounds).map(key) {
            self.made.push(key.clone());
            forget(&self.out);
            self.rest();
            let sandbox = sandbox(&key, net);
            let begin = milliseconds();
            let start = self.start(&key, limits, true);
            self.done(|backend| backend.apply_before(&Action::EnsureSandbox(sandbox), &start));
            self.apply(&start);
            times.push(read_stamp(&self.out.join("stamp")) - begin);
        }
        self.remove_all();
        times.split_off(1)
    }

    /// Milliseconds from the order to start what has ended to its first act. The delay before a restart is not in
    /// it; the rest between two rounds is longer.
    pub fn restarts(&mut self, rounds: usize, end: End, limits: &Limits) -> Vec<f64> {
        let mut times = Vec::new();
        let key = key(0);
        let stop = Action::StopContainer {
            key: key.clone(),
            drain: 0,
        };
        self.once = end == End::OfItself;
        self.made.push(key.clone());
        self.apply(&Action::EnsureSandbox(sandbox(&key, Net::Bridge)));
        self.apply(&self.start(&key, limits, true));
        for round in 0..=rounds {
            read_stamp(&self.out.join("stamp"));
            if end == End::Stopped {
                self.apply(&stop);
            }
            forget(&self.out);
            self.rest();
            let begin = self.persist(&self.start(&key, limits, false));
            let time = read_stamp(&self.out.join("stamp")) - begin;
            if round > 0 {
                times.push(time);
            }
        }
        self.apply(&stop);
        self.remove_all();
        self.once = false;
        times
    }

    fn remove_all(&mut self) {
        for key in std::mem::take(&mut self.made) {
            self.persist(&Action::RemoveSandbox(key));
        }
    }

    /// Until it is done, as the agent does: what was killed or ends may have to wait for its disk first. When the
    /// order was given that was followed.
    fn persist(&self, action: &Action) -> f64 {
        let backend = self.backend.as_ref().expect("it is open");
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let begin = milliseconds();
            match backend.apply(action) {
                Ok(()) => return begin,
                Err(error) => {
                    let first: &dyn std::error::Error = &*error.source;
                    let chain = std::iter::successors(Some(first), |error| error.source());
                    let why = chain.map(ToString::to_string).collect::<Vec<_>>().join(": ");
                    let ends = ["runs already", "stuck in the kernel"]
                        .iter()
                        .any(|word| why.contains(word));
                    assert!(ends && Instant::now() < end, "{why}");
                }
            }
            self.rest();
        }
    }

    fn start(&self, key: &InstanceKey, limits: &Limits, fresh: bool) -> Action {
        let spec = ContainerSpec {
            image_digest: self.digest.clone(),
            argv: vec!["/stamp".into()],
            environment: self
                .once
                .then(|| ("ONCE".into(), String::new()))
                .into_iter()
                .collect(),
            restart: RestartPolicy::Always,
            hostname: "stamp".into(),
            limits: limits.clone(),
            stop_signal: libc_sigkill(),
            mounts: vec![MountSpec::Bind {
                source: self.out.clone(),
                target: "/out".into(),
                read_only: false,
                create_host_path: false,
                propagation: Default::default(),
                recursive: Default::default(),
            }],
            ..ContainerSpec::default()
        };
        Action::StartContainer {
            key: key.clone(),
            spec: Box::new(spec),
            fresh,
            restarts: 0,
            streak: 0,
            flaps: 0,
        }
    }
}

impl Drop for Rig<'_> {
    fn drop(&mut self) {
        self.remove_all();
        self.persist(&Action::RemoveNetwork(network()));
        drop(self.backend.take());
        let _ = fs::remove_dir_all(self.host.root.join("rig"));
    }
}

fn libc_sigkill() -> i32 {
    nix::sys::signal::Signal::SIGKILL as i32
}

fn network() -> ResourceKey {
    ResourceKey {
        project: "bench".into(),
        name: "bench_default".into(),
    }
}

fn key(number: usize) -> InstanceKey {
    InstanceKey {
        project: "bench".into(),
        service: "stamp".into(),
        index: number as u32 + 1,
        slot: Slot::A,
    }
}

fn sandbox(key: &InstanceKey, net: Net) -> SandboxSpec {
    let [high, low] = (key.index as u16 + 1).to_be_bytes();
    let endpoint = Endpoint {
        network: network(),
        interface: "eth0".into(),
        name: None,
        settings: Default::default(),
        address: Ipv4Addr::new(10, 99, high, low),
        prefix: 20,
        gateway: Some(Ipv4Addr::new(10, 99, 0, 1)),
        mac: [2, 0, 0, 0, high, low],
        mac_asked: false,
    };
    SandboxSpec {
        key: key.clone(),
        id_base: 0x7000_0000,
        endpoints: match net {
            Net::None => Vec::new(),
            Net::Bridge => vec![endpoint],
        },
        ports: Vec::new(),
        spaces: Default::default(),
    }
}
