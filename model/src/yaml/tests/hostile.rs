//! Megabytes of what an attacker would try, and of what is just large.

use proptest::prelude::*;

use crate::{
    tree::{Node, Value},
    yaml::parse,
};

#[test]
fn hostile_text_is_refused_and_large_text_is_read() {
    for (name, yaml, want) in hostile() {
        let got = parse(&yaml, 0).map(|documents| documents.len());
        match (got, want) {
            (Ok(got), Ok(want)) => assert_eq!(got, want, "{name}"),
            (Err(error), Err(want)) => assert!(error.message.contains(want), "{name}: {error}"),
            (got, want) => panic!("{name}: {got:?} and not {want:?}"),
        }
    }
}

/// What it is, the text, and how many documents it has or why it is refused.
fn hostile() -> Vec<(&'static str, String, Result<usize, &'static str>)> {
    // The largest file there is; unoptimised less of it, which is refused for the same reasons.
    const SIZE: usize = if cfg!(debug_assertions) { 3 << 19 } else { 4 << 20 };
    const MUCH: Result<usize, &str> = Err("too much YAML");
    let fill = |start: &str, entry: &dyn Fn(usize) -> String, end: &str| {
        let mut text = start.to_owned();
        let mut number = 0;
        while text.len() < SIZE - 200 {
            text += &entry(number);
            number += 1;
        }
        text + end
    };
    let bomb = |width: usize| {
        let level = |n: usize| {
            format!(
                "a{}: &a{} [{}]\n",
                n,
                n,
                vec![format!("*a{}", n - 1); width].join(",")
            )
        };
        "a0: &a0 {k: v}\n".to_owned() + &(1..40).map(level).collect::<String>()
    };
    let merge_bomb: String = (1..40)
        .map(|n| format!("a{n}: &a{n} {{<<: [*a{m}, *a{m}, {{k{n}: v}}]}}\n", m = n - 1))
        .collect();
    let keys: String = (0..1000).map(|n| format!("  k{n}: v\n")).collect();
    vec![
        (
            "services",
            fill(
                "services:\n",
                &|n| {
                    format!(
                        "  s{n}:\n    image: example.org/image/{n}:1.2.3\n    user: {}\n",
                        "u".repeat(100)
                    )
                },
                "",
            ),
            Ok(1),
        ),
        ("a flow sequence", fill("a: [", &|_| "x,".to_owned(), "]"), MUCH),
        (
            "a flow sequence of long texts",
            fill("a: [", &|_| "x".repeat(50) + ", ", "]"),
            Ok(1),
        ),
        ("a plain scalar", fill("a: ", &|_| "x".repeat(80), "\n"), Ok(1)),
        (
            "a scalar of lines",
            fill("a: |\n", &|_| "  line\n".to_owned(), ""),
            Ok(1),
        ),
        (
            "a quoted scalar",
            fill("a: \"", &|_| "\\L x\n  ".to_owned(), "\"\n"),
            Ok(1),
        ),
        ("a number", fill("a: ", &|_| "9".repeat(80), "\n"), Ok(1)),
        (
            "a base64 text",
            fill("a: !!binary |\n", &|_| "  YWFh\n".to_owned(), ""),
            Ok(1),
        ),
        ("comments", fill("", &|_| "# comment\n".to_owned(), ""), Ok(0)),
        ("one comment", fill("a: 1 # ", &|_| "x".repeat(80), ""), Ok(1)),
        ("an alias bomb", bomb(9), MUCH),
        ("a slow alias bomb", bomb(2), MUCH),
        ("a merge bomb", format!("a0: &a0 {{k: v}}\n{merge_bomb}"), MUCH),
        (
            "an alias of a long text",
            fill(
                &format!("a: &a {}\nb: [", "x".repeat(1 << 18)),
                &|_| "*a,".to_owned(),
                "]",
            ),
            MUCH,
        ),
        (
            "a long key as an alias",
            fill(
                &format!("a: &a {}\nb:\n", "x".repeat(1 << 18)),
                &|_| "  - *a : 1\n".to_owned(),
                "",
            ),
            MUCH,
        ),
        ("brackets", "[".repeat(SIZE), MUCH),
        ("braces", "{a: ".repeat(SIZE / 4), MUCH),
        ("dashes", "- ".repeat(SIZE / 2), MUCH),
        ("question marks", "? ".repeat(SIZE / 2), Err("a key must be text")),
        (
            "closed brackets",
            format!("{}{}", "[".repeat(SIZE / 2), "]".repeat(SIZE / 2)),
            MUCH,
        ),
        (
            "99,000 keys",
            (0..99_000).map(|n| format!("key-{n}: value\n")).collect(),
            Ok(1),
        ),
        (
            "100,000 keys",
            (0..100_000).map(|n| format!("key-{n}: value\n")).collect(),
            MUCH,
        ),
        (
            "keys that are alike",
            fill("", &|n| format!("{}{n}: v\n", "k".repeat(900)), ""),
            Ok(1),
        ),
        ("anchors", fill("a: [", &|n| format!("&a{n} x, "), "]"), MUCH),
        (
            "long anchors",
            fill("a:\n", &|n| format!("- &{}{n} x\n", "a".repeat(100)), ""),
            Ok(1),
        ),
        ("tags", fill("a: [", &|n| format!("!t{n} x, "), "]"), MUCH),
        ("documents", fill("", &|n| format!("--- {n}\n"), ""), MUCH),
        ("empty documents", fill("", &|_| "---\n".to_owned(), ""), MUCH),
        (
            "quoted texts that are not indented",
            fill("", &|n| format!("k{n}: '{}\nb'\n", "a".repeat(60)), ""),
            Err("not indented"),
        ),
        (
            "one quoted text that is not indented",
            fill(
                &format!("{}: '\n", "k".repeat(1000)),
                &|_| "b\n".to_owned(),
                "'\n",
            ),
            Err("not indented"),
        ),
        (
            "comments behind values",
            fill("", &|n| format!("k{n}: '{}'# c\n", "a".repeat(60)), ""),
            Err("`#`"),
        ),
        (
            "merges of a large mapping",
            fill(
                &format!("x: &x\n{keys}services:\n"),
                &|n| format!("  s{n}: {{<<: *x}}\n"),
                "",
            ),
            MUCH,
        ),
        (
            "merges of a large mapping in one",
            fill(
                &format!("x: &x\n{keys}services:\n  <<: ["),
                &|_| "*x,".to_owned(),
                "]\n",
            ),
            MUCH,
        ),
        (
            "merges of long keys",
            fill(
                &format!(
                    "x: &x\n  ? {k}a\n  : v\n  ? {k}b\n  : v\ny:\n  <<: [",
                    k = "k".repeat(1 << 18)
                ),
                &|_| "*x,".to_owned(),
                "]\n",
            ),
            MUCH,
        ),
        (
            "a chain of merges",
            fill(
                "a0: &a0 {k: v}\n",
                &|n| format!("a{m}: &a{m} {{<<: *a{n}}}\n", m = n + 1),
                "",
            ),
            MUCH,
        ),
    ]
}

/// The depth of a tree whose mappings have each key once.
fn depth(node: &Node) -> usize {
    let mut keys: Vec<_> = node.entries().iter().map(|entry| &entry.key).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), node.entries().len(), "{node:?}");
    let below = node
        .items()
        .iter()
        .chain(node.entries().iter().map(|entry| &entry.value));
    match node.value {
        Value::List(_) | Value::Map(_) => 1 + below.map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

proptest! {
    #[test]
    fn whatever_is_read_has_each_key_once_and_few_levels(
        words in prop::collection::vec(prop::sample::select(vec![
            "a", "b", "1", "~", "'q'", "\"\\x41\"", "<<", ": ", ":", ", ", "[", "]", "{", "}", "- ", "? ",
            "&x ", "&y ", "*x ", "*y ", "<<: *x", "<<: [*x, *y]", "!!int ", "!!str ", "!reset ", "!override ",
            "|\n", ">-\n", "# c", "\n", "\n", "\n  ", "\n    ", "\n---\n", "\t", "é", "\u{feff}", "\r\n", "%",
        ]), 0..60)
    ) {
        let text = words.concat();
        match parse(&text, 1) {
            Ok(documents) => for document in documents {
                prop_assert!(depth(&document) <= 64);
            },
            Err(error) => {
                let lines = text.split(['\n', '\r']).count();
                prop_assert!((1..=lines).contains(&(error.at.line as usize)), "{:?}", error);
                prop_assert!(error.at.column > 0 && error.at.file == 1 && !error.hint.is_empty(), "{:?}", error);
            }
        }
    }
}
