//! `image`: what is here is listed, brought, saved, checked and removed, and nothing that is needed ever goes.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::{
    host::{Host, PATIENCE},
    images::{docker_archive, oci_layout},
    registry::{ADDRESS, Registry},
};

/// A project of one service from an OCI layout; the name of its image.
fn run(host: &mut Host, project: &str) -> String {
    let layout = host.directory(project);
    oci_layout(host, &layout);
    let name = format!("oci:{}:one", layout.display());
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

fn says(host: &Host, project: &str) {
    host.wait("it says what its image says", PATIENCE, || {
        let logs = host.stead_ok(&["logs", project, "box"]);
        logs.contains("from-the-image 1000 /etc").then_some(())
    });
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

#[test]
fn an_archive_that_was_loaded_runs_without_a_registry() {
    let Some(mut host) = Host::new("image-load") else {
        return;
    };
    let archive = host.root.join("box.tar");
    docker_archive(&host, &archive);
    let file = archive.display().to_string();
    // No agent is needed.
    let (name, digest) = told(&host.stead_ok(&["image", "load", "-i", &file]));
    assert_eq!(name, "docker.io/library/box:1");
    for (program, name) in [("gzip", "gz"), ("zstd", "zst")] {
        host.tool(program, &["-q", "-k", &file]);
        let loaded = host.stead_ok(&["image", "load", "-i", &format!("{file}.{name}")]);
        assert!(
            loaded.contains(&digest) && loaded.contains("as it was"),
            "{loaded}"
        );
        let root = host.root.display().to_string();
        let piped = format!(
            "cat {file}.{name} | {} --root {root} image load",
            Host::binary().display()
        );
        let piped = host.tool("sh", &["-c", &piped]);
        assert!(piped.contains(&digest), "{piped}");
    }
    let left = fs::read_dir(host.root.join("state/images/pull"))
        .expect("a directory")
        .count();
    assert_eq!(left, 0, "nothing is left of what was decompressed");
    host.start_agent();
    host.change("shop", &manifest("box:1"));
    says(&host, "shop");
    let rows: Value = serde_json::from_str(&host.stead_ok(&["--json", "ps"])).expect("JSON");
    assert_eq!(rows[0]["image_digest"], *digest);

    // A layout with a mere tag tells no name; one is given. What is no image says so.
    let layout = host.directory("layout");
    oci_layout(&host, &layout);
    let layout = layout.display().to_string();
    let refused = host.stead(&["image", "load", "-i", &layout]);
    assert!(
        refused.code == 1 && refused.stderr.contains("-i FILE NAME"),
        "{refused:?}"
    );
    for source in [layout.clone(), format!("oci:{layout}:one")] {
        let (name, other) = told(&host.stead_ok(&["image", "load", "-i", &source, "team/other"]));
        assert_eq!(name, "docker.io/team/other:latest");
        assert_ne!(other, digest);
    }
    let passwd = host.stead(&["image", "load", "-i", "/etc/passwd"]);
    assert!(
        passwd.code == 1 && passwd.stderr.contains("archive"),
        "{passwd:?}"
    );
    let usage = host.stead(&["image", "load", "-i", &file, "Not/A:Name"]);
    assert_eq!(usage.code, 64, "{usage:?}");
    host.finish();
}

#[test]
fn names_that_an_image_tells_of_itself_count_for_nothing_but_a_load() {
    let Some(mut host) = Host::new("image-names") else {
        return;
    };
    let layout = host.directory("layout");
    oci_layout(&host, &layout);
    let index = layout.join("index.json");
    let mut document: Value = serde_json::from_slice(&fs::read(&index).expect("the index")).expect("JSON");
    document["manifests"][0]["annotations"] = serde_json::json!({
        "org.opencontainers.image.ref.name": "docker.io/library/postgres:17",
        "io.containerd.image.name": "docker.io/library/postgres:17",
    });
    fs::write(&index, document.to_string()).expect("the index");
    host.start_agent();
    let name = format!("oci:{}", layout.display());
    host.change("shop", &manifest(&name));
    says(&host, "shop");
    host.stead_ok(&["image", "pull", &name]);
    let listed = list(&host);
    let images = listed["images"].as_array().expect("images");
    assert!(images.len() == 1 && images[0]["name"] == *name, "{listed}");
    // By order it is.
    let (told, _) = told(&host.stead_ok(&["image", "load", "-i", &layout.display().to_string()]));
    assert_eq!(told, "docker.io/library/postgres:17");
    host.finish();
}

/// The digest of the configuration of what skopeo makes of a source.
fn copied(host: &Host, source: &str, to: &str) -> String {
    let directory = host.root.join(to);
    let target = format!("dir:{}", directory.display());
    host.tool(
        "skopeo",
        &["copy", "--insecure-policy", "--quiet", source, &target],
    );
    let manifest = fs::read(directory.join("manifest.json")).expect("a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    manifest["config"]["digest"]
        .as_str()
        .expect("a digest")
        .to_owned()
}

#[test]
fn a_saved_image_is_the_same_image_everywhere() {
    let Some(host) = Host::new("image-save") else {
        return;
    };
    let archive = host.root.join("box.tar");
    docker_archive(&host, &archive);
    let (_, digest) = told(&host.stead_ok(&["image", "load", "-i", &archive.display().to_string()]));
    let layout = host.directory("layout");
    oci_layout(&host, &layout);
    host.stead_ok(&[
        "image",
        "load",
        "-i",
        &layout.display().to_string(),
        "localhost:5000/team/other:2",
    ]);
    let path = |name: &str| host.root.join(name).display().to_string();
    for (out, images) in [
        ("one.tar", ["box:1"].as_slice()),
        ("both.tar", &["box:1", "localhost:5000/team/other:2"]),
    ] {
        let saved = path(out);
        host.stead_ok(&[["image", "save", "-o", &saved].as_slice(), images].concat());
        let root = host.root.display().to_string();
        let again = format!(
            "{} --root {root} image save {} | cmp - {saved}",
            Host::binary().display(),
            images.join(" ")
        );
        host.tool("sh", &["-c", &again]);
        assert_eq!(
            copied(
                &host,
                &format!("docker-archive:{saved}:box:1"),
                &format!("docker-{out}")
            ),
            digest
        );
    }
    assert_eq!(
        copied(&host, &format!("oci-archive:{}", path("one.tar")), "oci"),
        digest
    );
    host.stead_ok(&[
        "image",
        "save",
        "--format",
        "oci-dir",
        "-o",
        &path("saved"),
        "box:1",
    ]);
    assert_eq!(
        copied(&host, &format!("oci:{}", path("saved")), "oci-dir"),
        digest
    );
    let refused = host.stead(&[
        "image",
        "save",
        "--format",
        "oci-dir",
        "-o",
        &path("saved"),
        "box:1",
    ]);
    assert_eq!(refused.code, 1, "what is there is not written over: {refused:?}");

    // On another host, with another stead: the same names, the same image, and the same bytes again.
    let Some(mut other) = Host::new("image-save-other") else {
        return;
    };
    let loaded = other.stead_ok(&["image", "load", "-i", &path("both.tar")]);
    assert!(
        loaded.contains(&format!("docker.io/library/box:1 {digest}")),
        "{loaded}"
    );
    assert!(loaded.contains("localhost:5000/team/other:2"), "{loaded}");
    let again = other.root.join("again.tar").display().to_string();
    other.stead_ok(&[
        "image",
        "save",
        "-o",
        &again,
        "box:1",
        "localhost:5000/team/other:2",
    ]);
    other.tool("cmp", &[&again, &path("both.tar")]);
    other.start_agent();
    other.change("shop", &manifest("box:1"));
    says(&other, "shop");
    other.finish();
    host.finish();
}

#[test]
fn a_pull_asks_anew_and_moves_the_name() {
    let Some(mut host) = Host::new("image-pull") else {
        return;
    };
    let [old, new] = ["old", "new"].map(|name| host.directory(name));
    oci_layout(&host, &old);
    oci_layout(&host, &new);
    let registry = Registry::start(&host, &format!("http: {{ addr: \"{ADDRESS}\" }}\n"));
    fs::write(
        host.root.join("registries.yaml"),
        format!("\"{ADDRESS}\": {{ insecure: true }}\n"),
    )
    .expect("a file");
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
    says(&host, "shop");

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
    drop(registry);
    let failed = host.stead(&["image", "pull", &name]);
    assert!(failed.code == 1 && failed.stderr.contains(&name), "{failed:?}");
    assert_eq!(named(&list(&host), &name).expect("it stays")["digest"], after);
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
    let [layout, pushed] = ["layout", "pushed"].map(|name| host.directory(name));
    oci_layout(&host, &layout);
    oci_layout(&host, &pushed);
    let registry = Registry::start(&host, &format!("http: {{ addr: \"{ADDRESS}\" }}\n"));
    fs::write(
        host.root.join("registries.yaml"),
        format!("\"{ADDRESS}\": {{ insecure: true }}\n"),
    )
    .expect("a file");
    registry.push(&host, &pushed, "team/box:1", &[]);
    let name = format!("{ADDRESS}/team/box:1");
    host.start_agent();
    host.change("shop", &manifest(&name));
    says(&host, "shop");
    assert_eq!(host.stead_ok(&["image", "verify"]), "1 image: as they were\n");
    let before = host.running("shop", "box").identity();

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
        (now.pid.is_some() && now.identity() != before).then_some(())
    });
    host.converged("shop");
    assert_eq!(
        fs::metadata(directory.join("bin/sh")).expect("a shell").len(),
        busybox
    );
    assert_eq!(host.stead_ok(&["image", "verify"]), "1 image: as they were\n");
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
