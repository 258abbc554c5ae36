//! Transfers that break off: what they cost, and that nothing half done is ever used.

use std::{
    io::Read,
    os::fd::AsFd,
    sync::atomic::{AtomicBool, AtomicU64},
};

use super::{storms::hasty, *};

/// What nobody can compress, the same on every run.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut noise = Vec::with_capacity(bytes + 8);
    while noise.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend_from_slice(&state.to_le_bytes());
    }
    noise.truncate(bytes);
    noise
}

fn noisy(name: &str, bytes: usize) -> Vec<u8> {
    testing::layer(&[testing::File::new(name, 0o644, noise(bytes))]).unwrap()
}

/// What is left of unpacking.
fn half_unpacked(root: &Path) -> Vec<PathBuf> {
    let layers = fs::read_dir(root.join("state/images/layers"))
        .into_iter()
        .flatten()
        .flatten();
    let new = layers.filter(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    new.map(|entry| entry.path()).collect()
}

#[test]
fn twenty_breaks_of_a_pull_of_200_mb_cost_less_than_a_megabyte_each() {
    const BREAKS: usize = 20;
    let large = noisy("large", 200 << 20);
    let size = large.len();
    let (shelf, digest) = image(std::slice::from_ref(&large));
    let (sent, breaks) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, broken) = (Arc::clone(&sent), Arc::clone(&breaks));
    let server = Server::start(move |_, stream, next| {
        // What a network holds at once; the rest of it is on the way when the connection is reset.
        rustix::net::sockopt::set_socket_send_buffer_size(stream.as_fd(), 256 << 10).unwrap();
        while let Some(asked) = next(stream) {
            let whole = shelved(&shelf, &asked);
            if whole.len() < 1 << 20 {
                stream.write_all(&whole).unwrap();
                continue;
            }
            let number = broken.load(Ordering::SeqCst);
            let most = if number < BREAKS {
                size / (BREAKS + 1)
            } else {
                whole.len()
            };
            for piece in whole[..most.min(whole.len())].chunks(64 << 10) {
                if stream.write_all(piece).is_err() {
                    return;
                }
                counted.fetch_add(piece.len() as u64, Ordering::SeqCst);
            }
            if number < BREAKS {
                broken.fetch_add(1, Ordering::SeqCst);
                let end = [End::Reset, End::Closed, End::Reset, End::Silent][number % 4];
                return end.of(stream.try_clone().unwrap());
            }
        }
    });
    let (root, store) = hasty(&[&server]);
    let name = format!("{}/app:1", server.address);
    // As often as the loop would: each break of a kind may end an attempt.
    while let Err(error) = store
        .resolve(&name)
        .and_then(|image| store.unpack(&name, &image.digest))
    {
        assert!(error.may_pass(), "{}", text(&error));
    }
    assert_eq!(store.resolve(&name).unwrap().digest, digest.to_string());
    assert_eq!(breaks.load(Ordering::SeqCst), BREAKS);
    let wasted = sent.load(Ordering::SeqCst) - size as u64;
    println!("{wasted} bytes of {size} came in vain");
    assert!(wasted <= (BREAKS as u64) << 20, "{wasted} bytes came in vain");
    assert!(half_unpacked(root.path()).is_empty());
    assert_eq!(
        fs::read_dir(root.path().join("state/images/pull"))
            .unwrap()
            .count(),
        0
    );
    let there = store.layers(&digest.to_string()).unwrap();
    let mut content = fs::File::open(there[0].join("large")).unwrap();
    let mut found = Vec::new();
    content.read_to_end(&mut found).unwrap();
    assert!(found == noise(200 << 20));
}

#[test]
fn a_disk_that_fills_while_a_layer_comes_costs_nothing_of_what_came() {
    on_a_disk_of("size=64m", |disk| {
        let large = noisy("large", 20 << 20);
        let (shelf, digest) = image(std::slice::from_ref(&large));
        // So much of the layer comes, and then somebody else has the rest of the disk.
        let points: [usize; 4] = [0, 1 << 20, (7 << 20) + 1, 15 << 20];
        let filler = disk.join("filler");
        let (at, stolen, full) = (
            AtomicUsize::new(0),
            filler.clone(),
            Arc::new(AtomicBool::new(false)),
        );
        let filled = Arc::clone(&full);
        let part = disk.join("state/images/pull").join(Digest::of(&large).hex());
        let server = Server::start(move |_, stream, next| {
            while let Some(asked) = next(stream) {
                let whole = shelved(&shelf, &asked);
                if whole.len() < 1 << 20 {
                    stream.write_all(&whole).unwrap();
                    continue;
                }
                let point = points.get(at.fetch_add(1, Ordering::SeqCst)).copied();
                let most = point.map_or(whole.len(), |point| point.saturating_sub(asked.from()).max(200));
                stream.write_all(&whole[..most]).unwrap();
                if point.is_some() {
                    // All that was sent is there before the disk is full.
                    let there = asked.from() + most - 200;
                    wait(|| fs::metadata(&part).ok().filter(|part| part.len() >= there as u64));
                    let mut file = fs::File::create(&stolen).unwrap();
                    while file.write_all(&[0; 4096]).is_ok() {}
                    filled.store(true, Ordering::SeqCst);
                    let _ = stream.write_all(&whole[most..]);
                }
            }
        });
        let (store, name) = store_in(disk, &server);
        for point in points {
            store.resolve(&name).unwrap();
            let error = store.unpack(&name, &digest.to_string()).unwrap_err();
            assert!(full.swap(false, Ordering::SeqCst), "{}", text(&error));
            assert!(
                error.may_pass() && text(&error).contains("No space left"),
                "{point}: {}",
                text(&error)
            );
            assert!(!disk.join("state/images/layers").exists());
            fs::remove_file(&filler).unwrap();
        }
        store.resolve(&name).unwrap();
        store.unpack(&name, &digest.to_string()).unwrap();
        let blob = format!("/v2/app/blobs/{}", Digest::of(&large));
        let asked = server.requests().into_iter().filter(|asked| asked.target == blob);
        let from: Vec<usize> = asked.map(|asked| asked.from()).collect();
        let least = points.iter().map(|point| point.saturating_sub(200));
        assert_eq!(from.len(), points.len() + 1, "{from:?}");
        assert!(
            from[1..].iter().zip(least).all(|(from, least)| *from >= least),
            "{from:?}"
        );
    });
}

#[test]
fn a_disk_that_is_full_at_any_point_of_unpacking_keeps_nothing_half_done() {
    on_a_disk_of("size=4m", |disk| {
        // Each unpacks to a hundred times what comes of it.
        let layers = [layer("a", 6 << 20), layer("b", 5 << 20), layer("c", 4 << 20)];
        let (shelf, digest) = zipped(&layers);
        let server = registry(shelf);
        let (store, name) = store_in(disk, &server);
        let mut refused = 0;
        for megabytes in 4.. {
            grow(disk, &format!("size={megabytes}m"));
            store.resolve(&name).unwrap();
            let Err(error) = store.unpack(&name, &digest.to_string()) else {
                break;
            };
            refused += 1;
            assert!(error.may_pass(), "{}", text(&error));
            assert!(!store.resolve(&name).unwrap().unpacked);
            assert!(half_unpacked(disk).is_empty(), "{megabytes}");
            // What is there of layers is whole.
            for (name, bytes) in [("a", 6 << 20), ("b", 5 << 20), ("c", 4 << 20)] {
                let index = ["a", "b", "c"].iter().position(|one| *one == name).unwrap();
                let there = disk
                    .join("state/images/layers")
                    .join(Digest::of(&layers[index]).hex());
                if there.exists() {
                    assert_eq!(
                        fs::metadata(there.join(name)).unwrap().len(),
                        bytes,
                        "{megabytes}"
                    );
                }
            }
        }
        assert!(refused >= 10, "{refused}");
        let asked = server.requests().into_iter();
        let layers =
            asked.filter(|asked| asked.target.contains("/blobs/") && !asked.target.contains(digest.hex()));
        assert_eq!(layers.count(), 3, "each came once");
    });
}

#[test]
fn what_a_killed_agent_has_left_is_swept_but_for_what_can_be_gone_on_with() {
    let (shelf, _) = image(&[layer("a", 10)]);
    let server = registry(shelf);
    let (root, store, name) = store(&server);
    let image = store.resolve(&name).unwrap();
    store.unpack(&name, &image.digest).unwrap();
    let images = root.path().join("state/images");
    let hex = "0".repeat(64);
    let part = |age: u64, name: &str| {
        let path = images.join("pull").join(name);
        let file = fs::File::create(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age))
            .unwrap();
        path
    };
    let (recent, old) = (
        part(6 * 24 * 3600, &hex),
        part(8 * 24 * 3600, &hex.replace('0', "1")),
    );
    let document = images.join(format!("blobs/sha256/.{hex}.1.0.tmp"));
    fs::write(&document, "half").unwrap();
    let new = images.join("layers/.new-1-0");
    fs::create_dir_all(new.join("a/b")).unwrap();
    store.sweep().unwrap();
    for gone in [&old, &document, &new] {
        assert!(!gone.exists(), "{}", gone.display());
    }
    assert!(recent.exists());
    assert!(store.resolve(&name).unwrap().unpacked);
}
