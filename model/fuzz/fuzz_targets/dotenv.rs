//! Any text as an env file: it has variables that are bounded, or an error in one of its lines.
#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use model::dotenv::parse;

fuzz_target!(|text: &str| {
    let scope: BTreeMap<String, String> = [("SET".to_owned(), "value".to_owned())].into();
    match parse(text, &scope) {
        Ok(values) => assert!(values.values().map(String::len).sum::<usize>() <= 8 << 20),
        Err(error) => {
            let line = error.line() as usize;
            assert!((1..=text.lines().count().max(1)).contains(&line), "line {line}");
            assert!(!error.hint().is_empty());
        }
    }
});
