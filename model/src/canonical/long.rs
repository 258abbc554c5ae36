//! Short to long syntax, value by value (Compose Specification, the "Short syntax" of each attribute).
//!
//! What has the wrong type is left alone: the check of shapes has reported it.

use super::{
    build, mounts,
    place::{Place, each, each_entry, mapping},
    unique::Unique,
};
use crate::{
    report::Report,
    syntax::cut,
    tree::{Node, Value},
};

/// Rewrites every short form of a checked model to the long one. Long forms get the keys that the
/// short ones have implicitly.
pub(crate) fn long(model: &mut Node, report: &mut Report) {
    let mut ports = mounts::MAX_PORTS;
    each_entry(model, &Place::Root, |key, value, place| match key {
        "services" => each(value, place, |service_node, place| {
            service(service_node, place, &mut ports, report);
        }),
        "volumes" | "networks" | "secrets" | "configs" => {
            each(value, place, |resource, place| external(resource, place, report));
        }
        "include" => each(value, place, |item, _| wrap(item, "path")),
        _ => {}
    });
}

/// Takes out empty text and nulls where the reference does: in the list of `dns` servers.
pub(crate) fn omit_empty(model: &mut Node) {
    let Some(services) = model.get_mut("services") else {
        return;
    };
    for service in services.entries_mut() {
        if let Some(Node {
            value: Value::List(servers),
            ..
        }) = service.value.get_mut("dns")
        {
            servers.retain(|server| !server.is_null() && server.as_text() != Some(""));
        }
    }
}

fn service(node: &mut Node, place: &Place, ports: &mut usize, report: &mut Report) {
    each_entry(node, place, |key, value, place| match key {
        "build" => build::long(value, place, report),
        "depends_on" => depends_on(value),
        "env_file" => env_file(value),
        "label_file" | "dns" => one_to_list(value),
        "extends" => wrap(value, "service"),
        "gpus" => gpus(value),
        "networks" | "models" => names(value),
        "volumes" => mounts::volumes(value, place, report),
        "devices" => mounts::devices(value, place, report),
        "secrets" | "configs" => each(value, place, |item, _| wrap(item, "source")),
        "ports" => mounts::ports(value, place, ports, report),
        "ulimits" => each(value, place, |limit, place| whole_limit(limit, place, report)),
        "develop" => {
            if let Some(watch) = value.get_mut("watch") {
                each(watch, place, |trigger, _| {
                    for key in ["ignore", "include"] {
                        if let Some(patterns) = trigger.get_mut(key) {
                            one_to_list(patterns);
                        }
                    }
                });
            }
        }
        _ => {}
    });
}

/// Text becomes a mapping with one key.
pub(super) fn wrap(node: &mut Node, key: &str) {
    if let Value::Text(text) = &mut node.value {
        let text = std::mem::take(text);
        node.value = mapping(node.at, [(key, Value::Text(text))]).value;
    }
}

/// Text becomes a list of one.
pub(super) fn one_to_list(node: &mut Node) {
    if let Value::Text(text) = &mut node.value {
        let text = std::mem::take(text);
        node.value = Value::List(vec![Node::text(text, node.at)]);
    }
}

/// A list of names becomes a mapping of names to nothing.
fn names(node: &mut Node) {
    if let Value::List(items) = &node.value {
        let mut unique = Unique::default();
        for item in items {
            if let Some(name) = item.as_text() {
                unique.set(name, Node::new(Value::Null, item.at));
            }
        }
        *node = unique.into_node(node.at);
    }
}

fn depends_on(node: &mut Node) {
    if let Value::List(items) = &node.value {
        let mut unique = Unique::default();
        for item in items {
            if let Some(name) = item.as_text() {
                unique.set(name, Node::new(Value::Map(Vec::new()), item.at));
            }
        }
        *node = unique.into_node(node.at);
    }
    for dependency in node.entries_mut() {
        default(
            &mut dependency.value,
            "condition",
            Value::Text("service_started".to_owned()),
        );
        default(&mut dependency.value, "required", Value::Bool(true));
    }
}

/// Sets a key that a mapping does not have.
pub(super) fn default(node: &mut Node, key: &str, value: Value) {
    if node.get(key).is_none() {
        let at = node.at;
        node.set(key, Node::new(value, at));
    }
}

fn env_file(node: &mut Node) {
    one_to_list(node);
    if let Value::List(files) = &mut node.value {
        for file in files {
            wrap(file, "path");
            default(file, "required", Value::Bool(true));
        }
    }
}

fn gpus(node: &mut Node) {
    if let Value::Text(_) = node.value {
        let all = mapping(node.at, [("count", Value::Text("all".to_owned()))]);
        node.value = Value::List(vec![all]);
    }
}

/// The number of a limit must be whole; text that is none has been reported by the casts.
fn whole_limit(limit: &Node, place: &Place, report: &mut Report) {
    if let Value::Float(value) = limit.value {
        report.error(
            limit.at,
            format!("`{place}`: {value} is not written as a whole number"),
            "write the limit as a whole number, without a point or an exponent",
        );
    }
}

/// `external: {name: x}`, the form of version 3.3: a flag and a name beside it.
fn external(resource: &mut Node, place: &Place, report: &mut Report) {
    let Some(flag) = resource.get_mut("external") else {
        return;
    };
    if !matches!(flag.value, Value::Map(_)) {
        return;
    }
    let inner = flag.remove("name");
    flag.value = Value::Bool(true);
    let Some(inner) = inner else { return };
    report.warning(
        inner.at,
        format!("`{place}.external.name` is deprecated"),
        "write `external: true`, and the name as `name` beside it",
    );
    match resource.get("name") {
        Some(name) if name.value != inner.value => {
            let name = cut(&name.value.scalar().unwrap_or_default());
            report.error(
                inner.at,
                format!("`{place}`: `external.name` differs from `name`, which is `{name}`"),
                "keep `name` only, and write `external: true`",
            );
        }
        Some(_) => {}
        None => resource.set("name", inner),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::testing::{found, parse, show};

    #[test]
    fn short_forms_of_services_become_long_ones() {
        for (service, want) in [
            ("build: .", "build: {context: .}"),
            (
                "depends_on: [a, b]",
                "depends_on: {a: {condition: service_started, required: true}, b: {condition: service_started, required: true}}",
            ),
            (
                "depends_on: {a: {condition: service_healthy, restart: true}}",
                "depends_on: {a: {condition: service_healthy, restart: true, required: true}}",
            ),
            ("env_file: a", "env_file: [{path: a, required: true}]"),
            (
                "env_file: [a, {path: b, required: false}, {path: c}]",
                "env_file: [{path: a, required: true}, {path: b, required: false}, {path: c, required: true}]",
            ),
            ("label_file: a", "label_file: [a]"),
            ("extends: a", "extends: {service: a}"),
            ("extends: {service: a, file: b}", "extends: {service: a, file: b}"),
            ("gpus: all", "gpus: [{count: all}]"),
            ("gpus: [{driver: d}]", "gpus: [{driver: d}]"),
            ("networks: [a, b, a]", "networks: {a: null, b: null}"),
            ("networks: {a: {aliases: [c]}}", "networks: {a: {aliases: [c]}}"),
            ("models: [m]", "models: {m: null}"),
            ("dns: 1.1.1.1", "dns: [1.1.1.1]"),
            (
                "secrets: [a, {source: b, target: c}]",
                "secrets: [{source: a}, {source: b, target: c}]",
            ),
            ("configs: [a]", "configs: [{source: a}]"),
            (
                "develop: {watch: [{path: a, ignore: b, include: [c]}]}",
                "develop: {watch: [{path: a, ignore: [b], include: [c]}]}",
            ),
            (
                "ulimits: {nofile: 1, core: {soft: 1, hard: 2}}",
                "ulimits: {nofile: 1, core: {soft: 1, hard: 2}}",
            ),
            ("command: a b, dns_search: c", "command: a b, dns_search: c"),
        ] {
            let mut model = parse(&format!("services: {{web: {{{service}}}}}"));
            let mut report = Report::default();
            long(&mut model, &mut report);
            let want = format!("{{services: {{web: {{{want}}}}}}}");
            assert_eq!(show(&model), want);
            long(&mut model, &mut report);
            assert_eq!(show(&model), want, "the long form stays");
            found(report, "");
        }
    }

    #[test]
    fn what_comes_from_a_short_form_stands_where_that_stood() {
        let mut model = parse("services:\n  web:\n    depends_on:\n      - db\n");
        long(&mut model, &mut Report::default());
        let entry = &model.entries()[0].value.entries()[0].value.entries()[0]
            .value
            .entries()[0];
        assert_eq!((entry.key.as_str(), entry.at.line, entry.at.column), ("db", 4, 9));
        let required = entry.value.get("required").map(|node| node.at.line);
        assert_eq!(required, Some(4));
    }

    #[test]
    fn the_old_form_of_external_becomes_a_flag_and_a_name() {
        for (resource, want, told) in [
            ("{external: true}", "{external: true}", ""),
            ("{external: {}}", "{external: true}", ""),
            (
                "{external: {name: a}}",
                "{external: true, name: a}",
                "1:32 `volumes.v.external.name` is deprecated",
            ),
            (
                "{external: {name: a}, name: a}",
                "{external: true, name: a}",
                "1:32 `volumes.v.external.name` is deprecated",
            ),
            (
                "{external: {name: a}, name: b}",
                "{external: true, name: b}",
                "1:32 `volumes.v`: `external.name` differs from `name`, which is `b`|1:32 `volumes.v.external.name`",
            ),
        ] {
            let mut model = parse(&format!("volumes: {{v: {resource}}}"));
            let mut report = Report::default();
            long(&mut model, &mut report);
            assert_eq!(show(&model), format!("{{volumes: {{v: {want}}}}}"));
            found(report, told);
        }
    }

    #[test]
    fn included_files_are_named_by_a_path() {
        let mut model = parse("include: [a, {path: b}]");
        long(&mut model, &mut Report::default());
        assert_eq!(show(&model), "{include: [{path: a}, {path: b}]}");
    }

    #[test]
    fn limits_are_whole_numbers() {
        let mut report = Report::default();
        long(&mut parse("services: {a: {ulimits: {nofile: 1e3}}}"), &mut report);
        found(
            report,
            "1:34 `services.a.ulimits.nofile`: 1000 is not written as a whole number",
        );
    }

    #[test]
    fn empty_servers_are_left_out() {
        let mut model = parse("services: {a: {dns: ['', 1.1.1.1, null], dns_search: ['']}}");
        omit_empty(&mut model);
        assert_eq!(
            show(&model),
            "{services: {a: {dns: [1.1.1.1], dns_search: ['']}}}"
        );
    }
}
