//! The same image from a registry on the loopback, into an empty store by stead and into an empty storage by podman.
//!
//! The registry is Debian's, in the clear, and skopeo pushes the image there.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use backend::{
    image::Store,
    layout::Layout,
    registry::{Registries, Settings},
};

use crate::{ROUNDS, runs, timed};

struct Registry {
    process: Child,
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Registry {
    /// `None`: it is not on this machine, or nobody who could fill it.
    fn with(place: &Path, archive: &Path) -> Option<Self> {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a free port").to_string();
        let configuration = place.join("registry.yml");
        let data = place.join("registry").display().to_string();
        let text = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {data} }} }}\n\
             http: {{ addr: \"{address}\" }}\n"
        );
        fs::write(&configuration, text).expect("its configuration");
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let registry = Registry {
            process: command.spawn().ok()?,
            address,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&registry.address).is_err() {
            assert!(Instant::now() < end, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        let from = format!("docker-archive:{}", archive.display());
        let to = format!("docker://{}", registry.name());
        let copy = ["copy", "-q", "--insecure-policy", "--dest-tls-verify=false"];
        runs("skopeo", &[&copy[..], &[&from, &to]].concat()).then_some(registry)
    }

    fn name(&self) -> String {
        format!("{}/stead/bench:1", self.address)
    }
}

/// Seconds of each round by stead and by podman; none where they cannot be had.
pub fn measure(place: &Path, archive: &Path) -> (Vec<f64>, Vec<f64>) {
    let (mut stead, mut podman_times) = (vec![], vec![]);
    let Some(registry) = Registry::with(place, archive) else {
        return (stead, podman_times);
    };
    for round in 0..ROUNDS {
        let at = |name: &str| place.join(format!("{name}-pulled-{round}"));
        stead.push(timed(|| by_stead(&at("stead"), &registry)));
        let pull = ["pull", "-q", "--tls-verify=false", &registry.name()];
        if podman(&at("podman"), &["info"]) {
            podman_times.push(timed(|| assert!(podman(&at("podman"), &pull))));
        }
    }
    (stead, podman_times)
}

fn by_stead(root: &Path, registry: &Registry) {
    let layout = Layout::new(Some(root)).expect("a root");
    let hosts = serde_json::json!({ registry.address.clone(): { "insecure": true } });
    let registries = Registries {
        hosts: serde_json::from_value(hosts).expect("hosts"),
        ..Registries::default()
    };
    let settings = Settings::new(move || Ok(registries.clone()));
    let store = Store::open(&layout).with_registries(settings);
    let name = registry.name().parse().expect("a name");
    store.bring(&name).expect("an image");
}

/// With a storage of its own below `root`. Whether it could.
pub fn podman(root: &Path, arguments: &[&str]) -> bool {
    let at = |name: &str| root.join(name).display().to_string();
    let (storage, runroot) = (at("root"), at("runroot"));
    // Its locks and mounts belong to nobody else.
    let apart = "mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && exec podman \"$@\"";
    let own = [
        "--mount",
        "sh",
        "-c",
        apart,
        "podman",
        "--root",
        &storage,
        "--runroot",
        &runroot,
        "--storage-driver",
        "overlay",
        "--cgroup-manager",
        "cgroupfs",
    ];
    runs("unshare", &[&own[..], arguments].concat())
}
