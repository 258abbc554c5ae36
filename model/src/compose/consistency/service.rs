//! One service against the rest of its project and against itself.

use std::collections::BTreeMap;

use super::{Project, Section, undeclared};
use crate::{
    report::Report,
    support::nearest,
    tree::{At, Entry, Node, Value},
};

pub(super) fn check(project: &Project<'_>, name: &str, entry: &Entry, report: &mut Report) {
    let path = format!("services.{name}");
    let service = &entry.value;
    if !matches!(service.value, Value::Map(_)) {
        return;
    }
    // An image that is no text is reported where it stands.
    let image = service
        .get("image")
        .is_some_and(|image| image.as_text().is_none_or(|text| !text.is_empty()));
    if !image && !given(service, "build") && !given(service, "provider") {
        report.error(
            entry.at,
            format!("`{path}` has neither an image nor a build context"),
            "add `image:`, for example `image: builtin:hello`",
        );
    }
    build(project, service, &path, report);
    network(project, service, &path, report);
    references(project, service, &path, report);
    dependencies(project, service, &path, report);
    resources(service, &path, report);
    mounts(service, &path, report);
    if let Some(test) = service.get("healthcheck").and_then(|check| check.get("test"))
        && let Some(first) = test.items().first()
        && !matches!(first.as_text(), Some("CMD" | "CMD-SHELL" | "NONE"))
    {
        report.error(
            first.at,
            format!("`{path}.healthcheck.test` must start with `CMD`, `CMD-SHELL` or `NONE`"),
            "begin the list with `CMD`, as in `[\"CMD\", \"program\"]`, or write the command as one text",
        );
    }
    for watch in service
        .get("develop")
        .and_then(|develop| develop.get("watch"))
        .map(Node::items)
        .unwrap_or_default()
    {
        // Other actions, and a target that is no text, are reported where they stand.
        let action = text(watch, "action").unwrap_or_default();
        let copies = matches!(action, "sync" | "sync+restart" | "sync+exec");
        if copies
            && watch
                .get("target")
                .is_none_or(|target| target.as_text() == Some(""))
        {
            report.error(
                watch.at,
                format!("`{path}.develop.watch`: `target` is required for the action `{action}`"),
                "add `target:`, the path in the container",
            );
        }
    }
}

fn text<'m>(node: &'m Node, key: &str) -> Option<&'m str> {
    node.get(key)
        .and_then(Node::as_text)
        .filter(|text| !text.is_empty())
}

/// What is mounted or granted, and where that is written.
fn source(node: &Node) -> Option<(&str, At)> {
    let at = node.get("source")?.at;
    Some((text(node, "source")?, at))
}

fn given(node: &Node, key: &str) -> bool {
    node.get(key).is_some_and(|value| !value.is_null())
}

fn build(project: &Project<'_>, service: &Node, path: &str, report: &mut Report) {
    let Some(build) = service.get("build") else {
        return;
    };
    if text(build, "dockerfile").is_some()
        && let Some(inline) = build.get("dockerfile_inline").filter(|inline| !inline.is_null())
    {
        report.error(
            inline.at,
            format!("`{path}.build` has both `dockerfile` and `dockerfile_inline`"),
            "keep one of the two",
        );
    }
    for context in build
        .get("additional_contexts")
        .map(Node::entries)
        .unwrap_or_default()
    {
        let Some(target) = context
            .value
            .as_text()
            .and_then(|text| text.strip_prefix("service:"))
        else {
            continue;
        };
        let at = context.value.at;
        let path = format!("{path}.build.additional_contexts.{}", context.key);
        match project.services.entries.get(target) {
            None => no_service(at, &path, target, project, report),
            Some(other) if !given(&other.value, "build") => {
                let message = format!("`{path}`: the service `{target}` has no `build`");
                report.error(at, message, "name a service that is built");
            }
            Some(_) => {}
        }
    }
    if let Some(platforms) = build.get("platforms").filter(|list| !list.items().is_empty())
        && let Some(platform) = text(service, "platform")
        && !platforms
            .items()
            .iter()
            .any(|item| item.as_text() == Some(platform))
    {
        let message = format!("`{path}.build.platforms` does not have `{platform}`, the service's platform");
        report.error(platforms.at, message, "add it there, or change `platform`");
    }
    let path = format!("{path}.build");
    grants(build, &path, "secrets", "secret", &project.secrets, report);
}

/// Configs or secrets that something may read must be declared.
fn grants(of: &Node, path: &str, key: &str, kind: &str, known: &Section<'_>, report: &mut Report) {
    let items = of.get(key).map(Node::items).unwrap_or_default();
    for (index, item) in items.iter().enumerate() {
        match source(item) {
            Some((source, at)) if !known.has(source) => {
                undeclared(at, &format!("{path}.{key}"), kind, key, source, known, report);
            }
            None if item.get("source").is_none() => {
                let message = format!("`{path}.{key}[{index}]` has no `source`");
                let hint = format!("add it: `source: NAME`, the name of a {kind} of the top level");
                report.error(item.at, message, hint);
            }
            _ => {}
        }
    }
}

fn network(project: &Project<'_>, service: &Node, path: &str, report: &mut Report) {
    let networks = service.get("networks");
    if let Some(mode) = service
        .get("network_mode")
        .filter(|_| text(service, "network_mode").is_some())
    {
        if networks.is_some_and(|networks| !networks.entries().is_empty()) {
            report.error(
                mode.at,
                format!("`{path}` has both `network_mode` and `networks`"),
                "keep one of the two",
            );
        }
        if let Some(target) = mode.as_text().and_then(|text| text.strip_prefix("service:"))
            && !project.services.has(target)
        {
            no_service(mode.at, &format!("{path}.network_mode"), target, project, report);
            // It is a dependency, too.
            report.hush(mode.at);
        }
    }
    for network in networks.map(Node::entries).unwrap_or_default() {
        if !project.networks.has(&network.key) {
            let path = format!("{path}.networks");
            undeclared(
                network.at,
                &path,
                "network",
                "networks",
                &network.key,
                &project.networks,
                report,
            );
        }
    }
}

fn references(project: &Project<'_>, service: &Node, path: &str, report: &mut Report) {
    for mount in service.get("volumes").map(Node::items).unwrap_or_default() {
        if text(mount, "type") == Some("volume")
            && let Some((source, at)) = source(mount)
            && !project.volumes.has(source)
        {
            let path = format!("{path}.volumes");
            undeclared(at, &path, "volume", "volumes", source, &project.volumes, report);
        }
    }
    grants(service, path, "configs", "config", &project.configs, report);
    grants(service, path, "secrets", "secret", &project.secrets, report);
    for model in service.get("models").map(Node::entries).unwrap_or_default() {
        if !project.models.has(&model.key) {
            let path = format!("{path}.models");
            undeclared(
                model.at,
                &path,
                "model",
                "models",
                &model.key,
                &project.models,
                report,
            );
        }
    }
}

fn dependencies(project: &Project<'_>, service: &Node, path: &str, report: &mut Report) {
    for dependency in service.get("depends_on").map(Node::entries).unwrap_or_default() {
        let name = dependency.key.as_str();
        if project.services.has(name) {
            continue;
        }
        let required = dependency
            .value
            .get("required")
            .is_none_or(|required| required.value != Value::Bool(false));
        if required || !project.disabled.contains_key(name) {
            let field = implied_by(service, dependency.at);
            let path = format!("{path}.{}", field.as_deref().unwrap_or("depends_on"));
            no_service(dependency.at, &path, name, project, report);
        }
    }
}

/// The field that implies the dependency which stands there; `None`: it is written as one.
fn implied_by(service: &Node, at: At) -> Option<String> {
    let namespaces = ["network_mode", "ipc", "pid", "uts", "cgroup"];
    let mut namespaces = namespaces.into_iter();
    let is_there = |key: &&str| service.get(key).is_some_and(|node| node.at == at);
    if let Some(key) = namespaces.find(is_there) {
        return Some(key.to_owned());
    }
    ["links", "volumes_from"].into_iter().find_map(|key| {
        let items = service.get(key).map(Node::items).unwrap_or_default();
        let index = items.iter().position(|item| item.at == at)?;
        Some(format!("{key}[{index}]"))
    })
}

fn no_service(at: At, path: &str, name: &str, project: &Project<'_>, report: &mut Report) {
    if let Some((_, profiles)) = project.disabled.get(name) {
        let message = format!("`{path}`: the service `{name}` is switched off by its profiles");
        let hint = match path.ends_with(".depends_on") {
            true => ", or write `required: false`",
            false => ", or remove the reference",
        };
        let hint = format!("activate one of {}{hint}", profiles.join(", "));
        return report.error(at, message, hint);
    }
    let near = if report.full() {
        None
    } else {
        nearest(name, project.services.entries.keys().copied())
    };
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => "add the service, or remove the reference".to_owned(),
    };
    report.error(at, format!("`{path}`: there is no service `{name}`"), hint);
}

/// A limit given twice must be the same; given in one place and missing in the other is a difference, too.
fn resources(service: &Node, path: &str, report: &mut Report) {
    let deploy = service.get("deploy");
    let replicas = deploy.and_then(|deploy| deploy.get("replicas"));
    let scale = service.get("scale");
    if let (Some(scale), Some(replicas)) = (scale, replicas)
        && scale.value != replicas.value
    {
        report.error(
            scale.at,
            format!("`{path}.scale` and `{path}.deploy.replicas` differ"),
            "keep one of the two",
        );
    }
    for (key, count) in [("scale", scale), ("deploy.replicas", replicas)] {
        if let Some(Node {
            value: Value::Int(number),
            at,
            ..
        }) = count
            && *number < 0
        {
            report.error(*at, format!("`{path}.{key}` is negative"), "write 0 or more");
        }
    }
    let count = scale.or(replicas);
    if let Some(container_name) = service
        .get("container_name")
        .filter(|_| text(service, "container_name").is_some())
        && let Some(Value::Int(2..)) = count.map(|count| &count.value)
    {
        report.error(
            container_name.at,
            format!("`{path}` has a `container_name` and more than one instance"),
            "remove `container_name`: only one container can have a name",
        );
    }
    let resources = deploy.and_then(|deploy| deploy.get("resources"));
    for (key, group, item) in [
        ("cpus", "limits", "cpus"),
        ("mem_limit", "limits", "memory"),
        ("mem_reservation", "reservations", "memory"),
        ("pids_limit", "limits", "pids"),
    ] {
        let Some(own) = service.get(key).filter(|own| !zero(own)) else {
            continue;
        };
        let Some(group_node) = resources.and_then(|resources| resources.get(group)) else {
            continue;
        };
        let other = group_node.get(item);
        if number(own) != other.and_then(number).or(Some(0.0)) {
            report.error(
                own.at,
                format!("`{path}.{key}` and `{path}.deploy.resources.{group}.{item}` differ"),
                "give the value in one of the two places, or the same in both",
            );
        }
    }
}

fn zero(node: &Node) -> bool {
    node.is_null() || number(node) == Some(0.0)
}

#[allow(clippy::cast_precision_loss)] // Sizes below 2^53 compare exactly.
fn number(node: &Node) -> Option<f64> {
    match &node.value {
        Value::Int(number) => Some(*number as f64),
        // The reference compares in single precision.
        Value::Float(number) => Some(*number),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    }
}

fn mounts(service: &Node, path: &str, report: &mut Report) {
    let mut targets: BTreeMap<&str, At> = BTreeMap::new();
    let tmpfs = service.get("tmpfs").map(Node::items).unwrap_or_default();
    let tmpfs = tmpfs.iter().filter_map(|item| {
        let text = item.as_text()?;
        Some((item.at, text.split(':').next().unwrap_or(text)))
    });
    let volumes = service.get("volumes").map(Node::items).unwrap_or_default();
    let volumes = volumes
        .iter()
        .filter_map(|item| Some((item.at, item.get("target")?.as_text()?)));
    for (at, target) in tmpfs.chain(volumes) {
        if let Some(first) = targets.insert(target, at) {
            report.error(
                at,
                format!(
                    "`{path}`: something is already mounted on `{target}`, in line {}",
                    first.line
                ),
                "remove one of the two, or change its path",
            );
        }
    }
}
