//! SEC-26 and SEC-27: what an image says of itself binds no name and moves nothing.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reconciler::observed::ImageConfig;

use super::*;

/// References that a store has bound, by their records, whenever that was.
fn bound(root: &Path) -> Vec<(String, Value)> {
    let records = fs::read_dir(root.join("state/records/image"))
        .into_iter()
        .flatten()
        .flatten();
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let records = records.map(|entry| read(&entry.path()));
    records
        .map(|mut record| {
            record["body"].as_object_mut().unwrap().remove("asked");
            (record["key"].as_str().unwrap().to_owned(), record["body"].clone())
        })
        .collect()
}

/// What tools write at an image to say which name it has, or how it is to be run.
fn claims(name: &str) -> Value {
    json!({
        "org.opencontainers.image.ref.name": name,
        "io.containerd.image.name": name,
        "com.docker.official-images.bashbrew.arch": name,
        "containerd.io/distribution.source.docker.io": "library/nginx",
        "org.opencontainers.image.base.name": name,
    })
}

#[test]
fn sec_26_tag_poison_only_a_name_that_was_pulled_is_bound_and_only_by_a_pull_that_was_completed() {
    let other = "docker.io/library/nginx:latest";
    let layers = [layer("a", 100), layer("b", 100)];
    let claim = |it: &mut Value| it["annotations"] = claims(other);
    let (shelf, digest) = edited(
        &layers,
        |config| config["config"]["Labels"] = claims(other),
        |manifest| {
            claim(manifest);
            claim(&mut manifest["config"]);
            claim(&mut manifest["layers"][0]);
        },
        |index| {
            claim(index);
            claim(&mut index["manifests"][1]);
            index["subject"] = index["manifests"][1].clone();
        },
    );
    let reference = Digest::of(&shelf["app/manifests/1"]);
    let cut = format!("app/blobs/{}", Digest::of(&layers[1]));
    for whole in [false, true] {
        let mut shelf = shelf.clone();
        if !whole {
            shelf.remove(&cut);
        }
        let server = registry(shelf);
        let (root, store, name) = store(&server);
        assert_eq!(store.resolve(&name).unwrap().digest, digest.to_string());
        assert_eq!(bound(root.path()), [], "it was only asked about");
        let pulled = store.unpack(&name, &digest.to_string());
        assert_eq!(pulled.is_ok(), whole);
        let body = json!({ "digest": digest.to_string(), "manifest": reference.to_string() });
        let expected = if whole { vec![(name.clone(), body)] } else { vec![] };
        assert_eq!(bound(root.path()), expected);
        // Other names of the same image are other names.
        for stranger in [name.replace(":1", ":2"), name.replace("app", "nginx")] {
            assert!(store.resolve(&stranger).is_err(), "{stranger}");
        }
    }
}

#[test]
fn sec_26_tag_poison_an_image_of_a_file_is_not_one_of_a_registry() {
    let server = registry(Shelf::new());
    let (root, store, name) = store(&server);
    let layout = root.path().join("layout");
    let files = [vec![testing::File::new("a", 0o644, "a")]];
    let digest = testing::oci(&layout, &files, &json!({})).unwrap();
    let index = fs::read_to_string(layout.join("index.json")).unwrap();
    let mut index: Value = serde_json::from_str(&index).unwrap();
    index["manifests"][0]["annotations"] = claims(&name);
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let reference = format!("oci:{}", layout.display());
    store.resolve(&reference).unwrap();
    store.unpack(&reference, &digest).unwrap();
    let names: Vec<String> = bound(root.path()).into_iter().map(|(key, _)| key).collect();
    assert_eq!(names, [reference]);
    assert!(store.resolve(&name).is_err(), "the registry has no such image");
}

/// Labels of every tool that acts on them, and very many.
fn labels() -> Value {
    let mut labels: BTreeMap<String, String> = (0..10_000)
        .map(|n| (format!("label.{n}"), "x".repeat(20)))
        .collect();
    for (key, value) in [
        ("com.docker.compose.project", "other"),
        ("com.docker.compose.service", "web"),
        ("com.docker.compose.oneoff", "True"),
        ("com.docker.compose.config-hash", "0"),
        ("stead", "evil"),
        ("stead.project", "other"),
        ("x-stead", "{}"),
        ("x-stead-source", "/etc"),
        ("containerd.io/restart.status", "running"),
        (
            "containerd.io/restart.loguri",
            "binary:///bin/sh?-c=touch%20/evil",
        ),
        ("io.containerd.image-verifier", "binary:///bin/true"),
        ("io.kubernetes.cri-o.userns-mode", "host"),
        ("io.podman.annotations.privileged", "TRUE"),
        ("io.podman.annotations.seccomp", "unconfined"),
        ("cdi.k8s.io/devices", "vendor.com/device=all"),
        ("run.oci.keep_original_groups", "1"),
        ("org.opencontainers.image.stopSignal", "SIGKILL"),
    ] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    json!(labels)
}

#[test]
fn sec_27_labels_inert_an_image_with_ten_thousand_labels_is_the_one_without_them() {
    let layers = [layer("a", 100)];
    let full = |config: &mut Value| {
        config["config"] = json!({
            "Cmd": ["/run"], "User": "7", "Env": ["A=b"], "WorkingDir": "/w", "StopSignal": "SIGINT",
            "Volumes": { "/v": {} }, "Healthcheck": { "Test": ["CMD", "/h"], "Interval": 1_000_000 },
        });
    };
    let (plain, plain_digest) = edited(&layers, full, |_| {}, |_| {});
    let labelled = |config: &mut Value| {
        full(config);
        config["config"]["Labels"] = labels();
        config["annotations"] = labels();
    };
    let annotated = |it: &mut Value| it["annotations"] = labels();
    let (labelled, digest) = edited(&layers, labelled, annotated, annotated);
    let pulled = |shelf: Shelf, digest: &Digest| {
        let server = registry(shelf);
        let (root, store, name) = store(&server);
        let offered = store.resolve(&name).unwrap();
        store.unpack(&name, &digest.to_string()).unwrap();
        let image = store.resolve(&name).unwrap();
        assert_eq!((&offered.config, &offered.digest), (&image.config, &image.digest));
        let below = |path: PathBuf| path.strip_prefix(root.path()).unwrap().to_owned();
        let layers = store.layers(&image.digest).unwrap().into_iter().map(below);
        (image.config, layers.collect::<Vec<_>>())
    };
    assert_ne!(digest, plain_digest);
    let (config, _) = pulled(plain.clone(), &plain_digest);
    assert_ne!(config, ImageConfig::default());
    assert_eq!(pulled(labelled, &digest), pulled(plain, &plain_digest));
}

proptest! {
    /// The plan sees an image's digest and what it runs by default, and nothing else of it.
    #[test]
    fn sec_27_labels_inert_no_label_changes_what_is_run(
        labels in prop::collection::btree_map(".{0,40}", ".{0,40}", 0..20),
        strange in prop::collection::btree_map("[a-z.]{1,20}", ".{0,20}", 0..5),
    ) {
        let plain = json!({
            "os": "linux", "architecture": architecture(), "rootfs": { "diff_ids": [] },
            "config": { "Cmd": ["/run"], "Env": ["A=b"] },
        });
        let mut labelled = plain.clone();
        labelled["config"]["Labels"] = json!(labels);
        labelled["annotations"] = json!(labels);
        for (key, value) in strange {
            // What it is itself counts, of course.
            if !["os", "architecture", "rootfs", "config"].contains(&key.as_str()) {
                labelled[&key] = json!(value);
                labelled["config"][&key] = json!(value);
            }
        }
        let runtime = |of: Value| serde_json::from_value::<Configuration>(of).unwrap().runtime();
        prop_assert_eq!(runtime(labelled), runtime(plain));
    }
}
