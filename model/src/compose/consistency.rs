//! What only the whole project shows: references to nothing, contradictions, circles.

use std::collections::BTreeMap;

use super::profiles::Disabled;
use crate::{
    report::Report,
    support::nearest,
    tree::{At, Entry, Node, Value},
};

mod circles;
mod service;

pub(crate) use circles::shorten;

/// Checks a canonical model whose disabled services are gone.
pub(crate) fn check(model: &Node, disabled: &Disabled, report: &mut Report) {
    let project = Project {
        services: Section::of(model, "services"),
        networks: Section::of(model, "networks"),
        volumes: Section::of(model, "volumes"),
        configs: Section::of(model, "configs"),
        secrets: Section::of(model, "secrets"),
        models: Section::of(model, "models"),
        disabled,
    };
    for (name, entry) in &project.services.entries {
        service::check(&project, name, entry, report);
    }
    for (name, entry) in &project.secrets.entries {
        let secret = &entry.value;
        let given = |key: &str| secret.get(key).is_some_and(|value| !value.is_null());
        // What is no boolean is reported where it stands.
        let external = secret
            .get("external")
            .is_some_and(|external| external.value != Value::Bool(false));
        if matches!(secret.value, Value::Map(_)) && !external && !given("file") && !given("environment") {
            report.error(
                entry.at,
                format!("`secrets.{name}` has neither a `file` nor an `environment`"),
                "add `file: PATH` or `environment: NAME`",
            );
        }
    }
    circles::check(&project.services.entries, report);
}

struct Project<'m> {
    services: Section<'m>,
    networks: Section<'m>,
    volumes: Section<'m>,
    configs: Section<'m>,
    secrets: Section<'m>,
    models: Section<'m>,
    disabled: &'m Disabled,
}

type Index<'m> = BTreeMap<&'m str, &'m Entry>;

/// What is declared at the top level, of one kind.
struct Section<'m> {
    entries: Index<'m>,
    /// What is no mapping is reported where it stands: nobody knows what it declares.
    unreadable: bool,
}

impl<'m> Section<'m> {
    fn of(model: &'m Node, section: &str) -> Self {
        let node = model.get(section);
        let entries = node.map(Node::entries).unwrap_or_default();
        Section {
            entries: entries.iter().map(|entry| (entry.key.as_str(), entry)).collect(),
            unreadable: node.is_some_and(|node| !matches!(node.value, Value::Map(_))),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.unreadable || self.entries.contains_key(name)
    }
}

/// Reports a reference to something that is not declared at the top level.
fn undeclared(
    at: At,
    path: &str,
    kind: &str,
    section: &str,
    key: &str,
    known: &Section<'_>,
    report: &mut Report,
) {
    let near = if report.full() {
        None
    } else {
        nearest(key, known.entries.keys().copied())
    };
    let hint = match (near, section) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, "volumes") => {
            format!("declare it at the top level: `volumes: {{ {key}: }}`; a directory starts with `./`")
        }
        (None, "configs" | "secrets") => {
            format!("declare it at the top level: `{section}: {{ {key}: {{ file: PATH }} }}`")
        }
        (None, "models") => format!("declare it at the top level: `models: {{ {key}: {{ model: IMAGE }} }}`"),
        (None, _) => format!("declare it at the top level: `{section}: {{ {key}: }}`"),
    };
    report.error(at, format!("`{path}`: the {kind} `{key}` is not declared"), hint);
}
