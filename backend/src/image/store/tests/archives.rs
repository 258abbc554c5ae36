//! Archives of several images, whole archives that are compressed, and what comes out of the store again.

use super::*;
use crate::image::{store::Checked, testing::gzip};

/// The layouts at `from` as one at `to`, with what their manifests are annotated with.
fn merged(place: &Place, from: &[(&str, Value)], to: &str) -> PathBuf {
    let target = place.path(to);
    fs::create_dir_all(target.join("blobs/sha256")).unwrap();
    let mut manifests = Vec::new();
    for (name, annotations) in from {
        let index = read_json(&place.path(name).join("index.json"));
        let mut manifest = index["manifests"][0].clone();
        manifest["annotations"] = annotations.clone();
        manifests.push(manifest);
        for blob in fs::read_dir(place.path(name).join("blobs/sha256")).unwrap() {
            let blob = blob.unwrap();
            fs::copy(blob.path(), target.join("blobs/sha256").join(blob.file_name())).unwrap();
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": manifests });
    fs::write(target.join("index.json"), index.to_string()).unwrap();
    target
}

fn two(place: &Place) -> [String; 2] {
    ["one", "two"].map(|name| {
        let layer = vec![Member::new(name, 0o644, name)];
        oci(&place.path(name), &[layer], &json!({ "Cmd": [name] })).unwrap()
    })
}

fn names(moved: &[Moved]) -> Vec<(&str, &str)> {
    let mut names: Vec<_> = moved
        .iter()
        .map(|one| (one.name.as_str(), one.now.as_str()))
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn every_image_of_an_archive_is_loaded_under_the_names_it_tells() {
    let place = Place::new();
    let [one, two] = two(&place);
    let full = "org.opencontainers.image.ref.name";
    let from = [
        ("one", json!({ full: "localhost:5000/team/one:1" })),
        (
            "two",
            json!({ full: "2", "io.containerd.image.name": "docker.io/library/two:2" }),
        ),
        // Provenance of another one is no image.
        (
            "two",
            json!({ full: "x/y:1", "vnd.docker.reference.type": "attestation-manifest" }),
        ),
    ];
    let layout = merged(&place, &from, "both");
    let loaded = place.store.load(&layout, None).unwrap();
    let expected = [
        ("docker.io/library/two:2", two.as_str()),
        ("localhost:5000/team/one:1", one.as_str()),
    ];
    assert_eq!(names(&loaded), expected);
    for (name, digest) in expected {
        let image = place.store.resolve(name).unwrap();
        assert_eq!(
            (image.digest.as_str(), image.unpacked),
            (digest, true),
            "no registry is asked"
        );
    }
    // One name does not fit two images; and a mere tag is none.
    let name = "some:1".parse().unwrap();
    let error = place.store.load(&layout, Some(&name)).unwrap_err().to_string();
    assert!(error.contains("2 images") && error.contains("two:2"), "{error}");
    let unnamed = merged(&place, &[("one", json!({ full: "latest" }))], "unnamed");
    let error = place.store.load(&unnamed, None).unwrap_err().to_string();
    assert!(error.contains("-i FILE NAME"), "{error}");
    let moved = place
        .store
        .load(&unnamed, Some(&"two:2".parse().unwrap()))
        .unwrap();
    assert_eq!(moved[0].before.as_ref(), Some(&two), "the name has moved");
}

#[test]
fn an_archive_for_another_machine_only_is_refused() {
    let place = Place::new();
    two(&place);
    let layout = merged(&place, &[("one", json!({}))], "other");
    let mut index = read_json(&layout.join("index.json"));
    index["manifests"][0]["platform"] = json!({ "os": "linux", "architecture": "mips" });
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let error = place.store.load(&layout, None).unwrap_err().to_string();
    assert!(error.contains("no image for linux/"), "{error}");
}

#[test]
fn what_is_compressed_as_a_whole_is_bounded() {
    let limits = Limits {
        unpacked: 10_000,
        ..Limits::default()
    };
    let place = Place::with_limits(limits);
    let digest = place.small("image");
    place.archive("image", "image.tar");
    let tar = fs::read(place.path("image.tar")).unwrap();
    fs::write(place.path("image.tar.gz"), gzip(&tar).unwrap()).unwrap();
    let name = "small:1".parse().unwrap();
    let loaded = place
        .store
        .load(&place.path("image.tar.gz"), Some(&name))
        .unwrap();
    assert_eq!(loaded[0].now, digest);
    fs::write(place.path("bomb.gz"), gzip(&vec![0; 40_001]).unwrap()).unwrap();
    let error = place.store.load(&place.path("bomb.gz"), Some(&name)).unwrap_err();
    assert!(error.to_string().contains("more than 40000 bytes"), "{error}");
    assert_eq!(fs::read_dir(place.path("state/images/pull")).unwrap().count(), 0);
}

#[test]
fn what_is_saved_is_what_was_loaded() {
    let place = Place::new();
    let digest = place.small("image");
    let name = "small:1".parse().unwrap();
    place.store.load(&place.path("image"), Some(&name)).unwrap();
    let saved = |store: &Store| {
        let survey = store.survey().unwrap();
        let mut out = Vec::new();
        let saved = store.save(&[survey.find("small:1").unwrap()], &mut out);
        saved.map(|()| out)
    };
    let archive = saved(&place.store).unwrap();
    let other = Place::new();
    fs::write(other.path("saved.tar"), &archive).unwrap();
    let loaded = other.store.load(&other.path("saved.tar"), None).unwrap();
    assert_eq!(names(&loaded), [("docker.io/library/small:1", digest.as_str())]);
    assert_eq!(saved(&other.store).unwrap(), archive, "byte by byte");
    // Never what it was not: a damaged layer is not saved.
    let layer = other.store.layers(&digest).unwrap().swap_remove(0);
    fs::write(layer.join("a"), "b").unwrap();
    let error = saved(&other.store).unwrap_err();
    assert!(matches!(error, ImageError::Recipe { .. }), "{error}");
}

#[test]
fn damage_is_found_wherever_it_is_and_repaired() {
    /// With the directory and the recipe of a layer, and what is told of it.
    type Damage = (&'static str, fn(&Path, &Path), &'static str);
    let damages: [Damage; 5] = [
        (
            "content",
            |layer, _| fs::write(layer.join("file"), "other").unwrap(),
            "file",
        ),
        (
            "mode",
            |layer, _| fs::set_permissions(layer.join("file"), fs::Permissions::from_mode(0o777)).unwrap(),
            "file",
        ),
        (
            "a file too many",
            |layer, _| fs::write(layer.join("more"), "").unwrap(),
            "more",
        ),
        (
            "the whole layer",
            |layer, _| fs::remove_dir_all(layer).unwrap(),
            "missing",
        ),
        (
            "its recipe",
            |_, recipe| fs::remove_file(recipe).unwrap(),
            "no recipe",
        ),
    ];
    for (case, damage, told) in damages {
        let place = Place::new();
        let files = vec![
            Member::new("file", 0o644, "content"),
            Member::hard_link("link", "file"),
        ];
        let digest = oci(&place.path("image"), &[files], &json!({})).unwrap();
        let reference = place.reference("oci", "image");
        place.store.unpack(&reference, &digest).unwrap();
        let survey = place.store.survey().unwrap();
        let image = survey.find(&reference).unwrap();
        let verify = || place.store.verify(image, &mut Checked::default()).unwrap();
        assert_eq!(verify(), [], "{case}");
        let layer = place.store.layers(&digest).unwrap().swap_remove(0);
        let recipe = place
            .path("state/images/recipes")
            .join(layer.file_name().unwrap());
        damage(&layer, &recipe);
        let faults = verify();
        let found = |fault: &Fault| {
            fault.what.contains(told) || fault.path.as_ref().is_some_and(|path| path == Path::new(told))
        };
        assert!(faults.iter().any(found), "{case}: {faults:?}");
        let layers = faults.into_iter().filter_map(|fault| fault.layer).collect();
        let repaired = place
            .store
            .repair(image, &layers, &BTreeSet::new(), None)
            .unwrap();
        assert_eq!((repaired.layers.len(), repaired.held.len()), (1, 0), "{case}");
        assert_eq!(verify(), [], "{case}");
        assert_eq!(place.stored_layers().len(), 1, "{case}");
        // Where its source is gone, what is damaged stays as it is.
        fs::write(layer.join("file"), "other").unwrap();
        fs::remove_dir_all(place.path("image")).unwrap();
        assert!(
            place
                .store
                .repair(image, &layers, &BTreeSet::new(), None)
                .is_err(),
            "{case}"
        );
        assert_eq!(fs::read_to_string(layer.join("file")).unwrap(), "other", "{case}");
    }
}

#[test]
fn what_something_stands_on_is_set_aside() {
    let place = Place::new();
    let digest = place.small("image");
    let reference = place.reference("oci", "image");
    place.store.unpack(&reference, &digest).unwrap();
    let layer = place.store.layers(&digest).unwrap().swap_remove(0);
    let metadata = fs::metadata(&layer).unwrap();
    let ground = BTreeSet::from([(metadata.dev(), metadata.ino())]);
    fs::write(layer.join("a"), "damaged").unwrap();
    let open = fs::File::open(layer.join("a")).unwrap();
    let survey = place.store.survey().unwrap();
    let image = survey.find(&reference).unwrap();
    let faults = place.store.verify(image, &mut Checked::default()).unwrap();
    let layers = faults.into_iter().filter_map(|fault| fault.layer).collect();
    let repaired = place.store.repair(image, &layers, &ground, None).unwrap();
    assert_eq!(repaired.held, ground);
    assert_eq!(fs::read_to_string(layer.join("a")).unwrap(), "a");
    assert_eq!(open.metadata().unwrap().nlink(), 1, "the old one is there still");
    // It goes with the next collection, once nothing stands on it.
    for (grounds, left) in [(ground, 1), (BTreeSet::new(), 0)] {
        let used = Use {
            grounds,
            names: BTreeMap::from([(reference.clone(), BTreeSet::from(["shop".to_owned()]))]),
            ..Use::default()
        };
        let survey = place.store.survey().unwrap();
        let selected = select(&survey, &used, What::Unused, std::time::SystemTime::now()).unwrap();
        place
            .store
            .collect(place.store.hold(Duration::from_secs(10)).unwrap(), &selected)
            .unwrap();
        assert_eq!(open.metadata().unwrap().nlink(), left);
    }
    assert_eq!(place.stored_layers().len(), 1);
}
