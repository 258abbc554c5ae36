//! What a model leaves to Compose is filled in: the default network, full names, implied dependencies.

use crate::{
    compose::loading::Environment,
    syntax,
    tree::{At, Entry, Node, Value},
};

/// The key of the network of services that name none.
const DEFAULT: &str = "default";

/// Completes a model in long form. `name` is the project's.
pub(crate) fn normalise(model: &mut Node, name: &str, environment: &Environment) {
    default_network(model);
    if let Some(services) = model.get_mut("services") {
        for entry in services.entries_mut() {
            service(&mut entry.value, entry.at, environment);
        }
    }
    names(model, name);
}

fn default_network(model: &mut Node) {
    let mut used = None;
    if let Some(services) = model.get_mut("services") {
        for Entry {
            value: service, at, ..
        } in services.entries_mut()
        {
            if service.get("provider").is_some() || service.get("network_mode").is_some() {
                continue;
            }
            let networks = service.get("networks");
            let none = networks.is_none_or(|networks| networks.is_null() || empty(networks));
            if none {
                let attachment = Entry {
                    key: DEFAULT.to_owned(),
                    at: *at,
                    value: Node::new(Value::Null, *at),
                };
                service.set("networks", Node::new(Value::Map(vec![attachment]), *at));
            }
            if none || networks_default(service) {
                used = used.or(Some(*at));
            }
        }
    }
    let Some(at) = used else { return };
    if model.get("networks").is_none() {
        model.set("networks", Node::new(Value::Map(Vec::new()), at));
    }
    if let Some(networks) = model.get_mut("networks")
        && networks.get(DEFAULT).is_none()
    {
        networks.set(DEFAULT, Node::new(Value::Null, at));
    }
}

fn networks_default(service: &Node) -> bool {
    service
        .get("networks")
        .is_some_and(|networks| networks.get(DEFAULT).is_some())
}

fn empty(node: &Node) -> bool {
    matches!(&node.value, Value::Map(entries) if entries.is_empty())
        || matches!(&node.value, Value::List(items) if items.is_empty())
}

fn service(service: &mut Node, at: At, environment: &Environment) {
    if let Some(policy) = service.get_mut("pull_policy")
        && policy.as_text() == Some("if_not_present")
    {
        policy.value = Value::Text("missing".to_owned());
    }
    if let Some(build) = service.get_mut("build") {
        complete_build(build, environment);
    }
    if let Some(variables) = service.get_mut("environment") {
        resolve(variables, environment, true);
    }
    dependencies(service, at);
    if let Some(Value::List(mounts)) = service.get_mut("volumes").map(|node| &mut node.value) {
        for mount in mounts {
            if let Some(Value::Text(target)) = mount.get_mut("target").map(|node| &mut node.value) {
                *target = clean_target(target);
            }
        }
    }
    let image = service
        .get("image")
        .filter(|image| image.as_text().is_some_and(|image| !image.is_empty()));
    if let Some(image) = image.cloned()
        && let Some(Value::List(hooks)) = service.get_mut("pre_start").map(|node| &mut node.value)
    {
        for hook in hooks {
            if hook.get("image").is_none() {
                hook.set("image", image.clone());
            }
        }
    }
}

/// As a path of the container, by text alone; nothing is the current directory.
fn clean_target(target: &str) -> String {
    let clean = syntax::clean(std::path::Path::new(target));
    match clean.to_str() {
        Some("") | None => ".".to_owned(),
        Some(clean) => clean.to_owned(),
    }
}

fn complete_build(build: &mut Node, environment: &Environment) {
    let at = build.at;
    if build.get("context").is_none_or(Node::is_null) {
        build.set("context", Node::text(".", at));
    }
    let given = |key: &str, build: &Node| build.get(key).is_some_and(|value| !value.is_null());
    if !given("dockerfile", build) && !given("dockerfile_inline", build) {
        build.set("dockerfile", Node::text("Dockerfile", at));
    }
    if let Some(arguments) = build.get_mut("args") {
        resolve(arguments, environment, false);
    }
}

/// Names without a value take that of the environment; without one they stay only if `keep`.
fn resolve(node: &mut Node, environment: &Environment, keep: bool) {
    match &mut node.value {
        Value::Map(entries) => {
            for entry in &mut *entries {
                if entry.value.is_null()
                    && let Some(value) = environment.get(&entry.key)
                {
                    entry.value.value = Value::Text(value.clone());
                }
            }
            if !keep {
                entries.retain(|entry| !entry.value.is_null());
            }
        }
        Value::List(items) => {
            for item in &mut *items {
                super::environment::fill(item, environment);
            }
            if !keep {
                items.retain(|item| item.as_text().is_some_and(|text| text.contains('=')));
            }
        }
        _ => {}
    }
}

/// Links, shared namespaces and `volumes_from` mean an order.
fn dependencies(service: &mut Node, service_at: At) {
    let mut implied: Vec<(String, At, bool)> = Vec::new();
    for link in service.get("links").map(Node::items).unwrap_or_default() {
        if let Some(text) = link.as_text() {
            let mut parts = text.split(':');
            let name = match (parts.next(), parts.next(), parts.next()) {
                (Some(name), Some(_), None) => name,
                _ => text,
            };
            implied.push((name.to_owned(), link.at, true));
        }
    }
    for key in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        if let Some(node) = service.get(key)
            && let Some(name) = node.as_text().and_then(|text| text.strip_prefix("service:"))
        {
            implied.push((name.to_owned(), node.at, true));
        }
    }
    for from in service.get("volumes_from").map(Node::items).unwrap_or_default() {
        if let Some(text) = from.as_text().filter(|text| !text.starts_with("container:")) {
            let name = text.split(':').next().unwrap_or_default();
            implied.push((name.to_owned(), from.at, false));
        }
    }
    if implied.is_empty() {
        return;
    }
    if !matches!(
        service.get("depends_on").map(|node| &node.value),
        Some(Value::Map(_))
    ) {
        service.set("depends_on", Node::new(Value::Map(Vec::new()), service_at));
    }
    let Some(depends_on) = service.get_mut("depends_on") else {
        return;
    };
    for (name, at, restart) in implied {
        if depends_on.get(&name).is_some() {
            continue;
        }
        let entry = |key: &str, value: Value| Entry {
            key: key.to_owned(),
            at,
            value: Node::new(value, at),
        };
        let fields = vec![
            entry("condition", Value::Text("service_started".to_owned())),
            entry("restart", Value::Bool(restart)),
            entry("required", Value::Bool(true)),
        ];
        depends_on.set(&name, Node::new(Value::Map(fields), at));
    }
}

/// `<project>_<key>`, unless a name is given; what is external is called as it is.
fn names(model: &mut Node, project: &str) {
    for section in ["networks", "volumes", "configs", "secrets"] {
        let Some(section) = model.get_mut(section) else {
            continue;
        };
        for entry in section.entries_mut() {
            if entry.value.is_null() {
                entry.value.value = Value::Map(Vec::new());
            }
            if entry.value.get("name").is_some_and(|name| !name.is_null()) {
                continue;
            }
            let external = entry.value.get("external").is_some_and(|external| {
                external.value == Value::Bool(true) || external.as_text() == Some("true")
            });
            let name = if external {
                entry.key.clone()
            } else {
                format!("{project}_{}", entry.key)
            };
            entry.value.set("name", Node::text(name, entry.at));
        }
    }
}
