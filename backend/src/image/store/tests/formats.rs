//! Every transport and compression, and files that are none of them.

use tar::{Builder, EntryType};

use super::*;
use crate::image::testing::{gzip, layer as tar_of, oci_of};

#[test]
fn layers_come_plain_gzipped_or_zstandard() {
    let tar = tar_of(&[Member::new("a", 0o644, "content")]).unwrap();
    let zstd = ruzstd::encoding::compress_to_vec(tar.as_slice(), ruzstd::encoding::CompressionLevel::Fastest);
    // As zstd:chunked writes them: several frames, and one to skip.
    let half = tar.len() / 2;
    let frame =
        |part: &[u8]| ruzstd::encoding::compress_to_vec(part, ruzstd::encoding::CompressionLevel::Fastest);
    let skip = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3].to_vec();
    let chunked = [frame(&tar[..half]), skip, frame(&tar[half..])].concat();
    let members = [gzip(&tar[..half]).unwrap(), gzip(&tar[half..]).unwrap()].concat();
    for (case, bytes) in [
        ("plain", tar.clone()),
        ("zstd", zstd),
        ("chunked", chunked),
        ("gzip members", members),
    ] {
        let place = Place::new();
        let diff_id = Digest::of(&tar).to_string();
        let config = json!({"rootfs": {"diff_ids": [diff_id]}}).to_string();
        let layer = Digest::of(&bytes);
        let digest = Digest::of(config.as_bytes());
        let dir = place.path("image");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join(layer.hex()), &bytes).unwrap();
        fs::write(dir.join(digest.hex()), &config).unwrap();
        let manifest = json!({
            "config": {"digest": digest.to_string(), "size": config.len()},
            // The media type is not what decides.
            "layers": [{"mediaType": "text/plain", "digest": layer.to_string(), "size": bytes.len()}],
        });
        fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
        let reference = place.reference("dir", "image");
        place
            .store
            .unpack(&reference, &digest.to_string())
            .unwrap_or_else(|error| panic!("{case}: {error}"));
        let layers = place.store.layers(&digest.to_string()).unwrap();
        assert_eq!(
            fs::read_to_string(layers[0].join("a")).unwrap(),
            "content",
            "{case}"
        );
    }
}

#[test]
fn docker_archives_old_and_new_are_read() {
    let tar = tar_of(&[Member::new("a", 0o644, "content")]).unwrap();
    let config =
        json!({"rootfs": {"diff_ids": [Digest::of(&tar).to_string(), Digest::of(&tar).to_string()]}})
            .to_string();
    let hex = Digest::of(config.as_bytes()).hex().to_owned();
    let blob = format!("blobs/sha256/{}", Digest::of(&tar).hex());
    let old = vec![
        Member::new("x/layer.tar", 0o644, tar.clone()),
        Member::symlink("y/layer.tar", "../x/layer.tar"),
        Member::new(&format!("{hex}.json"), 0o644, config.clone()),
        Member::new(
            "manifest.json",
            0o644,
            json!([{"Config": format!("{hex}.json"), "RepoTags": ["busybox:1"], "Layers": ["x/layer.tar", "y/layer.tar"]}]).to_string(),
        ),
    ];
    // Names longer than a v7 header holds.
    let mut new = Builder::new(Vec::new());
    let config_path = format!("blobs/sha256/{hex}");
    let manifest =
        json!([{"Config": config_path, "RepoTags": ["busybox:1"], "Layers": [blob, blob]}]).to_string();
    for (name, content) in [
        (&blob, tar.as_slice()),
        (&config_path, config.as_bytes()),
        (&"manifest.json".to_owned(), manifest.as_bytes()),
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_entry_type(EntryType::Regular);
        new.append_data(&mut header, name, content).unwrap();
    }
    for (case, bytes) in [("old", tar_of(&old).unwrap()), ("new", new.into_inner().unwrap())] {
        let place = Place::new();
        fs::write(place.path("saved.tar"), bytes).unwrap();
        for name in ["", ":busybox:1", ":docker.io/library/busybox:1"] {
            let reference = place.reference("docker-archive", &format!("saved.tar{name}"));
            let image = place
                .store
                .resolve(&reference)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            place.store.unpack(&reference, &image.digest).unwrap();
            assert_eq!(place.store.layers(&image.digest).unwrap().len(), 1, "{case}");
        }
        let error = place
            .store
            .resolve(&place.reference("docker-archive", "saved.tar:alpine"))
            .unwrap_err();
        assert!(error.to_string().contains("only: busybox:1"), "{case}: {error}");
    }
}

#[test]
fn an_index_gives_the_image_of_this_host_and_of_the_tag() {
    let place = Place::new();
    let dir = place.path("image");
    let tar = |text: &str| tar_of(&[Member::new("a", 0o644, text)]).unwrap();
    let mut entries = Vec::new();
    for (tag, architecture) in [
        ("one", "vax"),
        ("one", crate::image::config::architecture()),
        ("two", ""),
    ] {
        let digest = oci_of(&dir, &[tar(&format!("{tag} {architecture}"))], &json!({})).unwrap();
        let mut entry = read_json(&dir.join("index.json"))["manifests"][0].clone();
        entry["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        if !architecture.is_empty() {
            entry["platform"] = json!({"os": "linux", "architecture": architecture});
        }
        entries.push((entry, digest));
    }
    let index = json!({"manifests": entries.iter().map(|(entry, _)| entry).collect::<Vec<_>>()});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
    let resolve = |tag: &str| {
        place
            .store
            .resolve(&place.reference("oci", &format!("image{tag}")))
    };
    assert_eq!(resolve(":one").unwrap().digest, entries[1].1);
    assert_eq!(resolve(":two").unwrap().digest, entries[2].1);
    for (tag, says) in [("", "several images"), (":three", "one, two")] {
        let error = resolve(tag).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn files_that_are_no_images_say_so() {
    let place = Place::new();
    fs::write(place.path("zeros"), vec![0; 10 << 20]).unwrap();
    fs::write(place.path("text"), "hello ".repeat(200)).unwrap();
    fs::write(place.path("gz"), gzip(b"x").unwrap()).unwrap();
    fs::create_dir(place.path("empty")).unwrap();
    fs::create_dir(place.path("bomb")).unwrap();
    fs::write(place.path("bomb/index.json"), "[".repeat(100_000)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        place.path("fifo"),
        rustix::fs::FileType::Fifo,
        0o600.into(),
        0,
    )
    .unwrap();
    fs::create_dir(place.path("pipe")).unwrap();
    fs::rename(place.path("fifo"), place.path("pipe/index.json")).unwrap();
    for (transport, name) in [
        ("oci-archive", "zeros"),
        ("oci-archive", "text"),
        ("docker-archive", "gz"),
        ("docker-archive", "empty"),
        ("oci", "empty"),
        ("oci", "zeros"),
        ("oci", "bomb"),
        ("oci", "pipe"),
        ("rootfs", "zeros"),
        ("rootfs", "missing"),
    ] {
        let reference = place.reference(transport, name);
        let error = place.store.resolve(&reference).expect_err(&reference).to_string();
        assert!(
            error.contains(&reference) || error.contains(place.path(name).to_str().unwrap()),
            "{error}"
        );
    }
}
