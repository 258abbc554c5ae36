//! A wrong digest, wherever it is, is refused.

use super::*;
use crate::image::LayerError;

/// Damages the layout in the given directory.
type Damage = fn(&Path);

#[test]
fn a_wrong_digest_at_any_level_is_refused_and_nothing_stays() {
    fn manifest(layout: &Path) -> PathBuf {
        blob(layout, &read_json(&layout.join("index.json"))["manifests"][0])
    }
    /// Same length, other bytes.
    fn flip(path: &Path) {
        let mut bytes = fs::read(path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    /// Writes a document under its true digest, so that only what it says is wrong.
    fn rewrite(layout: &Path, edit: impl Fn(&mut Value, &mut Value)) {
        let mut index = read_json(&layout.join("index.json"));
        let mut manifest = read_json(&manifest(layout));
        let mut config = read_json(&blob(layout, &manifest["config"]));
        edit(&mut manifest, &mut config);
        let put = |document: &Value, descriptor: &mut Value| {
            let bytes = document.to_string().into_bytes();
            let digest = Digest::of(&bytes);
            fs::write(layout.join("blobs/sha256").join(digest.hex()), &bytes).unwrap();
            descriptor["digest"] = json!(digest.to_string());
            descriptor["size"] = json!(bytes.len());
        };
        put(&config, &mut manifest["config"]);
        put(&manifest, &mut index["manifests"][0]);
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
    }
    let cases: [(&str, Damage, &str); 15] = [
        (
            "manifest",
            |dir| flip(&manifest(dir)),
            "its manifest should have the digest",
        ),
        (
            "configuration",
            |dir| flip(&blob(dir, &read_json(&manifest(dir))["config"])),
            "its configuration should have",
        ),
        (
            "layer",
            |dir| flip(&blob(dir, &read_json(&manifest(dir))["layers"][0])),
            "cannot be unpacked",
        ),
        (
            "layer cut",
            |dir| fs::write(blob(dir, &read_json(&manifest(dir))["layers"][0]), "").unwrap(),
            "cannot be unpacked",
        ),
        (
            "diff id",
            |dir| {
                rewrite(dir, |_, config| {
                    config["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", "0".repeat(64)))
                })
            },
            "cannot be unpacked",
        ),
        (
            "size of the manifest",
            |dir| {
                let mut index = read_json(&dir.join("index.json"));
                index["manifests"][0]["size"] = json!(1);
                fs::write(dir.join("index.json"), index.to_string()).unwrap();
            },
            "bytes",
        ),
        (
            "size of a layer",
            |dir| rewrite(dir, |manifest, _| manifest["layers"][0]["size"] = json!(1)),
            "cannot be unpacked",
        ),
        (
            "upper case",
            |dir| {
                rewrite(dir, |manifest, _| {
                    let digest = manifest["layers"][0]["digest"]
                        .as_str()
                        .unwrap()
                        .to_uppercase()
                        .replace("SHA", "sha");
                    manifest["layers"][0]["digest"] = json!(digest);
                })
            },
            "no sha256 digest",
        ),
        (
            "another algorithm",
            |dir| {
                rewrite(dir, |manifest, _| {
                    manifest["layers"][0]["digest"] = json!(format!("sha512:{}", "0".repeat(128)))
                })
            },
            "no sha256 digest",
        ),
        (
            "63 digits",
            |dir| {
                rewrite(dir, |_, config| {
                    config["rootfs"]["diff_ids"][0] = json!(format!("sha256:{}", "0".repeat(63)))
                })
            },
            "no sha256 digest",
        ),
        (
            "path as a digest",
            |dir| {
                rewrite(dir, |manifest, _| {
                    manifest["layers"][0]["digest"] = json!("sha256:../../../etc/passwd")
                })
            },
            "no sha256 digest",
        ),
        (
            "configuration as a layer",
            |dir| {
                rewrite(dir, |manifest, _| {
                    manifest["layers"][0] = manifest["config"].clone()
                })
            },
            "cannot be unpacked",
        ),
        (
            "index and manifest at once",
            |dir| rewrite(dir, |manifest, _| manifest["manifests"] = json!([])),
            "neither",
        ),
        (
            "more layers than diff ids",
            |dir| rewrite(dir, |_, config| config["rootfs"]["diff_ids"] = json!([])),
            "layers",
        ),
        (
            "another architecture",
            |dir| rewrite(dir, |_, config| config["architecture"] = json!("vax")),
            "vax",
        ),
    ];
    for (case, damage, says) in cases {
        let place = Place::new();
        place.small("image");
        damage(&place.path("image"));
        let reference = place.reference("oci", "image");
        let result = place
            .store
            .resolve(&reference)
            .and_then(|image| place.store.unpack(&reference, &image.digest));
        let error = result.expect_err(case);
        assert!(error.to_string().contains(says), "{case}: {error}");
        assert_eq!(place.stored_layers(), [""; 0], "{case}");
        assert!(
            !place.path("state/records").exists() && !place.path("state/images/blobs").exists(),
            "{case}"
        );
    }
}

#[test]
fn both_digests_are_named() {
    let place = Place::new();
    let digest = place.small("image");
    let manifest = read_json(&blob(
        &place.path("image"),
        &read_json(&place.path("image/index.json"))["manifests"][0],
    ));
    let path = blob(&place.path("image"), &manifest["layers"][0]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[12] ^= 1;
    fs::write(&path, &bytes).unwrap();
    match place
        .store
        .unpack(&place.reference("oci", "image"), &digest)
        .unwrap_err()
    {
        ImageError::Layer {
            source: LayerError::Digest { expected, found, .. },
            ..
        } => {
            assert_eq!(json!(expected), manifest["layers"][0]["digest"]);
            assert_eq!(found, Digest::of(&bytes).to_string());
        }
        other => panic!("{other}"),
    }
}
