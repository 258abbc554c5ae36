//! Any text as a template: it has a value that is bounded, or an error with a hint.
#![no_main]

use std::collections::{BTreeMap, BTreeSet};

use libfuzzer_sys::fuzz_target;
use model::interpolate::substitute;

fuzz_target!(|text: &str| {
    let environment: BTreeMap<String, String> = [
        ("A".to_owned(), "a".to_owned()),
        ("EMPTY".to_owned(), String::new()),
        ("LONG".to_owned(), "x".repeat(10_000)),
        ("TEMPLATE".to_owned(), "${A}$$".to_owned()),
    ]
    .into();
    let mut unset = BTreeSet::new();
    match substitute(text, &environment, &mut unset) {
        // The text behind the last variable comes on top of the limit.
        Ok(value) => assert!(value.len() <= (1 << 20) + text.len(), "{} bytes", value.len()),
        Err(error) => assert!(!error.hint().is_empty()),
    }
    assert!(unset.iter().all(|name| !environment.contains_key(name)));
});
