//! Hostile and ordinary layers against a tree outside that must not change in any way.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use rustix::fs::XattrFlags;
use tar::EntryType;

use super::*;
use crate::image::{
    Limits,
    config::Digest,
    layer::{self, Layer, LayerError, Work},
    source::Section,
    testing::{File as Member, layer},
};

mod headers;
mod hostile;

use headers::refused_headers;
use hostile::refused_layers;

/// What `lstat`, attributes and content say of every object of a tree.
type Snapshot = BTreeMap<PathBuf, (u32, u32, u32, u64, i64, i64, Vec<u8>)>;

fn snapshot(root: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if meta.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        if meta.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let mut content = content;
        let mut attributes = [0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut attributes).unwrap();
        content.extend_from_slice(&attributes[..length]);
        if let Ok(length) = rustix::fs::lgetxattr(&path, "trusted.note", &mut attributes) {
            content.extend_from_slice(&attributes[..length]);
        }
        let times = (meta.mtime(), meta.ctime_nsec());
        found.insert(
            path,
            (
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.nlink(),
                times.0,
                times.1,
                content,
            ),
        );
    }
    found
}

/// A store of layers and, beside it, what no layer may touch.
struct Place {
    directory: tempfile::TempDir,
    outside: PathBuf,
    before: Snapshot,
    /// Where the last layer was unpacked.
    root: PathBuf,
    work: Option<Work>,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        fs::create_dir_all(outside.join("dir")).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(outside.join("dir/file"), "file").unwrap();
        symlink("secret", outside.join("link")).unwrap();
        let flags = XattrFlags::empty();
        rustix::fs::setxattr(outside.join("secret"), "trusted.note", b"mine", flags).unwrap();
        Place {
            before: snapshot(&outside),
            directory,
            outside,
            root: PathBuf::new(),
            work: None,
        }
    }

    fn unpack(&mut self, tar: &[u8]) -> Result<(), LayerError> {
        self.unpack_at_most(tar, 10_000)
    }

    /// As far as it comes before it is published; nothing is there of what was refused.
    fn unpack_at_most(&mut self, tar: &[u8], entries: u64) -> Result<(), LayerError> {
        self.work = None;
        let file = self.directory.path().join("layer.tar");
        fs::write(&file, tar).unwrap();
        let layer = Layer {
            section: Section::whole(&file).unwrap(),
            blob: None,
            diff_id: Digest::of(tar),
        };
        let limits = Limits {
            entries,
            ..Limits::default()
        };
        let layers = self.directory.path().join("layers");
        match layer::prepare(layer, &layers.join("x"), &limits, &AtomicBool::new(false)) {
            Ok(work) => {
                self.root = work.tree();
                self.work = Some(work);
                Ok(())
            }
            Err(error) => {
                assert_eq!(fs::read_dir(layers).unwrap().count(), 0, "something is left");
                Err(error)
            }
        }
    }

    fn assert_untouched(&self, case: &str) {
        assert_eq!(
            snapshot(&self.outside),
            self.before,
            "{case}: the tree outside has changed"
        );
    }
}

fn pax(records: &[(&str, &str)], member: &Member) -> Vec<u8> {
    let mut body = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length += 1;
        }
        body.push_str(&format!("{length} {key}={value}\n"));
    }
    join(&[
        &raw(&Member::of(
            EntryType::XHeader,
            "pax",
            "",
            0o644,
            body.into_bytes(),
        )),
        &raw(member),
    ])
}

/// One member without an end marker.
fn raw(member: &Member) -> Vec<u8> {
    let mut bytes = member.header().as_bytes().to_vec();
    bytes.extend(&member.content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn file(path: &str) -> Member {
    Member::new(path, 0o644, "new")
}

#[test]
fn sec_20_hostile_layers_are_refused_and_touch_nothing_outside() {
    let mut place = Place::new();
    let outside = place.outside.to_str().unwrap().to_owned();
    let cases = [refused_layers(&outside), refused_headers()].concat();
    assert!(cases.len() >= 100, "{}", cases.len());
    for (name, tar, says) in cases {
        let error = place.unpack(&tar).expect_err(name);
        let text = error.to_string();
        assert!(text.contains(says), "{name}: {text}");
        place.assert_untouched(name);
    }
}

/// Layers that look hostile but have a meaning inside: there they land.
#[test]
fn sec_20_strange_layers_land_inside() {
    let mut place = Place::new();
    let outside = place.outside.to_str().unwrap().to_owned();
    let link = |path: &str, target: &str| Member::symlink(path, target);
    type Check = fn(&Path) -> bool;
    let cases: Vec<(&str, Vec<Member>, Check)> = vec![
        ("absolute path", vec![file("/etc/x")], |root| {
            root.join("etc/x").is_file()
        }),
        ("dots and slashes", vec![file(".//./a//b")], |root| {
            root.join("a/b").is_file()
        }),
        (
            "absolute link is relative to the root",
            vec![
                Member::directory("usr/lib", 0o755),
                link("lib", "/usr/lib"),
                file("lib/x"),
            ],
            |root| root.join("usr/lib/x").is_file(),
        ),
        (
            "link above the root stays in the root",
            vec![
                Member::directory("etc", 0o755),
                link("l", "../../../etc"),
                file("l/x"),
            ],
            |root| root.join("etc/x").is_file(),
        ),
        (
            "directory over a link to outside",
            vec![link("d", &outside), Member::directory("d", 0o777)],
            |root| {
                let meta = fs::symlink_metadata(root.join("d")).unwrap();
                meta.is_dir() && meta.mode() & 0o7777 == 0o777
            },
        ),
        (
            "file over a link to outside",
            vec![link("f", &format!("{outside}/secret")), file("f")],
            |root| fs::symlink_metadata(root.join("f")).unwrap().is_file(),
        ),
        (
            "file over a file",
            vec![Member::new("f", 0o600, "old"), file("f")],
            |root| fs::read_to_string(root.join("f")).unwrap() == "new",
        ),
        (
            "file over its hard link",
            vec![
                Member::new("a", 0o600, "old"),
                Member::hard_link("b", "a"),
                file("b"),
            ],
            |root| fs::read_to_string(root.join("a")).unwrap() == "old",
        ),
        (
            "link over an empty directory",
            vec![Member::directory("d", 0o755), link("d", &outside)],
            |root| fs::symlink_metadata(root.join("d")).unwrap().is_symlink(),
        ),
        (
            "hard link to a link to outside",
            vec![
                link("s", &format!("{outside}/secret")),
                Member::hard_link("h", "s"),
            ],
            |root| fs::symlink_metadata(root.join("h")).unwrap().is_symlink(),
        ),
        (
            "directory time after a link took its place",
            vec![Member::directory("d", 0o700), link("d", &outside)],
            |_| true,
        ),
        (
            "names of dots and of bytes that are no text",
            vec![
                file("..."),
                file("a/.../b"),
                file("..a"),
                file("a\\b"),
                file("-rf\n*"),
            ],
            |root| {
                root.join("a/.../b").is_file() && root.join("-rf\n*").is_file() && root.join("..a").is_file()
            },
        ),
        (
            "a whiteout with content",
            vec![Member::new(".wh.x", 0o4755, "#!/bin/sh")],
            |root| fs::symlink_metadata(root.join("x")).unwrap().len() == 0,
        ),
        (
            "a directory over a link to outside, then a file in it",
            vec![
                link("d", &outside),
                Member::directory("d", 0o755),
                file("d/secret"),
            ],
            |root| fs::read_to_string(root.join("d/secret")).unwrap() == "new",
        ),
        (
            "set-id bits on a link to outside",
            vec![Member::of(EntryType::Symlink, "l", &outside, 0o6777, Vec::new())],
            |root| fs::symlink_metadata(root.join("l")).unwrap().is_symlink(),
        ),
        (
            "a FIFO over a link to outside",
            vec![
                link("f", &format!("{outside}/secret")),
                Member::of(EntryType::Fifo, "f", "", 0o666, Vec::new()),
            ],
            |root| fs::symlink_metadata(root.join("f")).unwrap().mode() & 0o170_000 == 0o010_000,
        ),
        (
            "a link over the hard link of a link to outside",
            vec![link("s", &outside), Member::hard_link("h", "s"), link("h", "x")],
            |root| fs::read_link(root.join("h")).unwrap() == Path::new("x"),
        ),
        (
            "aufs bookkeeping",
            vec![
                Member::new(".wh..wh.plnk", 0, ""),
                Member::new(".wh..wh.aufs", 0, ""),
            ],
            |root| fs::read_dir(root).unwrap().count() == 0,
        ),
    ];
    for (name, members, check) in cases {
        place
            .unpack(&layer(&members).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(check(&place.root), "{name}");
        place.assert_untouched(name);
    }
}

#[test]
fn whiteouts_become_what_overlayfs_reads() {
    let mut place = Place::new();
    let members = [
        Member::new("gone/.wh.x", 0, ""),
        Member::new("opaque/.wh..wh..opq", 0, ""),
        file("opaque/new"),
        // Of this layer itself: hidden are the lower ones only.
        file("both/kept"),
        Member::new("both/.wh.kept", 0, ""),
        Member::directory("replaced/dir", 0o755),
        Member::new("replaced/.wh.dir", 0, ""),
        Member::new("early/.wh.dir", 0, ""),
        Member::directory("early/dir", 0o755),
    ];
    place.unpack(&layer(&members).unwrap()).unwrap();
    let hidden = fs::symlink_metadata(place.root.join("gone/x")).unwrap();
    assert_eq!((hidden.mode() & 0o170_000, hidden.rdev()), (0o020_000, 0));
    let opaque = |path: &str| {
        let mut value = [0; 8];
        rustix::fs::lgetxattr(place.root.join(path), "trusted.overlay.opaque", &mut value) == Ok(1)
    };
    assert!(opaque("opaque") && opaque("replaced/dir") && opaque("early/dir") && !opaque("both"));
    assert_eq!(fs::read_to_string(place.root.join("both/kept")).unwrap(), "new");
    place.assert_untouched("whiteouts");
}

#[test]
fn modes_owners_times_and_attributes_arrive() {
    let mut place = Place::new();
    let mut owned = Member::new("bin/su", 0o4755, "x");
    owned.owner = (1000, 2000);
    let root = Member::directory("./", 0o711);
    let fifo = Member::of(EntryType::Fifo, "fifo", "", 0o620, Vec::new());
    let plain = layer(&[
        root,
        Member::directory("bin", 0o1777),
        owned,
        Member::symlink("l", "bin"),
        fifo,
    ])
    .unwrap();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let capability = String::from_utf8(capability.to_vec()).unwrap();
    let records = [
        ("SCHILY.xattr.security.capability", capability.as_str()),
        ("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
        ("SCHILY.xattr.user.note", "kept"),
        ("mtime", "1600000000.25"),
        ("uid", "65534"),
    ];
    let tar = join(&[
        &plain[..plain.len() - 1024],
        &pax(&records, &Member::new("ping", 0o755, "x")),
    ]);
    place.unpack(&tar).unwrap();
    let meta = |path: &str| fs::symlink_metadata(place.root.join(path)).unwrap();
    for (path, mode, owner) in [
        ("", 0o040_711, (0, 0)),
        ("bin", 0o041_777, (0, 0)),
        ("bin/su", 0o104_755, (1000, 2000)),
        ("fifo", 0o010_620, (0, 0)),
        ("ping", 0o100_755, (65534, 0)),
    ] {
        assert_eq!(
            (meta(path).mode(), (meta(path).uid(), meta(path).gid())),
            (mode, owner),
            "{path}"
        );
    }
    assert_eq!(
        meta("bin").mtime(),
        1_700_000_000,
        "set again after its content was written"
    );
    assert_eq!(
        (meta("ping").mtime(), meta("ping").mtime_nsec()),
        (1_600_000_000, 250_000_000)
    );
    let attribute = |name: &str| {
        let mut value = [0; 64];
        rustix::fs::lgetxattr(place.root.join("ping"), name, &mut value)
    };
    assert_eq!(attribute("security.capability"), Ok(20));
    assert_eq!(
        attribute("trusted.overlay.redirect"),
        Err(Errno::NODATA),
        "not for an image to say"
    );
    assert!(matches!(attribute("user.note"), Ok(4) | Err(Errno::NOTSUP)));
}

#[test]
fn entries_are_counted() {
    let mut place = Place::new();
    let tar = layer(&vec![file("a"); 11]).unwrap();
    place.unpack_at_most(&tar, 11).unwrap();
    let error = place.unpack_at_most(&tar, 10).unwrap_err();
    assert!(
        matches!(error, LayerError::Tree(TreeError::Tar(TarError::Entries(10)))),
        "{error}"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(300))]

    /// Whatever is done to an archive: no panic, and nothing outside.
    #[test]
    fn mutated_layers_never_escape(changes in proptest::collection::vec((0_usize..6144, proptest::num::u8::ANY), 1..8)) {
        let mut place = Place::new();
        let outside = place.outside.to_str().unwrap().to_owned();
        let mut tar = join(&[
            &raw(&Member::symlink("out", &outside)),
            &pax(&[("path", "d/x"), ("mtime", "1")], &file("a")),
            &raw(&Member::hard_link("h", "d/x")),
            &raw(&Member::directory("d", 0o777)),
            &[0; 1024],
        ]);
        for (at, value) in changes {
            let at = at % tar.len();
            tar[at] = value;
        }
        let _ = place.unpack(&tar);
        place.assert_untouched("mutated");
    }
}

/// An archive that implies directories without end is no smaller than one that has them.
#[test]
fn sec_20_directories_that_are_only_implied_are_counted() {
    let mut place = Place::new();
    let deep = |name: &str| file(&format!("{name}/{}", ["d"; 40].join("/")));
    let tar = layer(&[deep("a"), deep("b"), deep("c")]).unwrap();
    place.unpack_at_most(&tar, 123).unwrap();
    let error = place.unpack_at_most(&tar, 122).unwrap_err();
    assert!(error.to_string().contains("more than 122 entries"), "{error}");
}
