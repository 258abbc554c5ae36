//! A tag that stands, moves, comes back or cannot be asked for, and the image that was had by it, whole or damaged.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use super::*;
use crate::{
    image::pull::tests::{edited, image, layer, store_in, text},
    registry::testing::{Server, Shelf, answer, shelved},
};

/// A registry with one tag, `app:1`.
struct Registry {
    server: Server,
    shelf: Arc<Mutex<Shelf>>,
    /// What it answers to everything.
    says: Arc<Mutex<Option<Vec<u8>>>>,
}

impl Registry {
    fn new() -> Self {
        let shelf: Arc<Mutex<Shelf>> = Arc::default();
        let says: Arc<Mutex<Option<Vec<u8>>>> = Arc::default();
        let (had, said) = (Arc::clone(&shelf), Arc::clone(&says));
        let server = Server::answering(move |asked| {
            if let Some(said) = said.lock().unwrap().clone() {
                return said;
            }
            let shelf = had.lock().unwrap();
            match asked.target.strip_prefix("/v2/").and_then(|path| shelf.get(path)) {
                Some(bytes) if asked.target.contains("/manifests/") => {
                    let digest = Digest::of(bytes).to_string();
                    answer(200, &[("Docker-Content-Digest", &digest)], bytes)
                }
                _ => shelved(&shelf, asked),
            }
        });
        Registry { server, shelf, says }
    }

    /// The tag stands for this one now; those before it are still to be had by their digests.
    fn push(&self, image: &Shelf) {
        let mut shelf = self.shelf.lock().unwrap();
        let index = image["app/manifests/1"].clone();
        shelf.insert(format!("app/manifests/{}", Digest::of(&index)), index);
        shelf.extend(image.clone());
    }

    fn says(&self, answer: Option<Vec<u8>>) {
        *self.says.lock().unwrap() = answer;
    }

    /// What was asked since that many requests: `HEAD manifests/1`.
    fn asked_since(&self, before: usize) -> Vec<String> {
        let requests = self.server.requests().into_iter().skip(before);
        let told = requests.map(|one| format!("{} {}", one.method, one.target.replace("/v2/app/", "")));
        told.collect()
    }

    fn count(&self) -> usize {
        self.server.requests().len()
    }
}

struct Place {
    registry: Registry,
    root: tempfile::TempDir,
    store: Store,
    name: String,
}

impl Place {
    fn new() -> Self {
        let registry = Registry::new();
        let root = tempfile::tempdir().unwrap();
        let (store, name) = store_in(root.path(), &registry.server);
        Place {
            registry,
            root,
            store,
            name,
        }
    }

    /// With this image here, whole, as what the name stands for.
    fn with(image: &Shelf, digest: &Digest) -> Self {
        let place = Place::new();
        place.registry.push(image);
        assert_eq!(place.looks(Ask::Missing).digest, digest.to_string());
        place.store.unpack(&place.name, &digest.to_string()).unwrap();
        place
    }

    fn looks(&self, ask: Ask) -> Image {
        self.store.look(&self.name, ask).unwrap()
    }

    /// By a store that has nothing in memory.
    fn again(&self) -> Store {
        store_in(self.root.path(), &self.registry.server).0
    }

    fn images(&self) -> std::path::PathBuf {
        self.root.path().join("state/images")
    }
}

/// What a look says: the digest and whether it is whole, and the same of what the tag stands for to who follows it.
fn seen(image: &Image) -> (&str, bool, Option<(&str, bool)>) {
    let latest = image.latest.as_ref();
    let latest = latest.map(|latest| (latest.digest.as_str(), latest.unpacked));
    (&image.digest, image.unpacked, latest)
}

#[test]
fn a_tag_is_followed_there_and_back_and_whoever_does_not_ask_keeps_what_he_has() {
    let (one, first) = image(&[layer("a", 10)]);
    let (two, second) = image(&[layer("b", 10)]);
    // For another platform something is new; for this one it is the same image.
    let edit = |it: &mut serde_json::Value| it["annotations"] = "new".into();
    let (anew, same) = edited(&[layer("a", 10)], |_| {}, |_| {}, edit);
    assert!(first == same && one["app/manifests/1"] != anew["app/manifests/1"]);
    let (two_anew, _) = edited(&[layer("b", 10)], |_| {}, |_| {}, edit);
    let place = Place::with(&one, &first);
    let (first, second) = (first.to_string(), second.to_string());
    let (first, second) = (first.as_str(), second.as_str());
    let only_question = vec!["HEAD manifests/1".to_owned()];

    type Latest<'a> = Option<(&'a str, bool)>;
    let steps: [(&str, &Shelf, bool, Latest); 11] = [
        ("it stands", &one, true, None),
        ("the image is the same", &anew, true, None),
        ("that is known", &anew, true, None),
        ("it has moved", &two, true, Some((second, false))),
        ("what it moved to is here", &two, true, Some((second, true))),
        ("the latest is the same", &two_anew, true, Some((second, true))),
        ("that is known, too", &two_anew, true, Some((second, true))),
        ("it is back by another index", &anew, false, None),
        ("it is back", &one, false, None),
        ("it is known that it is back", &one, true, None),
        ("by another index of the same image", &anew, true, None),
    ];
    for (what, stands_for, whole, latest) in steps {
        if what == "what it moved to is here" {
            place.store.unpack_latest(&place.name, second).unwrap();
        }
        if what == "it is known that it is back" {
            // What has come back is to be bound again, though nothing of it is missing.
            place.store.unpack(&place.name, first).unwrap();
        }
        place.registry.push(stands_for);
        let (known, before) = (place.looks(Ask::Missing), place.registry.count());
        let image = place.looks(Ask::Anew);
        assert_eq!(seen(&image), (first, whole, latest), "{what}");
        let asked = image.asked.unwrap();
        assert!(
            asked.failed.is_none() && asked.at >= known.asked.unwrap().at,
            "{what}"
        );
        let questions = place.registry.asked_since(before);
        assert_eq!(questions[..1], only_question, "{what}");
        if what.starts_with("that is known") {
            assert_eq!(questions, only_question, "{what}");
        }
        // Who does not ask, and who may not, has what is bound, and nobody is asked for it.
        let bound = match what {
            "what it moved to is here" | "the latest is the same" | "that is known, too" => {
                Some((second, true))
            }
            "it is back by another index" | "it is back" => Some((second, true)),
            _ => None,
        };
        let before = place.registry.count();
        for store in [&place.store, &place.again()] {
            for ask in [Ask::Missing, Ask::Never] {
                let image = store.look(&place.name, ask).unwrap();
                assert_eq!(seen(&image), (first, true, bound), "{what}, {ask:?}");
            }
        }
        assert_eq!(place.registry.count(), before, "{what}");
    }
    // As long as it stands, a question is one request.
    place.registry.push(&one);
    place.looks(Ask::Anew);
    for _ in 0..3 {
        let before = place.registry.count();
        place.looks(Ask::Anew);
        assert_eq!(place.registry.asked_since(before), only_question);
    }
}

#[test]
fn a_registry_that_does_not_tell_changes_nothing_and_it_is_said_why() {
    let (one, first) = image(&[layer("a", 10)]);
    let (two, second) = image(&[layer("b", 10)]);
    let (first, second) = (first.to_string(), second.to_string());
    let refused = answer(401, &[], b"");
    for (says, why) in [
        (answer(500, &[], b""), "answers 500"),
        (refused, "docker login"),
        (answer(404, &[], b""), "check the name and the tag"),
        (
            answer(429, &[("Retry-After", "60")], b""),
            "wants to be asked later",
        ),
        (b"HTTP/1.1 nonsense\r\n\r\n".to_vec(), "broke"),
        // Nothing at all, for longer than anybody is to wait.
        (Vec::new(), "says nothing for 5s"),
    ] {
        let place = Place::with(&one, &Digest::parse(&first).unwrap());
        place.registry.push(&two);
        place.looks(Ask::Anew);
        place.store.unpack_latest(&place.name, &second).unwrap();
        let known = place.looks(Ask::Missing);
        assert_eq!(
            seen(&known),
            (first.as_str(), true, Some((second.as_str(), true)))
        );
        place.registry.says(Some(says));
        let begun = Instant::now();
        let image = place.looks(Ask::Anew);
        assert!(begun.elapsed() < 3 * LIMIT, "{why}");
        assert_eq!(seen(&image), seen(&known), "{why}");
        let asked = image.asked.unwrap();
        assert_eq!(asked.at, known.asked.unwrap().at, "{why}: there was no answer");
        let failed = asked.failed.unwrap();
        assert!(failed.contains(why), "{failed}");
        assert_eq!(
            place.looks(Ask::Missing).asked.unwrap().failed,
            None,
            "{why}: nobody was asked"
        );
        // That it wants to be asked later counts for a minute; all others may be asked at once.
        place.registry.says(None);
        let again = place.looks(Ask::Anew).asked.unwrap();
        assert_eq!(again.failed.is_some(), why.contains("later"), "{why}");
    }
}

/// Damages a store in which there is one image.
type Damage = fn(&Path);

fn remove(path: &Path) {
    fs::remove_dir_all(path).unwrap();
}

fn spoil(path: &Path) {
    for file in fs::read_dir(path).unwrap() {
        fs::write(file.unwrap().path(), "{}").unwrap();
    }
}

const DAMAGES: [(&str, Damage); 4] = [
    ("layers", |images| remove(&images.join("layers"))),
    ("documents", |images| remove(&images.join("blobs"))),
    ("documents spoilt", |images| spoil(&images.join("blobs/sha256"))),
    ("all", remove),
];

#[test]
fn a_damaged_image_is_had_again_by_its_digest_wherever_its_tag_has_moved() {
    let (one, first) = image(&[layer("a", 10)]);
    let (two, _) = image(&[layer("b", 10)]);
    let digest = first.to_string();
    let pinned = format!("manifests/{}", Digest::of(&one["app/manifests/1"]));
    for (what, damage) in DAMAGES {
        let place = Place::with(&one, &first);
        place.registry.push(&two);
        damage(&place.images());
        let before = place.registry.count();
        let store = place.again();
        let image = store.look(&place.name, Ask::Missing).unwrap();
        assert_eq!(seen(&image), (digest.as_str(), false, None), "{what}");
        store.unpack(&place.name, &digest).unwrap();
        let image = store.look(&place.name, Ask::Missing).unwrap();
        assert_eq!(seen(&image), (digest.as_str(), true, None), "{what}");
        assert!(store.layers(&digest).unwrap()[0].join("a").is_file());
        let asked = place.registry.asked_since(before);
        assert!(asked.contains(&format!("GET {pinned}")), "{what}: {asked:?}");
        assert!(
            asked.iter().all(|one| !one.ends_with("manifests/1")),
            "{what}: {asked:?}"
        );
    }
}

#[test]
fn what_is_never_to_be_fetched_is_not_where_it_is_damaged_either() {
    let (one, first) = image(&[layer("a", 10), layer("b", 10)]);
    let one_layer: Damage = |images| {
        let mut layers = fs::read_dir(images.join("layers")).unwrap();
        remove(&layers.next().unwrap().unwrap().path());
    };
    let never_here = Place::new();
    never_here.registry.push(&one);
    let damaged = DAMAGES.into_iter().chain([("one layer", one_layer)]);
    let damaged = damaged.map(|(what, damage)| {
        let place = Place::with(&one, &first);
        assert!(place.looks(Ask::Never).unpacked);
        damage(&place.images());
        (what, place)
    });
    for (what, place) in [("not here", never_here)].into_iter().chain(damaged) {
        let before = place.registry.count();
        for store in [&place.store, &place.again()] {
            let error = store.look(&place.name, Ask::Never).unwrap_err();
            assert!(matches!(error, ImageError::NotHere { .. }), "{what}: {error}");
            let said = text(&error);
            assert!(
                said.contains(&format!("stead image pull {}", place.name)),
                "{what}: {said}"
            );
        }
        assert_eq!(place.registry.count(), before, "{what}: nobody is asked");
        // Brought by hand, it is here.
        place.store.bring(&place.name.parse().unwrap()).unwrap();
        assert_eq!(
            seen(&place.looks(Ask::Never)),
            (first.to_string().as_str(), true, None),
            "{what}"
        );
    }
}
