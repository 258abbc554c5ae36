//! Pulls that a kill of the agent interrupts, and what lies in the store for nobody but root.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use nix::sys::socket::{setsockopt, sockopt};

use super::lab;
use crate::{
    host::{
        Host,
        registries::{Server, Shelf, shelved},
    },
    images, secrecy,
};

const LARGE: usize = 200 << 20;
const LONG: Duration = Duration::from_secs(180);

/// One that sends some fifty megabytes a second, as a fast network does, and counts those of `blob`.
pub(super) fn throttled(host: &Host, shelf: Shelf, blob: &str) -> (Server, Arc<AtomicU64>) {
    let sent = Arc::new(AtomicU64::new(0));
    let (counter, blob) = (Arc::clone(&sent), format!("/v2/app/blobs/{blob}"));
    let server = host.network.on_host(|| {
        Server::start(move |_, stream, next| {
            setsockopt(&*stream, sockopt::SndBuf, &(128 << 10)).expect("SO_SNDBUF");
            while let Some(asked) = next(stream) {
                for piece in shelved(&shelf, &asked).chunks(128 << 10) {
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                    if asked.target == blob {
                        counter.fetch_add(piece.len() as u64, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_micros(2500));
                    }
                }
            }
        })
    });
    (server, sent)
}

fn half_unpacked(layers: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(layers).into_iter().flatten().flatten();
    let new = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".new-"));
    new.map(|entry| entry.path()).collect()
}

#[test]
fn ten_kills_during_a_pull_of_200_mb_cost_less_than_a_megabyte_each() {
    let Some(mut host) = Host::new("registry-kills") else {
        return;
    };
    let directory = host.directory("large");
    let file = directory.join("large");
    let script = format!("head -c {LARGE} /dev/urandom > {}", file.display());
    host.tool("sh", &["-c", &script]);
    let large = lab::packed(&host, &directory);
    let (size, digest) = (large.len() as u64, images::digest(&large));
    let shelf = lab::shelf(&host, "1", &directory, &[large]);
    let (server, sent) = throttled(&host, shelf, &digest);
    lab::trust(&host, &[server.address.to_string()]);
    host.write_manifest(
        "shop",
        &format!("services: {{ web: {{ image: \"{}/app:1\" }} }}\n", server.address),
    );
    let images = host.root.join("state/images");
    let layers = images.join("layers");
    host.spawn_agent(Host::binary());
    // Anywhere, but the same on every run; those that are out of reach come while it is unpacked.
    for point in [1, 3, 19, 41, 42, 67, 80, 97] {
        host.wait("so much was sent", LONG, || {
            (sent.load(Ordering::SeqCst) >= size / 100 * point).then_some(())
        });
        host.kill_agent();
        assert!(!layers.join(&digest["sha256:".len()..]).exists());
        host.spawn_agent(Host::binary());
    }
    for _ in 0..2 {
        host.wait("it is being unpacked", LONG, || {
            let new = half_unpacked(&layers).into_iter().next()?;
            new.join("tree/large").exists().then_some(())
        });
        host.kill_agent();
        assert!(!layers.join(&digest["sha256:".len()..]).exists());
        host.spawn_agent(Host::binary());
        host.wait("what is left of it is gone", LONG, || {
            host.stead(&["status"]).done()
        });
    }
    host.wait("it runs", LONG, || {
        let instance = host.instance("shop", "web")?;
        (instance.state == "running").then_some(())
    });
    let wasted = sent.load(Ordering::SeqCst) - size;
    println!("{wasted} bytes of {size} came in vain");
    assert!(wasted <= 10 << 20, "{wasted} bytes came in vain");
    let unpacked = layers.join(&digest["sha256:".len()..]).join("large");
    host.tool(
        "cmp",
        &[&file.display().to_string(), &unpacked.display().to_string()],
    );
    assert!(half_unpacked(&layers).is_empty());
    assert_eq!(fs::read_dir(images.join("pull")).expect("a directory").count(), 0);
    host.finish();
}

#[test]
fn sec_28_store_perms_nobody_but_root_reaches_anything_of_an_image() {
    let Some(mut host) = Host::new("registry-secrecy") else {
        return;
    };
    let directory = host.directory("suid");
    let program = directory.join("suid");
    fs::copy("/bin/busybox", &program).expect("a busybox");
    host.tool("chmod", &["4755", &program.display().to_string()]);
    let layer = lab::packed(&host, &directory);
    let mut shelf = lab::shelf(&host, "1", &directory, std::slice::from_ref(&layer));
    // One that never comes whole: what is there of it is nobody's business either.
    let slow = vec![7; 8 << 20];
    shelf.extend(lab::shelf(&host, "2", &directory, std::slice::from_ref(&slow)));
    let cut = format!("/v2/app/blobs/{}", images::digest(&slow));
    let server = host.network.on_host(|| {
        Server::start(move |_, stream, next| {
            while let Some(asked) = next(stream) {
                let whole = shelved(&shelf, &asked);
                let most = if asked.target == cut { 1 << 20 } else { whole.len() };
                let _ = stream.write_all(&whole[..most.min(whole.len())]);
            }
        })
    });
    lab::trust(&host, &[server.address.to_string()]);
    host.start_agent();
    let image = |tag: u32| format!("image: \"{}/app:{tag}\"", server.address);
    let text = format!(
        "services:\n  web: {{ {}, volumes: [\"data:/data\"] }}\n  never: {{ {} }}\nvolumes: {{ data: {{}} }}\n",
        image(1),
        image(2)
    );
    host.write_manifest("shop", &text);
    host.running("shop", "web");
    let part = host
        .root
        .join("state/images/pull")
        .join(&images::digest(&slow)["sha256:".len()..]);
    host.wait("a part of the other one is here", LONG, || {
        fs::metadata(&part).ok().filter(|part| part.len() > 0).map(drop)
    });
    let mut paths = Vec::new();
    paths.push(host.root.join("state"));
    secrecy::collect(&host.root.join("state"), &mut paths);
    let suid = paths
        .iter()
        .find(|path| path.ends_with("suid"))
        .expect("the program in its layer");
    use std::os::unix::fs::MetadataExt;
    assert_eq!(
        fs::metadata(suid).expect("it").mode() & 0o7777,
        0o4755,
        "it is what its image says"
    );
    assert!(paths.contains(&part), "{paths:#?}");
    assert_eq!(secrecy::open_to(1000, "rwx", &paths), Vec::<String>::new());
    // Not for the sake of a directory further up only.
    for closed in [
        "state",
        "state/images",
        "state/images/layers",
        "state/images/pull",
        "state/images/blobs",
    ] {
        let mode = fs::metadata(host.root.join(closed)).expect(closed).mode();
        assert_eq!(mode & 0o777, 0o700, "{closed}");
    }
    assert_eq!(fs::metadata(&part).expect("it").mode() & 0o777, 0o600);
    host.finish();
}
