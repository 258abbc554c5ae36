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
        services: index(model, "services"),
        networks: index(model, "networks"),
        volumes: index(model, "volumes"),
        configs: index(model, "configs"),
        secrets: index(model, "secrets"),
        models: index(model, "models"),
        disabled,
    };
    for (name, entry) in &project.services {
        service::check(&project, name, entry, report);
    }
    for (name, secret) in &project.secrets {
        let secret_at = secret.at;
        let secret = &secret.value;
        let given = |key: &str| secret.get(key).is_some_and(|value| !value.is_null());
        let external = secret
            .get("external")
            .is_some_and(|external| external.value == Value::Bool(true));
        if !external && !given("file") && !given("environment") {
            report.error(
                secret_at,
                format!("`secrets.{name}` has neither a `file` nor an `environment`"),
                "add `file: PATH` or `environment: NAME`",
            );
        }
    }
    circles::check(&project.services, report);
}

struct Project<'m> {
    services: Index<'m>,
    networks: Index<'m>,
    volumes: Index<'m>,
    configs: Index<'m>,
    secrets: Index<'m>,
    models: Index<'m>,
    disabled: &'m Disabled,
}

type Index<'m> = BTreeMap<&'m str, &'m Entry>;

fn index<'m>(model: &'m Node, section: &str) -> Index<'m> {
    let entries = model.get(section).map(Node::entries).unwrap_or_default();
    entries.iter().map(|entry| (entry.key.as_str(), entry)).collect()
}

/// Reports a reference to something that is not declared at the top level.
fn undeclared(
    at: At,
    path: &str,
    kind: &str,
    section: &str,
    key: &str,
    known: &Index<'_>,
    report: &mut Report,
) {
    let near = if report.full() {
        None
    } else {
        nearest(key, known.keys().copied())
    };
    let hint = match near {
        Some(near) => format!("did you mean `{near}`?"),
        None if section == "volumes" => {
            format!("declare it at the top level: `volumes: {{ {key}: }}`; a directory starts with `./`")
        }
        None => format!("declare it at the top level: `{section}: {{ {key}: }}`"),
    };
    report.error(at, format!("`{path}`: the {kind} `{key}` is not declared"), hint);
}
