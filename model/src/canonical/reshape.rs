//! Commands as words: the last reshape, after normalisation, and the only one that may lose something.

use super::place::{Place, each, each_entry, each_ref};
use crate::{
    report::Report,
    syntax::{cut, mapping, words},
    tree::{Node, Value},
};

/// Splits the commands of every service and of its hooks, and reports environments that no loader reads.
/// All else that changes with the final shape is `shape::settle`'s.
pub(crate) fn reshape(model: &mut Node, report: &mut Report) {
    let root = Place::Root;
    if let Some(services) = model.get_mut("services") {
        each(services, &root.key("services"), |node, place| {
            each_entry(node, place, |key, value, place| match key {
                "build" => {
                    if let Some(args) = value.get("args") {
                        variables(args, &place.key("args"), report);
                    }
                }
                "command" | "entrypoint" => command(value, place, report),
                "develop" => {
                    if let Some(watch) = value.get_mut("watch") {
                        each(watch, &place.key("watch"), |trigger, place| {
                            if let Some(exec) = trigger.get_mut("exec") {
                                hook(exec, &place.key("exec"), report);
                            }
                        });
                    }
                }
                "environment" => variables(value, place, report),
                "post_start" | "pre_start" | "pre_stop" => {
                    each(value, place, |node, place| hook(node, place, report));
                }
                _ => {}
            });
        });
    }
}

fn hook(node: &mut Node, place: &Place, report: &mut Report) {
    each_entry(node, place, |key, value, place| match key {
        "command" => command(value, place, report),
        "environment" => variables(value, place, report),
        _ => {}
    });
}

/// An empty command stays: it clears that of the image.
fn command(node: &mut Node, place: &Place, report: &mut Report) {
    let Value::Text(text) = &node.value else {
        return;
    };
    match words::split(text) {
        Ok(split) => {
            if let Some(dropped) = split.dropped {
                report.warning(
                    node.at,
                    format!(
                        "`{place}`: no shell runs here, `{}` is dropped as in Docker Compose",
                        cut(&dropped)
                    ),
                    "for a shell, write `[\"sh\", \"-c\", \"…\"]`; otherwise quote the character",
                );
            }
            let at = node.at;
            let words = split.words.into_iter().map(|word| Node::text(word, at));
            node.value = Value::List(words.collect());
        }
        Err(error) => report.error(node.at, format!("`{place}`: {error}"), error.hint()),
    }
}

/// In the list form the name of a variable ends at the `=`, and must not end in a blank.
fn variables(node: &Node, place: &Place, report: &mut Report) {
    if !matches!(node.value, Value::List(_)) {
        return;
    }
    each_ref(node, place, |item, place| {
        if let Err(error) = mapping::parse(item.as_text().unwrap_or_default()) {
            report.error(item.at, format!("`{place}`: {error}"), error.hint());
        }
    });
}

#[cfg(test)]
mod tests {
    use crate::{
        canonical::testing::{found, parse, show},
        report::Report,
    };

    #[test]
    fn commands_become_words() {
        for (service, want) in [
            ("command: sh -c 'a b'", "command: [sh, -c, a b]"),
            ("command: ''", "command: []"),
            ("command: []", "command: []"),
            ("command: null", "command: null"),
            ("entrypoint: a b", "entrypoint: [a, b]"),
            ("entrypoint: [a b]", "entrypoint: [a b]"),
            ("pre_stop: [{command: a b}]", "pre_stop: [{command: [a, b]}]"),
            (
                "develop: {watch: [{path: a, exec: {command: b c}}]}",
                "develop: {watch: [{path: a, exec: {command: [b, c]}}]}",
            ),
            ("healthcheck: {test: a b}", "healthcheck: {test: a b}"),
        ] {
            let mut model = parse(&format!("services: {{web: {{{service}}}}}"));
            let mut report = Report::default();
            super::reshape(&mut model, &mut report);
            assert_eq!(show(&model), format!("{{services: {{web: {{{want}}}}}}}"));
            found(report, "");
        }
    }

    #[test]
    fn what_is_dropped_or_unreadable_is_told() {
        for (service, want) in [
            (
                "command: a; b",
                "1:27 `services.web.command`: no shell runs here, `; b` is dropped",
            ),
            ("entrypoint: a 'b", "1:30 `services.web.entrypoint`: the quote"),
            (
                "post_start: [{command: a && b}]",
                "1:41 `services.web.post_start[0].command`: no shell runs here, `&& b` is dropped",
            ),
            (
                "environment: [A=1, 'B =2']",
                "1:37 `services.web.environment[1]`: the name `B ` ends in a space",
            ),
            (
                "build: {args: ['A ']}",
                "1:33 `services.web.build.args[0]`: the name `A ` ends in a space",
            ),
            ("labels: ['A =b'], environment: {'A ': b}", ""),
        ] {
            let mut report = Report::default();
            super::reshape(
                &mut parse(&format!("services: {{web: {{{service}}}}}")),
                &mut report,
            );
            found(report, want);
        }
    }
}
