//! Mappings of text: `environment`, `labels`, options and the like, from a list or a mapping of scalars.

use super::{
    place::{Place, cut},
    unique::Unique,
};
use crate::{
    report::Report,
    tree::{Node, Value},
};

/// What a key without a value stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Empty text.
    Empty,
    /// Nothing: the key is there, the value is taken from elsewhere.
    Null,
}

/// Makes a mapping to text of `KEY=VALUE` items, or of a mapping to scalars.
pub(super) fn texts(node: &mut Node, missing: Missing, place: &Place, report: &mut Report) {
    match &mut node.value {
        Value::Map(entries) => {
            for entry in entries {
                scalar(&mut entry.value, missing);
            }
        }
        Value::List(items) => {
            let mut unique = Unique::default();
            for (index, item) in items.iter().enumerate() {
                let Some(text) = item.value.scalar() else {
                    continue;
                };
                let (key, value) = match text.split_once('=') {
                    Some((key, value)) => (key, Value::Text(value.to_owned())),
                    None => (text.as_str(), Value::Null),
                };
                if missing == Missing::Null && key.ends_with(char::is_whitespace) {
                    report.error(
                        item.at,
                        format!(
                            "`{}`: there is a blank after `{}`",
                            place.item(index),
                            cut(key.trim_end())
                        ),
                        "write `KEY=VALUE` without blanks before the `=`",
                    );
                }
                let mut value = Node::new(value, item.at);
                scalar(&mut value, missing);
                unique.set(key, value);
            }
            *node = unique.into_node(node.at);
        }
        _ => {}
    }
}

fn scalar(node: &mut Node, missing: Missing) {
    match (node.value.scalar(), missing) {
        (Some(text), _) => node.value = Value::Text(text),
        (None, Missing::Empty) if node.is_null() => node.value = Value::Text(String::new()),
        _ => {}
    }
}

/// Options that may be there several times: a mapping to lists of text.
pub(super) fn text_lists(node: &mut Node) {
    for entry in node.entries_mut() {
        let value = &mut entry.value;
        if !matches!(value.value, Value::List(_)) {
            let item = Node::new(std::mem::replace(&mut value.value, Value::Null), value.at);
            value.value = Value::List(vec![item]);
        }
        list(value);
    }
}

/// A list of text from one text or a list of scalars.
pub(super) fn list(node: &mut Node) {
    super::long::one_to_list(node);
    if let Value::List(items) = &mut node.value {
        for item in items {
            if let Some(text) = item.value.scalar() {
                item.value = Value::Text(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::testing::{found, parse, show};

    #[test]
    fn lists_and_mappings_of_scalars_become_mappings_of_text() {
        for (value, empty, null) in [
            (
                "[A=1, B=, C]",
                "{A: '1', B: '', C: ''}",
                "{A: '1', B: '', C: null}",
            ),
            (
                "{A: 1, B: '', C: }",
                "{A: '1', B: '', C: ''}",
                "{A: '1', B: '', C: null}",
            ),
            ("[A=b=c, A=d]", "{A: d}", "{A: d}"),
            (
                "{A: true, B: 1.0, C: 0x10}",
                "{A: 'true', B: '1', C: '16'}",
                "{A: 'true', B: '1', C: '16'}",
            ),
            ("[]", "{}", "{}"),
        ] {
            for (missing, want) in [(Missing::Empty, empty), (Missing::Null, null)] {
                let mut node = parse(value);
                let mut report = Report::default();
                texts(&mut node, missing, &Place::Root, &mut report);
                assert_eq!(show(&node), want, "{value}");
                found(report, "");
                assert!(node.entries().iter().all(|entry| entry.at.line == 1));
            }
        }
    }

    #[test]
    fn a_blank_before_the_equals_sign_is_an_error_in_an_environment() {
        for (value, want) in [
            ("[ok, 'A =b']", "1:6 `[1]`: there is a blank after `A`"),
            ("['A ']", "1:2 `[0]`: there is a blank after `A`"),
        ] {
            let mut report = Report::default();
            texts(&mut parse(value), Missing::Null, &Place::Root, &mut report);
            found(report, want);
        }
        let mut report = Report::default();
        texts(&mut parse("['A =b']"), Missing::Empty, &Place::Root, &mut report);
        found(report, "");
    }

    #[test]
    fn repeated_options_are_lists() {
        let mut node = parse("{a: b, c: [1, true], d: 2}");
        text_lists(&mut node);
        assert_eq!(show(&node), "{a: [b], c: ['1', 'true'], d: ['2']}");
    }
}
