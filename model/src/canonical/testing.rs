//! What the tests of the canonical form share: models from text and back to compact text.

use crate::{
    report::Report,
    tree::{Node, Value},
    yaml,
};

pub(super) fn parse(text: &str) -> Node {
    try_parse(text).unwrap_or_else(|| panic!("{text}"))
}

/// One line of flow style; text that looks like something else is in quotes.
pub(super) fn show(node: &Node) -> String {
    let join = |parts: Vec<String>| parts.join(", ");
    match &node.value {
        Value::List(items) => format!("[{}]", join(items.iter().map(show).collect())),
        Value::Map(entries) => format!(
            "{{{}}}",
            join(
                entries
                    .iter()
                    .map(|entry| format!("{}: {}", entry.key, show(&entry.value)))
                    .collect()
            )
        ),
        Value::Text(text) if plain(text) => text.clone(),
        Value::Text(text) => format!("'{text}'"),
        other => other.scalar().unwrap_or_else(|| "null".to_owned()),
    }
}

fn try_parse(text: &str) -> Option<Node> {
    yaml::parse(text, 0).ok()?.pop()
}

fn plain(text: &str) -> bool {
    let list = try_parse(&format!("[{text}]"));
    list.is_some_and(|list| matches!(list.items(), [item] if item.as_text() == Some(text)))
}

/// `want`: `line:column message…`, separated by `|`, each the start of one finding; empty for none.
pub(super) fn found(report: Report, want: &str) {
    let (diagnostics, _) = report.finish();
    let found: Vec<String> = diagnostics
        .iter()
        .map(|found| format!("{}:{} {}", found.span.line, found.span.column, found.message))
        .collect();
    let want: Vec<&str> = want.split('|').filter(|want| !want.is_empty()).collect();
    assert_eq!(found.len(), want.len(), "{found:?}");
    for (found, want) in found.iter().zip(want) {
        assert!(found.starts_with(want), "{found}\n{want}");
    }
    assert!(diagnostics.iter().all(|found| found.hint.is_some()));
}
