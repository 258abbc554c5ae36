//! The corpus of layers that must be refused.

use super::{EntryType, Member, file, join, layer, pax, raw};

/// Layers that are refused, each with a word of the reason.
pub(super) fn refused_layers(outside: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let of = |members: &[Member]| layer(members).unwrap();
    let named = |name: Vec<u8>| {
        let name = [name, vec![0]].concat();
        Member::of(EntryType::GNULongName, "././@LongLink", "", 0, name)
    };
    let long = named(vec![b'a'; 5000]);
    let endless = Member::of(EntryType::GNULongName, "././@LongLink", "", 0, b"ab".to_vec());
    let huge = Member::of(
        EntryType::GNULongName,
        "././@LongLink",
        "",
        0,
        vec![b'a'; 2 << 20],
    );
    let deep = named(vec![b'n'; 300]);
    let zero = named(b"a\0b".to_vec());
    let link = |path: &str, target: &str| Member::symlink(path, target);
    let mut broken = raw(&file("a"));
    broken[0] ^= 1;
    let mut sized_link = raw(&Member::of(
        EntryType::Symlink,
        "l",
        "x",
        0o777,
        b"content".to_vec(),
    ));
    sized_link.resize(1024, 0);
    vec![
        ("parent", of(&[file("../escape")]), "`..`"),
        ("parent in the middle", of(&[file("a/../../escape")]), "`..`"),
        (
            "parent at the end",
            of(&[Member::directory("a/..", 0o777)]),
            "`..`",
        ),
        ("absolute parent", of(&[file("/../escape")]), "`..`"),
        (
            "hard link with parent",
            of(&[Member::hard_link("l", "../../../outside/secret")]),
            "`..`",
        ),
        (
            "hard link to outside",
            of(&[Member::hard_link("l", &format!("{outside}/secret"))]),
            "no file of this layer",
        ),
        (
            "hard link through a link to outside",
            of(&[link("out", outside), Member::hard_link("l", "out/secret")]),
            "no file of this layer",
        ),
        (
            "hard link to a directory",
            of(&[Member::directory("d", 0o755), Member::hard_link("l", "d")]),
            "no file",
        ),
        (
            "hard link to the root",
            of(&[Member::hard_link("l", "/")]),
            "root",
        ),
        (
            "hard link to nothing",
            of(&[Member::hard_link("l", "")]),
            "target",
        ),
        (
            "hard link to a later file",
            of(&[Member::hard_link("l", "a"), file("a")]),
            "no file of this layer",
        ),
        (
            "file below a link to outside",
            of(&[link("out", outside), file("out/secret")]),
            "reached",
        ),
        (
            "file below a relative link to outside",
            of(&[link("out", "../../../outside"), file("out/secret")]),
            "reached",
        ),
        (
            "file below a chain of links",
            of(&[link("a", "b"), link("b", outside), file("a/dir/file")]),
            "reached",
        ),
        (
            "file below a link to itself",
            of(&[link("a", "a"), file("a/x")]),
            "reached",
        ),
        (
            "file below a dangling link",
            of(&[link("a", "nowhere"), file("a/x")]),
            "reached",
        ),
        ("file below a file", of(&[file("a"), file("a/b")]), "reached"),
        (
            "directory below a link to outside",
            of(&[link("out", outside), Member::directory("out/dir", 0o777)]),
            "reached",
        ),
        (
            "link below a link to outside",
            of(&[link("out", outside), link("out/l", "x")]),
            "reached",
        ),
        (
            "whiteout through a link to outside",
            of(&[link("out", outside), Member::new("out/.wh.secret", 0, "")]),
            "reached",
        ),
        (
            "opaque through a link to outside",
            of(&[link("out", outside), Member::new("out/.wh..wh..opq", 0, "")]),
            "reached",
        ),
        (
            "whiteout of the parent",
            of(&[Member::new(".wh...", 0, "")]),
            "hides nothing",
        ),
        (
            "whiteout of itself",
            of(&[Member::new("d/.wh..", 0, "")]),
            "hides nothing",
        ),
        (
            "whiteout of nothing",
            of(&[Member::new(".wh.", 0, "")]),
            "hides nothing",
        ),
        (
            "file over a full directory",
            of(&[file("d/x"), file("d")]),
            "not empty",
        ),
        (
            "link over a full directory",
            of(&[file("d/x"), link("d", outside)]),
            "not empty",
        ),
        ("file as the root", of(&[file(".")]), "root"),
        (
            "file that ends as a directory",
            of(&[file("a/")]),
            "that of a directory",
        ),
        ("link as the root", of(&[link(".", outside)]), "root"),
        ("link without a target", of(&[link("l", "")]), "target"),
        (
            "path longer than a path",
            join(&[&raw(&long), &raw(&file("a"))]),
            "more than a path",
        ),
        (
            "long name without its end",
            join(&[&raw(&endless), &raw(&file("a"))]),
            "zero byte",
        ),
        (
            "extension header beyond its limit",
            join(&[&raw(&huge), &raw(&file("a"))]),
            "extension header",
        ),
        (
            "component longer than a name",
            join(&[&raw(&deep), &raw(&file("a"))]),
            "failed",
        ),
        (
            "zero byte in a long name",
            join(&[&raw(&zero), &raw(&file("a"))]),
            "zero byte",
        ),
        (
            "two long names",
            join(&[&raw(&zero), &raw(&zero), &raw(&file("a"))]),
            "two long names",
        ),
        ("long name of nothing", raw(&zero), "describes no entry"),
        (
            "PAX size that contradicts",
            pax(&[("size", "1")], &file("a")),
            "contradicts",
        ),
        (
            "PAX size that hides an entry",
            pax(&[("size", "1024")], &Member::new("a", 0o644, "")),
            "contradicts",
        ),
        (
            "PAX size that is no number",
            pax(&[("size", "-3")], &file("a")),
            "not a number",
        ),
        (
            "PAX path with a parent",
            pax(&[("path", "../escape")], &file("a")),
            "`..`",
        ),
        (
            "PAX path with a zero byte",
            pax(&[("path", "a\0b")], &file("a")),
            "zero byte",
        ),
        (
            "PAX record twice",
            pax(&[("path", "a"), ("path", "b")], &file("a")),
            "twice",
        ),
        (
            "PAX owner beyond 32 bits",
            pax(&[("uid", "4294967296")], &file("a")),
            "too large",
        ),
        (
            "PAX owner nobody can be",
            pax(&[("uid", "4294967295")], &file("a")),
            "too large",
        ),
        (
            "path of 100 KB",
            pax(&[("path", &"n".repeat(100_000))], &file("a")),
            "more than a path",
        ),
        (
            "PAX link name of 100 KB",
            pax(&[("linkpath", &"n/".repeat(50_000))], &link("a", "b")),
            "more than a path",
        ),
        ("empty PAX path", pax(&[("path", "")], &file("a")), "empty"),
        (
            "PAX size beyond all files",
            pax(&[("size", "18446744073709551615")], &Member::new("a", 0o644, "")),
            "beyond what any file",
        ),
        (
            "PAX time that is none",
            pax(&[("mtime", "1e9")], &file("a")),
            "not a time",
        ),
        (
            "PAX and GNU name for one entry",
            join(&[
                &raw(&Member::of(EntryType::GNULongName, "L", "", 0, b"b\0".to_vec())),
                &pax(&[("path", "c")], &file("a")),
            ]),
            "both",
        ),
        (
            "malformed PAX record",
            join(&[
                &raw(&Member::of(
                    EntryType::XHeader,
                    "p",
                    "",
                    0,
                    b"99 path=a\n".to_vec(),
                )),
                &raw(&file("a")),
            ]),
            "malformed",
        ),
        (
            "global PAX path",
            join(&[
                &raw(&Member::of(
                    EntryType::XGlobalHeader,
                    "g",
                    "",
                    0,
                    b"10 path=a\n".to_vec(),
                )),
                &raw(&file("a")),
            ]),
            "global",
        ),
        (
            "old sparse file without a size",
            raw(&Member::of(EntryType::GNUSparse, "a", "", 0, Vec::new())),
            "real size",
        ),
        (
            "unknown type",
            raw(&Member::of(EntryType::new(b'Z'), "a", "", 0, Vec::new())),
            "unknown type",
        ),
        ("link with content", sized_link, "is no file"),
        ("wrong checksum", broken, "checksum"),
        ("cut in a header", raw(&file("a"))[..300].to_vec(), "middle"),
        ("cut in a file", raw(&file("a"))[..513].to_vec(), "middle"),
        (
            "entry after the end",
            join(&[&of(&[file("a")]), &raw(&file("b"))]),
            "after the end",
        ),
        (
            "garbage after the end",
            join(&[&of(&[file("a")]), b"x"]),
            "after the end",
        ),
        ("empty path", raw(&file("")), "empty"),
    ]
}
