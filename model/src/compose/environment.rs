//! What the environment of the project fills in: names without a value, env files, label files, configs.

use std::path::PathBuf;

use super::loading::{Environment, Loading, Origin};
use crate::{
    dotenv,
    tree::{Entry, Node, Value},
};

/// `environment: [NAME]` and `configs.*.environment` take the value of the project environment.
pub(crate) fn resolve(model: &mut Node, environment: &Environment) {
    if let Some(services) = model.get_mut("services") {
        for service in services.entries_mut() {
            if let Some(Node {
                value: Value::List(items),
                ..
            }) = service.value.get_mut("environment")
            {
                items.iter_mut().for_each(|item| fill(item, environment));
            }
        }
    }
    if let Some(configs) = model.get_mut("configs") {
        for config in configs.entries_mut() {
            let Some(name) = config.value.get("environment") else {
                continue;
            };
            let at = name.at;
            let value = name.as_text().and_then(|name| environment.get(name));
            if let Some(value) = value {
                let value = Node::text(value, at);
                config.value.set("content", value);
            }
        }
    }
}

/// `NAME` becomes `NAME=value`, if the environment has one.
pub(super) fn fill(item: &mut Node, environment: &Environment) {
    if let Value::Text(text) = &mut item.value
        && let Some(value) = environment.get(text.as_str())
    {
        *text = format!("{text}={value}");
    }
}

impl Loading<'_> {
    /// Reads the env files and label files of every service into `environment` and `labels`, which win.
    pub fn resolve_files(&mut self, model: &mut Node, environment: &Environment) {
        let Some(services) = model.get_mut("services") else {
            return;
        };
        for service in services.entries_mut() {
            let name = &service.key;
            let service = &mut service.value;
            if let Some(files) = service.remove("env_file") {
                self.env_files(service, name, &files, environment);
            }
            if let Some(files) = service.remove("label_file") {
                self.label_files(service, name, &files);
            }
        }
    }

    fn env_files(&mut self, service: &mut Node, name: &str, files: &Node, environment: &Environment) {
        let mut scope = environment.clone();
        for entry in service.get("environment").map(Node::entries).unwrap_or_default() {
            if let Some(value) = entry.value.as_text() {
                scope
                    .entry(entry.key.clone())
                    .or_insert_with(|| value.to_owned());
            }
        }
        let mut values: Vec<Entry> = Vec::new();
        let mut earlier = Environment::new();
        for (index, item) in files.items().iter().enumerate() {
            let Some(path) = item.get("path").filter(|path| path.as_text().is_some()) else {
                continue;
            };
            let optional = item.get("required").is_some_and(|required| {
                required.value == Value::Bool(false) || required.as_text() == Some("false")
            });
            let origin = Origin {
                optional,
                ..Origin::named(
                    PathBuf::from(path.as_text().unwrap_or_default()),
                    path.at,
                    &format!("services.{name}.env_file[{index}]"),
                )
            };
            let Some(text) = self
                .files
                .read(&origin.file, origin.wanted(), &mut self.report)
            else {
                continue;
            };
            let found = match item.get("format").and_then(Node::as_text) {
                Some("raw") => dotenv::parse_raw(&text),
                _ => dotenv::parse_above(&text, &scope, &earlier),
            };
            match found {
                Ok(found) => {
                    earlier.extend(found.clone());
                    let number = self.report.file(&origin.file, &text);
                    values.extend(found.into_iter().map(|(key, value)| {
                        let at = crate::tree::At {
                            file: number,
                            ..Default::default()
                        };
                        Entry {
                            key,
                            at,
                            value: Node::text(value, at),
                        }
                    }));
                }
                Err(error) => self.broken(&origin.file, &text, &error),
            }
        }
        overlay(service, "environment", values, files);
    }

    fn label_files(&mut self, service: &mut Node, name: &str, files: &Node) {
        let items = match files.value {
            Value::List(_) => files.items(),
            _ => std::slice::from_ref(files),
        };
        let mut values: Vec<Entry> = Vec::new();
        for item in items {
            let Some(path) = item.as_text() else {
                continue;
            };
            let origin = Origin::named(
                PathBuf::from(path),
                item.at,
                &format!("services.{name}.label_file"),
            );
            let Some(text) = self
                .files
                .read(&origin.file, origin.wanted(), &mut self.report)
            else {
                continue;
            };
            match dotenv::parse(&text, &Environment::new()) {
                Ok(found) => values.extend(found.into_iter().map(|(key, value)| Entry {
                    key,
                    at: item.at,
                    value: Node::text(value, item.at),
                })),
                Err(error) => self.broken(&origin.file, &text, &error),
            }
        }
        overlay(service, "labels", values, files);
    }
}

/// Puts values below those that the service has itself; of equal names the last counts.
fn overlay(service: &mut Node, key: &str, values: Vec<Entry>, files: &Node) {
    let own = service.remove(key);
    let mut merged: std::collections::BTreeMap<String, Entry> = values
        .into_iter()
        .map(|entry| (entry.key.clone(), entry))
        .collect();
    if let Some(Node {
        value: Value::Map(entries),
        ..
    }) = own
    {
        for entry in entries {
            // A name without a value leaves what a file says.
            if !(entry.value.is_null() && merged.contains_key(&entry.key)) {
                merged.insert(entry.key.clone(), entry);
            }
        }
    }
    if !merged.is_empty() {
        let value = Value::Map(merged.into_values().collect());
        service.set(key, Node::new(value, files.at));
    }
}
