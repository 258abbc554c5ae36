//! The keys of the lists, one by one.

use super::*;
use crate::{
    compose::text::{at, plain, tree},
    diagnostic::Diagnostic,
};

fn service(text: &str) -> (Node, Vec<Diagnostic>) {
    let mut model = tree(&format!("services:\n  web:\n    {text}"));
    let mut report = Report::default();
    unique(&mut model, &mut report);
    (at(&mut model, "services.web").clone(), report.finish().0)
}

#[test]
fn the_last_item_of_a_key_stays_at_the_place_of_the_first() {
    for (given, want) in [
        ("environment: [A=1, B=2, A, C=3, B=]", "environment: [A, B=, C=3]"),
        ("labels: [a=1, a=2]", "labels: [a=2]"),
        ("annotations: [a=1, a=2]", "annotations: [a=2]"),
        ("sysctls: [a=1, a=2]", "sysctls: [a=2]"),
        (
            "build: {args: [a=1, a], labels: [a=1, a], tags: [t, t], additional_contexts: [a=b, a=c]}",
            "build: {args: [a], labels: [a], tags: [t], additional_contexts: [a=c]}",
        ),
        ("deploy: {labels: [a=1, a=2]}", "deploy: {labels: [a=2]}"),
        (
            "{dns: [a, a], dns_opt: [b, b], dns_search: [c, c]}",
            "{dns: [a], dns_opt: [b], dns_search: [c]}",
        ),
        (
            "{cap_add: [A, B, A], cap_drop: [C, C]}",
            "{cap_add: [A, B], cap_drop: [C]}",
        ),
        (
            "{links: [a, a], profiles: [p, p], tmpfs: [/t, /t, '/t:size=1']}",
            "{links: [a], profiles: [p], tmpfs: [/t, '/t:size=1']}",
        ),
        (
            "networks: {a: {aliases: [x, x], link_local_ips: [y, y]}}",
            "networks: {a: {aliases: [x], link_local_ips: [y]}}",
        ),
        ("expose: [80, '80', '81']", "expose: ['80', '81']"),
        (
            "env_file: [a, {path: a, required: false}, b]",
            "env_file: [{path: a, required: false}, b]",
        ),
        // Volumes and devices: the path in the container.
        (
            "volumes: ['data:/x', /y, './b:/x:ro', {type: tmpfs, target: /y}]",
            "volumes: ['./b:/x:ro', {type: tmpfs, target: /y}]",
        ),
        (
            "volumes: ['${A:-b}:/x', 'c:/x']",
            "volumes: ['${A:-b}:/x', 'c:/x']",
        ),
        ("volumes: ['${A:-b}:/x', 'cc:/x']", "volumes: ['cc:/x']"),
        ("volumes: ['data:', 'data:']", "volumes: ['data:', 'data:']"),
        (
            "devices: ['/dev/a:/dev/x', /dev/x, '/dev/b:/dev/x:r', {source: /dev/c, target: /dev/x}]",
            "devices: [{source: /dev/c, target: /dev/x}]",
        ),
        // Ports: short forms by their text, long ones by address, ports and protocol.
        (
            "ports: ['80:80', '81:80', '80:80', 80, '80']",
            "ports: ['80:80', '81:80', '80']",
        ),
        (
            "ports: [{target: 80, published: '8080', mode: host}, {target: 80, published: '8080', protocol: tcp, host_ip: 0.0.0.0}]",
            "ports: [{target: 80, published: '8080', protocol: tcp, host_ip: 0.0.0.0}]",
        ),
        (
            "ports: [{target: 80, published: '1'}, {target: 80, published: '2'}, {target: 80, published: '1', protocol: udp}, {target: 80}]",
            "ports: [{target: 80, published: '1'}, {target: 80, published: '2'}, {target: 80, published: '1', protocol: udp}, {target: 80}]",
        ),
        // Mounts: their target, for secrets below /run/secrets.
        (
            "secrets: [a, {source: b, target: /run/secrets/a}, {source: a, uid: '1'}]",
            "secrets: [{source: a, uid: '1'}]",
        ),
        (
            "configs: [a, {source: a, mode: 1}, {source: b, target: /a}]",
            "configs: [{source: b, target: /a}]",
        ),
        // No key, or no list.
        ("extra_hosts: [a=1, a=1]", "extra_hosts: [a=1, a=1]"),
        ("security_opt: [a, a]", "security_opt: [a, a]"),
        ("environment: {A: 1}", "environment: {A: 1}"),
    ] {
        let (found, findings) = service(given);
        assert_eq!(plain(&found), plain(&tree(want)), "{given}");
        assert_eq!(findings, [], "{given}");
    }
}

#[test]
fn labels_of_networks_are_unique_and_those_of_volumes_are_not() {
    let mut model = tree("{networks: {a: {labels: [x=1, x=2]}}, volumes: {a: {labels: [x=1, x=2]}}}");
    unique(&mut model, &mut Report::default());
    let want = tree("{networks: {a: {labels: [x=2]}}, volumes: {a: {labels: [x=1, x=2]}}}");
    assert_eq!(plain(&model), plain(&want));
}

#[test]
fn the_item_that_stays_keeps_its_position() {
    let (found, _) = service("cap_add:\n      - A\n      - B\n      - A\n");
    let items = found.get("cap_add").into_iter().flat_map(Node::items);
    let lines: Vec<u32> = items.map(|item| item.at.line).collect();
    assert_eq!(lines, [6, 5]);
}

#[test]
fn items_without_a_key_are_errors_and_stay() {
    for (given, message) in [
        ("dns: [1]", "`services.web.dns[0]` must be text, and is a number"),
        (
            "environment: [A=1, {B: 2}]",
            "`services.web.environment[1]` must be text, and is a mapping",
        ),
        (
            "expose: [1.5]",
            "`services.web.expose[0]` must be a port, and is a number",
        ),
        (
            "volumes: [{type: tmpfs}]",
            "`services.web.volumes[0]` has no `target`",
        ),
        (
            "volumes: [{target: 1}]",
            "`services.web.volumes[0].target` must be text, and is a number",
        ),
        (
            "devices: [{source: /dev/a}]",
            "`services.web.devices[0]` has no `target`",
        ),
        (
            "ports: [{published: '80'}]",
            "`services.web.ports[0]` has no `target`",
        ),
        (
            "env_file: [{required: true}]",
            "`services.web.env_file[0]` has no `path`",
        ),
        (
            "secrets: [1]",
            "`services.web.secrets[0]` must be text or a mapping, and is a number",
        ),
        (
            "configs: [{target: 1}]",
            "`services.web.configs[0].target` must be text, and is a number",
        ),
    ] {
        let (found, findings) = service(given);
        let [finding] = &findings[..] else {
            panic!("{given}: {findings:?}");
        };
        assert_eq!(finding.message, message);
        assert!(!finding.refusal && finding.hint.is_some());
        assert_eq!(plain(&found), plain(&tree(given)));
    }
}

#[test]
fn large_lists_take_little_time() {
    let text = (0..100_000).map(|n| format!("K{}=x", n % 60_000));
    let items: Vec<Node> = text.map(|text| Node::text(text, Default::default())).collect();
    let mut model = tree("services: {web: {environment: }}");
    *at(&mut model, "services.web.environment") = Node::new(Value::List(items), Default::default());
    unique(&mut model, &mut Report::default());
    assert_eq!(at(&mut model, "services.web.environment").items().len(), 60_000);
}
