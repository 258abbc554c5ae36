//! `image load` and `image save`: from files and to files, with the tools of others on the other side.

use std::fs;

use serde_json::Value;

use super::{list, manifest, told};
use crate::{
    host::{Host, podman::Podman},
    images::{docker_archive, layout, says},
};

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
    says(&host, "shop", "box");
    let rows: Value = serde_json::from_str(&host.stead_ok(&["--json", "ps"])).expect("JSON");
    assert_eq!(rows[0]["image_digest"], *digest);

    // A layout with a mere tag tells no name; one is given. What is no image says so.
    let layout = layout(&host, "layout").display().to_string();
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
    let layout = layout(&host, "layout");
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
    says(&host, "shop", "box");
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
    let layout = layout(&host, "layout");
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
    says(&other, "shop", "box");
    other.finish();
    host.finish();
}

#[test]
fn podman_loads_what_was_saved_and_what_it_saves_is_the_same_image_again() {
    let Some(host) = Host::new("image-podman") else {
        return;
    };
    let archive = host.root.join("box.tar");
    docker_archive(&host, &archive);
    let load = |file: &str| told(&host.stead_ok(&["image", "load", "-i", file]));
    let loaded = load(&archive.display().to_string());
    let (name, digest) = &loaded;
    let podman = Podman::new(&host);
    let saved = podman.path("saved.tar");
    host.stead_ok(&["image", "save", "-o", &saved, "box:1"]);
    podman.run(&["load", "--quiet", "--input", &saved]);
    // As podman writes it, without the algorithm.
    let id = podman.run(&["image", "inspect", "--format", "{{.Id}}", name]);
    assert_eq!(format!("sha256:{}", id.trim()), *digest);
    for format in ["oci-archive", "docker-archive"] {
        let again = podman.path(format);
        podman.run(&["save", "--quiet", "--format", format, "--output", &again, name]);
        // Nothing of it is here, so that all of it is podman's.
        host.stead_ok(&["image", "rm", "box:1"]);
        assert_eq!(list(&host)["images"].as_array().map(Vec::len), Some(0));
        assert_eq!(load(&again), loaded, "{format}");
        assert_eq!(host.stead_ok(&["image", "verify"]), "1 image: all as it was\n");
    }
    host.finish();
}
