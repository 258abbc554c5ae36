//! The template language, as a table.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::tree::Entry;

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
        ("$${NO:-$FOO}", "${NO:-first}", &[]),
        ("${NO:-$${FOO}}", "${FOO}", &[]),
        // Names in any case; the operator is the leftmost one.
        ("${foo:-lower}$Foo", "lower", &["Foo"]),
        ("${NO:-a-b+c?d}", "a-b+c?d", &[]),
        ("${FOO+a:-b}", "a:-b", &[]),
        ("+a ${NO:-b} ?c", "+a b ?c", &[]),
        // Several on a line, words next to words.
        ("${NO:-a}${NO:-${NO2:-b}}${FOO:+c}}", "abc}", &[]),
        ("${NO:-{}}/${FOO}", "{}/first", &[]),
        ("${NO:-{{.Name}}}", "{{.Name}}", &[]),
        ("${FOO:-{{.Name}}}", "first", &[]),
        ("${NO:-a $NO2 b}", "a  b", &["NO2"]),
        // What is not used is not looked at.
        ("${FOO:-${}}", "first", &[]),
        ("${NO:+${NO:?never}}", "", &[]),
        ("${FOO?$NO}", "first", &[]),
        // Where braces do not pair up, the last one of the line closes.
        ("${NO:-{}", "{", &[]),
        ("${NO:-a{b}c", "a{bc", &[]),
        ("a ${FOO:-${B}", "a first", &[]),
        ("${NO:-{x}\n}", "{x\n}", &[]),
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
        "a ${NO:-${B}",
        "${FOO:-x",
        "${NO:-two\nlines}",
        "${NO:-${NO:-two\nlines}}",
        "${NO:-${ FOO}}",
        "${NO:?${}}",
        "$FOO ${FOO",
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
        ("${NO:?a ${FOO} b} c", "NO", "a first b"),
        ("x ${NO2:-${NO:?set $FOO}} y", "NO", "set first"),
        ("${NO:?${EMPTY:?inner}}", "EMPTY", "inner"),
    ] {
        let want = TemplateError::Required {
            name: name.into(),
            message: message.into(),
        };
        assert_eq!(expand(text).0, Err(want), "{text}");
    }
}

/// Quadratic work on these would take minutes.
#[test]
fn work_grows_with_the_text_alone() {
    let nested = |depth| format!("{}x{}", "${NO:-".repeat(depth), "}".repeat(depth));
    let start = Instant::now();
    for (text, want) in [
        (nested(100_000), Ok("x".to_owned())),
        (nested(100_001), Err(TemplateError::TooDeep)),
        (
            format!("{}x", "${NO:-".repeat(100_000)),
            Err(TemplateError::Invalid("${NO:-".repeat(10) + "…")),
        ),
        (
            "${NO:-{ x} ".repeat(100_000),
            Err(TemplateError::Invalid("${NO:-{ x}".to_owned())),
        ),
        ("${FOO:-x}".repeat(100_000), Ok("first".repeat(100_000))),
        (
            format!("{}\n", "${FOO:-{x}").repeat(100_000),
            Ok("first\n".repeat(100_000)),
        ),
        ("{".repeat(1_000_000), Ok("{".repeat(1_000_000))),
        (format!("${{{}", "{".repeat(4_000_000)), {
            Err(TemplateError::Invalid(format!("${{{}…", "{".repeat(58))))
        }),
        ("$ ".repeat(1_000_000), Ok("$ ".repeat(1_000_000))),
    ] {
        assert_eq!(expand(&text).0, want);
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn growth_is_bounded() {
    let environment = [("BIG".to_owned(), "x".repeat(100_000))].into();
    let grown = substitute(&"$BIG".repeat(100), &environment, &mut BTreeSet::new());
    assert_eq!(grown, Err(TemplateError::TooLong));
    // A long text that does not grow is no attack.
    let long = "$$ ".repeat(1_000_000);
    assert_eq!(expand(&long).0, Ok("$ ".repeat(1_000_000)));
}

fn run(environment: &BTreeMap<String, String>, node: &mut Node) -> (Vec<String>, Vec<String>) {
    let mut interpolation = Interpolation {
        environment,
        unset: BTreeMap::new(),
        failures: Vec::new(),
    };
    interpolation.run(node, "");
    let failures = interpolation.failures.iter();
    (
        failures
            .map(|failure| format!("{}: {}", failure.path, failure.error))
            .collect(),
        interpolation.unset.into_keys().collect(),
    )
}

fn entry(key: &str, value: Node) -> Entry {
    Entry {
        key: key.to_owned(),
        at: At::default(),
        value,
    }
}

#[test]
fn every_value_of_a_tree_is_expanded_and_no_key() {
    let text = |text: &str| Node::text(text, At::default());
    let tree = |image: &str, item: &str| {
        let list = Node::new(Value::List(vec![text("a"), text(item)]), At::default());
        let web = vec![entry("$IMAGE", text(image)), entry("command", list)];
        let web = Node::new(Value::Map(web), At::default());
        Node::new(Value::Map(vec![entry("web", web)]), At::default())
    };
    let mut node = tree("$FOO/$NO", "${MONEY}");
    let (failures, unset) = run(&environment(), &mut node);
    assert_eq!(node, tree("first/", "$FOO"));
    assert_eq!((failures, unset), (vec![], vec!["NO".to_owned()]));

    let (failures, _) = run(&environment(), &mut tree("${", "${NO:?set it}"));
    assert_eq!(
        failures,
        [
            "web.$IMAGE: invalid interpolation `${`",
            "web.command[1]: the variable `NO` is required: set it",
        ]
    );
}

#[test]
fn a_tree_of_many_large_values_is_refused_once() {
    let environment = [("BIG".to_owned(), "x".repeat(1_000_000))].into();
    let items = vec![Node::text("$BIG", At::default()); 1000];
    let (failures, _) = run(&environment, &mut Node::new(Value::List(items), At::default()));
    assert_eq!(failures.len(), 1);
    assert!(failures[0].contains("all values together"), "{}", failures[0]);
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
