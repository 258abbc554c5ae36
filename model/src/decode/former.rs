//! The tree to types: every value is checked where it stands, and all errors are found at once.

pub(crate) mod check;
mod health;
mod mounts;
mod ports;
mod relations;
mod service;
pub(crate) mod table;
mod value;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    decode::former::table::{self as support, Support},
    name::{is_object_name, is_resource_key},
    report::Report,
    tree::{At, Entry, Node, Value},
    types::Service,
};

/// What a file declares, before defaults and names are filled in.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    pub services: BTreeMap<String, Service>,
    pub networks: BTreeMap<String, DeclaredNetwork>,
    pub volumes: BTreeMap<String, DeclaredVolume>,
}

#[derive(Debug, Default)]
pub(crate) struct DeclaredNetwork {
    pub name: Option<String>,
    pub internal: bool,
}

#[derive(Debug, Default)]
pub(crate) struct DeclaredVolume {
    pub name: Option<String>,
}

/// Walks the tree. Values that cannot be read are reported and replaced by their default.
pub(crate) struct Decoder<'r> {
    pub report: &'r mut Report,
    /// The project environment, for `environment: [NAME]`.
    pub environment: &'r BTreeMap<String, String>,
    pub directory: &'r Path,
    pub home: Option<&'r PathBuf>,
}

impl Decoder<'_> {
    pub fn project(&mut self, root: &Node) -> Declared {
        let mut declared = Declared::default();
        for entry in self.section(root, "the manifest", "", "") {
            match entry.key.as_str() {
                "services" => {
                    for (path, entry) in self.resources(entry, "services") {
                        let service = self.service(&entry.value, &path);
                        declared.services.insert(entry.key.clone(), service);
                    }
                }
                "networks" => {
                    for (path, entry) in self.resources(entry, "networks") {
                        let network = self.network(&entry.value, &path);
                        declared.networks.insert(entry.key.clone(), network);
                    }
                }
                "volumes" => {
                    for (path, entry) in self.resources(entry, "volumes") {
                        let volume = self.volume(&entry.value, &path);
                        declared.volumes.insert(entry.key.clone(), volume);
                    }
                }
                _ => {}
            }
        }
        declared
    }

    /// The entries of a mapping whose keys the user chooses.
    fn resources<'n>(&mut self, entry: &'n Entry, section: &str) -> Vec<(String, &'n Entry)> {
        let Some(entries) = self.map(&entry.value, section) else {
            return Vec::new();
        };
        let mut resources = Vec::new();
        for entry in entries {
            let path = format!("{section}.{}", entry.key);
            if !is_resource_key(&entry.key) {
                self.report.error(
                    entry.at,
                    format!("`{}` is not a name for an entry of `{section}`", entry.key),
                    "use letters, digits, `.`, `_` and `-`, at most 128",
                );
                continue;
            }
            self.report.origin(path.clone(), entry.at);
            resources.push((path, entry));
        }
        resources
    }

    fn network(&mut self, node: &Node, path: &str) -> DeclaredNetwork {
        let mut network = DeclaredNetwork::default();
        if node.value == Value::Null {
            return network;
        }
        for entry in self.section(node, path, path, "networks.*") {
            let path = format!("{path}.{}", entry.key);
            self.report.origin(path.clone(), entry.at);
            match entry.key.as_str() {
                "name" => network.name = self.object_name(&entry.value, &path),
                "internal" => network.internal = self.boolean(&entry.value, &path).unwrap_or_default(),
                "driver" => self.driver(&entry.value, &path, "bridge"),
                _ => {}
            }
        }
        network
    }

    fn volume(&mut self, node: &Node, path: &str) -> DeclaredVolume {
        let mut volume = DeclaredVolume::default();
        if node.value == Value::Null {
            return volume;
        }
        for entry in self.section(node, path, path, "volumes.*") {
            let path = format!("{path}.{}", entry.key);
            self.report.origin(path.clone(), entry.at);
            match entry.key.as_str() {
                "name" => volume.name = self.object_name(&entry.value, &path),
                "driver" => self.driver(&entry.value, &path, "local"),
                _ => {}
            }
        }
        volume
    }

    fn object_name(&mut self, node: &Node, path: &str) -> Option<String> {
        let name = self.text(node, path)?;
        if !is_object_name(name) {
            self.report.error(
                node.at,
                format!("`{path}`: `{name}` is not a name"),
                "use letters, digits, `.`, `_` and `-`, a letter or digit first",
            );
            return None;
        }
        Some(name.to_owned())
    }

    fn driver(&mut self, node: &Node, path: &str, only: &str) {
        if let Some(driver) = self.text(node, path)
            && driver != only
        {
            let message = format!("`{path}`: the driver `{driver}` is not supported yet");
            self.report
                .error(node.at, message, format!("remove it, or write `driver: {only}`"));
        }
    }

    /// The entries of a mapping whose keys Compose defines, judged by the support table: those that are
    /// supported come back, the others are reported. `what` names the mapping in messages; `path` is its
    /// path (empty at the top), `section` its place in the table.
    fn section<'n>(&mut self, node: &'n Node, what: &str, path: &str, section: &str) -> Vec<&'n Entry> {
        let Some(entries) = self.map(node, what) else {
            return Vec::new();
        };
        let mut supported = Vec::new();
        for entry in entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
            let full = if path.is_empty() {
                entry.key.clone()
            } else {
                format!("{path}.{}", entry.key)
            };
            match support::find(section, &entry.key) {
                None => self.unknown(entry.at, &full, &entry.key, section),
                Some(attribute) => match attribute.support {
                    Support::Supported => supported.push(entry),
                    Support::Silent => {}
                    Support::Ignored => {
                        self.report
                            .warning(entry.at, format!("`{full}` is ignored"), attribute.hint);
                    }
                    Support::NotYet => {
                        self.report
                            .error(entry.at, format!("`{full}` is not supported yet"), attribute.hint);
                    }
                },
            }
        }
        supported
    }

    fn unknown(&mut self, at: At, full: &str, key: &str, section: &str) {
        if self.report.full() {
            return self.report.error(at, "", "");
        }
        let hint = match support::nearest(key, support::below(section).map(|(name, _)| name)) {
            Some(name) => format!("did you mean `{name}`?"),
            None => {
                let place = if section.is_empty() {
                    "the top level"
                } else {
                    "this place"
                };
                format!("Compose has no such key at {place}; remove it, or let it start with `x-`")
            }
        };
        self.report.error(at, format!("unknown key `{full}`"), hint);
    }
}
