//! Templates and env files against the reference loader, where its cases are at hand.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use model::{dotenv, interpolate};
use serde_json::Value;

/// What the cases lost of an environment that was set around the reference.
const ENVIRONMENT: [(&str, &str, &str); 4] = [
    (
        "template-template-TestLazyRequiredMessageDoesNotWarn-21",
        "A",
        "value",
    ),
    (
        "dotenv-godotenv-TestLoadDoesNotOverride-1",
        "OPTION_A",
        "do_not_override",
    ),
    (
        "dotenv-godotenv-TestSubstitutionsWithEnvFilePrecedence-61",
        "OPTION_A",
        "5",
    ),
    (
        "dotenv-godotenv-TestSubstitutionsWithEnvFileDefaultValuePrecedence-62",
        "OPTION_A",
        "5",
    ),
];

/// Rows whose value is written as in a source file of Go, where `\n` is a line feed.
const ESCAPED: [&str; 3] = [
    "dotenv-godotenv-TestParsing-47",
    "dotenv-godotenv-TestParsing-48",
    "dotenv-godotenv-TestParsing-49",
];

/// The rows of a kind; none if there are no cases beside the checkout.
fn rows(kind: &str) -> Vec<Value> {
    let beside = |directory: &Path| directory.join("shared/compose-cases/cases.jsonl");
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(beside)
        .find(|file| file.exists());
    let file = std::env::var_os("STEAD_COMPOSE_CASES")
        .map(|directory| Path::new(&directory).join("cases.jsonl"))
        .or(file);
    let Some(file) = file else {
        eprintln!("no compose cases beside the checkout");
        return Vec::new();
    };
    let rows: Vec<Value> = fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|row: &Value| row["kind"] == kind)
        .collect();
    assert!(!rows.is_empty(), "{kind}");
    rows
}

fn environment(row: &Value) -> BTreeMap<String, String> {
    let written = row["env"].as_object().unwrap().iter();
    let mut environment: BTreeMap<String, String> = written
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    for (id, name, value) in ENVIRONMENT {
        if row["id"] == id {
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    environment
}

#[test]
fn every_template_of_the_reference_agrees() {
    for row in rows("template") {
        let text = row["inputs"][0].as_str().unwrap();
        let result = interpolate::substitute(text, &environment(&row), &mut BTreeSet::new());
        assert_eq!(result.is_ok(), row["expect"] == "ok", "{row}");
        assert_eq!(result.ok().as_deref(), row["want"].as_str(), "{row}");
    }
}

#[test]
fn every_env_file_of_the_reference_agrees() {
    for row in rows("dotenv") {
        let text = row["inputs"][0].as_str().unwrap();
        let environment = environment(&row);
        let mut values = dotenv::parse(text, &environment).unwrap_or_else(|error| panic!("{row}: {error}"));
        if row["id"] == "dotenv-godotenv-TestLoadDoesNotOverride-1" {
            // What is wanted here is the environment after the file was loaded into it.
            values.extend(environment);
            values.insert("OPTION_B".to_owned(), String::new());
        }
        // The reference compares what it names; names that are not there may still be in the file.
        for (name, want) in row["want"].as_object().unwrap() {
            let mut want = want.as_str().unwrap().to_owned();
            if ESCAPED.iter().any(|id| row["id"] == *id) {
                want = want
                    .replace(r"\\", "\0")
                    .replace(r"\n", "\n")
                    .replace(r"\r", "\r")
                    .replace(r"\a", "\u{7}")
                    .replace('\0', r"\");
            }
            assert_eq!(values.get(name), Some(&want), "{name} of {row}");
        }
    }
}
