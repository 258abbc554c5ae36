//! F-27 and F-28: registries that are slow, or have enough of us.

use std::time::Instant;

use super::*;
use crate::registry::transport::Patience;

/// As [`store`], where nobody is waited for long.
pub(super) fn hasty(servers: &[&Server]) -> (tempfile::TempDir, Store) {
    patient(
        servers,
        Patience {
            stall: Duration::from_millis(300),
            least: 300,
            head: Duration::from_secs(5),
            ..Patience::default()
        },
    )
}

fn patient(servers: &[&Server], patience: Patience) -> (tempfile::TempDir, Store) {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(Some(root.path())).unwrap();
    let rules = servers
        .iter()
        .map(|one| (one.address.to_string(), json!({ "insecure": true })));
    let hosts: serde_json::Map<String, Value> = rules.collect();
    let registries = Registries {
        hosts: serde_json::from_value(Value::Object(hosts)).unwrap(),
        patience,
        ..Registries::default()
    };
    let settings = Settings::new(move || Ok(registries.clone()));
    (root, Store::open(&layout).with_registries(settings))
}

/// Both may be asked for their image `app:1`.
fn names(servers: &[&Server]) -> Vec<String> {
    servers
        .iter()
        .map(|server| format!("{}/app:1", server.address))
        .collect()
}

#[test]
fn f_27_registry_slow_who_drips_or_hangs_is_given_up_and_others_go_on() {
    let large = layer("a", 100_000);
    let (shelf, digest) = image(std::slice::from_ref(&large));
    let (other, other_digest) = image(&[layer("b", 100_000)]);
    for drips in [true, false] {
        let (shelf, other) = (shelf.clone(), other.clone());
        let slow = Server::start(move |_, stream, next| {
            while let Some(asked) = next(stream) {
                let whole = ranged(&asked, found(&shelf, &asked).unwrap());
                let start = if whole.len() < 50_000 { whole.len() } else { 500 };
                stream.write_all(&whole[..start]).unwrap();
                for byte in &whole[start..] {
                    std::thread::sleep(Duration::from_millis(50));
                    if drips && stream.write_all(&[*byte]).is_err() {
                        return;
                    }
                }
            }
        });
        let good = registry(other);
        let (_root, store) = hasty(&[&slow, &good]);
        let names = names(&[&slow, &good]);
        for name in &names {
            store.resolve(name).unwrap();
        }
        std::thread::scope(|scope| {
            let pull = scope.spawn(|| store.unpack(&names[0], &digest.to_string()));
            wait(|| store.progress().pop().filter(|one| one.fetched > 0));
            store.unpack(&names[1], &other_digest.to_string()).unwrap();
            assert!(!pull.is_finished(), "it still waits for the slow one");
            let error = pull.join().unwrap().unwrap_err();
            assert!(
                text(&error).contains("sends less than 300 bytes"),
                "{}",
                text(&error)
            );
            assert!(error.may_pass());
        });
        // What came stays, and is not asked for again.
        let blob = format!("/v2/app/blobs/{}", Digest::of(&large));
        let asked = slow.requests().into_iter().filter(|asked| asked.target == blob);
        let from: Vec<usize> = asked.map(|asked| asked.from()).collect();
        assert!(
            from.len() == ATTEMPTS as usize && from.is_sorted() && from[1] > 300,
            "{from:?}"
        );
    }
}

#[test]
fn f_27_registry_slow_a_slow_line_is_asked_anew_in_time_and_gets_there() {
    let large = layer("a", 200_000);
    let (shelf, digest) = image(std::slice::from_ref(&large));
    for keeps_to_ranges in [true, false] {
        let shelf = shelf.clone();
        let server = Server::start(move |_, stream, next| {
            while let Some(mut asked) = next(stream) {
                if !keeps_to_ranges {
                    asked.headers.retain(|(name, _)| name != "range");
                }
                for piece in shelved(&shelf, &asked).chunks(1000) {
                    if stream.write_all(piece).is_err() {
                        return;
                    }
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        // In so short a time a tenth of it comes, at most.
        let patience = Patience {
            blob: Duration::from_millis(200),
            ..Patience::default()
        };
        let (_root, store) = patient(&[&server], patience);
        let name = names(&[&server]).remove(0);
        store.resolve(&name).unwrap();
        let pulled = store.unpack(&name, &digest.to_string());
        let blob = format!("/v2/app/blobs/{}", Digest::of(&large));
        let asked = server.requests().into_iter().filter(|asked| asked.target == blob);
        let from: Vec<usize> = asked.map(|asked| asked.from()).collect();
        if keeps_to_ranges {
            pulled.unwrap();
            assert!(from.len() > ATTEMPTS as usize, "each brings a part: {from:?}");
            assert!(
                from.is_sorted() && from.last() > Some(&0),
                "nothing comes twice: {from:?}"
            );
        } else {
            // Who begins anew each time never gets there, and is given up.
            let error = text(&pulled.unwrap_err());
            assert!(error.contains("has not sent all within"), "{error}");
            assert!(from.len() >= ATTEMPTS as usize, "{from:?}");
        }
    }
}

#[test]
fn f_27_registry_slow_a_layer_without_end_is_read_as_far_as_it_should_be_long() {
    let large = layer("a", 100_000);
    let (shelf, digest) = image(std::slice::from_ref(&large));
    let server = Server::start(move |_, stream, next| {
        while let Some(asked) = next(stream) {
            let bytes = found(&shelf, &asked).unwrap();
            if bytes.len() < 50_000 {
                stream.write_all(&answer(200, &[], bytes)).unwrap();
                continue;
            }
            let endless = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(endless.as_bytes()).unwrap();
            let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
            while stream.write_all(&chunk).is_ok() {}
        }
    });
    let (root, store) = hasty(&[&server]);
    let name = names(&[&server]).remove(0);
    store.resolve(&name).unwrap();
    let error = text(&store.unpack(&name, &digest.to_string()).unwrap_err());
    assert!(error.contains(&format!("not {}", large.len())), "{error}");
    let part = root
        .path()
        .join("state/images/pull")
        .join(Digest::of(&large).hex());
    assert_eq!(fs::metadata(part).unwrap().len(), 0, "nothing of it stays");
}

#[test]
fn f_28_storm_who_has_enough_of_us_is_left_alone_as_long_as_he_says() {
    let (shelf, digest) = image(&[layer("a", 10)]);
    let blob = format!("/v2/app/blobs/{}", Digest::of(&layer("a", 10)));
    for (status, path) in [
        (429, "/v2/app/manifests/1"),
        (503, "/v2/app/manifests/1"),
        (429, blob.as_str()),
    ] {
        let (shelf, path) = (shelf.clone(), path.to_owned());
        let storms = Arc::new(AtomicUsize::new(1));
        let left = Arc::clone(&storms);
        let server = Server::answering(move |asked| {
            let storm = asked.target == path
                && left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok();
            match storm {
                true => answer(status, &[("Retry-After", "2")], b""),
                false => shelved(&shelf, asked),
            }
        });
        let (_root, store) = hasty(&[&server]);
        let name = names(&[&server]).remove(0);
        let pull = || {
            let image = store.resolve(&name)?;
            store.unpack(&name, &image.digest)
        };
        let begun = Instant::now();
        let mut attempts = 0;
        while let Err(error) = pull() {
            assert!(
                error.may_pass() && text(&error).contains("wants to be asked later"),
                "{}",
                text(&error)
            );
            attempts += 1;
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(
            begun.elapsed() >= Duration::from_secs(2),
            "{status} after {:?}",
            begun.elapsed()
        );
        assert_eq!(store.resolve(&name).unwrap().digest, digest.to_string());
        let asked = server.requests().len();
        assert!(asked <= 6, "{attempts} attempts, {asked} requests");
    }
}

#[test]
fn f_28_storm_errors_of_a_registry_are_told_and_asked_about_again_in_their_own_time() {
    for (status, says, passes) in [
        (500, "answers 500 Internal Server Error", true),
        (502, "answers 502 Bad Gateway", true),
        (503, "wants to be asked later", true),
        (429, "wants to be asked later", true),
        (401, "docker login", true),
        (403, "docker login", true),
        (404, "check the name and the tag", true),
        (418, "answers 418", false),
    ] {
        let server = Server::answering(move |_| answer(status, &[], b""));
        let (_root, store) = hasty(&[&server]);
        let name = names(&[&server]).remove(0);
        let error = store.resolve(&name).unwrap_err();
        assert!(text(&error).contains(says), "{}", text(&error));
        assert_eq!(error.may_pass(), passes, "{status}");
        assert_eq!(server.requests().len(), 1, "{status}: who asks again is the loop");
    }
}

#[test]
fn f_28_storm_of_resets_and_errors_in_the_middle_of_a_layer_is_come_through() {
    let large = layer("a", 100_000);
    let (shelf, digest) = image(std::slice::from_ref(&large));
    let count = AtomicUsize::new(0);
    let server = Server::start(move |_, stream, next| {
        while let Some(asked) = next(stream) {
            let whole = shelved(&shelf, &asked);
            if whole.len() < 5_000 {
                stream.write_all(&whole).unwrap();
                continue;
            }
            match count.fetch_add(1, Ordering::SeqCst) {
                0 | 3 => stream
                    .write_all(&answer(503, &[("Retry-After", "0")], b""))
                    .unwrap(),
                1 | 4 => {
                    stream.write_all(&whole[..whole.len() / 2]).unwrap();
                    return End::Reset.of(stream.try_clone().unwrap());
                }
                2 => return,
                _ => stream.write_all(&whole).unwrap(),
            }
        }
    });
    let (_root, store) = hasty(&[&server]);
    let name = names(&[&server]).remove(0);
    store.resolve(&name).unwrap();
    store.unpack(&name, &digest.to_string()).unwrap();
}
