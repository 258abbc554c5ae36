//! What goes and what stays, as a table: parts and images made up, times given.

use super::*;

const NOW: u64 = 1_000_000;

fn at(ago: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(NOW - ago)
}

/// Parts by their path, size and age in seconds.
fn survey(images: &[(&str, &[&str], &[&str], u64)], parts: &[(&str, u64, u64)]) -> Survey {
    let kind = |path: &str| match path.split_once('/') {
        Some(("layers", name)) if name.starts_with(".held") => Kind::Held,
        Some(("layers", name)) if name.starts_with('.') => Kind::Unfinished,
        Some(("layers", _)) => Kind::Layer,
        Some(("blobs", _)) => Kind::Document,
        Some(("pull", _)) => Kind::Pull,
        _ => Kind::Foreign,
    };
    let images = images.iter().map(|(digest, names, parts, used)| Stored {
        digest: format!("sha256:{digest}"),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        followed: BTreeSet::new(),
        created: None,
        parts: parts.iter().map(PathBuf::from).collect(),
        used: at(*used),
        unreadable: None,
        incomplete: false,
    });
    let parts = parts.iter().enumerate().map(|(number, (path, size, age))| {
        let part = Part {
            kind: kind(path),
            size: *size,
            changed: at(*age),
            identity: (1, number as u64),
        };
        (PathBuf::from(path), part)
    });
    Survey {
        images: images.collect(),
        parts: parts.collect(),
        total: 0,
    }
}

/// Two images share a layer; a third has no name any more; and what is left of others.
fn shop() -> Survey {
    survey(
        &[
            ("aa", &["web:1"], &["layers/base", "layers/a", "blobs/aa"], 5000),
            (
                "bb",
                &["web:2", "web:latest"],
                &["layers/base", "layers/b", "blobs/bb"],
                300,
            ),
            ("cc", &[], &["layers/c", "blobs/cc"], 9000),
        ],
        &[
            ("blobs/aa", 1, 5000),
            ("blobs/bb", 1, 300),
            ("blobs/cc", 1, 9000),
            ("layers/.gone-1", 7, 0),
            ("layers/.held-1", 7, 0),
            ("layers/a", 100, 5000),
            ("layers/b", 100, 300),
            ("layers/base", 1000, 5000),
            ("layers/c", 100, 9000),
            ("layers/nobodys", 50, 100),
            ("notes.txt", 3, 90_000),
            ("pull/fresh", 20, 5),
            ("pull/stale", 20, 601),
        ],
    )
}

fn needed(names: &[&str], digests: &[&str], grounds: &[u64]) -> Use {
    let who = |who: &str| BTreeSet::from([who.to_owned()]);
    Use {
        names: names
            .iter()
            .map(|name| ((*name).to_owned(), who("shop")))
            .collect(),
        digests: digests
            .iter()
            .map(|digest| (format!("sha256:{digest}"), who("shop/web/1")))
            .collect(),
        grounds: grounds.iter().map(|inode| (1, *inode)).collect(),
    }
}

fn chosen(survey: &Survey, used: &Use, what: What) -> (Vec<String>, Vec<String>) {
    let selected = select(survey, used, what, at(0)).unwrap();
    let parts = selected.parts.keys().map(|path| path.display().to_string());
    (selected.names.into_iter().collect(), parts.collect())
}

#[test]
fn what_has_a_name_or_a_user_stays() {
    let left: &[&str] = &["layers/.gone-1", "layers/.held-1", "layers/nobodys", "pull/stale"];
    type Case = (
        &'static str,
        Use,
        What,
        &'static [&'static str],
        &'static [&'static str],
    );
    let cases: [Case; 7] = [
        (
            "nobody's",
            needed(&[], &[], &[]),
            What::Nobodys,
            &[],
            &["blobs/cc", "layers/c"],
        ),
        (
            "its container keeps it",
            needed(&[], &["cc"], &[]),
            What::Nobodys,
            &[],
            &[],
        ),
        (
            "unused",
            needed(&[], &[], &[]),
            What::Unused,
            &["web:1", "web:2", "web:latest"],
            &[
                "blobs/aa",
                "blobs/bb",
                "blobs/cc",
                "layers/a",
                "layers/b",
                "layers/base",
                "layers/c",
            ],
        ),
        (
            "one of its names is needed",
            needed(&["web:latest"], &[], &[]),
            What::Unused,
            &["web:1"],
            &["blobs/aa", "blobs/cc", "layers/a", "layers/c"],
        ),
        (
            "a container of it",
            needed(&[], &["aa"], &[]),
            What::Unused,
            &["web:2", "web:latest"],
            &["blobs/bb", "blobs/cc", "layers/b", "layers/c"],
        ),
        (
            "a project that rolls back, and a container of what has no name",
            needed(&["web:1"], &["cc"], &[]),
            What::Unused,
            &["web:2", "web:latest"],
            &["blobs/bb", "layers/b"],
        ),
        (
            "something stands on a layer of no image",
            needed(&["web:1", "web:2"], &[], &[8]),
            What::Unused,
            &[],
            &["blobs/cc"],
        ),
    ];
    for (case, used, what, names, parts) in cases {
        let mut expected: Vec<&str> = [left, parts].concat();
        expected.sort_unstable();
        let found = chosen(&shop(), &used, what);
        assert_eq!(found.0, names, "{case}");
        assert_eq!(found.1, expected, "{case}");
    }
}

#[test]
fn a_damaged_layer_that_something_stands_on_stays() {
    let held = shop().parts[Path::new("layers/.held-1")].identity.1;
    let (_, parts) = chosen(&shop(), &needed(&[], &[], &[held]), What::Unused);
    assert!(!parts.contains(&"layers/.held-1".to_owned()), "{parts:?}");
}

#[test]
fn the_least_recently_used_goes_first_until_there_is_room() {
    let none = needed(&[], &[], &[]);
    // What is left over, then what has no name, then the oldest; the base goes with the last that has it.
    let cases: [(u64, Use, &[&str]); 6] = [
        (0, none.clone(), &[]),
        (1, none.clone(), &[]),
        (35, none.clone(), &[]),
        (36, none.clone(), &[]),
        (200, none.clone(), &["web:1"]),
        (100_000, none, &["web:1", "web:2", "web:latest"]),
    ];
    for (bytes, used, names) in cases {
        let (found, parts) = chosen(&shop(), &used, What::Oldest { bytes });
        assert_eq!(found, names, "{bytes}");
        assert_eq!(
            parts.contains(&"layers/base".to_owned()),
            names.len() == 3,
            "{bytes}"
        );
        // Nobody's, but it came a moment ago.
        assert!(!parts.contains(&"layers/nobodys".to_owned()), "{bytes}");
        assert_eq!(parts.contains(&"layers/c".to_owned()), bytes >= 35, "{bytes}");
    }
    let (found, _) = chosen(
        &shop(),
        &needed(&["web:1"], &[], &[]),
        What::Oldest { bytes: 100_000 },
    );
    assert_eq!(found, ["web:2", "web:latest"], "never what is needed");
}

#[test]
fn what_came_a_moment_ago_stays_where_nobody_asked_for_its_end() {
    let mut shop = shop();
    for (age, goes) in [(119, false), (120, true)] {
        shop.images[0].used = at(age);
        let (names, _) = chosen(&shop, &needed(&[], &[], &[]), What::Oldest { bytes: 100_000 });
        assert_eq!(names.contains(&"web:1".to_owned()), goes, "{age}");
    }
    shop.images[0].used = at(0);
    let (names, _) = chosen(&shop, &needed(&[], &[], &[]), What::Unused);
    assert!(names.contains(&"web:1".to_owned()), "an order is an order");
}

#[test]
fn nothing_goes_where_it_is_not_known_what_stays() {
    let mut shop = shop();
    let file = PathBuf::from("/state/images/blobs/sha256/bb");
    shop.images[1].unreadable = Some(file.clone());
    let none = needed(&[], &[], &[]);
    assert_eq!(select(&shop, &none, What::Nobodys, at(0)), Err(file.clone()));
    assert_eq!(
        select(&shop, &needed(&["web:2"], &[], &[]), What::Unused, at(0)),
        Err(file)
    );
    // It goes itself: then nothing depends on what it says.
    assert!(select(&shop, &none, What::Unused, at(0)).is_ok());
}
