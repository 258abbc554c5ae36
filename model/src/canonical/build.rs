//! `build`: its short form, and the short forms inside (Compose Build Specification).

use super::{
    long::wrap,
    place::{Place, each, each_entry},
    unique::Unique,
};
use crate::{
    report::Report,
    syntax::{cut, ssh},
    tree::{Node, Value},
};

pub(super) fn long(node: &mut Node, place: &Place, report: &mut Report) {
    if matches!(node.value, Value::Text(_)) {
        wrap(node, "context");
        return;
    }
    each_entry(node, place, |key, value, place| match key {
        "secrets" => each(value, place, |item, _| wrap(item, "source")),
        "provenance" | "sbom" => {
            if let Some(text) = value.value.scalar() {
                value.value = Value::Text(text);
            }
        }
        "additional_contexts" => additional_contexts(value, place, report),
        "ssh" => ssh_keys(value, place, report),
        "ulimits" => match value.value {
            Value::Map(_) => each(value, place, |limit, place| ulimit(limit, place, report)),
            _ => ulimit(value, place, report),
        },
        _ => {}
    });
}

fn additional_contexts(node: &mut Node, place: &Place, report: &mut Report) {
    let Value::List(items) = &node.value else {
        return;
    };
    let mut contexts = Unique::default();
    for (index, item) in items.iter().enumerate() {
        let Some(text) = item.as_text() else { continue };
        match text.split_once('=') {
            Some((name, context)) => contexts.set(name, Node::text(context, item.at)),
            None => report.error(
                item.at,
                format!("`{}`: `{}` has no `=`", place.item(index), cut(text)),
                "write `NAME=CONTEXT`, where the context is a directory, a URL or `service:NAME`",
            ),
        }
    }
    *node = contexts.into_node(node.at);
}

fn ssh_keys(node: &mut Node, place: &Place, report: &mut Report) {
    let Value::List(items) = &node.value else {
        return;
    };
    let mut keys = Unique::default();
    for (index, item) in items.iter().enumerate() {
        let Some(text) = item.as_text() else { continue };
        match ssh::parse(text) {
            Ok((id, path)) => {
                let path = path.map_or(Value::Null, |path| Value::Text(path.to_owned()));
                keys.set(id, Node::new(path, item.at));
            }
            Err(error) => report.error(item.at, format!("`{}`: {error}", place.item(index)), error.hint()),
        }
    }
    *node = keys.into_node(node.at);
}

/// Unlike those of a service, limits of a build are not cast from text.
fn ulimit(limit: &Node, place: &Place, report: &mut Report) {
    let number = |node: &Node| matches!(node.value, Value::Int(_) | Value::Map(_) | Value::Null);
    let wrong = std::iter::once(limit)
        .chain(["soft", "hard"].iter().filter_map(|key| limit.get(key)))
        .find(|node| !number(node));
    if let Some(node) = wrong {
        report.error(
            node.at,
            format!("`{place}` is {}, not a whole number", node.value.kind()),
            "write the limit as a whole number without quotes",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::testing::{found, parse, show};

    #[test]
    fn short_forms_of_a_build_become_long_ones() {
        for (build, want) in [
            ("./dir", "{context: ./dir}"),
            ("{secrets: [a]}", "{secrets: [{source: a}]}"),
            (
                "{provenance: true, sbom: 'mode=max'}",
                "{provenance: 'true', sbom: mode=max}",
            ),
            (
                "{additional_contexts: [a=b=c, d=]}",
                "{additional_contexts: {a: b=c, d: ''}}",
            ),
            ("{additional_contexts: {a: b}}", "{additional_contexts: {a: b}}"),
            ("{ssh: [default, a=/k]}", "{ssh: {default: null, a: /k}}"),
            ("{ssh: {default: }}", "{ssh: {default: null}}"),
            ("{ulimits: {nofile: 1}}", "{ulimits: {nofile: 1}}"),
        ] {
            let (mut node, mut report) = (parse(build), Report::default());
            long(&mut node, &Place::Root, &mut report);
            assert_eq!(show(&node), want);
            found(report, "");
        }
    }

    #[test]
    fn what_has_no_long_form_is_an_error() {
        for (build, want) in [
            (
                "{additional_contexts: [a=b, c]}",
                "1:29 `additional_contexts[1]`: `c` has no `=`",
            ),
            ("{ssh: [a]}", "1:8 `ssh[0]`: the SSH key `a` has no path"),
            ("{ulimits: {nofile: '1'}}", "1:20 `ulimits.nofile` is text"),
            (
                "{ulimits: {nofile: {soft: '1', hard: 1}}}",
                "1:27 `ulimits.nofile` is text",
            ),
        ] {
            let mut report = Report::default();
            long(&mut parse(build), &Place::Root, &mut report);
            found(report, want);
        }
    }
}
