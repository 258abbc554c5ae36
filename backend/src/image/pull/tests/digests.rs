//! SEC-23: of an image only what has the digest that was asked for is ever unpacked.

use super::*;
use crate::registry::testing::Request;

fn key(kind: &str, bytes: &[u8]) -> String {
    format!("app/{kind}/{}", Digest::of(bytes))
}

/// Everything that a registry lies about, as what it then has, and what is said of it.
fn lies() -> Vec<(&'static str, Shelf, Vec<String>)> {
    let own = layer("a", 100);
    let layers = std::slice::from_ref(&own);
    let digest = Digest::of(&own).to_string();
    let nothing = |_: &mut Value| {};
    let mut lies = Vec::new();
    let mut lie = |case, shelf: Shelf, says: &[&str]| {
        lies.push((case, shelf, says.iter().map(|part| (*part).to_owned()).collect()));
    };
    let (good, config) = image(layers);
    let config_key = format!("app/blobs/{config}");
    let manifest_key = good.keys().find(|key| key.contains("manifests/sha256")).unwrap();
    let manifest = manifest_key.strip_prefix("app/manifests/").unwrap();
    let with = |key: &str, bytes: Vec<u8>| {
        let mut shelf = good.clone();
        shelf.insert(key.to_owned(), bytes);
        shelf
    };
    let other = layer("b", 100);
    let found = Digest::of(&other).to_string();
    let layer_key = key("blobs", &own);
    lie(
        "another layer",
        with(&layer_key, other.clone()),
        &["twice", &digest, &found],
    );
    lie(
        "a longer layer",
        with(&layer_key, [&own[..], b"more"].concat()),
        &[&digest, "bytes, not"],
    );
    lie(
        "a layer that is cut",
        with(&layer_key, own[..1000].to_vec()),
        &[&digest, "1000 bytes, not"],
    );
    let cut = good[&config_key][1..].to_vec();
    let found = Digest::of(&cut).to_string();
    lie(
        "another configuration",
        with(&config_key, cut),
        &["its configuration", &config.to_string(), &found],
    );
    let cut = good[manifest_key][1..].to_vec();
    let found = Digest::of(&cut).to_string();
    lie("another manifest", with(manifest_key, cut), &[manifest, &found]);
    let old = br#"{"schemaVersion":1,"fsLayers":[],"history":[],"signatures":[]}"#;
    lie(
        "of the first schema",
        with("app/manifests/1", old.to_vec()),
        &["neither an index nor"],
    );
    lie("no JSON", with("app/manifests/1", b"{".to_vec()), &["malformed"]);

    let size = |change: i64| {
        let sized = |it: &mut Value| {
            let size = it["layers"][0]["size"].as_i64().unwrap();
            it["layers"][0]["size"] = json!(size + change);
        };
        edited(layers, nothing, sized, nothing).0
    };
    lie("the size of a layer is larger", size(1), &[&digest, "bytes, not"]);
    lie(
        "the size of a layer is smaller",
        size(-1),
        &[&digest, "bytes, not"],
    );
    let index = |change: &dyn Fn(&mut Value)| edited(layers, nothing, nothing, change).0;
    lie(
        "the size of a manifest",
        index(&|it| it["manifests"][1]["size"] = json!(1)),
        &["should have 1 bytes"],
    );
    let both = edited(layers, nothing, |it| it["manifests"] = json!([]), nothing).0;
    lie("a manifest that is an index", both, &["neither an index nor"]);
    lie(
        "an index that is a manifest",
        index(&|it| it["layers"] = json!([])),
        &["neither an index nor"],
    );
    let wrong =
        index(&|it| it["manifests"][1]["mediaType"] = json!("application/vnd.oci.image.index.v1+json"));
    lie(
        "the index calls a manifest an index",
        wrong,
        &["called", "but is not"],
    );
    let named = index(&|it| it["mediaType"] = json!("application/vnd.oci.image.manifest.v1+json"));
    lie(
        "an index calls itself a manifest",
        named,
        &["called", "but is not"],
    );

    let of_layer = |digest: String| {
        edited(
            layers,
            nothing,
            |it| it["layers"][0]["digest"] = json!(digest),
            nothing,
        )
        .0
    };
    let upper = format!("sha256:{}", Digest::of(&own).hex().to_uppercase());
    for (case, digest) in [
        ("upper case", upper),
        ("another algorithm", format!("sha512:{}", "0".repeat(128))),
        ("63 digits", digest[..digest.len() - 1].to_owned()),
        ("a path", "sha256:../../../../etc/passwd".to_owned()),
        ("nothing", String::new()),
    ] {
        lie(case, of_layer(digest), &["no sha256 digest"]);
    }
    let diff_id = |digest: String| {
        let wrong = |it: &mut Value| it["rootfs"]["diff_ids"][0] = json!(digest);
        edited(layers, wrong, nothing, nothing).0
    };
    lie(
        "63 digits unpacked",
        diff_id(digest[..70].to_owned()),
        &["no sha256 digest"],
    );
    let zeros = format!("sha256:{}", "0".repeat(64));
    lie(
        "another digest unpacked",
        diff_id(zeros.clone()),
        &[&zeros, &digest],
    );
    let same = |it: &mut Value| it["layers"][0] = it["config"].clone();
    lie(
        "the configuration as a layer",
        edited(layers, nothing, same, nothing).0,
        &["cannot be unpacked"],
    );
    let twice = |it: &mut Value| it["layers"] = json!([it["layers"][0], it["layers"][0]]);
    let two = |it: &mut Value| it["rootfs"]["diff_ids"] = json!([digest, zeros]);
    lie(
        "one layer of two contents",
        edited(layers, two, twice, nothing).0,
        &["said to be two"],
    );

    lie(
        "no manifest of ours",
        index(&|it| drop(it["manifests"].as_array_mut().unwrap().pop())),
        &["no image for"],
    );
    let none = edited(layers, nothing, |it| it["layers"] = json!([]), nothing).0;
    lie("no layers", none, &["0 layers"]);
    let large = edited(
        layers,
        nothing,
        |it| it["config"]["size"] = json!(9_000_000),
        nothing,
    )
    .0;
    lie("a large configuration", large, &["more than"]);
    for kind in [
        "docker.image.rootfs.foreign.diff.tar.gzip",
        "oci.image.layer.nondistributable.v1.tar",
    ] {
        let elsewhere = |it: &mut Value| {
            it["layers"][0]["mediaType"] = json!(format!("application/vnd.{kind}"));
            it["layers"][0]["urls"] = json!(["http://127.0.0.1:1/layer"]);
        };
        lie(
            kind,
            edited(layers, nothing, elsewhere, nothing).0,
            &["elsewhere only"],
        );
    }
    lies
}

fn everything_below(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[test]
fn sec_23_digest_only_what_has_the_digest_that_was_asked_for_is_unpacked() {
    std::thread::scope(|scope| {
        // Each by itself: those that are asked for again are waited for.
        for (case, shelf, says) in lies() {
            scope.spawn(move || {
                let server = registry(shelf);
                let (root, store, name) = store(&server);
                let pulled = store
                    .resolve(&name)
                    .and_then(|image| store.unpack(&name, &image.digest));
                let told = text(&pulled.expect_err(case));
                for part in says.iter().chain([&name]) {
                    assert!(told.contains(part), "{case}: {part}: {told}");
                }
                let images = root.path().join("state/images");
                assert_eq!(everything_below(&images.join("layers")), [""; 0], "{case}");
                assert!(!images.join("blobs").exists(), "{case}");
                assert!(!root.path().join("state/records").exists(), "{case}");
                let left = everything_below(&images.join("pull"));
                let lengths = left
                    .iter()
                    .map(|part| fs::metadata(images.join("pull").join(part)).unwrap().len());
                assert!(lengths.sum::<u64>() < 10_000, "{case}: {left:?}");
            });
        }
    });
}

#[test]
fn sec_23_digest_what_a_registry_says_of_a_manifest_must_be_so() {
    let nothing = |_: &mut Value| {};
    let named = |it: &mut Value| it["mediaType"] = json!("text/plain");
    let layers = [layer("a", 100)];
    let (shelf, (named, _)) = (image(&layers).0, edited(&layers, nothing, nothing, named));
    let lie = Digest::of(b"other").to_string();
    let index = Digest::of(&shelf["app/manifests/1"]).to_string();
    let oci = "application/vnd.oci.image.manifest.v1+json";
    for (shelf, header, value, says) in [
        (
            &shelf,
            "Docker-Content-Digest",
            lie.as_str(),
            vec![lie.as_str(), &index],
        ),
        (&shelf, "Content-Type", oci, vec![oci, "but is not"]),
        (
            &named,
            "Content-Type",
            "a/b; c=d",
            vec!["a/b", "calls itself text/plain"],
        ),
    ] {
        let (shelf, value) = (shelf.clone(), value.to_owned());
        let server = Server::answering(move |asked| match asked.target.ends_with("manifests/1") {
            true => answer(200, &[(header, &value)], found(&shelf, asked).unwrap()),
            false => shelved(&shelf, asked),
        });
        let (_root, store, name) = store(&server);
        let told = text(&store.resolve(&name).unwrap_err());
        assert!(says.iter().all(|part| told.contains(part)), "{told}");
    }
}

#[test]
fn sec_23_digest_a_name_with_a_digest_is_that_whatever_its_tag_stands_for() {
    let (mut shelf, digest) = image(&[layer("a", 10)]);
    let (moved, _) = image(&[layer("b", 10)]);
    let wanted = Digest::of(&shelf["app/manifests/1"]);
    let index = shelf
        .insert("app/manifests/1".into(), moved["app/manifests/1"].clone())
        .unwrap();
    shelf.insert(format!("app/manifests/{wanted}"), index);
    shelf.extend(moved.into_iter().filter(|(key, _)| key != "app/manifests/1"));
    let server = registry(shelf);
    let (_root, store, name) = store(&server);
    let name = format!("{name}@{wanted}");
    assert_eq!(store.resolve(&name).unwrap().digest, digest.to_string());
    store.unpack(&name, &digest.to_string()).unwrap();
    let of_tag = |asked: &Request| asked.target.ends_with("manifests/1");
    assert!(
        !server.requests().iter().any(of_tag),
        "the tag is not even asked for"
    );
}

#[test]
fn sec_23_digest_a_name_with_what_is_no_digest_is_no_name() {
    let server = registry(Shelf::new());
    let (_root, store, name) = store(&server);
    let hex = "0".repeat(64);
    for digest in [
        format!("sha256:{}", "A".repeat(64)),
        format!("sha256:{}", &hex[1..]),
        format!("SHA256:{hex}"),
        format!("sha512:{hex}{hex}"),
        format!("md5:{}", &hex[..32]),
        hex.clone(),
    ] {
        let told = text(&store.resolve(&format!("{name}@{digest}")).unwrap_err());
        assert!(told.contains("is no digest"), "{digest}: {told}");
    }
    assert!(server.requests().is_empty());
}
