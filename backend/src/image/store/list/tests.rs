//! Nothing of the store hides from its list, and its sizes are those of the disk.

use std::{
    fs::File as Plain,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::json;

use super::*;
use crate::{
    image::testing::{File, oci},
    layout::Layout,
};

struct Place {
    directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(directory.path())).unwrap();
        Place {
            store: Store::open(&layout),
            directory,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Brings an image in; its name and digest.
    fn bring(&self, name: &str, layers: &[Vec<File>]) -> (String, String) {
        let digest = oci(&self.path(name), layers, &json!({ "Cmd": ["/a"] })).unwrap();
        let reference = format!("oci:{}", self.path(name).display());
        self.store.unpack(&reference, &digest).unwrap();
        (reference, digest)
    }

    fn du(&self) -> u64 {
        let images = self.path("state/images");
        let told = Command::new("du").arg("-sB1").arg(&images).output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        told.split_whitespace().next().unwrap().parse().unwrap()
    }
}

fn base() -> Vec<File> {
    let mut files = vec![
        File::directory("bin/", 0o755),
        File::new("bin/program", 0o755, vec![7; 300_000]),
        File::hard_link("bin/again", "bin/program"),
        File::hard_link("bin/once-more", "bin/program"),
        File::symlink("bin/link", "program"),
    ];
    files.extend((0..50).map(|number| File::new(&format!("bin/empty{number}"), 0o644, "")));
    files
}

#[test]
fn the_total_is_what_the_disk_says() {
    let place = Place::new();
    assert_eq!(place.store.survey().unwrap().total, 0, "there is no store yet");
    let (one, first) = place.bring("one", &[base(), vec![File::new("one", 0o644, vec![1; 50_000])]]);
    let (two, second) = place.bring("two", &[base(), vec![File::new("two", 0o644, vec![2; 70_000])]]);
    // A hole takes no room.
    let digest = Digest::parse(&first).unwrap();
    let (_, layers) = place.store.stored_config(&digest).unwrap();
    let sparse = Plain::create(place.store.layer(&layers[1]).join("sparse")).unwrap();
    sparse.set_len(1 << 30).unwrap();
    Plain::open(place.path("state/images"))
        .unwrap()
        .sync_all()
        .unwrap();
    rustix::fs::syncfs(&sparse).unwrap();

    let survey = place.store.survey().unwrap();
    let du = place.du();
    assert!(
        survey.total.abs_diff(du) * 100 <= du,
        "{} is not {du}",
        survey.total
    );
    assert!(du < 10_000_000, "the hole is one: {du}");
    let sum: u64 = survey.parts.values().map(|part| part.size).sum();
    assert!(sum <= survey.total);

    let digests: Vec<&str> = survey.images.iter().map(|image| image.digest.as_str()).collect();
    assert_eq!(digests, [first.as_str(), second.as_str()]);
    for (image, own) in survey.images.iter().zip([50_000, 70_000]) {
        let (size, shared) = survey.size(image);
        // The program once, and what is around it; on its own, only the upper layer.
        assert!((300_000..700_000).contains(&shared), "{shared}");
        assert!((own..own + 60_000).contains(&(size - shared)), "{size} {shared}");
        assert!(!image.incomplete && image.unreadable.is_none());
        assert!(image.used.elapsed().unwrap() < Duration::from_secs(600));
    }
    assert_eq!(survey.leftovers().count(), 0);
    for (text, found) in [
        (one.as_str(), Some(&first)),
        (&two, Some(&second)),
        (&first, Some(&first)),
        (&second["sha256:".len()..][..12], Some(&second)),
        (&second[.."sha256:".len() + 3], None),
        ("nginx", None),
    ] {
        let image = survey.find(text).ok();
        assert_eq!(image.map(|image| &image.digest), found, "{text}");
    }
}

#[test]
fn what_is_of_no_image_is_left_over() {
    let place = Place::new();
    let (name, digest) = place.bring("one", &[base()]);
    let hex = "ab".repeat(32);
    for directory in [
        format!("layers/{hex}/usr"),
        "layers/.new-1-0".into(),
        "pull".into(),
        "recipes".into(),
    ] {
        fs::create_dir_all(place.path("state/images").join(directory)).unwrap();
    }
    for file in [
        format!("layers/{hex}/usr/file"),
        format!("pull/{hex}"),
        format!("recipes/{hex}"),
        format!("blobs/sha256/{hex}"),
        "blobs/sha256/.x.1.0.tmp".into(),
        "notes".into(),
    ] {
        fs::write(place.path("state/images").join(file), vec![1; 9000]).unwrap();
    }
    let survey = place.store.survey().unwrap();
    let mut kinds: Vec<Kind> = survey.leftovers().map(|(_, part)| part.kind).collect();
    kinds.sort_unstable();
    let expected = [
        Kind::Layer,
        Kind::Recipe,
        Kind::Document,
        Kind::Pull,
        Kind::Unfinished,
        Kind::Unfinished,
        Kind::Foreign,
    ];
    assert_eq!(kinds, expected);
    let du = place.du();
    assert!(
        survey.total.abs_diff(du) * 100 <= du,
        "{} is not {du}",
        survey.total
    );

    // A name that is gone leaves an image without one; a configuration that is damaged, one whose layers nobody knows.
    place.store.bindings.remove(&name).unwrap();
    let survey = place.store.survey().unwrap();
    assert_eq!((survey.images.len(), survey.images[0].names.len()), (1, 0));
    place
        .store
        .bind(&name, &Digest::parse(&digest).unwrap(), None)
        .unwrap();
    let document = place.store.blob(&Digest::parse(&digest).unwrap());
    fs::write(&document, "{}").unwrap();
    let survey = place.store.survey().unwrap();
    assert_eq!(survey.images[0].unreadable.as_ref(), Some(&document));
}

#[test]
fn what_goes_is_gone_whole_and_what_stays_runs() {
    let place = Place::new();
    let (one, first) = place.bring("one", &[base(), vec![File::new("one", 0o644, "1")]]);
    let (_, second) = place.bring("two", &[base(), vec![File::new("two", 0o644, "2")]]);
    let before = place.store.survey().unwrap();
    let used = super::super::Use {
        digests: BTreeMap::from([(second.clone(), BTreeSet::from(["shop/web/1".to_owned()]))]),
        ..Default::default()
    };
    let now = SystemTime::now();
    let choose =
        |survey: &Survey| super::super::select(survey, &used, super::super::What::Unused, now).unwrap();
    let selected = choose(&before);
    assert_eq!(selected.names, BTreeSet::from([one.clone()]));
    place
        .store
        .collect(place.store.hold(Duration::from_secs(10)).unwrap(), &selected)
        .unwrap();
    assert!(place.store.layers(&first).is_err());
    assert_eq!(place.store.layers(&second).unwrap().len(), 2);
    let after = place.store.survey().unwrap();
    assert_eq!(after.leftovers().count(), 0);
    assert_eq!(after.images.len(), 1);
    let freed = before.total - after.total;
    assert!(
        freed.abs_diff(selected.bytes()) <= 8192,
        "{freed} {}",
        selected.bytes()
    );
    // Once more is nothing more; and it can be brought in again.
    assert!(choose(&after).is_empty());
    place
        .store
        .collect(place.store.hold(Duration::from_secs(10)).unwrap(), &selected)
        .unwrap();
    place.store.unpack(&one, &first).unwrap();
    assert_eq!(place.store.layers(&first).unwrap().len(), 2);
}

#[test]
fn nothing_is_collected_while_something_is_brought_in() {
    let place = Place::new();
    let lease = place.store.lease().unwrap();
    let other = place.store.lease().unwrap();
    let busy = place.store.hold(Duration::from_millis(60)).unwrap_err();
    assert!(matches!(busy, ImageError::Busy { .. }), "{busy}");
    // Nor does an agent that starts sweep away what another program is unpacking.
    let new = place.path("state/images/layers/.new-1-0");
    fs::create_dir_all(&new).unwrap();
    place.store.sweep().unwrap();
    assert!(new.exists());
    drop((lease, other));
    // Programs that other tests start have our descriptors for a moment.
    let start = Instant::now();
    while new.exists() {
        place.store.sweep().unwrap();
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    let hold = place.store.hold(Duration::from_secs(10)).unwrap();
    let store = &place.store;
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.lease().unwrap());
        std::thread::yield_now();
        assert!(!waiting.is_finished());
        drop(hold);
        waiting.join().unwrap();
    });
}

#[test]
fn a_removal_that_broke_off_is_ended_by_the_next() {
    let place = Place::new();
    let (_, digest) = place.bring("one", &[base()]);
    let left = place.path("state/images/layers/.gone-abc.1-0/usr");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("file"), "").unwrap();
    let survey = place.store.survey().unwrap();
    assert_eq!(survey.leftovers().count(), 1);
    place.store.sweep().unwrap();
    assert_eq!(place.store.survey().unwrap().leftovers().count(), 0);
    assert_eq!(place.store.layers(&digest).unwrap().len(), 1);
}
