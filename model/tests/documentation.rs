//! The pages on what stead supports are written by the tables that the loader goes by.
//!
//! `UPDATE=1 cargo test -p stead-model --test documentation` writes them anew.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use model::{
    load::{Options, load},
    support::{Attribute, DIFFERENCES, Difference, Support, attributes},
};

/// Compares a page with what it must be, or writes it.
fn expect(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, text).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == text,
        "docs/{name} is old: UPDATE=1 cargo test -p stead-model --test documentation"
    );
}

const SUPPORT: &str = "\
# Compose attributes

Every attribute of the Compose Specification, and what stead does with it. A Compose file that Docker Compose
loads is loaded here, too: `stead config` prints the same project. What stead cannot run is told by `config`,
and is an error for `plan` and `apply`: nothing is silently left out.

| | |
|---|---|
| yes | acted on |
| no effect | accepted without a word: it means nothing on one host |
| ignored | accepted with a warning that says why |
| not yet | an error that says what to do meanwhile |
| no | an error that says what to use instead |

Keys that begin with `x-` are left alone. Values in the last column ask for what happens anyway, and are
accepted whatever the second column says. [Deliberate differences](compose-differences.md) from Docker Compose
have a page of their own.
";

fn row(attribute: &Attribute) -> String {
    let path = attribute.path.replace(".*", ".NAME");
    let support = match attribute.support {
        Support::Supported => "yes",
        Support::Silent => "no effect",
        Support::Ignored => "ignored",
        Support::NotYet => "not yet",
        Support::Rejected => "no",
    };
    let accepts = attribute.accepts.iter().map(|value| format!("`{value}`"));
    format!(
        "| `{path}` | {support} | {} | {} |\n",
        attribute.hint.replace('|', "\\|"),
        accepts.collect::<Vec<_>>().join(", "),
    )
}

#[test]
fn the_page_of_attributes_is_the_table_that_the_loader_goes_by() {
    let mut text = SUPPORT.to_owned();
    let sections = [
        ("Top level", ""),
        ("Services", "services"),
        ("Networks", "networks"),
        ("Volumes", "volumes"),
        ("Configs", "configs"),
        ("Secrets", "secrets"),
        ("Models", "models"),
    ];
    let mut written = 0;
    for (title, section) in sections {
        text.push_str(&format!(
            "\n## {title}\n\n| attribute | | instead, or why | accepted |\n|---|---|---|---|\n"
        ));
        let mut rows: Vec<&Attribute> = attributes()
            .filter(|attribute| {
                let (first, below) = attribute.path.split_once('.').unwrap_or((attribute.path, ""));
                let own = sections.iter().any(|(_, section)| *section == first) && !below.is_empty();
                if own { first == section } else { section.is_empty() }
            })
            .collect();
        rows.sort_by_key(|attribute| attribute.path);
        written += rows.len();
        text.extend(rows.into_iter().map(row));
    }
    assert_eq!(written, attributes().count());
    expect("compose-support.md", &text);
}

const DIFFERENT: &str = "\
# Differences from Docker Compose

`stead config` prints what `docker compose config` prints for every file that Docker Compose loads. What is
listed here Docker Compose loads, too, and stead refuses to run it, or warns: a mistake that can be seen in the
file is told before anything is touched. [Compose attributes](compose-support.md) says what is not supported
yet, or never will be; those are not repeated here.

| file | Docker Compose | stead | why |
|---|---|---|---|
";

fn difference(row: &Difference) -> String {
    let lines = row
        .example
        .lines()
        .map(|line| format!("`{}`", line.replace('|', "\\|")));
    let example = lines.collect::<Vec<_>>().join("<br>");
    let does = if row.refused { "refuses it" } else { "warns" };
    format!(
        "| {example} | {} | {does}: {} | {} |\n",
        row.compose, row.says, row.why
    )
}

#[test]
fn every_difference_is_one_and_its_page_is_written() {
    let (mut text, mut wrong) = (DIFFERENT.to_owned(), Vec::new());
    for row in DIFFERENCES {
        let file = PathBuf::from("/project/compose.yaml");
        let sources: BTreeMap<_, _> = [(file.clone(), row.example.as_bytes().to_vec())].into();
        let options = Options {
            directory: "/project".into(),
            fallback_name: "project".to_owned(),
            ..Options::default()
        };
        let loaded = load(&sources, &[file], &options);
        let said = loaded.diagnostics.iter().any(|found| {
            found.message.contains(row.says) && found.refusal == row.refused && found.hint.is_some()
        });
        if loaded.canonical.is_none() || !said {
            wrong.push((row.example, loaded.diagnostics));
        }
        text.push_str(&difference(row));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    expect("compose-differences.md", &text);
}
