//! The shape of files, as a specification: what is told, where, and with which remedy.

use std::collections::BTreeMap;

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
fn the_table_of_support_knows_every_attribute_of_a_service_and_of_the_top_level() {
    for (path, field) in attributes() {
        let section = path.strip_suffix(field.name).unwrap_or_default();
        let section = section.trim_end_matches('.');
        if section.is_empty() || section == "services.*" {
            assert!(support::find(section, field.name).is_some(), "{path}");
        }
    }
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
            "3:11 `services.web.user`: must be text, and is a number | put it in quotes: `user: \"1000\"`",
        ),
        (
            "restart: false",
            "3:14 `services.web.restart`: must be text, and is a boolean | in YAML 1.2 this is a boolean: write `restart: \"no\"`, with the quotes",
        ),
        (
            "command: [sleep, 10]",
            "3:22 `services.web.command[1]`: must be text, and is a number | put it in quotes: `\"10\"`",
        ),
        (
            "healthcheck: { interval: 30 }",
            "3:30 `services.web.healthcheck.interval`: must be text, and is a number | add a unit: `interval: 30s`",
        ),
        (
            "ports: { '8080': 80 }",
            "3:12 `services.web.ports`: must be a list, and is a mapping | write a list: `- \"8080:80\"`",
        ),
        (
            "ports: ['8080': 80]",
            "3:13 unknown key `services.web.ports[0].8080` | put it in quotes: `- \"8080:80\"`",
        ),
        (
            "environment: [KEY: value]",
            "3:19 `services.web.environment[0]`: must be text, and is a mapping | put a `=` between name and value: `- KEY=…`",
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
            "3:12 `services.web.scale`: must be a whole number or text | put it in quotes: `scale: \"1.5\"`",
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
            "3:15 `services.web.labels.`: a key must not be empty | write a name before the `:`",
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
            "3:14 `services.web.ulimits`: must be a mapping, and is a list | write a mapping: lines of `KEY: VALUE` without `-`",
        ),
        (
            "use_api_socket: 'yes'",
            "3:21 `services.web.use_api_socket`: must be `true` or `false`, and is text | write `true` or `false` without quotes",
        ),
        (
            "blkio_config: { x-a: 1 }",
            "3:21 unknown key `services.web.blkio_config.x-a` | remove it; known here: `device_read_bps`, `device_read_iops`, `device_write_bps`, `device_write_iops`, `weight`, `weight_device`",
        ),
        (
            "cap_add: NET_ADMIN",
            "3:14 `services.web.cap_add`: must be a list, and is text | write a list: `cap_add: [\"NET_ADMIN\"]`",
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
            "1:7 `name`: must be text, and is a number | put it in quotes: `name: \"1\"`",
        ),
        (
            "volumes: { data: text }",
            "1:18 `volumes.data`: must be a mapping or nothing, and is text | write lines of `KEY: VALUE` below `data:`",
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

fn cast_service(body: &str) -> (serde_json::Value, Vec<String>) {
    let mut node = parse(&format!("services:\n  web:\n    {body}\n"));
    let mut report = Report::default();
    cast(&mut node, &mut report);
    (json(&node)["services"]["web"].take(), findings(report))
}

#[test]
fn text_is_cast_where_compose_casts_it() {
    let rows = [
        ("tty: 'true'", r#"{"tty":true}"#),
        ("cpus: '0.50'", r#"{"cpus":0.5}"#),
        ("pids_limit: '-1'", r#"{"pids_limit":-1}"#),
        (
            "ulimits: { nofile: '1', nproc: { soft: '2', hard: '3' } }",
            r#"{"ulimits":{"nofile":1,"nproc":{"soft":2,"hard":3}}}"#,
        ),
        (
            "ports: [{ target: '80', published: '8080' }, '80']",
            r#"{"ports":[{"target":80,"published":"8080"},"80"]}"#,
        ),
        (
            "depends_on: { db: { required: 'false' } }",
            r#"{"depends_on":{"db":{"required":false}}}"#,
        ),
        (
            "deploy: { replicas: '2', resources: { limits: { cpus: '1' } } }",
            r#"{"deploy":{"replicas":2,"resources":{"limits":{"cpus":"1"}}}}"#,
        ),
        (
            "build: { privileged: 'true', ulimits: { nofile: '1' } }",
            r#"{"build":{"privileged":"true","ulimits":{"nofile":"1"}}}"#,
        ),
        ("mem_limit: '5'", r#"{"mem_limit":"5"}"#),
        (
            "volumes: [{ type: volume, read_only: 'True', volume: { nocopy: 'FALSE' } }]",
            r#"{"volumes":[{"type":"volume","read_only":true,"volume":{"nocopy":false}}]}"#,
        ),
    ];
    compare(rows.map(|(body, want)| (body, shown(cast_service(body)), want)));
}

#[test]
fn text_that_cannot_be_cast_is_an_error_and_yaml_1_1_a_warning() {
    let rows = [
        (
            "tty: 'yes'",
            "3:10 `services.web.tty`: `yes` is a boolean in YAML 1.1 only | write `true`",
        ),
        (
            "init: Off",
            "3:11 `services.web.init`: `Off` is a boolean in YAML 1.1 only | write `false`",
        ),
        (
            "tty: maybe",
            "3:10 `services.web.tty`: `maybe` is not a boolean | write `true` or `false`",
        ),
        (
            "tty: ''",
            "3:10 `services.web.tty`: an empty text is not a boolean | write `true` or `false`; if it comes from a variable, give it a default: `${NAME:-…}`",
        ),
        (
            "scale: two",
            "3:12 `services.web.scale`: `two` is not a whole number | write digits only, for example `10`",
        ),
        (
            "cpus: half",
            "3:11 `services.web.cpus`: `half` is not a number | write a number like `0.5`",
        ),
    ];
    compare(rows.map(|(body, want)| (body, cast_service(body).1.join("; "), want)));
}

fn settled(text: &str) -> (serde_json::Value, Vec<String>) {
    let mut node = parse(text);
    let mut report = Report::default();
    settle(&mut node, &mut report);
    let once = json(&node);
    let found = findings(report);
    let mut again = Report::default();
    settle(&mut node, &mut again);
    assert_eq!(json(&node), once, "settling twice changes something: {text}");
    (once, found)
}

/// The service without the two commands that are always there.
fn settled_service(body: &str) -> (serde_json::Value, Vec<String>) {
    let (mut all, found) = settled(&format!("services:\n  web:\n    {body}\n"));
    let mut service = all["services"]["web"].take();
    if let Some(service) = service.as_object_mut() {
        for name in ["command", "entrypoint"] {
            if service.get(name).is_some_and(serde_json::Value::is_null) {
                service.shift_remove(name);
            }
        }
    }
    (service, found)
}

#[test]
fn scalars_get_the_form_in_which_they_are_printed() {
    let rows = [
        ("mem_limit: 64m", r#"{"mem_limit":"67108864"}"#),
        ("mem_limit: 0", "{}"),
        ("memswap_limit: -1", r#"{"memswap_limit":"-1"}"#),
        ("stop_grace_period: 90s", r#"{"stop_grace_period":"1m30s"}"#),
        ("stop_grace_period: 0s", r#"{"stop_grace_period":"0s"}"#),
        (
            "deploy: { update_config: { delay: 0s, parallelism: 0 } }",
            r#"{"deploy":{"update_config":{"parallelism":0}}}"#,
        ),
        ("cpus: 1.0", r#"{"cpus":1}"#),
        (
            "privileged: false\n    init: false\n    tty: 'true'",
            r#"{"init":false,"tty":true}"#,
        ),
        (
            "labels: { a: 1, b: true, c: 1.50, d: }",
            r#"{"labels":{"a":"1","b":"true","c":"1.5","d":""}}"#,
        ),
        (
            "environment: { A: 1, B: , C: true }",
            r#"{"environment":{"A":"1","B":null,"C":"true"}}"#,
        ),
        (
            "environment: [A=1, B, A=2]",
            r#"{"environment":{"A":"2","B":null}}"#,
        ),
        ("sysctls: [a=1]", r#"{"sysctls":{"a":"1"}}"#),
        (
            "logging: { options: { n: 1.0, e: } }",
            r#"{"logging":{"options":{"n":"1","e":""}}}"#,
        ),
        ("storage_opt: { size: 1 }", r#"{"storage_opt":{"size":"1"}}"#),
        (
            "secrets: [{ source: a, mode: 0440 }]",
            r#"{"secrets":[{"source":"a","mode":"0440"}]}"#,
        ),
        (
            "volumes: [{ type: bind, read_only: false, bind: { create_host_path: true } }]",
            r#"{"volumes":[{"type":"bind","bind":{}}]}"#,
        ),
        (
            "volumes: [{ type: tmpfs, tmpfs: { size: 1k, mode: 01777 } }]",
            r#"{"volumes":[{"type":"tmpfs","tmpfs":{"size":"1024","mode":1023}}]}"#,
        ),
        (
            "ulimits: { nofile: 5, core: 0, nproc: { soft: 0, hard: 2 } }",
            r#"{"ulimits":{"nofile":5,"core":{},"nproc":{"hard":2}}}"#,
        ),
        (
            "blkio_config: { weight_device: [{ weight: 5 }] }",
            r#"{"blkio_config":{"weight_device":[{"Weight":5,"Path":""}]}}"#,
        ),
        (
            "blkio_config: { device_read_bps: [{ path: /dev/a, rate: 1m }] }",
            r#"{"blkio_config":{"device_read_bps":[{"Path":"/dev/a","Rate":"1048576"}]}}"#,
        ),
        (
            "gpus: [{ count: all }, { count: '2', unknown: 1 }]",
            r#"{"gpus":[{"count":-1},{"count":2}]}"#,
        ),
        (
            "extra_hosts: { b: '[::1]', a: [10.0.0.2, 10.0.0.1] }",
            r#"{"extra_hosts":["a=10.0.0.1","a=10.0.0.2","b=::1"]}"#,
        ),
        (
            "extra_hosts: ['a:::1', 'b=1,2']",
            r#"{"extra_hosts":["a=::1","b=1","b=2"]}"#,
        ),
        (
            "build: { ssh: { default: , k: /p }, provenance: true, no_cache: 'false' }",
            r#"{"build":{"ssh":["default","k=/p"],"provenance":"true"}}"#,
        ),
        ("expose: [80, 90-92]", r#"{"expose":["80","90-92"]}"#),
        (
            "ports: [{ target: 80, published: 8080, mode: ingress }]",
            r#"{"ports":[{"target":80,"published":"8080","mode":"ingress"}]}"#,
        ),
        (
            "networks: { default: , b: { priority: 0, gw_priority: 2.7 } }",
            r#"{"networks":{"default":null,"b":{"gw_priority":2}}}"#,
        ),
        (
            "command: []\n    entrypoint: [a]",
            r#"{"command":[],"entrypoint":["a"]}"#,
        ),
        (
            "healthcheck: { test: true it, retries: 0, disable: false }",
            r#"{"healthcheck":{"test":["CMD-SHELL","true it"],"retries":0}}"#,
        ),
        ("healthcheck: { test: [] }", r#"{"healthcheck":{}}"#),
        (
            "depends_on: { db: { condition: service_started, restart: false, required: true } }",
            r#"{"depends_on":{"db":{"condition":"service_started","required":true}}}"#,
        ),
        (
            "post_start: [{ user: '0' }]",
            r#"{"post_start":[{"user":"0","command":null}]}"#,
        ),
        (
            "provider: { type: a, options: { b: 1, c: [x, true] } }",
            r#"{"provider":{"type":"a","options":{"b":["1"],"c":["x","true"]}}}"#,
        ),
        ("x-own: 1\n    cap_add: []\n    hostname: ''", "{}"),
    ];
    compare(rows.map(|(body, want)| (body, shown(settled_service(body)), want)));
}

#[test]
fn extensions_of_the_top_level_are_kept_with_numbers_as_in_json() {
    let (got, found) = settled("x-a: [1.0, 1.5, { x-b: 2.0 }]\nservices: {}\nvolumes: {}\nversion: '3'");
    let want = r#"{"x-a":[1,1.5,{"x-b":2}],"services":{}}"#;
    assert_eq!((got.to_string().as_str(), found), (want, vec![]));
}

#[test]
fn commands_are_always_printed() {
    let (got, _) = settled("services: { a: { image: b } }");
    let want = r#"{"services":{"a":{"image":"b","command":null,"entrypoint":null}}}"#;
    assert_eq!(got.to_string(), want);
}

#[test]
fn what_cannot_be_read_is_an_error() {
    let rows = [
        (
            "mem_limit: 5x",
            "3:16 `services.web.mem_limit`: `5x` is not a size | write a number and a unit, for example `512m` or `2g`",
        ),
        (
            "stop_grace_period: '10'",
            "3:24 `services.web.stop_grace_period`: `10` is not a duration | add a unit: `10s` for seconds, `10ms`, `10m`",
        ),
        (
            "attach: maybe",
            "3:13 `services.web.attach`: `maybe` is not a boolean | write `true` or `false`",
        ),
        (
            "healthcheck: { retries: -1 }",
            "3:29 `services.web.healthcheck.retries`: `-1` is not a number that is allowed here | write a whole number from 0 to 18446744073709551615",
        ),
        (
            "blkio_config: { weight: '300' }",
            "3:29 `services.web.blkio_config.weight`: `300` is not a number | write digits without quotes",
        ),
        (
            "build: { ulimits: { nofile: '1' } }",
            "3:33 `services.web.build.ulimits.nofile`: `1` is not a limit | write a whole number without quotes",
        ),
        (
            "gpus: [{ count: some }]",
            "3:21 `services.web.gpus[0].count`: `some` is not a number of devices | write a whole number or `all`",
        ),
        (
            "configs: [{ source: a, mode: '9' }]",
            "3:34 `services.web.configs[0].mode`: `9` is not a file mode | write octal digits, for example `0440`",
        ),
        (
            "extra_hosts: [alone]",
            "3:19 `services.web.extra_hosts[0]`: `alone` is not a host with an address | write `HOST=ADDRESS`, for example `db.example=10.0.0.5`",
        ),
        (
            "mem_limit: 1.5",
            "3:16 `services.web.mem_limit`: a number with a decimal point or an exponent counts as 0 here | write a whole number, or text with a unit, for example `1.5g`",
        ),
    ];
    compare(rows.map(|(body, want)| (body, settled_service(body).1.join("; "), want)));
}
