//! Images from registries on the loopback that break off, lie, or are slow.

use std::{
    io::Write,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde_json::{Value, json};

use super::super::config::architecture;
use super::super::{
    Progress, Store,
    space::tests::{grow, on_a_disk_of},
    testing,
};
use super::*;
use crate::{
    layout::Layout,
    registry::{
        Registries, Settings,
        testing::{End, Request, Server, Shelf, answer, ranged, shelved},
    },
};

mod breaks;
mod digests;
mod inert;
mod storms;

/// An image of these layers (tar streams), under the tag `1` of `app`, and its digest.
pub(in crate::image) fn image(layers: &[Vec<u8>]) -> (Shelf, Digest) {
    edited(layers, |_| {}, |_| {}, |_| {})
}

/// As [`image`], its layers compressed.
fn zipped(layers: &[Vec<u8>]) -> (Shelf, Digest) {
    let blobs: Vec<Vec<u8>> = layers.iter().map(|layer| testing::gzip(layer).unwrap()).collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    edited(
        &blobs,
        |it| it["rootfs"]["diff_ids"] = json!(diff_ids),
        |_| {},
        |_| {},
    )
}

/// As [`image`]; what its documents say otherwise has its true digest all the same.
pub(in crate::image) fn edited(
    layers: &[Vec<u8>],
    configuration: impl Fn(&mut Value),
    manifest: impl Fn(&mut Value),
    index: impl Fn(&mut Value),
) -> (Shelf, Digest) {
    let descriptor = |bytes: &[u8]| json!({ "digest": Digest::of(bytes).to_string(), "size": bytes.len() });
    let diff_ids = layers.iter().map(|layer| Digest::of(layer).to_string());
    let mut config = json!({
        "os": "linux",
        "architecture": architecture(),
        "config": { "Cmd": ["/run"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids.collect::<Vec<_>>() },
    });
    configuration(&mut config);
    let config = config.to_string().into_bytes();
    let mut document = json!({
        "schemaVersion": 2,
        "config": descriptor(&config),
        "layers": layers.iter().map(|layer| descriptor(layer)).collect::<Vec<_>>(),
    });
    manifest(&mut document);
    let manifest = document.to_string().into_bytes();
    let of = |bytes: &[u8], architecture: &str| {
        let mut entry = descriptor(bytes);
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    };
    let mut document = json!({
        "schemaVersion": 2,
        "manifests": [of(b"", "s390x"), of(&manifest, architecture())],
    });
    index(&mut document);
    let mut shelf = Shelf::new();
    shelf.insert("app/manifests/1".into(), document.to_string().into_bytes());
    shelf.insert(format!("app/manifests/{}", Digest::of(&manifest)), manifest);
    let digest = Digest::of(&config);
    for blob in layers.iter().chain([&config]) {
        shelf.insert(format!("app/blobs/{}", Digest::of(blob)), blob.clone());
    }
    (shelf, digest)
}

fn found<'a>(shelf: &'a Shelf, asked: &Request) -> Option<&'a Vec<u8>> {
    shelf.get(asked.target.strip_prefix("/v2/")?)
}

fn registry(shelf: Shelf) -> Server {
    Server::answering(move |asked| shelved(&shelf, asked))
}

/// A store that may ask this server without TLS, and the name of the image there.
fn store(server: &Server) -> (tempfile::TempDir, Store, String) {
    let root = tempfile::tempdir().unwrap();
    let (store, name) = store_in(root.path(), server);
    (root, store, name)
}

pub(in crate::image) fn store_in(root: &Path, server: &Server) -> (Store, String) {
    let layout = Layout::new(Some(root)).unwrap();
    let hosts = json!({ server.address.to_string(): { "insecure": true } });
    let registries = Registries {
        hosts: serde_json::from_value(hosts).unwrap(),
        ..Registries::default()
    };
    let settings = Settings::new(move || Ok(registries.clone()));
    let store = Store::open(&layout).with_registries(settings);
    (store, format!("{}/app:1", server.address))
}

pub(in crate::image) fn layer(name: &str, size: usize) -> Vec<u8> {
    testing::layer(&[testing::File::new(name, 0o644, vec![b'x'; size])]).unwrap()
}

pub(in crate::image) fn text(error: &dyn std::error::Error) -> String {
    let chain = std::iter::successors(Some(error), |error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Bytes of blobs that were asked for, by the number of the request.
fn parts(server: &Server) -> Vec<(String, Option<String>)> {
    let requests = server.requests().into_iter();
    let blobs = requests.filter(|asked| asked.target.contains("/blobs/"));
    blobs
        .map(|asked| (asked.target.clone(), asked.header("range").map(str::to_owned)))
        .collect()
}

#[test]
fn an_image_is_pulled_once_and_then_stands_without_its_registry() {
    let layers = [layer("a", 10), layer("b", 20), layer("a", 10)];
    let (shelf, digest) = image(&layers);
    let server = registry(shelf);
    let (root, store, name) = store(&server);
    let offered = store.resolve(&name).unwrap();
    assert_eq!(
        (offered.digest.clone(), offered.unpacked),
        (digest.to_string(), false)
    );
    assert_eq!(offered.config.command, ["/run"]);
    store.unpack(&name, &offered.digest).unwrap();
    let asked = server.requests().len();
    for again in [store.resolve(&name).unwrap(), store.resolve(&name).unwrap()] {
        assert_eq!((again.digest, again.unpacked), (digest.to_string(), true));
    }
    assert_eq!(server.requests().len(), asked, "nobody is asked again");
    assert_eq!(store.layers(&digest.to_string()).unwrap().len(), 2);
    let pulled = root.path().join("state/images/pull");
    assert_eq!(
        std::fs::read_dir(pulled).unwrap().count(),
        0,
        "nothing is left over"
    );
}

#[test]
fn a_layer_that_is_here_is_not_fetched() {
    let common = layer("common", 5000);
    let (mut shelf, first) = image(std::slice::from_ref(&common));
    let (other, second) = image(&[common.clone(), layer("own", 10)]);
    let other = other.into_iter().map(|(key, bytes)| match key.as_str() {
        "app/manifests/1" => ("app/manifests/2".to_owned(), bytes),
        _ => (key, bytes),
    });
    shelf.extend(other);
    let server = registry(shelf);
    let (_root, store, name) = store(&server);
    store.resolve(&name).unwrap();
    store.unpack(&name, &first.to_string()).unwrap();
    let name = name.replace(":1", ":2");
    store.resolve(&name).unwrap();
    store.unpack(&name, &second.to_string()).unwrap();
    let fetched = parts(&server).into_iter();
    let common = format!("/v2/app/blobs/{}", Digest::of(&common));
    assert_eq!(fetched.filter(|(target, _)| *target == common).count(), 1);
}

/// How often something was begun to be unpacked since the watch on the directory of the layers.
fn begun(watch: &std::os::fd::OwnedFd) -> usize {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    let events = std::iter::from_fn(|| {
        let event = reader.next().ok()?;
        Some(
            event
                .file_name()
                .is_some_and(|name| name.to_bytes().starts_with(b".new-")),
        )
    });
    events.filter(|is_new| *is_new).count()
}

#[test]
fn a_layer_of_two_images_that_are_pulled_at_once_is_fetched_and_unpacked_once() {
    let common = layer("common", 3 << 20);
    let own = ["a", "b"].map(|name| layer(name, 10));
    let blob = |layer: &[u8]| format!("/v2/app/blobs/{}", Digest::of(layer));
    // Another pull has unpacked it before this one has come to it; or both unpack at the same time.
    for before in [true, false] {
        let layers = [0, 1].map(|at| match before {
            // As many before it as are fetched at once.
            true => [own[at].clone(), layer("c", at), layer("d", at), common.clone()].to_vec(),
            false => [common.clone(), own[at].clone()].to_vec(),
        });
        let images = [(0, "1"), (1, "2")].map(|(at, tag)| {
            let (shelf, digest) = image(&layers[at]);
            let keyed = shelf.into_iter().map(|(key, bytes)| match key.as_str() {
                "app/manifests/1" => (format!("app/manifests/{tag}"), bytes),
                _ => (key, bytes),
            });
            (keyed.collect::<Shelf>(), digest)
        });
        let shelf: Shelf = images.iter().flat_map(|(shelf, _)| shelf.clone()).collect();
        let gate = Arc::new((std::sync::Mutex::new(false), std::sync::Condvar::new()));
        let shut = match before {
            true => layers[1][..3].to_vec(),
            false => own.to_vec(),
        };
        let (closed, shut) = (Arc::clone(&gate), shut.iter().map(|layer| blob(layer)));
        let shut: Vec<String> = shut.collect();
        let server = Server::answering(move |asked| {
            // Of the second image, or of both, the rest stays out until the gate opens.
            if shut.contains(&asked.target) {
                let open = closed.0.lock().unwrap();
                drop(closed.1.wait_while(open, |open| !*open).unwrap());
            }
            shelved(&shelf, asked)
        });
        let (root, store, name) = store(&server);
        let layers = root.path().join("state/images/layers");
        fs::create_dir_all(&layers).unwrap();
        let watch = inotify::init(CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &layers, WatchFlags::CREATE).unwrap();
        let pull = |at: usize| {
            let name = name.replace(":1", [":1", ":2"][at]);
            store.resolve(&name).unwrap();
            store.unpack(&name, &images[at].1.to_string()).unwrap();
        };
        let pull = &pull;
        std::thread::scope(|scope| {
            let second = scope.spawn(move || pull(1));
            let asked = |target: &str| server.requests().iter().any(|asked| asked.target == target);
            wait(|| asked(&blob(&own[1])).then_some(()));
            let first = scope.spawn(move || pull(0));
            if before {
                first.join().unwrap();
                assert!(!second.is_finished());
            } else {
                // Both wait for what is their own, and have what is common.
                let size = common.len() as u64;
                wait(|| {
                    let all = store.progress();
                    (all.len() == 2 && all.iter().all(|one| one.fetched >= size)).then_some(())
                });
            }
            *gate.0.lock().unwrap() = true;
            gate.1.notify_all();
        });
        let fetched = parts(&server)
            .into_iter()
            .filter(|(target, _)| *target == blob(&common));
        assert_eq!(fetched.count(), 1, "{before}");
        assert_eq!(begun(&watch), fs::read_dir(&layers).unwrap().count(), "{before}");
        assert_eq!(
            fs::read_dir(root.path().join("state/images/pull"))
                .unwrap()
                .count(),
            0
        );
        for (_, digest) in &images {
            assert!(store.layers(&digest.to_string()).is_ok());
        }
    }
}

/// Sends at most so many bytes of a layer on one connection, and keeps to ranges.
fn breaking(shelf: Shelf, most: usize) -> Server {
    Server::start(move |_, stream, next| {
        while let Some(asked) = next(stream) {
            let Some(bytes) = found(&shelf, &asked) else {
                let _ = stream.write_all(&answer(404, &[], b""));
                continue;
            };
            let (from, whole) = (asked.from(), ranged(&asked, bytes));
            let head = whole.len() - (bytes.len() - from);
            let sent = whole.len().min(head + most);
            if stream.write_all(&whole[..sent]).is_err() || sent < whole.len() {
                return;
            }
        }
    })
}

#[test]
fn a_transfer_that_breaks_off_again_and_again_is_gone_on_with() {
    let layers = [layer("large", 200_000)];
    let (shelf, digest) = image(&layers);
    let server = breaking(shelf, 10_000);
    let (_root, store, name) = store(&server);
    store.resolve(&name).unwrap();
    store.unpack(&name, &digest.to_string()).unwrap();
    let large = format!("/v2/app/blobs/{}", Digest::of(&layers[0]));
    let ranges: Vec<Option<String>> = parts(&server)
        .into_iter()
        .filter_map(|(target, range)| (target == large).then_some(range))
        .collect();
    let expected: Vec<Option<String>> = (0..layers[0].len())
        .step_by(10_000)
        .map(|from| (from > 0).then(|| format!("bytes={from}-")))
        .collect();
    assert_eq!(ranges, expected, "nothing was sent twice");
}

#[test]
fn what_an_earlier_agent_has_fetched_is_gone_on_with_also_where_it_is_damaged() {
    let bytes = layer("large", 50_000);
    for (left, requests) in [
        (bytes[..20_000].to_vec(), vec![Some("bytes=20000-".to_owned())]),
        (bytes.clone(), vec![]),
        // Right length, wrong content: from the beginning.
        (vec![0; bytes.len()], vec![None]),
        (vec![0; 20_000], vec![Some("bytes=20000-".to_owned()), None]),
        (vec![0; bytes.len() + 1], vec![None]),
    ] {
        let (shelf, digest) = image(std::slice::from_ref(&bytes));
        let server = breaking(shelf, usize::MAX / 2);
        let (root, store, name) = store(&server);
        let part = root.path().join("state/images/pull");
        std::fs::create_dir_all(&part).unwrap();
        std::fs::write(part.join(Digest::of(&bytes).hex()), left).unwrap();
        store.resolve(&name).unwrap();
        store.unpack(&name, &digest.to_string()).unwrap();
        let own = format!("/v2/app/blobs/{}", Digest::of(&bytes));
        let ranges = parts(&server).into_iter();
        let ranges: Vec<_> = ranges
            .filter_map(|(target, range)| (target == own).then_some(range))
            .collect();
        assert_eq!(ranges, requests);
    }
}

#[test]
fn a_name_stands_for_what_was_decided_on_or_for_nothing() {
    let (first, one) = image(&[layer("a", 10)]);
    let (second, other) = image(&[layer("b", 10)]);
    let mut all = first.clone();
    all.extend(second.clone());
    all.insert("app/manifests/1".into(), first["app/manifests/1"].clone());
    let asked = Arc::new(AtomicUsize::new(0));
    let (counter, moved) = (Arc::clone(&asked), second["app/manifests/1"].clone());
    // The tag moves after it was asked for once.
    let server = Server::answering(move |asked| {
        let tag = asked.target == "/v2/app/manifests/1";
        match found(&all, asked) {
            Some(_) if tag && counter.fetch_add(1, Ordering::Relaxed) > 0 => answer(200, &[], &moved),
            Some(bytes) => answer(200, &[], bytes),
            None => answer(404, &[], b""),
        }
    });
    let (_root, store, name) = store(&server);
    assert_eq!(store.resolve(&name).unwrap().digest, one.to_string());
    let error = store.unpack(&name, &other.to_string()).unwrap_err();
    assert!(matches!(error, ImageError::Changed { .. }), "{error}");
    // It is looked at again, and then it is the other one.
    assert_eq!(store.resolve(&name).unwrap().digest, other.to_string());
    store.unpack(&name, &other.to_string()).unwrap();
}

#[test]
fn a_pull_tells_how_far_it_is_until_it_ends_in_whatever_way() {
    let layers = [layer("a", 100_000), layer("b", 50_000), layer("a", 100_000)];
    let (shelf, digest) = image(&layers);
    let size = (layers[0].len() + layers[1].len()) as u64;
    for fails in [false, true] {
        let (held, gate) = std::sync::mpsc::channel::<()>();
        let (gate, shelf) = (std::sync::Mutex::new(gate), shelf.clone());
        let large = format!("/v2/app/blobs/{}", Digest::of(&layers[0]));
        // Of the larger layer the rest stays out until the gate opens.
        let server = Server::start(move |_, stream, next| {
            while let Some(asked) = next(stream) {
                let bytes = found(&shelf, &asked).unwrap();
                match asked.from() {
                    1000 => {
                        let whole = ranged(&asked, bytes);
                        let half = whole.len() / 2;
                        stream.write_all(&whole[..half]).unwrap();
                        let _ = gate.lock().unwrap().recv();
                        let rest = if fails {
                            vec![0; whole.len() - half]
                        } else {
                            whole[half..].to_vec()
                        };
                        let _ = stream.write_all(&rest);
                    }
                    _ if fails && asked.target == large => stream.write_all(&answer(404, &[], b"")).unwrap(),
                    _ => stream.write_all(&answer(200, &[], bytes)).unwrap(),
                }
            }
        });
        let (root, store, name) = store(&server);
        let part = root.path().join("state/images/pull");
        std::fs::create_dir_all(&part).unwrap();
        std::fs::write(part.join(Digest::of(&layers[0]).hex()), &layers[0][..1000]).unwrap();
        store.resolve(&name).unwrap();
        assert_eq!(store.progress(), [], "of the layers nothing is wanted yet");
        std::thread::scope(|scope| {
            let pull = scope.spawn(|| store.unpack(&name, &digest.to_string()));
            let least = (layers[1].len() + layers[0].len() / 2) as u64;
            let progress = wait(|| store.progress().pop().filter(|one| one.fetched >= least));
            assert!(progress.fetched < size, "{progress:?}");
            let expected = Progress {
                reference: name.clone(),
                fetched: progress.fetched,
                size,
                unpacked: 0,
                layers: 2,
            };
            assert_eq!(progress, expected);
            drop(held);
            assert_eq!(pull.join().unwrap().is_err(), fails);
        });
        assert_eq!(store.progress(), []);
    }
}

/// Waits for what comes about by itself.
fn wait<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(std::time::Instant::now() < end, "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn what_does_not_fit_is_refused_with_numbers_before_anything_of_it_is_fetched() {
    on_a_disk_of("size=8m", |disk| {
        let large = layer("large", 5 << 20);
        let (shelf, digest) = image(std::slice::from_ref(&large));
        let server = registry(shelf);
        let (store, name) = store_in(disk, &server);
        store.resolve(&name).unwrap();
        let error = store.unpack(&name, &digest.to_string()).unwrap_err();
        assert!(error.may_pass());
        let told = text(&error);
        assert!(
            told.contains("at least 10.0 MiB in") && told.contains("7.6 MiB are left"),
            "{told}"
        );
        let blob = format!("/v2/app/blobs/{}", Digest::of(&large));
        assert!(
            parts(&server).iter().all(|(target, _)| *target != blob),
            "nothing was asked for"
        );
        assert!(!disk.join("state/images/pull").exists());
        // What is here of it does not have to fit again.
        let part = disk.join("state/images/pull");
        std::fs::create_dir_all(&part).unwrap();
        std::fs::write(part.join(Digest::of(&large).hex()), &large[..4 << 20]).unwrap();
        let told = text(&store.unpack(&name, &digest.to_string()).unwrap_err());
        assert!(
            told.contains("at least 6.0 MiB in") && told.contains("3.6 MiB are left"),
            "{told}"
        );
        // There is room now, and nothing else has changed.
        grow(disk, "size=16m");
        store.unpack(&name, &digest.to_string()).unwrap();
        let asked = parts(&server).into_iter();
        let asked: Vec<_> = asked
            .filter(|(target, _)| *target == blob)
            .map(|(_, range)| range)
            .collect();
        assert_eq!(asked, [Some(format!("bytes={}-", 4 << 20))]);
    });
}
