//! Any bytes as the one Compose file of a project: `load` answers, and what it says can be shown.
#![no_main]

use std::{collections::BTreeMap, path::PathBuf};

use libfuzzer_sys::fuzz_target;
use model::{
    diagnostic::{Diagnostic, render},
    load::{Options, load},
};

fuzz_target!(|bytes: &[u8]| {
    let file = PathBuf::from("/project/compose.yaml");
    let sources: BTreeMap<PathBuf, Vec<u8>> = [(file.clone(), bytes.to_vec())].into();
    let options = Options {
        directory: "/project".into(),
        fallback_name: "project".into(),
        environment: [("SET".to_owned(), "value".to_owned())].into(),
        ..Options::default()
    };
    let loaded = load(&sources, &[file], &options);
    for diagnostic in &loaded.diagnostics {
        assert!(!render(diagnostic, true).is_empty());
    }
    let failed = loaded.diagnostics.iter().any(Diagnostic::is_error);
    assert_eq!(loaded.project.is_none(), failed, "{:?}", loaded.diagnostics);
});
