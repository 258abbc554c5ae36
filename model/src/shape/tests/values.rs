//! How values are cast and settled, as a specification.

use super::{compare, findings, json, parse, shown};
use crate::{
    report::Report,
    shape::{cast, settle},
};

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
            r#"{"blkio_config":{"weight_device":[{"weight":5,"path":""}]}}"#,
        ),
        (
            "blkio_config: { device_read_bps: [{ path: /dev/a, rate: 1m }] }",
            r#"{"blkio_config":{"device_read_bps":[{"path":"/dev/a","rate":"1048576"}]}}"#,
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
        ("x-own: 1\n    cap_add: []\n    hostname: ''", r#"{"x-own":1}"#),
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
            "3:16 `services.web.mem_limit`: `5x` is not a size | write bytes, or a number with a unit, like `64m`",
        ),
        (
            "stop_grace_period: '10'",
            "3:24 `services.web.stop_grace_period`: `10` is not a duration | write `10s` for seconds",
        ),
        (
            "attach: maybe",
            "3:13 `services.web.attach`: `maybe` is not a boolean | write `true` or `false`",
        ),
        (
            "healthcheck: { retries: -1 }",
            "3:29 `services.web.healthcheck.retries`: `-1` is not a number that is allowed here | write a whole number from 0",
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
            "3:19 `services.web.extra_hosts[0]`: `alone` is not a host with an address | write `NAME=ADDRESS`, for example `db=10.0.0.2`",
        ),
        (
            "mem_limit: 1.5",
            "3:16 `services.web.mem_limit`: a number with a decimal point or an exponent counts as 0 here | write a whole number, or text with a unit, for example `1.5g`",
        ),
    ];
    compare(rows.map(|(body, want)| (body, settled_service(body).1.join("; "), want)));
}
