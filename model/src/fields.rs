//! A service as a flat list of `path → value`, the form in which plans compare and explain.

use std::{collections::BTreeMap, sync::OnceLock};

use serde_json::Value;

use crate::types::{Project, Service};

/// Dotted path below the service (`environment.A`, `ports`, `command`) to canonical JSON text.
pub type Fields = BTreeMap<String, String>;

/// Keys of a service that say nothing about its containers, each with the reason: a change of them alone
/// must not touch what runs.
pub const LEFT_OUT: [(&str, &str); 4] = [
    ("build", "the digest of the image decides, not how it was made"),
    (
        "deploy",
        "limits and the restart policy count where the service has them; the rest is about many",
    ),
    (
        "pull_policy",
        "it says when to look for an image, and the digest of the image decides",
    ),
    ("scale", "each container is the same, however many there are"),
];

/// Flattens the canonical service, but for what is [`LEFT_OUT`]. Mappings open one level per key; lists and scalars are one field
/// each, so that a changed list is one change. A dot inside a key is kept: paths are for people and
/// for looking up origins, never parsed back.
pub fn fields(service: &Service) -> Fields {
    let mut fields = Fields::new();
    if let Ok(Value::Object(map)) = serde_json::to_value(service) {
        for (key, value) in map {
            if LEFT_OUT.iter().all(|(left_out, _)| *left_out != key) {
                open(&key, value, &mut fields);
            }
        }
    }
    fields
}

/// The fields of every service of a project, made when they are first asked for: each plan compares them,
/// and a project does not change once it is loaded. It follows from the project, so any two are equal.
#[derive(Debug, Default)]
pub struct Flat(OnceLock<BTreeMap<String, Fields>>);

impl Clone for Flat {
    /// A copy may be changed before it is used.
    fn clone(&self) -> Self {
        Flat::default()
    }
}

impl Flat {
    pub(crate) fn of(&self, project: &Project) -> &BTreeMap<String, Fields> {
        self.0.get_or_init(|| {
            let services = project.services.iter();
            services
                .map(|(name, service)| (name.clone(), fields(service)))
                .collect()
        })
    }
}

impl PartialEq for Flat {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Flat {}

fn open(path: &str, value: Value, fields: &mut Fields) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                open(&format!("{path}.{key}"), value, fields);
            }
        }
        Value::String(text) => {
            fields.insert(path.to_owned(), text);
        }
        other => {
            fields.insert(path.to_owned(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Attachment, Build, Container, Mount, PullPolicy, RestartPolicy};

    #[test]
    fn mappings_open_and_lists_and_scalars_are_one_field_each() {
        let service = Service {
            image: "builtin:hello".into(),
            command: Some(vec!["a".into(), "b c".into()]),
            environment: [("A", "1"), ("B.C", "")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            networks: [
                ("default".to_owned(), Attachment::default()),
                (
                    "front".to_owned(),
                    Attachment {
                        aliases: vec!["www".into()],
                        ..Attachment::default()
                    },
                ),
            ]
            .into(),
            volumes: vec![Mount::Tmpfs {
                target: "/t".into(),
                size: None,
                mode: None,
                uid: None,
                gid: None,
                exec: false,
            }],
            container: Container {
                scale: Some(3),
                pull_policy: Some(PullPolicy::Always),
                build: Some(Build::default()),
                init: true,
                ..Container::default()
            },
            restart: RestartPolicy::OnFailure(Some(3)),
            stop_grace_period: Some(crate::types::Duration(1_500_000_000)),
            ..Service::default()
        };
        let fields: Vec<_> = fields(&service).into_iter().collect();
        let fields: Vec<_> = fields
            .iter()
            .map(|(path, value)| (path.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            fields,
            [
                ("command", r#"["a","b c"]"#),
                ("environment.A", "1"),
                ("environment.B.C", ""),
                ("image", "builtin:hello"),
                ("init", "true"),
                ("networks.default", "{}"),
                ("networks.front.aliases", r#"["www"]"#),
                ("restart", "on-failure:3"),
                ("stop_grace_period", "1.5s"),
                ("volumes", r#"[{"type":"tmpfs","target":"/t"}]"#),
            ]
        );
    }
}
