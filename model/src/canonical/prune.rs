//! Leaves out what says nothing: nulls, empty text and lists, zero and false, where they mean "not set".

use super::keys::{Kind, MODEL};
use crate::tree::{Node, Value};

/// The last step to the canonical form, after every scalar is as printed.
pub(crate) fn prune(model: &mut Node) {
    inside(model, &MODEL);
}

fn inside(node: &mut Node, kind: &Kind) {
    match (&mut node.value, kind) {
        (Value::Map(entries), Kind::Struct(_) | Kind::Capitals(_)) => entries.retain_mut(|entry| {
            let kind = kind.of(&entry.key);
            inside(&mut entry.value, kind);
            // No services at all is said, too.
            entry.key == "services" || entry.key.starts_with("x-") || says_something(&entry.value, kind)
        }),
        (Value::Map(entries), Kind::Each(kind)) => {
            for entry in entries {
                inside(&mut entry.value, kind);
            }
        }
        (Value::List(items), Kind::Each(kind)) => {
            for item in items {
                inside(item, kind);
            }
        }
        _ => {}
    }
}

fn says_something(node: &Node, kind: &Kind) -> bool {
    match (&node.value, kind) {
        (Value::Null, Kind::Free) => true,
        (Value::Null, _) => false,
        (_, Kind::Kept) => true,
        (Value::List(items), Kind::Plain | Kind::Each(_)) => !items.is_empty(),
        (Value::Map(entries), kind) => !entries.is_empty() || matches!(kind, Kind::Plain),
        (_, Kind::Free) => true,
        (Value::Text(text), Kind::Bytes) => text != "0" && !text.is_empty(),
        (Value::Text(text), Kind::Duration) => text != "0s" && !text.is_empty(),
        (Value::Text(text), _) => !text.is_empty(),
        (Value::Bool(flag), Kind::OptOut) => !flag,
        (Value::Bool(flag), _) => *flag,
        (Value::Int(number), _) => *number != 0,
        (Value::Float(number), _) => *number != 0.0,
        (Value::List(_), _) => true,
    }
}

#[cfg(test)]
mod tests {
    use crate::canonical::testing::{parse, show};

    #[test]
    fn what_means_not_set_is_left_out() {
        for (service, want) in [
            ("privileged: false, hostname: '', pids_limit: 0, cpus: 0.0", ""),
            (
                "init: false, scale: 0, attach: false",
                "init: false, scale: 0, attach: false",
            ),
            ("command: [], entrypoint: []", "command: [], entrypoint: []"),
            ("cap_add: [], environment: {}, labels: {}", ""),
            ("environment: {A: '', B: null}", "environment: {A: '', B: null}"),
            ("shm_size: '0', user: '0'", "user: '0'"),
            (
                "healthcheck: {test: [], retries: 0, disable: false, timeout: 0s}",
                "healthcheck: {retries: 0, timeout: 0s}",
            ),
            (
                "deploy: {update_config: {delay: 0s, parallelism: 0}}",
                "deploy: {update_config: {parallelism: 0}}",
            ),
            (
                "deploy: {replicas: 0, resources: {limits: {memory: '0', cpus: 0}}}",
                "deploy: {replicas: 0}",
            ),
            (
                "networks: {a: null, b: {}, c: {priority: 0}}",
                "networks: {a: null, b: {}, c: {}}",
            ),
            (
                "volumes: [{type: bind, read_only: false, bind: {create_host_path: true}}]",
                "volumes: [{type: bind}]",
            ),
            (
                "volumes: [{type: bind, bind: {create_host_path: false}}]",
                "volumes: [{type: bind, bind: {create_host_path: false}}]",
            ),
            (
                "env_file: [{path: a, required: true}, {path: b, required: false}]",
                "env_file: [{path: a}, {path: b, required: false}]",
            ),
            (
                "depends_on: {a: {condition: c, required: false, restart: false}}",
                "depends_on: {a: {condition: c, required: false}}",
            ),
            (
                "ulimits: {a: 0, b: {soft: 0, hard: 1}}",
                "ulimits: {a: 0, b: {hard: 1}}",
            ),
            ("x-a: {b: null, c: 0, d: []}", "x-a: {b: null, c: 0, d: []}"),
        ] {
            let mut model = parse(&format!("services: {{web: {{{service}}}}}"));
            super::prune(&mut model);
            assert_eq!(show(&model), format!("{{services: {{web: {{{want}}}}}}}"));
        }
    }

    #[test]
    fn an_empty_project_keeps_its_services() {
        let mut model = parse("{name: a, services: {}, networks: {}, volumes: , x-a: {}}");
        super::prune(&mut model);
        assert_eq!(show(&model), "{name: a, services: {}, x-a: {}}");
    }
}
