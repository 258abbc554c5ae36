//! What a service has to do with others: its networks and its dependencies.

use std::collections::BTreeMap;

use super::Decoder;
use crate::{
    name::is_hostname,
    tree::{Node, Value},
    types::{Attachment, Condition, Dependency},
};

impl Decoder<'_> {
    pub(super) fn attachments(&mut self, node: &Node, path: &str) -> BTreeMap<String, Attachment> {
        let mut attachments = BTreeMap::new();
        match &node.value {
            Value::List(items) => {
                for item in items {
                    let Some(name) = self.text(item, path) else {
                        continue;
                    };
                    self.report.origin(format!("{path}.{name}"), item.at);
                    if attachments
                        .insert(name.to_owned(), Attachment::default())
                        .is_some()
                    {
                        self.twice(item, path, name);
                    }
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let path = format!("{path}.{}", entry.key);
                    self.report.origin(path.clone(), entry.at);
                    let attachment = match entry.value.value {
                        Value::Null => Attachment::default(),
                        _ => self.attachment(&entry.value, &path),
                    };
                    attachments.insert(entry.key.clone(), attachment);
                }
            }
            _ => self.wrong(node, path, "a list or a mapping"),
        }
        attachments
    }

    fn attachment(&mut self, node: &Node, path: &str) -> Attachment {
        let mut attachment = Attachment::default();
        for entry in self.section(node, path, path, "services.*.networks.*") {
            // `aliases` is the one key that is supported.
            let path = format!("{path}.{}", entry.key);
            self.report.origin(path.clone(), entry.at);
            for item in self.list(&entry.value, &path).unwrap_or_default() {
                let Some(alias) = self.text(item, &path) else {
                    continue;
                };
                // Underscores are common in aliases, and resolve.
                if !is_hostname(&alias.replace('_', "-")) {
                    let message = format!("`{path}`: `{alias}` is not a host name");
                    self.report
                        .error(item.at, message, "use letters, digits, `-` and `_` between dots");
                } else if !attachment.aliases.iter().any(|known| known == alias) {
                    attachment.aliases.push(alias.to_owned());
                }
            }
        }
        attachment
    }

    pub(super) fn dependencies(&mut self, node: &Node, path: &str) -> BTreeMap<String, Dependency> {
        let mut dependencies = BTreeMap::new();
        match &node.value {
            Value::List(items) => {
                for item in items {
                    let Some(name) = self.text(item, path) else {
                        continue;
                    };
                    self.report.origin(format!("{path}.{name}"), item.at);
                    let started = Dependency {
                        condition: Condition::Started,
                        required: true,
                        restart: false,
                    };
                    if dependencies.insert(name.to_owned(), started).is_some() {
                        self.twice(item, path, name);
                    }
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let path = format!("{path}.{}", entry.key);
                    self.report.origin(path.clone(), entry.at);
                    if let Some(dependency) = self.dependency(&entry.value, &path) {
                        dependencies.insert(entry.key.clone(), dependency);
                    }
                }
            }
            _ => self.wrong(node, path, "a list or a mapping"),
        }
        dependencies
    }

    fn dependency(&mut self, node: &Node, path: &str) -> Option<Dependency> {
        self.map(node, path)?;
        let mut condition = None;
        let mut dependency = Dependency {
            condition: Condition::Started,
            required: true,
            restart: false,
        };
        for entry in self.section(node, path, path, "services.*.depends_on.*") {
            let path = format!("{path}.{}", entry.key);
            let value = &entry.value;
            self.report.origin(path.clone(), entry.at);
            match entry.key.as_str() {
                "condition" => condition = Some(self.condition(value, &path)),
                "required" => dependency.required = self.boolean(value, &path).unwrap_or(true),
                "restart" => dependency.restart = self.boolean(value, &path).unwrap_or(false),
                _ => {}
            }
        }
        match condition {
            Some(condition) => dependency.condition = condition.unwrap_or(Condition::Started),
            None => {
                let message = format!("`{path}` has no `condition`");
                self.report.error(
                    node.at,
                    message,
                    "add `condition: service_started`, or use the list form",
                );
            }
        }
        Some(dependency)
    }

    fn condition(&mut self, node: &Node, path: &str) -> Option<Condition> {
        match self.text(node, path)? {
            "service_started" => Some(Condition::Started),
            "service_healthy" => Some(Condition::Healthy),
            "service_completed_successfully" => Some(Condition::CompletedSuccessfully),
            other => {
                let message = format!("`{path}`: `{other}` is not a condition");
                let hint = "write `service_started`, `service_healthy` or `service_completed_successfully`";
                self.report.error(node.at, message, hint);
                None
            }
        }
    }

    fn twice(&mut self, item: &Node, path: &str, name: &str) {
        self.report.error(
            item.at,
            format!("`{path}` names `{name}` twice"),
            "remove one of the two",
        );
    }
}
