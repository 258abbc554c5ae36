//! `image pull` and `image verify`: from where an image comes, and from where it comes again.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{list, manifest, named, told};
use crate::{
    host::{
        Host, PATIENCE,
        registries::{answer, shelved},
    },
    images::{layout, says},
    registry::{ADDRESS, Registry, lab},
};

#[test]
fn a_pull_asks_anew_and_moves_the_name() {
    let Some(mut host) = Host::new("image-pull") else {
        return;
    };
    let [old, new] = ["old", "new"].map(|name| layout(&host, name));
    let registry = Registry::plain(&host);
    registry.push(&host, &old, "team/box:1", &[]);
    let name = format!("{ADDRESS}/team/box:1");
    let first = host.stead(&["image", "pull", &name]);
    let (told_name, before) = told(&first.stdout);
    assert!(
        first.code == 0 && told_name == name && first.stderr.contains(&format!("pulling {name}\n")),
        "{first:?}"
    );
    assert!(!first.stderr.contains('\x1b'), "no terminal: {first:?}");
    let same = host.stead_ok(&["image", "pull", &name]);
    assert_eq!(same, format!("pulled {name} {before} (as it was)\n"));
    host.start_agent();
    host.change("shop", &manifest(&name));
    says(&host, "shop", "box");

    registry.push(&host, &new, "team/box:1", &[]);
    // What runs knows nothing of it, until somebody asks.
    host.nothing_to_do(PATIENCE);
    let moved: Value = serde_json::from_str(
        host.stead_ok(&["--json", "image", "pull", &name])
            .lines()
            .last()
            .expect("a line"),
    )
    .expect("JSON");
    assert_eq!(
        (moved["event"].as_str(), moved["before"].as_str()),
        (Some("pulled"), Some(before.as_str()))
    );
    let after = moved["digest"].as_str().expect("a digest");
    assert_ne!(after, before);
    // The old one is what the service runs on, whatever it is called.
    let listed = list(&host);
    let images = listed["images"].as_array().expect("images");
    assert!(
        images
            .iter()
            .any(|image| image["digest"] == *before && image["name"].is_null()),
        "{listed}"
    );
    host.wait("the service runs on the new image", PATIENCE, || {
        let rows: Value = serde_json::from_str(&host.stead_ok(&["--json", "ps"])).ok()?;
        (rows[0]["state"] == "running" && rows[0]["image_digest"] == *after).then_some(())
    });
    drop(registry);
    let failed = host.stead(&["image", "pull", &name]);
    assert!(failed.code == 1 && failed.stderr.contains(&name), "{failed:?}");
    assert_eq!(named(&list(&host), &name).expect("it stays")["digest"], after);
    host.finish();
}

#[test]
fn several_names_are_brought_at_once_and_told_in_their_order() {
    let Some(host) = Host::new("image-pull-several") else {
        return;
    };
    let mut shelf = lab::shelf(&host, "1", &host.directory("first"), &[]);
    shelf.extend(lab::shelf(&host, "2", &host.directory("second"), &[]));
    let asked = Arc::new(AtomicBool::new(false));
    // The first one is there once the last one was asked for.
    let server = lab::answering(&host, move |request| {
        let end = Instant::now() + PATIENCE;
        match request.target.as_str() {
            "/v2/app/manifests/1" => {
                while !asked.load(Ordering::SeqCst) {
                    if Instant::now() > end {
                        return answer(500, &[], b"");
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            "/v2/app/manifests/2" => asked.store(true, Ordering::SeqCst),
            _ => {}
        }
        shelved(&shelf, request)
    });
    lab::trust(&host, &[server.address.to_string()]);
    let [first, nowhere, second] = ["1", "nowhere", "2"].map(|tag| format!("{}/app:{tag}", server.address));
    let pull = ["image", "pull", &first, &nowhere, &second];
    let pulled = host.stead(&pull);
    let names: Vec<_> = pulled.stdout.lines().map(|line| told(line).0).collect();
    assert_eq!((pulled.code, names), (1, vec![first.clone(), second.clone()]));
    let failed = format!("stead: {nowhere} was not brought");
    assert_eq!(pulled.stderr.matches(&failed).count(), 1, "{pulled:?}");
    // Each of them, in one line for whoever reads JSON.
    let again = host.stead(&[&["--json"], &pull[..]].concat());
    let events = again.stdout.lines();
    let events: Vec<Value> = events
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let ends: Vec<_> = events
        .iter()
        .filter(|event| event["event"] != "begin" && event["event"] != "progress")
        .map(|event| (event["name"].as_str(), event["event"].as_str()))
        .collect();
    let expected = [(&first, "pulled"), (&nowhere, "failed"), (&second, "pulled")];
    let expected = expected.map(|(name, event)| (Some(name.as_str()), Some(event)));
    assert_eq!(ends, expected, "{again:?}");
    assert_eq!(again.code, 1);
    host.finish();
}

/// The directory of the one layer of an image.
fn layer(host: &Host, image: &str) -> PathBuf {
    let told: Value = serde_json::from_str(&host.stead_ok(&["image", "inspect", image])).expect("JSON");
    let diff_id = told["layers"][0]["diff_id"].as_str().expect("a digest");
    host.root
        .join("state/images/layers")
        .join(&diff_id["sha256:".len()..])
}

fn held(host: &Host) -> usize {
    let layers = fs::read_dir(host.root.join("state/images/layers")).expect("layers");
    let names = layers.map(|layer| layer.expect("a layer").file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with(".held-"))
        .count()
}

#[test]
fn damage_is_named_and_brought_anew_from_where_the_image_came_from() {
    let Some(mut host) = Host::new("image-verify") else {
        return;
    };
    let [layout, pushed] = ["layout", "pushed"].map(|name| layout(&host, name));
    let registry = Registry::plain(&host);
    registry.push(&host, &pushed, "team/box:1", &[]);
    let name = format!("{ADDRESS}/team/box:1");
    host.start_agent();
    host.change("shop", &manifest(&name));
    says(&host, "shop", "box");
    assert_eq!(host.stead_ok(&["image", "verify"]), "1 image: all as it was\n");
    let first = host.running("shop", "box");
    let before = first.identity();

    // A tag that moves is not what the image came from.
    registry.push(&host, &layout, "team/box:1", &[]);
    let directory = layer(&host, &name);
    let busybox = fs::metadata(directory.join("bin/sh")).expect("a shell").len();
    fs::write(directory.join("etc/group"), "root:x:0:\n").expect("a file");
    fs::write(directory.join("etc/new"), "").expect("a file");
    let found = host.stead(&["image", "verify", &name]);
    assert_eq!(found.code, 1, "{found:?}");
    for part in [name.as_str(), "etc/group", "etc/new", "layer"] {
        assert!(found.stdout.contains(part), "{part}: {found:?}");
    }
    assert_eq!(
        host.running("shop", "box").identity(),
        before,
        "to look changes nothing"
    );
    let repaired = host.stead(&["image", "verify", "--repair", &name]);
    assert!(
        repaired.code == 0 && repaired.stderr.contains("shop/box/1"),
        "{repaired:?}"
    );
    // Its shell is read from the old directory until it is started on the new one.
    host.wait("it runs on the repaired layer", PATIENCE, || {
        let now = host.instance("shop", "box")?;
        (now.state == "running" && now.pid != first.pid).then_some(())
    });
    host.converged("shop");
    assert_eq!(
        fs::metadata(directory.join("bin/sh")).expect("a shell").len(),
        busybox
    );
    assert_eq!(host.stead_ok(&["image", "verify"]), "1 image: all as it was\n");
    assert_eq!(held(&host), 1);
    host.stead_ok(&["image", "gc"]);
    assert_eq!(held(&host), 0, "nothing stands on it any more");

    // Documents, too; and without a registry it is said that there is nothing to repair it from.
    let digest = list(&host)["images"][0]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let document = host
        .root
        .join("state/images/blobs/sha256")
        .join(&digest["sha256:".len()..]);
    fs::write(&document, "{}").expect("a file");
    let found = host.stead(&["image", "verify"]);
    assert!(
        found.code == 1 && found.stdout.contains("configuration is damaged"),
        "{found:?}"
    );
    host.stead_ok(&["image", "verify", "--repair"]);
    assert!(
        fs::read_to_string(&document)
            .expect("a file")
            .contains("from-the-image")
    );
    drop(registry);
    fs::write(directory.join("etc/group"), "").expect("a file");
    let refused = host.stead(&["image", "verify", "--repair"]);
    assert!(
        refused.code == 1 && refused.stderr.contains("--from"),
        "{refused:?}"
    );
    // The layer of the other image is the same, but it is not this image.
    let wrong = [
        "image",
        "verify",
        "--repair",
        "--from",
        &layout.display().to_string(),
    ]
    .map(str::to_owned);
    let wrong = host.stead(&wrong.each_ref().map(String::as_str));
    assert_eq!(wrong.code, 1, "{wrong:?}");
    let right = [
        "image",
        "verify",
        "--repair",
        "--from",
        &pushed.display().to_string(),
    ]
    .map(str::to_owned);
    let right = host.stead(&right.each_ref().map(String::as_str));
    assert_eq!(right.code, 0, "{right:?}");
    host.converged("shop");
    host.finish();
}
