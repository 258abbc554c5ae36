//! The shape of files, as a specification: what is told, where, and with which remedy.

mod values;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{report::Report, support, tree::Node, yaml};

/// One document.
pub(super) fn parse(text: &str) -> Node {
    yaml::parse(text, 0).unwrap().remove(0)
}

/// `LINE:COLUMN message | hint` of each finding.
pub(super) fn findings(report: Report) -> Vec<String> {
    let shown = |diagnostic: &crate::diagnostic::Diagnostic| {
        let hint = diagnostic.hint.as_deref().unwrap_or_default();
        let span = &diagnostic.span;
        format!("{}:{} {} | {hint}", span.line, span.column, diagnostic.message)
    };
    report.finish().0.iter().map(shown).collect()
}

fn checked(text: &str) -> Vec<String> {
    let mut report = Report::default();
    check(&parse(text), &mut report);
    findings(report)
}

/// A tree as JSON, for comparisons.
pub(super) fn json(node: &Node) -> serde_json::Value {
    use serde_json::json;
    match &node.value {
        Value::Null => serde_json::Value::Null,
        Value::Bool(value) => json!(value),
        Value::Int(int) => json!(*int as i64),
        Value::Float(float) => json!(float),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(entries) => {
            let entries = entries
                .iter()
                .map(|entry| (entry.key.clone(), json(&entry.value)));
            serde_json::Value::Object(entries.collect())
        }
    }
}

/// Fails with all rows of a table that differ: what was given, what came, what was wanted.
fn compare(rows: impl IntoIterator<Item = (&'static str, String, &'static str)>) {
    let wrong: Vec<_> = rows
        .into_iter()
        .filter(|(_, got, want)| got != want)
        .map(|(given, got, want)| format!("{given}\n  got    {got}\n  wanted {want}"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// A value and what was found on the way.
fn shown((value, found): (serde_json::Value, Vec<String>)) -> String {
    [vec![value.to_string()], found].concat().join("; ")
}

#[test]
fn a_service_has_all_attributes_of_the_schema_once() {
    let paths: Vec<_> = attributes().map(|(path, _)| path).collect();
    let of_a_service = paths
        .iter()
        .filter_map(|path| path.strip_prefix("services.*."))
        .filter(|rest| !rest.contains('.'));
    assert_eq!(of_a_service.count(), 93);
    let mut count = BTreeMap::new();
    for path in &paths {
        *count.entry(path).or_insert(0) += 1;
    }
    let twice: Vec<_> = count.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[test]
fn every_attribute_says_in_one_line_what_it_is_for() {
    for (path, field) in attributes() {
        let doc = field.doc;
        assert!(
            doc.len() > 6 && !doc.ends_with('.') && !doc.contains('\n'),
            "{path}: {doc}"
        );
    }
}

#[test]
fn the_table_of_support_has_the_same_attributes() {
    let ours: BTreeSet<_> = attributes().map(|(path, _)| path).collect();
    let theirs: BTreeSet<_> = support::attributes()
        .map(|attribute| attribute.path.to_owned())
        .collect();
    let differ: Vec<_> = ours.symmetric_difference(&theirs).collect();
    assert!(differ.is_empty(), "{differ:?}");
}

/// `body` below `services.web`, on line 3.
fn service(body: &str) -> Vec<String> {
    checked(&format!(
        "services:\n  web:\n    {}\n",
        body.replace('\n', "\n    ")
    ))
}

#[test]
fn what_is_wrong_is_told_with_its_place_and_a_remedy() {
    let rows = [
        (
            "user: 1000",
            "3:11 `services.web.user` must be text, and is a number | put it in quotes: `user: \"1000\"`",
        ),
        (
            "restart: false",
            "3:14 `services.web.restart` must be text, and is a boolean | in YAML 1.2 this is a boolean: write `restart: \"no\"`, with the quotes",
        ),
        (
            "command: [sleep, 10]",
            "3:22 `services.web.command[1]` must be text, and is a number | put it in quotes: `\"10\"`",
        ),
        (
            "healthcheck: { interval: 30 }",
            "3:30 `services.web.healthcheck.interval` must be a duration, and is a number | add a unit: `interval: 30s`",
        ),
        (
            "ports: { '8080': 80 }",
            "3:12 `services.web.ports` must be a list, and is a mapping | write a list: `- \"8080:80\"`",
        ),
        (
            "ports: ['8080': 80]",
            "3:13 unknown key `services.web.ports[0].8080` | put it in quotes: `- \"8080:80\"`",
        ),
        (
            "environment: [KEY: value]",
            "3:19 `services.web.environment[0]` must be text, and is a mapping | put a `=` between name and value: `- KEY=value`",
        ),
        (
            "image:",
            "3:10 `services.web.image` has no value; it must be text | write a value after `image:`, or remove the line",
        ),
        (
            "imag: x",
            "3:5 unknown key `services.web.imag` | did you mean `image`?",
        ),
        (
            "replicas: 2",
            "3:5 unknown key `services.web.replicas` | `replicas` belongs below `deploy`",
        ),
        (
            "cgroup: guest",
            "3:13 `services.web.cgroup`: `guest` is not allowed here | write `host` or `private`",
        ),
        (
            "container_name: x",
            "3:21 `services.web.container_name`: `x` is not allowed here | a name has at least two letters, digits, `_`, `.` or `-`, and begins with a letter or digit",
        ),
        (
            "oom_score_adj: 1001",
            "3:20 `services.web.oom_score_adj`: 1001 is too high | write a whole number from -1000 to 1000",
        ),
        (
            "cpu_count: -1",
            "3:16 `services.web.cpu_count`: -1 is too low | write a whole number from 0",
        ),
        (
            "scale: 1.5",
            "3:12 `services.web.scale` must be a whole number, and is 1.5 | write a whole number, for example `10`",
        ),
        (
            "depends_on: { db: { } }",
            "3:19 `services.web.depends_on.db` has no `condition` | add it, for example `condition: service_started`",
        ),
        (
            "volumes: [{ source: x }]",
            "3:15 `services.web.volumes[0]` has no `type` | add it, for example `type: bind`",
        ),
        (
            "security_opt: [a, a]",
            "3:23 `services.web.security_opt[1]` is in the list already | remove one of the two",
        ),
        (
            "labels: { '': x }",
            "3:15 `services.web.labels.`: a key must be one line that is not empty | write a name before the `:`",
        ),
        (
            "cpus: .inf",
            "3:11 `services.web.cpus`: a number must be finite | write digits, or put it in quotes",
        ),
        (
            "x-anything: [{ a: .nan }]",
            "3:23 `services.web.x-anything[0].a`: a number must be finite | write digits, or put it in quotes",
        ),
        (
            "ulimits: [nofile=1]",
            "3:14 `services.web.ulimits` must be a mapping, and is a list | write a mapping: lines of `KEY: VALUE` without `-`",
        ),
        (
            "use_api_socket: 'yes'",
            "3:21 `services.web.use_api_socket` must be a boolean, and is text | write `true` or `false`",
        ),
        (
            "blkio_config: { x-a: 1 }",
            "3:21 unknown key `services.web.blkio_config.x-a` | remove it; known here: `device_read_bps`, `device_read_iops`, `device_write_bps`, `device_write_iops`, `weight`, `weight_device`",
        ),
        (
            "cap_add: NET_ADMIN",
            "3:14 `services.web.cap_add` must be a list, and is text | write a list: `cap_add: [\"NET_ADMIN\"]`",
        ),
        (
            "pull_policy: sometimes",
            "3:18 `services.web.pull_policy`: `sometimes` is not allowed here | write `always`, `never`, `missing`, `build`, `daily`, `weekly` or `every_12h`",
        ),
    ];
    compare(rows.map(|(body, want)| (body, service(body).join("; "), want)));
}

#[test]
fn the_top_level_is_checked_too() {
    let rows = [
        (
            "[]",
            "1:1 the file must be a mapping, and is a list | write lines of `KEY: VALUE`, beginning with `services:`",
        ),
        (
            "web: { image: a }",
            "1:1 unknown key `web` | write the service below `services:`, or `x-web` if it is a template",
        ),
        (
            "image: a",
            "1:1 unknown key `image` | `image` belongs to a service: write it below `services.NAME:`",
        ),
        (
            "zot: a",
            "1:1 unknown key `zot` | remove it, or write `x-zot` if it is for another program",
        ),
        (
            "services: { a b: { image: a } }",
            "1:13 `services.a b`: `a b` is not a name | write letters, digits, `.`, `_` and `-` only",
        ),
        (
            "services: { a: }",
            "1:14 `services.a` has no value; it must be a mapping | write a value after `a:`, or remove the line",
        ),
        (
            "name: 1",
            "1:7 `name` must be text, and is a number | put it in quotes: `name: \"1\"`",
        ),
        (
            "volumes: { data: text }",
            "1:18 `volumes.data` must be a mapping, and is text | write lines of `KEY: VALUE` below `data:`",
        ),
    ];
    compare(rows.map(|(text, want)| (text, checked(text).join("; "), want)));
}

#[test]
fn everything_that_the_schema_allows_passes() {
    for body in [
        "image: a\nx-own: { any: [thing, 1.5, null] }",
        "ports: [80, '8080:80', { target: 80, published: '8000-8010', x-note: a }]",
        "command:\nentrypoint: []",
        "environment: { A: 1, B: 1.5, C: true, D: null, E: text }",
        "environment: [A=1, B]",
        "depends_on: { db: { condition: service_healthy, restart: 'true', x-a: 1 } }",
        "networks: { a: , b: { aliases: [c], priority: 1.5 } }",
        "ulimits: { nofile: '1024', nproc: { soft: 1, hard: '2' }, RT_PRIO: [unseen] }",
        "gpus: [{ unknown: 1 }]",
        "gpus: all",
        "deploy:\ndevelop:",
        "healthcheck: { retries: 2.0, test: NONE }",
        "scale: 2.0",
        "container_name: '-ab-'",
        "pull_policy: every_1d12h",
        "storage_opt: { size: [any] }",
        "pid:",
        "provider: { type: a, options: { b: [1, true], c: d } }",
        "expose: [80, '80']",
    ] {
        assert_eq!(service(body), [""; 0], "{body}");
    }
    for text in [
        "{}",
        "services: {}",
        "networks: { a: , 'b c': unseen, x-net: { driver: bridge } }",
        "volumes: { data: , other: { driver_opts: { a: 1 }, external: { name: x } } }",
        "secrets: { a: { external: { name: b, any: thing } } }",
        "include: [a.yaml, { path: [b.yaml] }]",
        "x-anchor: 1",
    ] {
        assert_eq!(checked(text), [""; 0], "{text}");
    }
}

#[test]
fn all_errors_are_told_at_once_and_no_number_of_them_takes_long() {
    assert_eq!(service("imag: x\nuser: 1\nports: 1").len(), 3);
    let keys: String = (0..20_000).map(|n| format!("  imago{n}: x\n")).collect();
    let found = checked(&format!(
        "services:\n {{}}\nnetworks:\n  a:\n  {}",
        keys.replace("\n", "\n  ")
    ));
    assert_eq!(found.len(), 101);
}
