//! The template language, as a table.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn environment() -> BTreeMap<String, String> {
    [
        ("FOO", "first"),
        ("EMPTY", ""),
        ("_x1", "under"),
        ("MONEY", "$FOO"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn expand(text: &str) -> (Result<String, TemplateError>, Vec<String>) {
    let mut unset = BTreeSet::new();
    let result = substitute(text, &environment(), &mut unset);
    (result, unset.into_iter().collect())
}

#[test]
fn templates_expand_as_in_compose() {
    for (text, want, unset) in [
        ("plain", "plain", &[][..]),
        ("$FOO", "first", &[]),
        ("${FOO}", "first", &[]),
        ("a${FOO}b$FOO-c", "afirstbfirst-c", &[]),
        ("${_x1}", "under", &[]),
        // Values are not expanded again.
        ("$MONEY", "$FOO", &[]),
        // Unset and empty.
        ("[$NO]", "[]", &["NO"]),
        ("[${NO}]", "[]", &["NO"]),
        ("${EMPTY}", "", &[]),
        ("${NO:-d}", "d", &[]),
        ("${NO-d}", "d", &[]),
        ("${EMPTY:-d}", "d", &[]),
        ("${EMPTY-d}", "", &[]),
        ("${FOO:-d}", "first", &[]),
        ("${NO:-}", "", &[]),
        ("${FOO:+yes}", "yes", &[]),
        ("${FOO+yes}", "yes", &[]),
        ("${EMPTY:+yes}", "", &[]),
        ("${EMPTY+yes}", "yes", &[]),
        ("${NO:+yes}", "", &[]),
        ("${NO+yes}", "", &[]),
        ("${FOO:?must}", "first", &[]),
        ("${EMPTY?must}", "", &[]),
        // Words are templates, and evaluated only when used.
        ("${NO:-${FOO}}", "first", &[]),
        ("${NO:-a${NO2:-b$FOO}c}", "abfirstc", &[]),
        ("${FOO:-${NO:?never}}", "first", &[]),
        ("${FOO:-$NO}", "first", &[]),
        ("${NO:-{\"a\":{}}}", "{\"a\":{}}", &[]),
        ("${NO:-a:?b}", "a:?b", &[]),
        ("${NO:-http://x:80/?q=1}", "http://x:80/?q=1", &[]),
        ("${NO:-ümlaut}", "ümlaut", &[]),
        // Literal dollars.
        ("$$", "$", &[]),
        ("$${FOO}", "${FOO}", &[]),
        ("$$FOO", "$FOO", &[]),
        ("$$$FOO", "$first", &[]),
        ("$1 $ x$", "$1 $ x$", &[]),
        ("^a$|b$)", "^a$|b$)", &[]),
        ("$ä", "$ä", &[]),
        ("${NO:-$$x}", "$x", &[]),
    ] {
        let (result, names) = expand(text);
        assert_eq!(result.as_deref(), Ok(want), "{text}");
        assert_eq!(names, unset, "{text}");
    }
}

#[test]
fn broken_templates_are_refused() {
    for text in [
        "${",
        "${}",
        "${ }",
        "${ FOO}",
        "${FOO }",
        "${FOO!}",
        "${FOO/a/b}",
        "${FOO",
        "${1}",
        "${FOO:}",
        "a ${FOO:-${B}",
    ] {
        assert!(matches!(expand(text).0, Err(TemplateError::Invalid(_))), "{text}");
    }
}

#[test]
fn a_required_variable_stops_with_its_message() {
    for (text, name, message) in [
        ("${NO:?set it}", "NO", "set it"),
        ("${NO?set it}", "NO", "set it"),
        ("${EMPTY:?say $FOO}", "EMPTY", "say first"),
        ("${NO?}", "NO", "it has no value"),
    ] {
        let want = TemplateError::Required {
            name: name.into(),
            message: message.into(),
        };
        assert_eq!(expand(text).0, Err(want), "{text}");
    }
}

#[test]
fn nesting_and_growth_are_bounded() {
    let deep = format!("{}x{}", "${A:-".repeat(100_000), "}".repeat(100_000));
    assert_eq!(expand(&deep).0, Err(TemplateError::TooDeep));

    let environment = [("BIG".to_owned(), "x".repeat(100_000))].into();
    let grown = substitute(&"$BIG".repeat(100), &environment, &mut BTreeSet::new());
    assert_eq!(grown, Err(TemplateError::TooLong));
}

proptest! {
    #[test]
    fn any_text_expands_or_is_refused(text in "[$A-C{}:?+\\-a ]{0,40}") {
        let _ = expand(&text);
    }

    #[test]
    fn text_without_dollars_is_unchanged(text in "[^$]*") {
        prop_assert_eq!(expand(&text).0, Ok(text));
    }
}
