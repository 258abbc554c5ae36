//! The canonical tree to types. What the reference loader lets pass and is nonsense, or cannot run here, is
//! refused where it stands; all of it is found at once.

mod files;
mod health;
mod mounts;
mod names;
mod networks;
mod ports;
mod relations;
mod resources;
mod security;
mod service;
mod value;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    check,
    name::{is_object_name, is_resource_key},
    report::Report,
    support,
    syntax::cut,
    tree::{Node, Value},
    types::{Namespace, Network, Project, Volume},
};
use value::Place;

/// Paths longer than this have no origins below them: keys may be long, and be shared by many values.
const MAX_PATH: usize = 1024;

/// Reads a canonical project: long syntax throughout, names and paths filled in, without the errors that any
/// loader of Compose finds. Relative paths in `image` are below `directory`, `~` is `home`.
pub(crate) fn decode(
    canonical: &Node,
    directory: &Path,
    home: Option<&Path>,
    report: &mut Report,
) -> Project {
    for entry in canonical.entries() {
        report.origin(entry.key.clone(), entry.at);
        origins(&entry.value, &entry.key, report);
    }
    let mut reader = Reader {
        report,
        refused: BTreeSet::new(),
        directory,
        home,
    };
    let mut project = reader.project(canonical);
    leave_out_disabled(&mut project);
    let refused = reader.refused;
    support::judge(canonical, &refused, report);
    check::check(&project, report);
    project
}

/// The network of services that name none.
const DEFAULT: &str = "default";

/// There is no bridge that all projects share: the default network of the project stands for it. Whether
/// somebody asks for it.
fn bridge(project: &mut Project) -> bool {
    let bridge = Some(Namespace::Bridge);
    let services = project.services.values_mut();
    let mut bridged = false;
    for service in services.filter(|service| service.namespaces.network_mode == bridge) {
        service.networks.entry(DEFAULT.to_owned()).or_default();
        bridged = true;
    }
    bridged
}

/// A service that profiles have switched off is not waited for: that it need not be there is checked already.
fn leave_out_disabled(project: &mut Project) {
    let names: BTreeSet<String> = project.services.keys().cloned().collect();
    for service in project.services.values_mut() {
        service.depends_on.retain(|name, _| names.contains(name));
    }
}

/// Remembers where every value was written; items of lists by their number.
fn origins(node: &Node, path: &str, report: &mut Report) {
    if path.len() > MAX_PATH {
        return;
    }
    match &node.value {
        Value::Map(entries) => {
            for entry in entries {
                let path = format!("{path}.{}", entry.key);
                origins(&entry.value, &path, report);
                report.origin(path, entry.at);
            }
        }
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                let path = format!("{path}.{index}");
                origins(item, &path, report);
                report.origin(path, item.at);
            }
        }
        _ => {}
    }
}

/// Walks the tree. Values that are refused are left out.
struct Reader<'r> {
    report: &'r mut Report,
    /// The paths of what was refused.
    refused: BTreeSet<String>,
    directory: &'r Path,
    home: Option<&'r Path>,
}

impl Reader<'_> {
    fn project(&mut self, root: &Node) -> Project {
        let root = Place::new(root, String::new());
        let mut project = Project {
            name: root.word("name").unwrap_or_default(),
            directory: self.directory.to_owned(),
            ..Project::default()
        };
        for (key, place) in self.resources(&root, "services") {
            project.services.insert(key.to_owned(), self.service(&place));
        }
        let bridged = bridge(&mut project);
        let used: BTreeSet<&String> = project
            .services
            .values()
            .flat_map(|service| service.networks.keys())
            .collect();
        let mut networks = BTreeMap::new();
        for (key, place) in self.resources(&root, "networks") {
            let network = self.network(key, &place, &project.name);
            // What no service uses is neither made nor kept.
            if used.contains(&key.to_owned()) {
                networks.insert(key.to_owned(), network);
            }
        }
        if bridged {
            let network = Network {
                name: format!("{}_default", project.name),
                ..Network::default()
            };
            networks.entry(DEFAULT.to_owned()).or_insert(network);
        }
        project.networks = networks;
        for (name, service) in &mut project.services {
            if let Some(place) = root.get("services").and_then(|services| services.get(name)) {
                self.first_mac_address(&place, service);
            }
        }
        for (key, place) in self.resources(&root, "volumes") {
            let volume = Volume {
                name: self.object_name(key, &place, &project.name),
                external: place.flag("external"),
                driver_opts: place.texts_by_name("driver_opts"),
                labels: place.texts_by_name("labels"),
            };
            project.volumes.insert(key.to_owned(), volume);
        }
        for (key, place) in self.resources(&root, "configs") {
            let config = self.file_source(key, &place, &project.name);
            project.configs.insert(key.to_owned(), config);
        }
        for (key, place) in self.resources(&root, "secrets") {
            let secret = self.file_source(key, &place, &project.name);
            project.secrets.insert(key.to_owned(), secret);
        }
        project
    }

    /// The entries of a mapping whose keys the user chooses.
    fn resources<'n>(&mut self, root: &Place<'n>, section: &str) -> Vec<(&'n str, Place<'n>)> {
        let Some(section) = root.get(section) else {
            return Vec::new();
        };
        let mut resources = Vec::new();
        for (key, at, place) in section.entries() {
            if is_resource_key(key) {
                resources.push((key, place));
            } else {
                self.report.refuse(
                    at,
                    format!("`{}` is not a name for an entry of `{}`", cut(key), section.path),
                    "use letters, digits, `.`, `_` and `-`, at most 128, not dots alone",
                );
            }
        }
        resources
    }

    /// The full name of a network, volume, config or secret.
    fn object_name(&mut self, key: &str, place: &Place, project: &str) -> String {
        let Some(name) = place.get("name") else {
            return format!("{project}_{key}");
        };
        let text = name.scalar().unwrap_or_default();
        // Without a name of the project, which is an error of its own, there is none to judge.
        if !project.is_empty() && !is_object_name(&text) {
            let hint = "use letters, digits, `.`, `_` and `-`, a letter or digit first, at most 128";
            self.refuse(&name, format!("`{}` is not a name", cut(&text)), hint);
        }
        text
    }
}

#[cfg(test)]
pub(crate) mod tests;
