//! What a schema cannot say about a model in long syntax: keys that exclude each other, addresses, blanks.

use std::net::IpAddr;

use super::place::{Place, each_ref};
use crate::{
    report::Report,
    syntax::cut,
    tree::{Entry, Node, Value},
};

/// Reports every violation at its own place.
pub(crate) fn validate(model: &Node, report: &mut Report) {
    let root = Place::Root;
    for entry in model.entries() {
        let place = root.key(&entry.key);
        match entry.key.as_str() {
            "services" => each_ref(&entry.value, &place, |node, place| service(node, place, report)),
            "volumes" => each_ref(&entry.value, &place, |node, place| volume(node, place, report)),
            "networks" => each_ref(&entry.value, &place, |node, place| network(node, place, report)),
            "configs" => {
                for config in entry.value.entries() {
                    one_of(config, &place, &["file", "environment", "content"], report);
                }
            }
            "secrets" => {
                for secret in entry.value.entries() {
                    one_of(secret, &place, &["file", "environment"], report);
                }
            }
            _ => {}
        }
    }
}

fn service(node: &Node, place: &Place, report: &mut Report) {
    for entry in node.entries() {
        let place = place.key(&entry.key);
        let value = &entry.value;
        match entry.key.as_str() {
            "ports" => each_ref(value, &place, |port, place| host_ip(port, place, report)),
            "gpus" => each_ref(value, &place, |request, place| device(request, place, report)),
            "deploy" => {
                let devices = ["resources", "reservations", "devices"]
                    .iter()
                    .try_fold(value, |node, key| node.get(key));
                let place = place.key("resources");
                let place = place.key("reservations");
                if let Some(devices) = devices {
                    each_ref(devices, &place.key("devices"), |request, place| {
                        device(request, place, report);
                    });
                }
            }
            "develop" => {
                if let Some(watch) = value.get("watch") {
                    each_ref(watch, &place.key("watch"), |trigger, place| {
                        watched(trigger, place, report);
                    });
                }
            }
            _ => {}
        }
    }
}

/// The creation keys of a resource that exists already. The reference minds them for volumes only.
fn creation_keys(node: &Node) -> impl Iterator<Item = &Entry> {
    let external = node
        .get("external")
        .is_some_and(|flag| flag.value == Value::Bool(true));
    node.entries().iter().filter(move |entry| {
        external && !matches!(entry.key.as_str(), "name" | "external") && !entry.key.starts_with("x-")
    })
}

fn volume(node: &Node, place: &Place, report: &mut Report) {
    for entry in creation_keys(node) {
        report.error(
            entry.at,
            format!(
                "`{place}` is external, and `{}` is for volumes that are created",
                cut(&entry.key)
            ),
            "remove the key, or `external`",
        );
    }
}

fn network(node: &Node, place: &Place, report: &mut Report) {
    for entry in creation_keys(node) {
        report.warning(
            entry.at,
            format!("`{place}` is external: `{}` has no effect", cut(&entry.key)),
            "remove the key, or `external`",
        );
    }
}

fn one_of(entry: &Entry, section: &Place, keys: &[&str], report: &mut Report) {
    let node = &entry.value;
    if !matches!(node.value, Value::Map(_)) {
        return;
    }
    let place = section.key(&entry.key);
    let mut sources = node
        .entries()
        .iter()
        .filter(|entry| keys.contains(&entry.key.as_str()));
    let Some(first) = sources.next() else {
        if node.get("driver").is_none() && node.get("external").is_none() {
            report.error(
                entry.at,
                format!("`{place}` has no content"),
                format!("set one of `{}`, or `external: true`", keys.join("`, `")),
            );
        }
        return;
    };
    for second in sources {
        report.error(
            second.at,
            format!("`{place}` has both `{}` and `{}`", first.key, second.key),
            format!("keep one of `{}`", keys.join("`, `")),
        );
    }
}

fn host_ip(port: &Node, place: &Place, report: &mut Report) {
    let Some(node) = port.get("host_ip") else {
        return;
    };
    let Some(text) = node.as_text() else { return };
    if text.parse::<IpAddr>().is_err() {
        report.error(
            node.at,
            format!("`{}`: `{}` is not an IP address", place.key("host_ip"), cut(text)),
            "write an address of this host such as 127.0.0.1 or ::1, no name and no brackets",
        );
    }
}

fn device(request: &Node, place: &Place, report: &mut Report) {
    let ids = request.get("device_ids");
    if let (Some(_), Some(ids)) = (request.get("count"), ids) {
        report.error(
            ids.at,
            format!("`{place}` has both `count` and `device_ids`"),
            "keep `count` for any devices, or `device_ids` for certain ones",
        );
    }
}

fn watched(trigger: &Node, place: &Place, report: &mut Report) {
    if let Some(path) = trigger.get("path").filter(|path| path.as_text() == Some("")) {
        report.error(
            path.at,
            format!("`{}` is empty", place.key("path")),
            "name a file or a directory below the project directory",
        );
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        canonical::testing::{found, parse},
        report::Report,
    };

    #[test]
    fn every_violation_is_found_where_it_stands() {
        for (model, want) in [
            ("volumes: {v: }", ""),
            ("volumes: {v: {external: true, name: a, x-b: c}}", ""),
            ("volumes: {v: {external: false, driver: local}}", ""),
            (
                "volumes: {v: {external: true, driver: local, labels: {}}}",
                "1:31 `volumes.v` is external, and `driver`|1:46 `volumes.v` is external, and `labels`",
            ),
            (
                "networks: {n: {external: true, driver: bridge}}",
                "1:32 `networks.n` is external: `driver` has no effect",
            ),
            ("configs: {c: {content: a}}", ""),
            ("configs: {c: {external: true}}", ""),
            ("configs: {c: {driver: d}}", ""),
            ("configs: {c: {name: n}}", "1:11 `configs.c` has no content"),
            (
                "configs: {c: {file: f, content: a, environment: E}}",
                "1:24 `configs.c` has both `file` and `content`|1:36 `configs.c` has both `file` and `environment`",
            ),
            ("secrets: {s: {content: a}}", "1:11 `secrets.s` has no content"),
            ("secrets: {s: }", ""),
            ("services: {a: {ports: [{target: 80, host_ip: '::1'}]}}", ""),
            (
                "services: {a: {ports: [{target: 80, host_ip: localhost}]}}",
                "1:46 `services.a.ports[0].host_ip`: `localhost` is not an IP address",
            ),
            (
                "services: {a: {gpus: [{count: 1, device_ids: [b]}]}}",
                "1:46 `services.a.gpus[0]` has both",
            ),
            (
                "services: {a: {deploy: {resources: {reservations: {devices: [{count: 1, device_ids: [b]}]}}}}}",
                "1:85 `services.a.deploy.resources.reservations.devices[0]` has both",
            ),
            (
                "services: {a: {develop: {watch: [{path: '', action: sync}]}}}",
                "1:41 `services.a.develop.watch[0].path` is empty",
            ),
        ] {
            let mut report = Report::default();
            super::validate(&parse(model), &mut report);
            found(report, want);
        }
    }
}
