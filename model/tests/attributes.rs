//! A case for every attribute of the Compose schema, valid and invalid: `corpus/attributes/*.txt`.
//!
//! A case is `=== ATTRIBUTE`, a Compose file, further files that it reads (each after a line `+++ NAME`), and what
//! comes of it. After `--- loads`: the attribute in the canonical form, and what stead says about the file; an
//! attribute that has done its work by then is followed, in the first line, by those it has worked on. After
//! `--- refused`: the errors, of those that no loader of Compose accepts.
//! `BLESS=1 cargo test -p stead-model --test attributes` writes what comes of the cases; read the difference before
//! you commit it.

#[path = "attributes/advice.rs"]
mod advice;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use model::{
    diagnostic::{Diagnostic, render},
    load::{Loaded, Options, load},
    shape,
};
use serde_json::Value;

const DIRECTORY: &str = "/project";

struct Case {
    /// File and line, for messages.
    place: String,
    attribute: String,
    /// What is looked at in the canonical form.
    shown: Vec<String>,
    /// All lines before the result, with the first one.
    head: String,
    files: BTreeMap<PathBuf, Vec<u8>>,
    loads: bool,
    result: String,
}

fn paths() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/attributes");
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

/// The cases of one file. Its text is that of the cases, one after the other.
fn cases(path: &Path) -> Vec<Case> {
    let text = fs::read_to_string(path).unwrap();
    let mut cases: Vec<Case> = Vec::new();
    let mut file = PathBuf::new();
    let mut in_result = false;
    for (index, line) in text.lines().enumerate() {
        if let Some(attributes) = line.strip_prefix("=== ") {
            let shown: Vec<_> = attributes.split(' ').map(str::to_owned).collect();
            file = Path::new(DIRECTORY).join("compose.yaml");
            in_result = false;
            cases.push(Case {
                place: format!("{}:{}", path.display(), index + 1),
                attribute: shown[0].clone(),
                shown,
                head: format!("{line}\n"),
                files: [(file.clone(), Vec::new())].into(),
                loads: false,
                result: String::new(),
            });
            continue;
        }
        let case = cases
            .last_mut()
            .unwrap_or_else(|| panic!("{}: begin with `=== ATTRIBUTE`", path.display()));
        if in_result {
            case.result += &format!("{line}\n");
            continue;
        }
        case.head += &format!("{line}\n");
        if let Some(result) = line.strip_prefix("--- ") {
            assert!(["loads", "refused"].contains(&result), "{}: {line}", case.place);
            case.loads = result == "loads";
            in_result = true;
        } else if let Some(name) = line.strip_prefix("+++ ") {
            file = Path::new(DIRECTORY).join(name);
        } else {
            let text = case.files.entry(file.clone()).or_default();
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
    }
    cases
}

fn load_case(case: &Case) -> Loaded {
    load_files(&case.files)
}

fn load_files(files: &BTreeMap<PathBuf, Vec<u8>>) -> Loaded {
    let options = Options {
        directory: DIRECTORY.into(),
        fallback_name: "Project".to_owned(),
        environment: [("FROM_PROCESS".to_owned(), "process".to_owned())].into(),
        home: Some("/home/user".into()),
        profiles: vec!["*".to_owned()],
        ..Options::default()
    };
    load(files, &[Path::new(DIRECTORY).join("compose.yaml")], &options)
}

/// Errors that every loader of Compose has. The others are about what stead does not run.
fn language_errors(loaded: &Loaded) -> impl Iterator<Item = &Diagnostic> {
    loaded
        .diagnostics
        .iter()
        .filter(|diagnostic| diagnostic.is_error() && !diagnostic.refusal)
}

/// Without the source line, which is right above.
fn shown<'a>(diagnostics: impl IntoIterator<Item = &'a Diagnostic>) -> String {
    let shorter = |diagnostic: &Diagnostic| {
        let mut diagnostic = diagnostic.clone();
        diagnostic.source_line = None;
        if let Ok(file) = diagnostic.span.file.strip_prefix(DIRECTORY) {
            diagnostic.span.file = file.to_owned();
        }
        render(&diagnostic, false) + "\n"
    };
    diagnostics.into_iter().map(shorter).collect()
}

/// What is at the places that an attribute's path means, each with its own path.
fn values<'a>(value: &'a Value, attribute: &str) -> Vec<(String, &'a Value)> {
    let mut found = vec![(String::new(), value)];
    for step in attribute.split('.') {
        let mut below = Vec::new();
        for (path, value) in found {
            match value {
                Value::Array(items) if step == "*" => {
                    let items = items.iter().enumerate();
                    below.extend(items.map(|(index, item)| (format!("{path}[{index}]"), item)));
                }
                Value::Object(entries) => {
                    let dot = if path.is_empty() { "" } else { "." };
                    // A few keys begin with a capital in the canonical form.
                    let meant = entries
                        .iter()
                        .filter(|(key, _)| step == "*" || key.eq_ignore_ascii_case(step));
                    below.extend(meant.map(|(key, value)| (format!("{path}{dot}{key}"), value)));
                }
                _ => {}
            }
        }
        found = below;
    }
    found
}

/// Whether a path as messages have it, like `services.web.ports[0].target`, is that of the attribute or below it.
fn is_at(path: &str, attribute: &str) -> bool {
    let path = path.replace('[', ".").replace(']', "");
    let mut steps = path.split('.');
    attribute
        .split('.')
        .all(|want| steps.next().is_some_and(|step| want == "*" || want == step))
}

fn has_error_at_its_attribute(case: &Case) -> bool {
    let loaded = load_case(case);
    language_errors(&loaded).any(|error| {
        let quoted = error.message.split('`').skip(1).step_by(2);
        quoted.into_iter().any(|path| is_at(path, &case.attribute))
    })
}

/// Whether the keys on the way to the attribute follow one another in the Compose file.
fn has_its_attribute(case: &Case) -> bool {
    let text = str::from_utf8(&case.files[&Path::new(DIRECTORY).join("compose.yaml")]).unwrap();
    let is_key = |at: usize| !text[..at].ends_with(|c: char| c.is_alphanumeric() || "_-.".contains(c));
    let mut from = 0;
    case.attribute.split('.').filter(|step| *step != "*").all(|step| {
        let key = format!("{step}:");
        let mut found = text[from..].match_indices(&key).map(|(at, _)| from + at);
        match found.find(|at| is_key(*at)) {
            Some(at) => {
                from = at + key.len();
                true
            }
            None => false,
        }
    })
}

/// What comes of a case, or what is wrong with it.
fn result(case: &Case) -> Result<String, String> {
    let loaded = load_case(case);
    match (&loaded.canonical, case.loads) {
        (Some(canonical), true) => {
            let mut text = String::new();
            let json = canonical.to_json();
            for (path, value) in case.shown.iter().flat_map(|shown| values(&json, shown)) {
                writeln!(text, "{path}: {value}").unwrap();
            }
            if text.is_empty() {
                text += "(nothing)\n";
            }
            Ok(text + &shown(&loaded.diagnostics))
        }
        (None, false) => {
            for error in language_errors(&loaded) {
                if error.hint.is_none() || error.span.line == 0 {
                    return Err(format!("without a place or a hint:\n{}", shown([error])));
                }
            }
            Ok(shown(language_errors(&loaded)))
        }
        (Some(_), false) => Err("is accepted".to_owned()),
        (None, true) => Err(format!("is refused:\n{}", shown(&loaded.diagnostics))),
    }
}

#[test]
fn every_case_loads_to_its_canonical_form_or_is_refused_with_place_and_remedy() {
    let bless = std::env::var_os("BLESS").is_some();
    let mut wrong = Vec::new();
    for path in paths() {
        let mut text = String::new();
        for case in cases(&path) {
            let got = result(&case);
            match &got {
                Err(what) => wrong.push(format!("{}: {} {what}", case.place, case.attribute)),
                Ok(got) if *got != case.result && !bless => wrong.push(format!(
                    "{}: {}\n--- expected\n{}--- got\n{got}",
                    case.place, case.attribute, case.result
                )),
                Ok(_) => {}
            }
            text += &case.head;
            text += got.as_ref().unwrap_or(&case.result);
        }
        if bless {
            fs::write(&path, text).unwrap();
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_attribute_has_a_valid_and_an_invalid_case() {
    let (mut valid, mut invalid) = (BTreeSet::new(), BTreeSet::new());
    for case in paths().iter().flat_map(|path| cases(path)) {
        if case.loads && has_its_attribute(&case) {
            valid.insert(case.attribute);
        } else if !case.loads && has_error_at_its_attribute(&case) {
            invalid.insert(case.attribute);
        }
    }
    let all: BTreeSet<_> = shape::attributes().map(|(path, _)| path).collect();
    assert_eq!(&all - &valid, BTreeSet::new(), "without a valid case");
    assert_eq!(&all - &invalid, BTreeSet::new(), "without an error at its path");
}

#[test]
fn every_case_is_about_an_attribute_that_exists() {
    let all: BTreeSet<_> = shape::attributes().map(|(path, _)| path).collect();
    let unknown: Vec<_> = paths()
        .iter()
        .flat_map(|path| cases(path))
        .filter(|case| !all.contains(&case.attribute))
        .map(|case| format!("{}: {}", case.place, case.attribute))
        .collect();
    assert!(unknown.is_empty(), "{}", unknown.join("\n"));
}
