//! What the environment of the project fills in: names without a value, env files, label files, configs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::{
    files::Need,
    loading::{Environment, Loading, Origin},
};
use crate::{
    dotenv,
    syntax::cut,
    tree::{At, Entry, Node, Value},
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
        let own = service.get("environment").map(Node::entries).unwrap_or_default();
        let own: BTreeMap<&str, &str> = own
            .iter()
            .filter_map(|entry| Some((entry.key.as_str(), entry.value.as_text()?)))
            .collect();
        let lookup = |name: &str| {
            let project = environment.get(name).map(String::as_str);
            project.or_else(|| own.get(name).copied())
        };
        let mut values = Environment::new();
        let mut unset = BTreeSet::new();
        for (index, item) in files.items().iter().enumerate() {
            let field = format!("services.{name}.env_file[{index}]");
            // What is no boolean is reported where it stands, and may have meant `false`.
            let optional = item
                .get("required")
                .is_some_and(|required| required.value != Value::Bool(true));
            let path = match item.get("path") {
                Some(path) => path,
                None if optional => continue,
                None => {
                    let hint = "name a file; if it comes from a variable, give it a default: `${NAME:-FILE}`";
                    self.report
                        .error(item.at, format!("`{field}`: the path is empty"), hint);
                    continue;
                }
            };
            let at = path.at;
            let Some(path) = path.as_text() else {
                continue;
            };
            let mut origin = Origin::named(PathBuf::from(path), at, &field);
            if optional {
                origin.need = Need::Optional;
            }
            let Some(text) = self.files.read(&origin.file, origin.wanted(), &mut self.report) else {
                continue;
            };
            let format = item
                .get("format")
                .and_then(|format| Some((format.as_text()?, format.at)));
            let read = match format {
                None | Some(("", _)) => dotenv::parse_into(&text, &lookup, &mut values, &mut unset),
                Some(("raw", _)) => dotenv::parse_raw(&text, &lookup, &mut values),
                Some((other, at)) => {
                    let message = format!("`{field}.format`: `{}` is not known", cut(other));
                    self.report
                        .error(at, message, "write `format: raw`, or remove it");
                    Ok(())
                }
            };
            if let Err(error) = read {
                self.broken(&origin.file, &error);
            }
        }
        unset.into_iter().for_each(|name| self.unset(name, files.at));
        underlay(service, "environment", values, files.at);
    }

    fn label_files(&mut self, service: &mut Node, name: &str, files: &Node) {
        let items = match files.value {
            Value::List(_) => files.items(),
            _ => std::slice::from_ref(files),
        };
        let mut values = Environment::new();
        for item in items {
            let Some(path) = item.as_text() else {
                continue;
            };
            let field = format!("services.{name}.label_file");
            let origin = Origin::named(PathBuf::from(path), item.at, &field);
            let Some(text) = self.files.read(&origin.file, origin.wanted(), &mut self.report) else {
                continue;
            };
            if let Err(error) = dotenv::parse_into(&text, &|_| None, &mut values, &mut BTreeSet::new()) {
                self.broken(&origin.file, &error);
            }
        }
        underlay(service, "labels", values, files.at);
    }
}

/// Puts values below those that the service has itself. A name without a value leaves what a file says.
fn underlay(service: &mut Node, key: &str, values: Environment, at: At) {
    if values.is_empty() {
        return;
    }
    let mut merged: BTreeMap<String, Entry> = values
        .into_iter()
        .map(|(key, value)| {
            let value = Node::text(value, at);
            (key.clone(), Entry { key, at, value })
        })
        .collect();
    if let Some(Value::Map(entries)) = service.remove(key).map(|node| node.value) {
        for entry in entries {
            if !entry.value.is_null() || !merged.contains_key(&entry.key) {
                merged.insert(entry.key.clone(), entry);
            }
        }
    }
    let value = Value::Map(merged.into_values().collect());
    service.set(key, Node::new(value, at));
}
