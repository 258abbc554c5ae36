//! Hostile headers: numbers, formats and sparse maps that readers understand differently.

use super::{EntryType, Member, file, join, pax, raw};

/// One header, changed at an offset, with the checksum of what it is then.
fn changed(member: &Member, changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = raw(member);
    for (at, change) in changes {
        bytes[*at..at + change.len()].copy_from_slice(change);
    }
    seal(&mut bytes);
    bytes
}

fn seal(bytes: &mut [u8]) {
    bytes[148..156].fill(b' ');
    let sum: u32 = bytes[..512].iter().map(|byte| u32::from(*byte)).sum();
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// An old GNU sparse file: its map, its real size, its content.
fn sparse(map: &[(u64, u64)], real: u64, content: &[u8]) -> Vec<u8> {
    let member = Member::of(EntryType::GNUSparse, "s", "", 0o644, content.to_vec());
    let number = |number: u64| format!("{number:011o}\0").into_bytes();
    let map: Vec<u8> = map
        .iter()
        .flat_map(|(offset, length)| [number(*offset), number(*length)].concat())
        .collect();
    changed(&member, &[(386, &map), (483, &number(real))])
}

fn pax_1_0(map: &str, real: &str, content: &[u8]) -> Vec<u8> {
    let mut body = map.as_bytes().to_vec();
    body.resize(body.len().next_multiple_of(512), 0);
    body.extend_from_slice(content);
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "s"),
        ("GNU.sparse.realsize", real),
    ];
    pax(&records, &Member::new("GNUSparseFile.1/s", 0o644, body))
}

fn pax_0_1(map: &str, count: &str, real: &str, content: &[u8]) -> Vec<u8> {
    let records = [
        ("GNU.sparse.size", real),
        ("GNU.sparse.numblocks", count),
        ("GNU.sparse.name", "s"),
        ("GNU.sparse.map", map),
    ];
    pax(&records, &Member::new("GNUSparseFile.1/s", 0o644, content))
}

/// Layers that are refused, each with a word of the reason.
pub(super) fn refused_headers() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let block = [b'x'; 512];
    let two = [b'x'; 1024];
    let a = file("a");
    let extended = changed(
        &Member::of(EntryType::GNUSparse, "s", "", 0o644, Vec::new()),
        &[(482, b"\x01"), (483, b"00000000000\0")],
    );
    vec![
        (
            "size in base 64",
            changed(&a, &[(124, b"+0000000003\0")]),
            "not a number",
        ),
        (
            "negative size",
            changed(&a, &[(124, &[0xff; 12])]),
            "not a number",
        ),
        (
            "size beyond 64 bits",
            changed(&a, &[(124, b"\x80\0\0\x01\0\0\0\0\0\0\0\0")]),
            "too large",
        ),
        (
            "size with a word in it",
            changed(&a, &[(124, b"3 1        \0")]),
            "not a number",
        ),
        (
            "size with an underscore",
            changed(&a, &[(124, b"0000000_003\0")]),
            "not a number",
        ),
        (
            "size in decimal",
            changed(&a, &[(124, b"00000000009\0")]),
            "not a number",
        ),
        ("no size", changed(&a, &[(124, &[0; 12])]), "not a number"),
        (
            "mode that is no number",
            changed(&a, &[(100, b"rwxr-xr\0")]),
            "not a number",
        ),
        (
            "owner in base 64",
            changed(&a, &[(108, b"-000001\0")]),
            "not a number",
        ),
        (
            "time long ago",
            changed(&a, &[(136, b"\xff\0\0\0\0\0\0\0\0\0\0\0")]),
            "too early",
        ),
        (
            "rest of a path in a GNU header",
            changed(&a, &[(345, b"etc/")]),
            "readers do not agree",
        ),
        (
            "format of the future",
            changed(&a, &[(257, b"ustar\x0099")]),
            "nobody has described",
        ),
        (
            "device of a format without devices",
            changed(
                &Member::of(EntryType::Char, "c", "", 0o644, Vec::new()),
                &[(257, &[0; 8])],
            ),
            "knows nothing of",
        ),
        (
            "device beyond 32 bits",
            changed(
                &Member::of(EntryType::Block, "b", "", 0o644, Vec::new()),
                &[(329, b"\x80\0\0\x01\0\0\0\0"), (337, b"0000000\0")],
            ),
            "too large",
        ),
        (
            "sparse file of a format without them",
            changed(
                &Member::of(EntryType::GNUSparse, "s", "", 0o644, Vec::new()),
                &[(257, b"ustar\x0000")],
            ),
            "knows nothing of",
        ),
        (
            "sparse parts that overlap",
            sparse(&[(0, 512), (256, 512)], 4096, &two),
            "overlap",
        ),
        (
            "sparse parts out of order",
            sparse(&[(1024, 512), (0, 512)], 4096, &two),
            "out of order",
        ),
        (
            "sparse part beyond the file",
            sparse(&[(0, 512), (1024, 512)], 1100, &two),
            "beyond its real size",
        ),
        (
            "sparse parts of more than is stored",
            sparse(&[(0, 512), (1024, 512)], 4096, &block),
            "has 512",
        ),
        (
            "sparse parts of less than is stored",
            sparse(&[(0, 512)], 4096, &two),
            "has 1024",
        ),
        (
            "sparse part of no whole blocks",
            sparse(&[(0, 100), (1024, 412)], 4096, &block),
            "no whole blocks",
        ),
        (
            "sparse part beyond all numbers",
            changed(
                &Member::of(EntryType::GNUSparse, "s", "", 0o644, block.to_vec()),
                &[
                    (386, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
                    (398, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"),
                    (483, b"00000010000\0"),
                ],
            ),
            "beyond its real size",
        ),
        ("sparse map after its end", with_gap(), "after its end"),
        (
            "sparse map that goes on after its end",
            join(&[&extended, &[0; 512]]),
            "after its end",
        ),
        (
            "sparse map that is cut",
            {
                let mut full = sparse(&[(0, 0), (0, 0), (0, 0), (0, 0)], 0, &[]);
                full[482] = 1;
                seal(&mut full);
                full
            },
            "middle of an entry",
        ),
        (
            "PAX sparse file of a format without them",
            {
                let mut bytes = pax_0_1("0,512", "1", "4096", &block);
                bytes[1024 + 257..1024 + 265].fill(0);
                seal(&mut bytes[1024..]);
                bytes
            },
            "knows nothing of",
        ),
        (
            "sparse directory",
            pax(
                &[
                    ("GNU.sparse.size", "0"),
                    ("GNU.sparse.numblocks", "0"),
                    ("GNU.sparse.map", ""),
                ],
                &Member::directory("d", 0o755),
            ),
            "is no file",
        ),
        (
            "sparse of a version to come",
            pax(&[("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0")], &a),
            "nobody",
        ),
        (
            "sparse without a version",
            pax(&[("GNU.sparse.minor", "0")], &a),
            "nobody has described",
        ),
        (
            "sparse with half a version",
            pax(&[("GNU.sparse.major", "1")], &a),
            "no GNU.sparse.minor",
        ),
        ("sparse of star", pax(&[("SCHILY.realsize", "4096")], &a), "star"),
        ("sparse in two ways", sparse_twice(), "two ways"),
        (
            "PAX 1.0 map longer than its content",
            pax_1_0(&format!("300\n{}", "0\n".repeat(254)), "4096", &[]),
            "longer than its content",
        ),
        (
            "PAX 1.0 map of words",
            pax_1_0("1\n0\nall\n", "4096", &block),
            "not a number",
        ),
        (
            "PAX 1.0 map with signs",
            pax_1_0("1\n0\n+512\n", "4096", &block),
            "not a number",
        ),
        (
            "PAX 1.0 map of numbers without end",
            pax_1_0(&"1".repeat(400), "4096", &block),
            "too large",
        ),
        (
            "PAX 1.0 map of a million parts",
            pax_1_0("1000000\n", "4096", &block),
            "more parts",
        ),
        (
            "PAX 1.0 parts that overlap",
            pax_1_0("2\n0\n512\n256\n512\n", "4096", &two),
            "overlap",
        ),
        (
            "PAX 1.0 parts beyond the file",
            pax_1_0("1\n3840\n512\n", "4096", &block),
            "beyond its real size",
        ),
        (
            "PAX 1.0 parts of less than is stored",
            pax_1_0("1\n0\n512\n", "4096", &two),
            "has 1024",
        ),
        (
            "PAX 1.0 real size that is none",
            pax_1_0("0\n", "many", &[]),
            "not a number",
        ),
        (
            "PAX 1.0 real size beyond all files",
            pax_1_0("0\n", "9223372036854775808", &[]),
            "beyond what any",
        ),
        (
            "PAX 0.1 map of odd numbers",
            pax_0_1("0,512,1024", "1", "4096", &block),
            "malformed",
        ),
        (
            "PAX 0.1 map that is shorter than it says",
            pax_0_1("0,512", "2", "4096", &block),
            "contradicts",
        ),
        (
            "PAX 0.1 parts out of order",
            pax_0_1("1024,512,0,512", "2", "4096", &two),
            "out of order",
        ),
        (
            "PAX 0.0 length without an offset",
            pax(&[("GNU.sparse.numbytes", "3"), ("GNU.sparse.offset", "0")], &a),
            "malformed",
        ),
        (
            "PAX 0.0 offset without a length",
            pax(&[("GNU.sparse.offset", "0"), ("path", "b")], &a),
            "malformed",
        ),
        (
            "PAX 0.0 that says how many and lies",
            pax(
                &[
                    ("GNU.sparse.size", "3"),
                    ("GNU.sparse.numblocks", "2"),
                    ("GNU.sparse.offset", "0"),
                    ("GNU.sparse.numbytes", "3"),
                ],
                &a,
            ),
            "contradicts",
        ),
    ]
}

fn sparse_twice() -> Vec<u8> {
    let both = pax(&[("GNU.sparse.size", "0")], &file("a"));
    let mut inner = sparse(&[], 0, &[]);
    inner.truncate(512);
    [&both[..1024], &inner].concat()
}

/// An empty slot before the last one.
fn with_gap() -> Vec<u8> {
    let mut bytes = sparse(&[(0, 512), (1024, 512)], 4096, &[b'x'; 1024]);
    let second = bytes[410..434].to_vec();
    bytes[410..434].fill(0);
    bytes[434..458].copy_from_slice(&second);
    seal(&mut bytes);
    bytes
}
