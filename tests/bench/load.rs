//! How long an image takes from its archive to its layers: `cargo bench -p stead-backend --bench load`.
//!
//! The image is the same each time: five gzip layers, 223 MB in 15,000 small and 10 large files. Beside stead stand
//! `docker load` and `podman load` where they are installed and answer, and `tar` on the very same layers. Then the same from
//! a registry, by stead and by podman.

#[path = "load/pull.rs"]
mod pull;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use backend::{image::Store, layout::Layout};
use sha2::{Digest, Sha256};

const ROUNDS: usize = 5;
const LAYERS: usize = 5;
const SMALL: usize = 3000;

fn main() {
    let place = tempfile::tempdir().expect("a directory");
    let place = place.path();
    let (archive, other) = (place.join("image.tar"), place.join("other.tar"));
    make(place, &archive, &other);
    println!("{:<44} {:>26}", "what", "seconds, least (median)");

    let load = |root: &Path, archive: &Path| {
        let layout = Layout::new(Some(root)).expect("a root");
        let store = Store::open(&layout);
        let reference = format!("docker-archive:{}", archive.display());
        let image = store.resolve(&reference).expect("an image");
        store.unpack(&reference, &image.digest).expect("its layers");
    };
    let (mut whole, mut shared, mut gzip, mut plain) = (vec![], vec![], vec![], vec![]);
    let (mut docker, mut podman) = (vec![], vec![]);
    // Nothing is removed before the end: ext4 makes files slowly for minutes where many have just gone.
    for round in 0..ROUNDS {
        // In turns: the machine has other things to do as well.
        let at = |name: &str| place.join(format!("{name}-{round}"));
        let root = at("root");
        whole.push(timed(|| load(&root, &archive)));
        shared.push(timed(|| load(&root, &other)));
        gzip.push(timed(|| tar(place, &at("gzip"), "-xzf", "tgz")));
        plain.push(timed(|| tar(place, &at("plain"), "-xf", "tar")));
        let path = archive.display().to_string();
        if runs("docker", &["info"]) {
            docker.push(timed(|| assert!(runs("docker", &["load", "-q", "-i", &path]))));
            runs("docker", &["rmi", "-f", "stead-bench-load:1"]);
        }
        let storage = at("podman");
        if pull::podman(&storage, &["info"]) {
            podman.push(timed(|| {
                assert!(pull::podman(&storage, &["load", "-q", "-i", &path]));
            }));
        }
    }
    let (pulled, podman_pulled) = pull::measure(place, &archive);
    for (what, times) in [
        ("stead: load and unpack", whole),
        ("stead: another image with four of the layers", shared),
        ("docker load", docker),
        ("podman load, overlay", podman),
        ("stead: pull into an empty store", pulled),
        ("podman pull into an empty storage, overlay", podman_pulled),
        ("tar xzf, one layer after the other", gzip),
        ("tar xf of the same, uncompressed", plain),
    ] {
        let mut times = times;
        times.sort_by(f64::total_cmp);
        match times.first() {
            Some(least) => println!("{what:<44} {least:>15.2} ({:.2})", times[times.len() / 2]),
            None => println!("{what:<44} {:>26}", "not on this machine"),
        }
    }
}

fn timed(run: impl FnOnce()) -> f64 {
    // What was written before is not part of it.
    rustix::fs::sync();
    let start = Instant::now();
    run();
    start.elapsed().as_secs_f64()
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn tar(place: &Path, into: &Path, flags: &str, suffix: &str) {
    for layer in 0..LAYERS {
        let into = into.join(layer.to_string());
        fs::create_dir_all(&into).expect("a directory");
        let from = place.join(format!("{layer}.{suffix}")).display().to_string();
        assert!(runs("tar", &["-C", &into.display().to_string(), flags, &from]));
    }
}

/// Two archives with four layers in common; each layer is `N.tar` and `N.tgz` as well.
fn make(place: &Path, archive: &Path, other: &Path) {
    let mut random = Random(7);
    let text = text(&mut random, 1 << 20);
    let mut layers = Vec::new();
    for layer in 0..=LAYERS {
        let mut tar = tar::Builder::new(Vec::new());
        for number in 0..SMALL {
            let start = random.below(1 << 19);
            // 1 to 16 KiB, small ones more often.
            let size = (1024usize << random.below(4)) + random.below(1024);
            let path = format!("usr/l{layer}/d{}/f{number}", number / 60);
            append(&mut tar, &path, &text[start..start + size]);
        }
        for number in 0..2 {
            // Half of it cannot be compressed.
            let mut content: Vec<u8> = (0..6 << 20).map(|_| random.below(256) as u8).collect();
            (0..6).for_each(|_| content.extend_from_slice(&text));
            append(&mut tar, &format!("opt/l{layer}/big{number}"), &content);
        }
        let tar = tar.into_inner().expect("in memory");
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        gzip.write_all(&tar).expect("in memory");
        let gzip = gzip.finish().expect("in memory");
        fs::write(place.join(format!("{layer}.tar")), &tar).expect("written");
        fs::write(place.join(format!("{layer}.tgz")), &gzip).expect("written");
        let diff_id: String = Sha256::digest(&tar)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        layers.push((diff_id, gzip));
    }
    image(archive, &layers[..LAYERS]);
    image(other, &layers[1..]);
}

fn image(archive: &Path, layers: &[(String, Vec<u8>)]) {
    let diff_ids: Vec<_> = layers
        .iter()
        .map(|(diff_id, _)| format!("sha256:{diff_id}"))
        .collect();
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::json!({
        "os": "linux", "architecture": architecture, "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let names: Vec<_> = (0..layers.len())
        .map(|layer| format!("{layer}/layer.tar.gz"))
        .collect();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": ["stead-bench-load:1"], "Layers": names}
    ]);
    let mut tar = tar::Builder::new(File::create(archive).expect("a file"));
    for (name, (_, gzip)) in names.iter().zip(layers) {
        append(&mut tar, name, gzip);
    }
    append(&mut tar, "config.json", config.to_string().as_bytes());
    append(&mut tar, "manifest.json", manifest.to_string().as_bytes());
    tar.finish().expect("written");
}

fn append<W: Write>(tar: &mut tar::Builder<W>, path: &str, content: &[u8]) {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).expect("a short path");
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_700_000_000);
    header.set_cksum();
    tar.append(&header, content).expect("written");
}

/// Words, about as compressible as text is.
fn text(random: &mut Random, size: usize) -> Vec<u8> {
    let words: Vec<Vec<u8>> = (0..4000)
        .map(|_| {
            (0..3 + random.below(7))
                .map(|_| b'a' + random.below(26) as u8)
                .collect()
        })
        .collect();
    let mut text = Vec::with_capacity(size + 16);
    while text.len() < size {
        text.extend_from_slice(&words[random.below(words.len())]);
        text.push(b' ');
    }
    text.truncate(size);
    text
}

/// xorshift: the same image each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
