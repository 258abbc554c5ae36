//! What other people's Compose files load to, against the verdicts and models of a reference loader.
//!
//! The files lie beside the checkout, in `shared/compose-cases` of some directory above it (its README
//! says how the reference was run and what equal means); without them there is nothing to compare.
//! Every row that differs stands in `differences.txt` with its reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    thread,
};

use model::{
    load::{Options, load},
    source::Disk,
};
use serde_json::Value;

const DIFFERENCES: &str = include_str!("differences.txt");

/// Where a null says something.
const KEEP_NULL: [&str; 6] = [
    "environment",
    "labels",
    "args",
    "annotations",
    "sysctls",
    "extra_hosts",
];
/// Where an empty list is not "unset".
const KEEP_EMPTY: [&str; 3] = ["command", "entrypoint", "test"];
const RESOURCES: [&str; 5] = ["services", "networks", "volumes", "configs", "secrets"];

fn folder() -> Option<PathBuf> {
    let found = match env::var_os("STEAD_COMPOSE_CASES") {
        Some(path) => Some(PathBuf::from(path)),
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|above| above.join("shared/compose-cases"))
            .find(|path| path.is_dir()),
    };
    if found.is_none() {
        eprintln!("there are no compose cases beside this checkout");
    }
    found
}

fn rows(folder: &Path, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(folder.join(file)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The only normalisation: absent is null, `{}` or `[]` where Compose means the same by them.
fn normalise(value: &Value, key: Option<&str>) -> Value {
    match value {
        Value::Object(map) => {
            let within = |keys: &[&str]| key.is_some_and(|key| keys.contains(&key));
            let entries = map.iter().filter_map(|(name, value)| {
                let value = normalise(value, Some(name));
                let empty = value.as_object().is_some_and(|map| map.is_empty())
                    || value.as_array().is_some_and(|list| list.is_empty());
                let dropped = (value.is_null() && !within(&KEEP_NULL))
                    || (empty && !KEEP_EMPTY.contains(&name.as_str()) && !within(&RESOURCES));
                (!dropped).then(|| (name.clone(), value))
            });
            Value::Object(entries.collect())
        }
        Value::Array(items) => items.iter().map(|item| normalise(item, None)).collect(),
        other => other.clone(),
    }
}

struct Outcome {
    id: String,
    /// `None`: agrees and is equal.
    difference: Option<String>,
    verdict: bool,
    compared: bool,
}

fn judge(folder: &Path, row: &Value) -> Outcome {
    let text = |key: &str| row.get(key).and_then(Value::as_str);
    let files: Vec<PathBuf> = match row.get("files").and_then(Value::as_array) {
        Some(files) => files
            .iter()
            .map(|file| folder.join(file.as_str().unwrap()))
            .collect(),
        None => vec![folder.join(text("file").unwrap())],
    };
    let directory = match text("project_directory") {
        Some(directory) => folder.join(directory),
        None => files[0].parent().unwrap().to_owned(),
    };
    let mut environment: BTreeMap<String, String> = [("HOME".to_owned(), "/root".to_owned())].into();
    for (name, value) in row.get("env").and_then(Value::as_object).into_iter().flatten() {
        environment.insert(name.clone(), value.as_str().unwrap().to_owned());
    }
    let options = Options {
        fallback_name: directory.file_name().unwrap().to_string_lossy().into_owned(),
        directory,
        environment,
        home: Some("/root".into()),
        profiles: vec!["*".to_owned()],
        ..Options::default()
    };
    let loaded = load(&Disk, &files, &options);
    let want_ok = text("expect") == Some("ok");
    let id = text("id").unwrap().to_owned();
    let errors = || {
        let errors = loaded
            .diagnostics
            .iter()
            .filter(|found| found.is_error() && !found.refusal);
        let errors = errors.map(|found| {
            format!(
                "{}:{}: {}",
                found.span.file.display(),
                found.span.line,
                found.message
            )
        });
        errors.collect::<Vec<_>>().join("; ")
    };
    let outcome = |difference: Option<String>, verdict, compared| Outcome {
        id: id.clone(),
        difference,
        verdict,
        compared,
    };
    let Some(canonical) = &loaded.canonical else {
        let difference = want_ok.then(|| format!("refused: {}", errors()));
        return outcome(difference, !want_ok, false);
    };
    if !want_ok {
        let error = text("error").unwrap_or_default();
        return outcome(
            Some(format!("accepted; the reference says: {error}")),
            false,
            false,
        );
    }
    let Some(model) = text("model") else {
        return outcome(None, true, false);
    };
    let want: Value = serde_json::from_slice(&fs::read(folder.join(model)).unwrap()).unwrap();
    let got = canonical.to_json().to_string();
    let got = got.replace(&*folder.to_string_lossy(), "/corpus");
    let got: Value = serde_json::from_str(&got).unwrap();
    let (want, got) = (normalise(&want, None), normalise(&got, None));
    let difference = (want != got).then(|| first_difference(&want, &got, ""));
    outcome(difference, true, true)
}

fn first_difference(want: &Value, got: &Value, path: &str) -> String {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            let keys: BTreeSet<&String> = want.keys().chain(got.keys()).collect();
            for key in keys {
                let path = format!("{path}.{key}");
                match (want.get(key), got.get(key)) {
                    (Some(want), Some(got)) if want == got => {}
                    (Some(want), Some(got)) => return first_difference(want, got, &path),
                    (want, got) => return format!("{path}: want {want:?}, got {got:?}"),
                }
            }
            path.to_owned()
        }
        (Value::Array(want), Value::Array(got)) if want.len() == got.len() => {
            let different = want
                .iter()
                .zip(got)
                .enumerate()
                .find(|(_, (want, got))| want != got);
            match different {
                Some((index, (want, got))) => first_difference(want, got, &format!("{path}[{index}]")),
                None => path.to_owned(),
            }
        }
        _ => format!("{path}: want {want}, got {got}"),
    }
}

fn compare(file: &str, rows_of: impl Fn(&Value) -> bool, verdicts: f64, models: f64) {
    let Some(folder) = folder() else { return };
    let rows: Vec<Value> = rows(&folder, file).into_iter().filter(rows_of).collect();
    let half = rows.len().div_ceil(2).max(1);
    let outcomes: Vec<Outcome> = thread::scope(|scope| {
        let threads: Vec<_> = rows
            .chunks(half)
            .map(|rows| {
                let folder = &folder;
                scope.spawn(move || rows.iter().map(|row| judge(folder, row)).collect::<Vec<_>>())
            })
            .collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let listed: BTreeMap<&str, &str> = DIFFERENCES
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| line.split_once(": ").expect("`id: reason`"))
        .collect();
    let percent = |part: usize, whole: usize| 100.0 * part as f64 / whole.max(1) as f64;
    let agreed = outcomes.iter().filter(|outcome| outcome.verdict).count();
    let compared = outcomes.iter().filter(|outcome| outcome.compared).count();
    let equal = outcomes
        .iter()
        .filter(|outcome| outcome.compared && outcome.difference.is_none())
        .count();
    let (agreed, equal) = (percent(agreed, outcomes.len()), percent(equal, compared));
    println!(
        "{file}: verdicts {agreed:.2} % of {}, models {equal:.2} % of {compared}",
        outcomes.len()
    );
    let mut unlisted = Vec::new();
    for outcome in &outcomes {
        match (&outcome.difference, listed.contains_key(outcome.id.as_str())) {
            (Some(difference), false) => unlisted.push(format!("{}: {difference}", outcome.id)),
            (None, true) => unlisted.push(format!("{}: is listed and differs no more", outcome.id)),
            _ => {}
        }
    }
    assert!(
        unlisted.is_empty(),
        "{} rows differ and are not in differences.txt:\n{}",
        unlisted.len(),
        unlisted.join("\n")
    );
    assert!(agreed >= verdicts && equal >= models, "too few rows agree");
}

#[test]
fn files_of_other_people_load_as_with_the_reference() {
    compare("files.jsonl", |_| true, 99.5, 99.0);
}

#[test]
fn cases_of_the_reference_load_as_with_it() {
    let load = |row: &Value| row.get("kind").and_then(Value::as_str) == Some("load");
    compare("cases.jsonl", load, 97.0, 97.0);
}
