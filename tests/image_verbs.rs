//! `image`: what is here is listed, brought, saved, checked and removed, and nothing that is needed ever goes.

mod archives;
mod origins;

use std::{fs, path::Path};

use serde_json::Value;

use crate::{
    host::{Host, PATIENCE},
    images::layout,
};

/// A project of one service from an OCI layout; the name of its image.
fn run(host: &mut Host, project: &str) -> String {
    let name = format!("oci:{}:one", layout(host, project).display());
    host.change(project, &manifest(&name));
    host.running(project, "box");
    name
}

/// Its shell does not heed SIGTERM.
fn manifest(image: &str) -> String {
    format!("services: {{ box: {{ image: \"{image}\", stop_grace_period: 100ms }} }}\n")
}

fn gone(host: &Host, project: &str) {
    host.remove_manifest(project);
    host.gone(project);
}

fn list(host: &Host) -> Value {
    serde_json::from_str(&host.stead_ok(&["--json", "image", "ls"])).expect("JSON")
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    let images = list["images"].as_array().expect("images");
    images.iter().find(|image| image["name"] == name)
}

fn du(host: &Host) -> u64 {
    let images = host.root.join("state/images");
    let told = host.tool("du", &["-sB1", &images.display().to_string()]);
    told.split_whitespace()
        .next()
        .and_then(|bytes| bytes.parse().ok())
        .expect("a number")
}

#[test]
fn images_are_listed_with_their_users_and_what_they_take() {
    let Some(mut host) = Host::new("image-ls") else {
        return;
    };
    assert_eq!(
        host.stead_ok(&["image", "ls"]).lines().last(),
        Some("total: 0 B"),
        "no store yet"
    );
    host.start_agent();
    let (shop, blog) = (run(&mut host, "shop"), run(&mut host, "blog"));
    gone(&host, "blog");
    let listed = list(&host);
    let used = &named(&listed, &shop).expect("the one of shop")["used_by"];
    assert_eq!(used["projects"], serde_json::json!(["shop"]));
    assert_eq!(used["containers"], serde_json::json!(["shop/box/1"]));
    let unused = named(&listed, &blog).expect("the one of blog");
    assert_eq!(unused["used_by"]["projects"], serde_json::json!([]));
    // The layer is one and the same.
    let (size, shared) = (
        unused["size"].as_u64().expect("bytes"),
        unused["shared"].as_u64().expect("bytes"),
    );
    assert!(shared > 500_000 && size - shared < 50_000, "{size} {shared}");
    let (total, du) = (listed["total"].as_u64().expect("bytes"), du(&host));
    assert!(total.abs_diff(du) * 100 <= du, "{total} is not {du}");
    let text = host.stead_ok(&["image", "ls"]);
    let line = text.lines().find(|line| line.starts_with(&shop)).expect("a line");
    assert!(line.ends_with("shop/box/1"), "{line}");

    let digest = unused["digest"].as_str().expect("a digest");
    for image in [blog.as_str(), digest, &digest["sha256:".len()..][..12]] {
        let told: Value = serde_json::from_str(&host.stead_ok(&["image", "inspect", image])).expect("JSON");
        assert_eq!(told["digest"], digest);
        assert_eq!(told["names"][0]["name"], *blog);
        assert_eq!(told["config"]["User"], "app");
        assert!(
            told["layers"][0]["here"].as_bool() == Some(true) && told["manifest"].is_string(),
            "{told}"
        );
    }
    let reply = host.stead(&["image", "inspect", "nothing:1"]);
    assert!(reply.code == 1 && reply.stderr.contains("image ls"), "{reply:?}");
    // What nobody has is told as well.
    let layers = host.root.join("state/images/layers");
    fs::create_dir(layers.join("ab".repeat(32))).expect("a directory");
    assert!(
        host.stead_ok(&["image", "ls"])
            .contains("left over: 1 layer of no image")
    );
    host.finish();
}

#[test]
fn only_what_nobody_needs_is_removed() {
    let Some(mut host) = Host::new("image-rm") else {
        return;
    };
    host.start_agent();
    let names = ["shop", "blog", "old"].map(|project| run(&mut host, project));
    gone(&host, "blog");
    gone(&host, "old");
    let before = host.running("shop", "box").identity();
    let refused = host.stead(&["image", "rm", &names[0]]);
    assert!(
        refused.code == 1 && refused.stderr.contains("shop/box/1"),
        "{refused:?}"
    );

    let told = host.stead_ok(&["image", "rm", &names[2]]);
    assert!(told.contains(&format!("let go of {}", names[2])), "{told}");
    assert!(named(&list(&host), &names[2]).is_none());
    let size = du(&host);
    let dry = host.stead_ok(&["image", "gc", "--dry-run"]);
    assert!(dry.contains("would remove") && dry.contains(&names[1]), "{dry}");
    assert_eq!(du(&host), size, "nothing has changed");
    let removed: Value = serde_json::from_str(&host.stead_ok(&["--json", "image", "gc"])).expect("JSON");
    assert_eq!(removed["names"], serde_json::json!([names[1]]));
    let freed = size - du(&host);
    assert!(
        freed.abs_diff(removed["bytes"].as_u64().expect("bytes")) < 20_000,
        "{freed} {removed}"
    );
    assert_eq!(host.stead_ok(&["image", "gc"]), "nothing to remove\n");

    // Stopped, its container is there; its project is gone, it still is what somebody stands on; without an agent, too.
    host.stead_ok(&["stop", "shop/box"]);
    host.wait("it is stopped", PATIENCE, || {
        host.instance("shop", "box").filter(|one| one.pid.is_none())
    });
    host.stop_agent();
    assert_eq!(host.stead_ok(&["image", "gc"]), "nothing to remove\n");
    host.start_agent();
    host.stead_ok(&["start", "shop/box"]);
    let after = host.running("shop", "box").identity();
    assert_ne!(before, after);

    // With force the name goes; what runs goes on on what it has.
    let forced = host.stead(&["image", "rm", "--force", &names[0]]);
    assert!(
        forced.code == 0 && forced.stderr.contains("shop/box/1"),
        "{forced:?}"
    );
    assert_eq!(host.running("shop", "box").identity(), after);
    host.stead_ok(&["exec", "shop/box", "--", "true"]);
    host.nothing_to_do(PATIENCE);
    host.finish();
}

#[test]
fn where_it_is_not_known_who_needs_what_nothing_is_removed() {
    let Some(mut host) = Host::new("image-unknown") else {
        return;
    };
    host.start_agent();
    let name = run(&mut host, "old");
    gone(&host, "old");
    run(&mut host, "shop");
    host.stop_agent();
    let kept = |path: &Path, content: &str| {
        let before = fs::read(path).expect("a file");
        fs::write(path, content).expect("a file");
        let size = du(&host);
        for arguments in [["image", "gc"].as_slice(), &["image", "rm", &name, "--force"]] {
            let reply = host.stead(arguments);
            let path = path.display().to_string();
            assert!(reply.code == 1 && reply.stderr.contains(&path), "{reply:?}");
        }
        assert_eq!(du(&host), size);
        fs::write(path, before).expect("a file");
    };
    kept(&host.root.join("state/projects/shop/project.json"), "{");
    kept(
        &host.root.join("state/projects/shop/good.json"),
        "{\"version\":1}",
    );
    let image = list(&host);
    let shop = image["images"].as_array().expect("images").iter();
    let digest = shop
        .filter(|image| image["name"] != *name)
        .find_map(|image| image["digest"].as_str()?.strip_prefix("sha256:"))
        .expect("a digest");
    kept(&host.root.join("state/images/blobs/sha256").join(digest), "{}");
    assert!(host.stead_ok(&["image", "gc"]).contains(&name));
    host.start_agent();
    host.finish();
}

/// As if it had last been used three hours ago.
fn age(host: &Host, name: &str) {
    let listed = list(host);
    let digest = named(&listed, name).expect("it is here")["digest"]
        .as_str()
        .expect("a digest")
        .to_owned();
    let document = host
        .root
        .join("state/images/blobs/sha256")
        .join(&digest["sha256:".len()..]);
    let records = fs::read_dir(host.root.join("state/records/image")).expect("records");
    let records = records.map(|record| record.expect("a record").path());
    let own = records.filter(|path| fs::read_to_string(path).expect("a record").contains(name));
    let files: Vec<String> = own
        .chain([document])
        .map(|path| path.display().to_string())
        .collect();
    assert_eq!(files.len(), 2, "{files:?}");
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    host.tool("touch", &[["-d", "3 hours ago"].as_slice(), &files].concat());
}

#[test]
fn a_full_disk_costs_the_images_that_nobody_uses() {
    let Some(mut host) = Host::new("image-room") else {
        return;
    };
    host.start_agent();
    let [shop, old, young] = ["shop", "old", "young"].map(|project| run(&mut host, project));
    gone(&host, "old");
    gone(&host, "young");
    for name in [&shop, &old] {
        age(&host, name);
    }
    host.stop_agent();
    // Fuller than that every disk is.
    host.arguments = vec!["--image-gc-high", "0", "--image-gc-low", "0"];
    host.start_agent();
    let before = host.running("shop", "box").identity();
    let blog = run(&mut host, "blog");
    host.wait("the old one is gone", PATIENCE, || {
        named(&list(&host), &old).is_none().then_some(())
    });
    let listed = list(&host);
    for name in [&shop, &blog, &young] {
        assert!(named(&listed, name).is_some(), "{name}: {listed}");
    }
    assert_eq!(host.running("shop", "box").identity(), before);
    let told = fs::read_to_string(host.root.join("state/journal.jsonl")).expect("the journal");
    let told = told
        .lines()
        .find(|line| line.contains(&old) && line.contains("removed, because"));
    assert!(told.is_some_and(|line| line.contains("3 hours ago")), "{told:?}");
    let refused = host.stead(&["agent", "--image-gc-high", "50"]);
    assert!(
        refused.code == 64 && refused.stderr.contains("--image-gc-low"),
        "{refused:?}"
    );
    host.finish();
}

/// `NAME DIGEST` of a line that says so.
fn told(text: &str) -> (String, String) {
    let mut words = text
        .lines()
        .next()
        .expect("a line")
        .split(' ')
        .skip(1)
        .map(str::to_owned);
    (words.next().expect("a name"), words.next().expect("a digest"))
}
