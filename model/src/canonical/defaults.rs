//! Values that the Compose Specification gives to what a long form leaves out.

use super::{
    long::default,
    place::{Place, each, each_entry},
};
use crate::tree::{Node, Value};

/// Completes a model in long syntax: build contexts, targets of secrets, protocol and mode of ports,
/// counts of devices, creation of bind sources.
pub(crate) fn defaults(model: &mut Node) {
    let Some(services) = model.get_mut("services") else {
        return;
    };
    each(services, &Place::Root, |service, place| {
        each_entry(service, place, |key, value, place| match key {
            "build" => default(value, "context", text(".")),
            "secrets" => each(value, place, |secret, _| secret_target(secret)),
            "ports" => each(value, place, |port, _| {
                default(port, "protocol", text("tcp"));
                default(port, "mode", text("ingress"));
            }),
            "gpus" => each(value, place, |request, _| device_count(request)),
            "deploy" => {
                let devices = ["resources", "reservations", "devices"]
                    .iter()
                    .try_fold(value, |node, key| node.get_mut(key));
                if let Some(devices) = devices {
                    each(devices, place, |request, _| device_count(request));
                }
            }
            "volumes" => each(value, place, |volume, _| {
                if let Some(bind) = volume.get_mut("bind") {
                    default(bind, "create_host_path", Value::Bool(true));
                }
            }),
            _ => {}
        });
    });
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn secret_target(secret: &mut Node) {
    let source = secret.get("source").and_then(Node::as_text);
    if let Some(target) = source.map(|source| format!("/run/secrets/{source}")) {
        default(secret, "target", Value::Text(target));
    }
}

fn device_count(request: &mut Node) {
    if request.get("device_ids").is_none() {
        default(request, "count", text("all"));
    }
}

#[cfg(test)]
mod tests {
    use crate::canonical::testing::{parse, show};

    #[test]
    fn what_is_left_out_gets_the_defaults_of_the_specification() {
        for (service, want) in [
            ("build: {target: a}", "build: {target: a, context: .}"),
            ("build: {context: b}", "build: {context: b}"),
            (
                "secrets: [{source: s}]",
                "secrets: [{source: s, target: /run/secrets/s}]",
            ),
            (
                "secrets: [{source: s, target: t}]",
                "secrets: [{source: s, target: t}]",
            ),
            ("configs: [{source: s}]", "configs: [{source: s}]"),
            (
                "ports: [{target: 80}]",
                "ports: [{target: 80, protocol: tcp, mode: ingress}]",
            ),
            (
                "ports: [{target: 80, protocol: udp, mode: host}]",
                "ports: [{target: 80, protocol: udp, mode: host}]",
            ),
            ("gpus: [{driver: d}]", "gpus: [{driver: d, count: all}]"),
            ("gpus: [{device_ids: [a]}]", "gpus: [{device_ids: [a]}]"),
            (
                "deploy: {resources: {reservations: {devices: [{driver: d}]}}}",
                "deploy: {resources: {reservations: {devices: [{driver: d, count: all}]}}}",
            ),
            (
                "volumes: [{type: bind, bind: {selinux: z}}]",
                "volumes: [{type: bind, bind: {selinux: z, create_host_path: true}}]",
            ),
            (
                "volumes: [{type: bind, bind: {create_host_path: false}}]",
                "volumes: [{type: bind, bind: {create_host_path: false}}]",
            ),
            (
                "volumes: [{type: bind, source: a}]",
                "volumes: [{type: bind, source: a}]",
            ),
        ] {
            let mut model = parse(&format!("services: {{web: {{{service}}}}}"));
            super::defaults(&mut model);
            assert_eq!(show(&model), format!("{{services: {{web: {{{want}}}}}}}"));
        }
    }
}
