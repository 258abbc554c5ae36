//! Any bytes as the files of a project: `load` answers, and what it says can be shown.
//!
//! The first file is `compose.yaml`; each line `+++ NAME` begins another one beside it.
#![no_main]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use libfuzzer_sys::fuzz_target;
use model::{
    canonical,
    diagnostic::{Diagnostic, render},
    load::{Options, load},
};

fuzz_target!(|bytes: &[u8]| {
    let directory = Path::new("/project");
    let mut sources: BTreeMap<PathBuf, Vec<u8>> = BTreeMap::new();
    let mut name = "compose.yaml".to_owned();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b"+++ ") {
            Some(next) => name = String::from_utf8_lossy(next).trim().to_owned(),
            None => sources
                .entry(directory.join(&name))
                .or_default()
                .extend_from_slice(line),
        }
    }
    let options = Options {
        directory: directory.into(),
        fallback_name: "project".into(),
        environment: [("SET".to_owned(), "value".to_owned())].into(),
        confined: true,
        ..Options::default()
    };
    let loaded = load(&sources, &[directory.join("compose.yaml")], &options);
    for diagnostic in &loaded.diagnostics {
        assert!(!render(diagnostic, true).is_empty());
    }
    let errors = || loaded.diagnostics.iter().filter(|found| found.is_error());
    assert_eq!(loaded.project.is_none(), errors().next().is_some());
    let failed = errors().any(|found: &Diagnostic| !found.refusal);
    assert_eq!(loaded.canonical.is_none(), failed, "{:?}", loaded.diagnostics);
    if let Some(project) = &loaded.canonical {
        assert!(!canonical::yaml(project).is_empty() && !canonical::json(project).is_empty());
    }
});
