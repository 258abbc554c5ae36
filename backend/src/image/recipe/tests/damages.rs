//! Each kind of damage to the tree of a sound layer, and the words that name it.

use super::*;

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
