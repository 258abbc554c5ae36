//! The walls of the house: what may depend on what, where `unsafe` may stand, and that the map is right.
//!
//! `UPDATE=1 cargo test -p stead --test walls` rewrites the file list of ARCHITECTURE.md.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const CRATES: [&str; 4] = ["model", "reconciler", "backend", "agent"];
const BANNED: [&str; 5] = ["manager", "helper", "util", "common", "misc"];
const LONGEST: usize = 500;
const LIST: &str = "## Files\n";

fn root() -> PathBuf {
    let agent = Path::new(env!("CARGO_MANIFEST_DIR"));
    agent.parent().expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every Rust file, by its path from the root.
fn sources() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for directory in CRATES.iter().chain(&["tests"]) {
        collect(&root().join(directory), &mut found);
    }
    assert!(found.len() > 30, "the sources were found");
    found
}

fn collect(directory: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(directory).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file");
            let name = path
                .strip_prefix(root())
                .expect("below the root")
                .display()
                .to_string();
            found.insert(name, text);
        }
    }
}

/// What a crate's `[dependencies]` name; those for tests only are not looked at.
fn dependencies(of: &str) -> Vec<String> {
    let text = read(&format!("{of}/Cargo.toml"));
    let mut within = false;
    let mut names = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            within = line == "[dependencies]"
                || (line.starts_with("[target.") && line.ends_with(".dependencies]"));
        } else if within && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.push(name.to_owned());
        }
    }
    assert!(!names.is_empty(), "{of} has dependencies");
    names
}

#[test]
fn crates_depend_downwards_only() {
    let allowed: [(&str, &[&str]); 4] = [
        ("model", &[]),
        ("reconciler", &["model"]),
        ("backend", &["reconciler"]),
        ("agent", &["model", "reconciler", "backend"]),
    ];
    for (name, below) in allowed {
        for dependency in dependencies(name)
            .iter()
            .filter(|dependency| CRATES.contains(&dependency.as_str()))
        {
            // The types of `model` appear in what `reconciler`'s port mentions.
            let fine = below.contains(&dependency.as_str()) || (name == "backend" && dependency == "model");
            assert!(fine, "{name} depends on {dependency}");
        }
    }
}

#[test]
fn each_crate_keeps_out_what_is_not_its_business() {
    let banned: [(&str, &[&str]); 3] = [
        (
            "model",
            &[
                "tokio",
                "nix",
                "libc",
                "rustix",
                "rtnetlink",
                "anyhow",
                "clap",
                "axum",
                "jiff",
                "tracing",
            ],
        ),
        (
            "reconciler",
            &[
                "nix",
                "libc",
                "rustix",
                "rtnetlink",
                "anyhow",
                "clap",
                "axum",
                "jiff",
                "notify",
            ],
        ),
        ("backend", &["anyhow", "clap", "axum", "notify", "serde_yaml"]),
    ];
    for (name, banned) in banned {
        for dependency in dependencies(name) {
            assert!(
                !banned.contains(&dependency.as_str()),
                "{name} depends on {dependency}"
            );
        }
    }
}

#[test]
fn unsafety_lives_in_backend_sys_alone() {
    // Put together here, so that this file does not contain the word it looks for.
    let word = ["un", "safe"].concat();
    for (path, text) in sources() {
        // The probe plays the attacker: it makes calls that nothing of the house may make. It is not shipped.
        let probe = path == "tests/probe/src/sys.rs";
        if probe || path == "backend/src/sys.rs" || path.starts_with("backend/src/sys/") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let used = [" {", " fn", " impl", " extern", "("]
                .iter()
                .any(|after| code.contains(&format!("{word}{after}")));
            assert!(!used, "{path}:{}: {word} outside backend::sys", number + 1);
        }
    }
}

#[test]
fn every_file_says_its_purpose_and_is_short() {
    for (path, text) in sources() {
        assert!(
            text.starts_with("//! "),
            "{path} opens with `//!` and its purpose"
        );
        let lines = text.lines().count();
        assert!(lines < LONGEST, "{path} has {lines} lines; split it by purpose");
    }
}

#[test]
fn no_module_is_named_after_nothing() {
    for path in sources().keys() {
        for part in path.trim_end_matches(".rs").split(['/', '_']) {
            let banned = BANNED
                .iter()
                .any(|word| part == *word || part == format!("{word}s"));
            assert!(!banned, "{path}: name it after what it does");
        }
    }
}

#[test]
fn no_test_is_ignored() {
    let word = ["#[ig", "nore"].concat();
    for (path, text) in sources() {
        assert!(!text.contains(&word), "{path} has an ignored test");
    }
}

#[test]
fn the_map_is_the_tree() {
    let mut list = String::from("\n```text\n");
    for (path, text) in sources() {
        let purpose = text.lines().next().unwrap_or_default().trim_start_matches("//! ");
        list.push_str(&format!("{path} — {purpose}\n"));
    }
    list.push_str("```\n");

    let map = read("ARCHITECTURE.md");
    let (before, now) = match map.split_once(LIST) {
        Some((before, now)) => (before.to_owned(), now.to_owned()),
        None => (format!("{}\n\n", map.trim_end()), String::new()),
    };
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join("ARCHITECTURE.md"), format!("{before}{LIST}{list}")).expect("ARCHITECTURE.md");
        return;
    }
    for (have, want) in now.lines().zip(list.lines()) {
        assert_eq!(
            have, want,
            "ARCHITECTURE.md is old: UPDATE=1 cargo test -p stead --test walls"
        );
    }
    assert_eq!(
        now, list,
        "ARCHITECTURE.md is old: UPDATE=1 cargo test -p stead --test walls"
    );
}

/// What the README tells people to type must exist.
#[test]
fn the_readme_is_about_this_program() {
    let readme = read("README.md");
    for command in [
        "cargo run --release -- up examples/hello",
        "cargo test --workspace",
    ] {
        assert!(readme.contains(command), "README.md lacks `{command}`");
    }
    let verbs = [
        "up", "agent", "apply", "down", "plan", "config", "schema", "ps", "status", "logs", "exec", "doctor",
        "version", "why", "stop", "start", "restart", "attach", "top", "stats", "port", "cp", "image",
    ];
    for line in readme
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("stead ") || line.starts_with("sudo stead "))
    {
        let words: Vec<&str> = line
            .trim_start_matches("sudo ")
            .split_whitespace()
            .skip(1)
            .collect();
        let verb = words.iter().find(|word| verbs.contains(word));
        assert!(
            verb.is_some(),
            "README.md: `{line}` is no command of this version"
        );
    }
    for word in readme
        .split_whitespace()
        .filter(|word| word.starts_with("examples/"))
    {
        let path = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '/' && c != '-');
        assert!(root().join(path).exists(), "README.md speaks of {path}");
    }
}

/// The repository stands alone.
#[test]
fn nothing_points_outside() {
    let outside = [["../", "shared"].concat(), ["/wo", "rk/"].concat()];
    for (path, text) in sources() {
        for place in &outside {
            let known = text
                .lines()
                .filter(|line| line.contains(place.as_str()) && !line.contains("STEAD_COMPOSE_CASES"));
            assert_eq!(known.count(), 0, "{path} points to {place}");
        }
    }
}
