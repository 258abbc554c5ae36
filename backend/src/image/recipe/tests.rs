//! Whatever tar wrote: what is assembled is the stream that was unpacked, and each damage to the tree is named.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    process::{Command, Stdio},
    sync::atomic::AtomicBool,
    time::{Duration, UNIX_EPOCH},
};

use proptest::{prelude::*, test_runner::Config};
use tar::EntryType;

use super::*;
use crate::image::{
    Limits,
    config::Digest,
    layer::{self, Layer, LayerError},
    source::Section,
    testing::{File as Member, layer as tar_of},
};

mod damages;
mod tools;

struct Place {
    directory: tempfile::TempDir,
    layer: PathBuf,
    recipe: PathBuf,
    work: Option<layer::Work>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let layer = directory.path().join("layers/x");
        Place {
            recipe: layer::recipe_of(&layer),
            layer,
            directory,
            work: None,
        }
    }

    fn of(members: &[Member]) -> (Self, Vec<u8>) {
        let (mut place, tar) = (Place::new(), tar_of(members).unwrap());
        place.unpack(&tar).unwrap();
        (place, tar)
    }

    /// Not yet published: that waits for the disk.
    fn unpack(&mut self, tar: &[u8]) -> Result<(), LayerError> {
        let work = self.prepare(tar)?;
        (self.layer, self.recipe) = (work.tree(), written(&work.path));
        self.work = Some(work);
        Ok(())
    }

    fn prepare(&self, tar: &[u8]) -> Result<layer::Work, LayerError> {
        let file = self.directory.path().join("layer.tar");
        fs::write(&file, tar).unwrap();
        let layer = Layer {
            section: Section::whole(&file).unwrap(),
            blob: None,
            diff_id: Digest::of(tar),
        };
        layer::prepare(layer, &self.layer, &Limits::default(), &AtomicBool::new(false))
    }

    fn assemble(&self) -> Result<Vec<u8>, RecipeError> {
        let mut out = Vec::new();
        assemble(&self.recipe, &self.layer, &mut out).map(|()| out)
    }

    fn check(&self, tar: &[u8]) -> Vec<String> {
        let damages = check(&self.recipe, &self.layer, &Digest::of(tar)).unwrap();
        damages.iter().map(ToString::to_string).collect()
    }

    fn assert_exact(&self, tar: &[u8], case: &str) {
        let assembled = self.assemble().unwrap_or_else(|error| panic!("{case}: {error}"));
        assert!(assembled == tar, "{case}: another stream");
        assert_eq!(self.check(tar), [""; 0], "{case}");
    }
}

#[test]
fn a_stream_is_assembled_whatever_became_of_its_entries() {
    let file = |path: &str, content: &str| Member::new(path, 0o644, content);
    let link = |path: &str, target: &str| Member::symlink(path, target);
    let cases: Vec<(&str, Vec<Member>)> = vec![
        ("nothing", vec![]),
        ("an empty file", vec![file("a", "")]),
        ("replaced", vec![file("a", "old"), file("a", "newer")]),
        ("replaced by the same", vec![file("a", "same"), file("a", "same")]),
        (
            "replaced often",
            (0..40)
                .map(|number| file("a", &"x".repeat(number * 100)))
                .collect(),
        ),
        ("replaced by a link", vec![file("a", "old"), link("a", "b")]),
        (
            "replaced by a directory",
            vec![file("a", "old"), Member::directory("a", 0o700), file("a/b", "x")],
        ),
        (
            "replaced by its own name",
            vec![file("a", "1"), file("b", "2"), Member::hard_link("a", "b")],
        ),
        (
            "replaced where it has another name",
            vec![file("a", "old"), Member::hard_link("b", "a"), file("a", "new")],
        ),
        (
            "replaced under both names",
            vec![
                file("a", "old"),
                Member::hard_link("b", "a"),
                file("a", "1"),
                file("b", "2"),
            ],
        ),
        (
            "a link to what was replaced, replaced",
            vec![
                file("a", "old"),
                Member::hard_link("b", "a"),
                Member::hard_link("c", "b"),
                file("a", "1"),
                link("b", "c"),
            ],
        ),
        (
            "content that becomes no file",
            vec![
                file(".wh.x", "content"),
                file(".wh..wh..opq", "more"),
                file(".wh..wh.plnk", "aufs"),
            ],
        ),
        (
            "whiteouts of this layer itself",
            vec![
                file("f", "x"),
                file(".wh.f", ""),
                Member::directory("d", 0o755),
                file(".wh.d", ""),
                file(".wh.e", ""),
                Member::directory("e", 0o711),
                file("i/.wh..wh..opq", ""),
                file("i/x", "x"),
                file(".wh.g", ""),
                file("g", "in the place of a whiteout"),
            ],
        ),
        (
            "opaque, replaced, and made again",
            vec![
                Member::directory("d", 0o755),
                file(".wh.d", ""),
                file("d", "file"),
                Member::directory("d", 0o700),
            ],
        ),
        (
            "through links that change",
            vec![
                Member::directory("one", 0o755),
                Member::directory("two", 0o755),
                link("l", "one"),
                file("l/a", "first"),
                link("l", "/two"),
                file("l/a", "second"),
                file("l/deep/er/b", "third"),
                Member::directory("l/deep", 0o711),
                Member::hard_link("h", "l/a"),
                link("l", "nowhere"),
            ],
        ),
        (
            "a directory several times",
            vec![
                Member::directory("./", 0o700),
                Member::directory("d", 0o700),
                file("d/a", "x"),
                Member::directory("d", 0o755),
                Member::directory("./", 0o755),
            ],
        ),
        (
            "a directory after its content",
            vec![file("d/e/a", "x"), Member::directory("d", 0o1777)],
        ),
        (
            "nodes",
            vec![
                Member::of(EntryType::Fifo, "fifo", "", 0o600, Vec::new()),
                Member::hard_link("fifo2", "fifo"),
                file("fifo", "replaced"),
            ],
        ),
        (
            "set-id bits",
            vec![Member::new("su", 0o6755, "x"), Member::new("none", 0, "x")],
        ),
    ];
    for (case, members) in cases {
        let (mut place, tar) = Place::of(&members);
        place.assert_exact(&tar, case);
        let (layer, work) = (
            place.directory.path().join("layers/x"),
            place.work.take().unwrap(),
        );
        work.publish().unwrap();
        (place.layer, place.recipe) = (layer.clone(), layer::recipe_of(&layer));
        place.assert_exact(&tar, case);
        let layers = fs::read_dir(layer.parent().unwrap()).unwrap();
        assert_eq!(layers.count(), 1, "{case}: something is left beside it");
    }
}

#[test]
fn what_is_before_and_after_the_entries_is_kept() {
    let tar = tar_of(&[Member::new("a", 0o644, "x")]).unwrap();
    let body = &tar[..tar.len() - 1024];
    for zeros in [0, 512, 1024, 10_240, 200_000] {
        let (mut place, tar) = (Place::new(), [body, &vec![0; zeros]].concat());
        place.unpack(&tar).unwrap();
        place.assert_exact(&tar, &format!("{zeros} zeros"));
    }
    // What no reader looks at: the filler after a content.
    let mut tar = tar.clone();
    tar[600..610].copy_from_slice(b"not zeros!");
    let mut place = Place::new();
    place.unpack(&tar).unwrap();
    place.assert_exact(&tar, "filler");
}

fn member() -> impl Strategy<Value = Member> {
    let path = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "l",
        "a/b",
        "a/c",
        "l/b",
        "l/l",
        "b/c/d",
        "./a",
        "/b/",
        ".wh.a",
        "a/.wh.b",
        "l/.wh..wh..opq",
    ]);
    let link = prop::sample::select(vec!["a", "b", "/", "l/b", "a/b", "../a", "b/c"]);
    (
        path,
        link,
        0..9,
        prop::sample::select(vec![0, 1, 511, 512, 513, 70_000]),
        0..4u32,
    )
        .prop_map(|(path, link, kind, size, mode)| {
            let mode = [0o644, 0o755, 0o4711, 0][mode as usize];
            match kind {
                0 => Member::symlink(path, link),
                1 | 2 => Member::hard_link(path, link),
                3 | 4 => Member::directory(path, mode),
                5 => Member::of(EntryType::Fifo, path, "", mode, Vec::new()),
                _ => Member::new(path, mode, vec![path.as_bytes()[0] ^ size as u8; size]),
            }
        })
}

proptest! {
    #![proptest_config(Config::with_cases(400))]

    #[test]
    fn what_is_taken_at_all_is_assembled_exactly(members in prop::collection::vec(member(), 1..14)) {
        let (mut place, tar) = (Place::new(), tar_of(&members).unwrap());
        if place.unpack(&tar).is_ok() {
            place.assert_exact(&tar, &format!("{members:?}"));
        }
    }
}

fn overwrite(layer: &Path, path: &str, content: &str) {
    let path = layer.join(path);
    let time = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, content).unwrap();
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

fn chmod(layer: &Path, path: &str, mode: u32) {
    fs::set_permissions(layer.join(path), fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_damaged_layer_is_not_assembled_and_a_damaged_recipe_is_told() {
    let (place, tar) = Place::of(&[
        Member::new("a", 0o644, "content"),
        Member::new("b", 0o644, "other"),
    ]);
    overwrite(&place.layer, "b", "OTHER");
    let error = place.assemble().unwrap_err();
    assert!(matches!(&error, RecipeError::Layer { .. }), "{error}");
    assert!(
        error.to_string().contains("b: its content has changed"),
        "{error}"
    );

    overwrite(&place.layer, "b", "other");
    let bytes = fs::read(&place.recipe).unwrap();
    for at in 0..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 0x10;
        fs::write(&place.recipe, &broken).unwrap();
        // Some bits of gzip mean nothing.
        match check(&place.recipe, &place.layer, &Digest::of(&tar)) {
            Ok(damages) => assert_eq!(damages, [], "byte {at}"),
            Err(error) => assert!(matches!(error, RecipeError::Damaged { .. }), "byte {at}: {error}"),
        }
        fs::write(&place.recipe, &bytes[..at]).unwrap();
        let cut = check(&place.recipe, &place.layer, &Digest::of(&tar));
        assert!(matches!(cut, Err(RecipeError::Damaged { .. })), "cut at {at}");
    }

    fs::remove_file(&place.recipe).unwrap();
    let error = place.assemble().unwrap_err();
    assert!(matches!(error, RecipeError::Absent(_)), "{error}");
    assert!(error.to_string().contains("load it again"), "{error}");
}

#[test]
fn a_recipe_is_small_private_and_there_before_its_layer() {
    let members: Vec<Member> = (0..2000)
        .map(|number| {
            Member::new(
                &format!("usr/share/doc/package{number:04}/copyright"),
                0o644,
                vec![b'x'; 2000],
            )
        })
        .collect();
    let (place, tar) = Place::of(&members);
    let recipe = fs::metadata(&place.recipe).unwrap();
    assert_eq!(recipe.mode() & 0o777, 0o600);
    assert!(
        recipe.len() < 2000 * 60,
        "{} bytes for {}",
        recipe.len(),
        tar.len()
    );
    let mut refused = Place::new();
    let mut wrong = tar_of(&members[..2]).unwrap();
    wrong.extend_from_slice(b"x");
    refused.unpack(&wrong).unwrap_err();
    assert!(!refused.recipe.exists() && !refused.layer.exists());
}
