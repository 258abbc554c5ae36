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

/// Each damage to a sound layer, and the words that name it.
#[test]
fn every_damage_is_found_and_named() {
    type Damages = fn(&Path);
    let cases: Vec<(&str, Damages, &[&str])> = vec![
        ("nothing", |_| {}, &[]),
        (
            "content",
            |at| overwrite(at, "d/f", "CONTENT"),
            &["d/f: its content has changed"],
        ),
        (
            "one that is longer",
            |at| overwrite(at, "d/f", "content and more"),
            &["d/f: its size is 16, not 7"],
        ),
        (
            "one that is shorter",
            |at| overwrite(at, "d/f", "con"),
            &["d/f: its content is cut short", "d/f: its size is 3, not 7"],
        ),
        (
            "a file",
            |at| fs::remove_file(at.join("d/f")).unwrap(),
            &["d/f: it is gone"],
        ),
        (
            "an empty file",
            |at| fs::remove_file(at.join("empty")).unwrap(),
            &["empty: it is gone"],
        ),
        (
            "another kind",
            |at| {
                fs::remove_file(at.join("d/f")).unwrap();
                fs::create_dir(at.join("d/f")).unwrap();
            },
            &[
                "d/f: it is no regular file any more",
                "hard: it is no other name of d/f any more",
            ],
        ),
        (
            "a link instead of a file",
            |at| {
                fs::rename(at.join("d/f"), at.join("d/g")).unwrap();
                symlink("g", at.join("d/f")).unwrap();
            },
            &[
                "d/f: it is no regular file any more",
                "d/g: the layer has no such thing",
                "hard: it is no other name of d/f any more",
            ],
        ),
        (
            "a link instead of a directory",
            |at| {
                fs::rename(at.join("d"), at.join("e")).unwrap();
                symlink("e", at.join("d")).unwrap();
            },
            &[
                "d/f: it is gone",
                "d: it should be a directory",
                "e: the layer has no such thing",
            ],
        ),
        (
            "an owner",
            |at| chown(at.join("d/f"), Some(7), None).unwrap(),
            &["d/f: its owner is 7:0, not 0:0"],
        ),
        (
            "a mode",
            |at| chmod(at, "d/f", 0o4755),
            &["d/f: its mode is 4755, not 644"],
        ),
        (
            "the mode of a directory",
            |at| chmod(at, "d", 0o777),
            &["d: its mode is 777, not 755"],
        ),
        (
            "the mode of the root",
            |at| chmod(at, "", 0o700),
            &["its mode is 700 and its owner 0:0, not 755 and 0:0"],
        ),
        (
            "the mode of a directory without an entry",
            |at| chmod(at, "made", 0o700),
            &["made: its mode is 700 and its owner 0:0, not 755 and 0:0"],
        ),
        (
            "a time",
            |at| {
                let file = File::options().write(true).open(at.join("d/f")).unwrap();
                file.set_modified(UNIX_EPOCH + Duration::from_nanos(5)).unwrap();
            },
            &["d/f: its time is 0.000000005, not 1700000000.000000000"],
        ),
        (
            "where a link points to",
            |at| {
                fs::remove_file(at.join("link")).unwrap();
                symlink("elsewhere", at.join("link")).unwrap();
            },
            &["link: it points to elsewhere, not to d"],
        ),
        (
            "another name",
            |at| {
                fs::remove_file(at.join("hard")).unwrap();
                fs::copy(at.join("d/f"), at.join("hard")).unwrap();
            },
            &["hard: it is no other name of d/f any more"],
        ),
        (
            "the only name of what was replaced",
            |at| overwrite(at, "kept", "OLD"),
            &["kept: its content has changed"],
        ),
        (
            "a device",
            |at| {
                fs::remove_file(at.join("null")).unwrap();
                let mode = Mode::from_raw_mode(0o666);
                let device = rustix::fs::makedev(1, 9);
                rustix::fs::mknodat(
                    rustix::fs::CWD,
                    at.join("null"),
                    rustix::fs::FileType::CharacterDevice,
                    mode,
                    device,
                )
                .unwrap();
                chmod(at, "null", 0o666);
            },
            &["null: it is the device (1, 9), not (1, 3)"],
        ),
        (
            "capabilities that were lost",
            |at| rustix::fs::removexattr(at.join("ping"), "security.capability").unwrap(),
            &["ping: its attribute security.capability is gone"],
        ),
        (
            "capabilities that were added",
            |at| {
                let mut value = [0; 64];
                let length =
                    rustix::fs::getxattr(at.join("ping"), "security.capability", &mut value).unwrap();
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(at.join("d/f"), "security.capability", &value[..length], flags).unwrap();
            },
            &["d/f: it has capabilities that it should not have"],
        ),
        (
            "a directory that hides",
            |at| {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(at.join("d"), "trusted.overlay.opaque", b"y", flags).unwrap();
            },
            &["d: it is opaque, and should not be"],
        ),
        (
            "a directory that hides no more",
            |at| rustix::fs::removexattr(at.join("opaque"), "trusted.overlay.opaque").unwrap(),
            &["opaque: it is not opaque any more"],
        ),
        (
            "a whiteout",
            |at| fs::remove_file(at.join("hidden")).unwrap(),
            &["hidden: it is gone"],
        ),
        (
            "a whiteout that became a file",
            |at| {
                fs::remove_file(at.join("hidden")).unwrap();
                fs::write(at.join("hidden"), "").unwrap();
            },
            &["hidden: it is no whiteout any more"],
        ),
        (
            "things the layer has not",
            |at| {
                fs::write(at.join("d/new"), "x").unwrap();
                fs::create_dir_all(at.join("more/below")).unwrap();
            },
            &[
                "d/new: the layer has no such thing",
                "more: the layer has no such thing",
            ],
        ),
    ];
    for (case, damage, expected) in cases {
        let mut place = Place::new();
        let tar = sound();
        place.unpack(&tar).unwrap();
        place.assert_exact(&tar, case);
        damage(&place.layer);
        let mut found = place.check(&tar);
        found.sort();
        assert_eq!(found, expected, "{case}");
    }
}

/// A layer of everything.
fn sound() -> Vec<u8> {
    let null = {
        let mut header = Member::of(EntryType::Char, "null", "", 0o666, Vec::new()).header();
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let members = [
        Member::directory("d", 0o755),
        Member::new("d/f", 0o644, "content"),
        Member::new("empty", 0o600, ""),
        Member::new("made/x", 0o644, "x"),
        Member::symlink("link", "d"),
        Member::hard_link("hard", "d/f"),
        Member::new("a", 0o600, "old"),
        Member::hard_link("kept", "a"),
        Member::new("a", 0o600, "new"),
        Member::directory("opaque", 0o755),
        Member::new("opaque/.wh..wh..opq", 0, ""),
        Member::new(".wh.hidden", 0, ""),
        Member::of(EntryType::Fifo, "fifo", "", 0o620, Vec::new()),
    ];
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let key = b"SCHILY.xattr.security.capability=";
    let length = key.len() + capability.len() + 4;
    let record = [length.to_string().as_bytes(), b" ", key, &capability, b"\n"].concat();
    let pax = tar_of(&[
        Member::of(EntryType::XHeader, "pax", "", 0o644, record),
        Member::new("ping", 0o755, "x"),
    ])
    .unwrap();
    let body = tar_of(&members).unwrap();
    [&null, &body[..body.len() - 1024], &pax].concat()
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
