//! The rules of the merge, one by one.

use super::*;
use crate::{
    compose::text::{at, plain, tree},
    diagnostic::{Diagnostic, Severity},
    tree::At,
};

/// A service attribute of both files, and what comes of it.
fn service(base: &str, over: &str) -> (Node, Vec<Diagnostic>) {
    let wrap = |text: &str| {
        tree(&format!(
            "services:\n  web:\n    {}",
            text.replace('\n', "\n    ")
        ))
    };
    merged(wrap(base), wrap(over), "services.web")
}

fn network(base: &str, over: &str) -> (Node, Vec<Diagnostic>) {
    let wrap = |text: &str| tree(&format!("networks: {{front: {{ipam: {{config: {text}}}}}}}"));
    merged(wrap(base), wrap(over), "networks.front.ipam.config")
}

fn merged(base: Node, over: Node, path: &str) -> (Node, Vec<Diagnostic>) {
    let mut report = Report::default();
    let mut model = merge(base, over, &mut report);
    (at(&mut model, path).clone(), report.finish().0)
}

fn line(line: u32, column: u32) -> At {
    At {
        line,
        column,
        ..At::default()
    }
}

#[test]
fn each_attribute_merges_by_its_rule() {
    for (base, over, want) in [
        // Scalars, mappings and lists without a rule.
        ("image: a", "image: b", "image: b"),
        ("image: a", "image: ", "image: a"),
        ("image: a", "init: true", "{image: a, init: true}"),
        (
            "deploy: {mode: global}",
            "deploy: {replicas: 2}",
            "deploy: {mode: global, replicas: 2}",
        ),
        ("deploy: {mode: global}", "deploy:", "deploy: {mode: global}"),
        ("deploy:", "deploy: {replicas: 2}", "deploy: {replicas: 2}"),
        ("ports: [80, 81]", "ports: [80]", "ports: [80, 81, 80]"),
        (
            "volumes: ['a:/a']",
            "volumes: [{type: bind, target: /a}]",
            "volumes: ['a:/a', {type: bind, target: /a}]",
        ),
        ("cap_add: [A]", "cap_add: [A, B]", "cap_add: [A, A, B]"),
        // Replaced, even by nothing.
        ("command: [a, b]", "command: c", "command: c"),
        ("command: [a, b]", "command: ", "command: "),
        ("entrypoint: a", "entrypoint: [b]", "entrypoint: [b]"),
        (
            "healthcheck: {test: [CMD, a], retries: 2}",
            "healthcheck: {test: b}",
            "healthcheck: {test: b, retries: 2}",
        ),
        (
            "ulimits: {nofile: {soft: 1, hard: 2}, core: 1}",
            "ulimits: {nofile: {soft: 3}}",
            "ulimits: {nofile: {soft: 3}, core: 1}",
        ),
        (
            "ulimits: {nofile: 1}",
            "ulimits: {nofile: {soft: 3, hard: 4}}",
            "ulimits: {nofile: {soft: 3, hard: 4}}",
        ),
        // Both become lists.
        (
            "environment: {B: 1, A: x}",
            "environment: [C=2]",
            "environment: [A=x, B=1, C=2]",
        ),
        (
            "environment: [A=1]",
            "environment: {Z: , Y: true, X: 1.0, W: ''}",
            "environment: [A=1, W=, X=1, Y=true, Z]",
        ),
        ("environment: [A=1]", "environment:", "environment: [A=1]"),
        ("environment:", "environment:", "environment: []"),
        ("labels: {a: 1}", "labels: {a: 2}", "labels: [a=1, a=2]"),
        (
            "annotations: [a=1]",
            "annotations: {b: 2}",
            "annotations: [a=1, b=2]",
        ),
        (
            "deploy: {labels: {a: b}}",
            "deploy: {labels: [c=d]}",
            "deploy: {labels: [a=b, c=d]}",
        ),
        ("sysctls: {a: 1}", "sysctls: [b=2]", "sysctls: [a=1, b=2]"),
        ("dns: 1.1.1.1", "dns: [8.8.8.8]", "dns: [1.1.1.1, 8.8.8.8]"),
        ("dns_search: a", "dns_search: b", "dns_search: [a, b]"),
        ("dns_opt: [a]", "dns_opt: [b]", "dns_opt: [a, b]"),
        (
            "env_file: a.env",
            "env_file: [{path: b.env}]",
            "env_file: [a.env, {path: b.env}]",
        ),
        ("label_file: a", "label_file: [b]", "label_file: [a, b]"),
        ("tmpfs: /a", "tmpfs: [/b]", "tmpfs: [/a, /b]"),
        // Hosts: a list of addresses is one item each, known pairs are not repeated.
        (
            "extra_hosts: {a: [1.1.1.1, 1.1.1.2]}",
            "extra_hosts: [a=1.1.1.2, b=1.1.1.3]",
            "extra_hosts: [a=1.1.1.1, a=1.1.1.2, b=1.1.1.3]",
        ),
        (
            "extra_hosts: [a=1]",
            "extra_hosts: [b=2, b=2]",
            "extra_hosts: [a=1, b=2, b=2]",
        ),
        // Build: the short form is a context.
        (
            "build: .",
            "build: {dockerfile: F}",
            "build: {context: ., dockerfile: F}",
        ),
        (
            "build: {context: a, dockerfile: F}",
            "build: b",
            "build: {context: b, dockerfile: F}",
        ),
        (
            "build: {args: {A: 1}}",
            "build: {args: [B=2]}",
            "build: {args: [A=1, B=2]}",
        ),
        (
            "build: {labels: {A: 1}}",
            "build: {labels: {B: 2}}",
            "build: {labels: [A=1, B=2]}",
        ),
        (
            "build: {additional_contexts: {a: b}}",
            "build: {additional_contexts: [c=d]}",
            "build: {additional_contexts: [a=b, c=d]}",
        ),
        (
            "build: {extra_hosts: [a=1]}",
            "build: {extra_hosts: [a=1]}",
            "build: {extra_hosts: [a=1]}",
        ),
        (
            "build: {ssh: [default]}",
            "build: {ssh: [a=b]}",
            "build: {ssh: [default, a=b]}",
        ),
        ("build: .", "build:", "build: {context: .}"),
        // Lists of names are mappings.
        (
            "networks: [a, b]",
            "networks: {a: {aliases: [x]}}",
            "networks: {a: {aliases: [x]}, b: }",
        ),
        (
            "networks: {a: {aliases: [x]}}",
            "networks: [a, c, c]",
            "networks: {a: {aliases: [x]}, c: }",
        ),
        (
            "networks: {a: {aliases: [x]}}",
            "networks: {a: {aliases: [y]}}",
            "networks: {a: {aliases: [x, y]}}",
        ),
        (
            "models: [a]",
            "models: {b: {endpoint_var: X}}",
            "models: {a: , b: {endpoint_var: X}}",
        ),
        (
            "depends_on: [a]",
            "depends_on: {b: {condition: service_healthy}}",
            "depends_on: {a: {condition: service_started, required: true}, b: {condition: service_healthy}}",
        ),
        (
            "depends_on: {a: {condition: service_healthy, restart: true}}",
            "depends_on: [a]",
            "depends_on: {a: {condition: service_started, required: true, restart: true}}",
        ),
        // Logging: options go with their driver.
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {driver: b, options: {y: 2}}",
            "logging: {driver: b, options: {y: 2}}",
        ),
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {driver: a, options: {y: 2}}",
            "logging: {driver: a, options: {x: 1, y: 2}}",
        ),
        (
            "logging: {driver: a, options: {x: 1}}",
            "logging: {options: {y: 2}}",
            "logging: {driver: a, options: {x: 1, y: 2}}",
        ),
        (
            "logging: {options: {x: 1}}",
            "logging: {driver: b}",
            "logging: {driver: b, options: {x: 1}}",
        ),
    ] {
        let (found, findings) = service(base, over);
        assert_eq!(plain(&found), plain(&tree(want)), "{base} <- {over}");
        assert_eq!(findings, [], "{base} <- {over}");
    }
}

#[test]
fn address_pools_merge_by_subnet() {
    for (base, over, want) in [
        (
            "[{subnet: a, gateway: g}]",
            "[{subnet: a, ip_range: r}]",
            "[{subnet: a, gateway: g, ip_range: r}]",
        ),
        ("[{subnet: a}]", "[{gateway: g}]", "[{gateway: g}]"),
        ("[{gateway: g}]", "[{ip_range: r}]", "[{gateway: g, ip_range: r}]"),
        (
            "[{subnet: a}]",
            "[{subnet: a, gateway: g}, {subnet: b}]",
            "[{subnet: a, gateway: g}, {subnet: b}]",
        ),
        // What no later pool meets is left out.
        ("[{subnet: a}]", "[{subnet: b}]", "[{subnet: b}]"),
        ("[{subnet: a}]", "[]", "[]"),
        ("[]", "[{subnet: a}]", "[]"),
        // A subnet that is there already is merged into the pool at hand.
        (
            "[{subnet: a, gateway: g}, {subnet: b, ip_range: r}]",
            "[{subnet: c}]",
            "[{subnet: c, ip_range: r}]",
        ),
        (
            "[{subnet: a, gateway: g}, {subnet: b, ip_range: r}]",
            "[{subnet: a}, {subnet: b}]",
            "[{subnet: b, ip_range: r}, {subnet: b}]",
        ),
    ] {
        let (found, findings) = network(base, over);
        assert_eq!(plain(&found), plain(&tree(want)), "{base} <- {over}");
        assert_eq!(findings, [], "{base} <- {over}");
    }
}

#[test]
fn many_address_pools_are_refused_instead_of_taking_quadratic_time() {
    let pools = |prefix: &str| {
        let items: Vec<String> = (0..100).map(|n| format!("{{subnet: {prefix}{n}}}")).collect();
        format!("[{}]", items.join(", "))
    };
    let (_, findings) = network(&pools("a"), &pools("b"));
    let [finding] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert!(finding.refusal);
    assert_eq!(
        finding.message,
        "`networks.front.ipam.config`: too many address pools to merge"
    );
}

#[test]
fn a_long_key_is_not_repeated_without_bound() {
    let hosts = format!("extra_hosts: {{{}: [{}]}}", "k".repeat(1000), "1, ".repeat(1000));
    let (found, findings) = service("extra_hosts: [a=1]", &hosts);
    assert_eq!(plain(&found), plain(&tree("extra_hosts: [a=1]")));
    let [finding] = &findings[..] else {
        panic!("{findings:?}");
    };
    assert!(finding.refusal);
    assert!(finding.message.len() < 200, "{}", finding.message);
}

#[test]
fn labels_of_networks_and_volumes_become_lists() {
    for section in ["networks", "volumes"] {
        let of = |labels: &str| tree(&format!("{section}: {{x: {{labels: {labels}}}}}"));
        let (found, findings) = merged(of("{a: 1}"), of("[b=2]"), &format!("{section}.x.labels"));
        assert_eq!(plain(&found), plain(&tree("[a=1, b=2]")));
        assert_eq!(findings, []);
    }
}

#[test]
fn clashes_are_errors_where_the_later_value_is() {
    for (base, over, message) in [
        (
            "ports: [80]",
            "ports: {a: b}",
            "cannot override `services.web.ports`: a mapping cannot be merged into a list",
        ),
        (
            "deploy: {mode: x}",
            "deploy: text",
            "cannot override `services.web.deploy`: text cannot be merged into a mapping",
        ),
        (
            "logging: {driver: x}",
            "logging: 1",
            "cannot override `services.web.logging`: a number cannot be merged into a mapping",
        ),
        (
            "build: [a]",
            "build: {context: .}",
            "cannot override `services.web.build`: a mapping cannot be merged into a list",
        ),
        (
            "networks: ",
            "networks: [a]",
            "cannot override `services.web.networks`: a mapping cannot be merged into nothing",
        ),
        (
            "depends_on: [a]",
            "depends_on: [[b]]",
            "`services.web.depends_on[0]`: a name is text, not a list",
        ),
    ] {
        let (_, findings) = service(base, over);
        let [finding] = &findings[..] else {
            panic!("{base} <- {over}: {findings:?}");
        };
        assert_eq!(finding.message, message);
        assert_eq!((finding.severity, finding.refusal), (Severity::Error, false));
        assert_eq!(finding.span.line, 3);
        assert!(finding.hint.is_some());
    }
}

#[test]
fn a_clash_says_where_the_earlier_value_is_and_what_to_do() {
    let mut report = Report::default();
    report.file("base.yaml".as_ref(), "");
    let base = tree("services:\n  web:\n    ports:\n      - 80\n");
    merge(base, tree("services: {web: {ports: x}}"), &mut report);
    let (findings, _) = report.finish();
    assert_eq!(
        findings[0].hint.as_deref(),
        Some(
            "the earlier value is a list at base.yaml:4:7; write this one in the same form, \
             or put `!override` before it to replace the earlier one"
        )
    );
}

#[test]
fn every_clash_is_found() {
    let (found, findings) = service(
        "ports: [80]\nexpose: [1]\ninit: true",
        "ports: x\nexpose: {}\ninit: false",
    );
    assert_eq!(findings.len(), 2);
    assert_eq!(
        plain(&found),
        plain(&tree("{ports: [80], expose: [1], init: false}"))
    );
}

#[test]
fn values_that_the_merge_makes_lose_their_kind_are_warned_of() {
    for (base, over, want, message) in [
        (
            "dns: [a]",
            "dns: 8",
            "dns: [a]",
            "`services.web.dns`: a number is left out by the merge",
        ),
        (
            "depends_on: [a]",
            "depends_on: b",
            "depends_on: {a: {condition: service_started, required: true}}",
            "`services.web.depends_on`: text is left out by the merge",
        ),
        (
            "labels: []",
            "labels: {a: {c: [1, x], b: }}",
            "labels: ['a=map[b:<nil> c:[1 x]]']",
            "`services.web.labels.a`: a mapping is no value here, and is merged as the text that prints it",
        ),
    ] {
        let (found, findings) = service(base, over);
        assert_eq!(plain(&found), plain(&tree(want)));
        let [finding] = &findings[..] else {
            panic!("{base} <- {over}: {findings:?}");
        };
        assert_eq!(
            (finding.severity, finding.message.as_str()),
            (Severity::Warning, message)
        );
    }
}

#[test]
fn positions_survive_the_merge() {
    let base =
        tree("services:\n  web:\n    image: a\n    init: true\n    environment:\n      B: 1\n      A: 2\n");
    let over = tree("\n\n\nservices:\n  web:\n    image: b\n    environment: [C=1]\n    tty: true\n");
    let (web, _) = merged(base, over, "services.web");
    let keys: Vec<_> = web
        .entries()
        .iter()
        .map(|entry| (entry.key.as_str(), entry.at))
        .collect();
    assert_eq!(
        keys,
        [
            ("image", line(6, 5)),
            ("init", line(4, 5)),
            ("environment", line(5, 5)),
            ("tty", line(8, 5)),
        ]
    );
    let items: Vec<_> = web.get("environment").into_iter().flat_map(Node::items).collect();
    let items: Vec<_> = items.iter().map(|item| (item.as_text(), item.at)).collect();
    assert_eq!(
        items,
        [
            (Some("A=2"), line(7, 7)),
            (Some("B=1"), line(6, 7)),
            (Some("C=1"), line(7, 19)),
        ]
    );
}

#[test]
fn an_extending_service_merges_by_the_rules_of_services() {
    let mut report = Report::default();
    let base = tree("{image: a, command: [x], ports: [80], labels: {a: 1}}");
    let over = tree("{command: [y], ports: {a: b}, labels: [b=2]}");
    let found = extend_service(base, over, "web", &mut report);
    assert_eq!(
        plain(&found),
        plain(&tree("{image: a, command: [y], ports: [80], labels: [a=1, b=2]}"))
    );
    let (findings, _) = report.finish();
    assert_eq!(
        findings[0].message,
        "cannot override `services.web.ports`: a mapping cannot be merged into a list"
    );
}

#[test]
fn large_mappings_and_lists_merge_in_little_time() {
    let key = |n: usize| format!("key{n}");
    let map = |from: usize| {
        let entries = (from..from + 100_000).map(|n| Entry {
            key: key(n),
            at: line(1, 1),
            value: Node::text("x", line(1, 1)),
        });
        Node::new(Value::Map(entries.collect()), line(1, 1))
    };
    let mut report = Report::default();
    for (path, want) in [
        (&["x-large"][..], 150_000),
        (&["services", "web", "networks"], 150_000),
        (&["services", "web", "extra_hosts"], 150_000),
        (&["services", "web", "labels"], 200_000),
    ] {
        let found = merge_at(path, map(0), map(50_000), &mut report);
        assert_eq!(found.entries().len() + found.items().len(), want, "{path:?}");
    }
}
