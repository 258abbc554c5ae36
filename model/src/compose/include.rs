//! `include`: other Compose files, each with its own directory and `.env`, become part of the model.
//!
//! Compose Specification, "Include". The including file wins where both name the same resource.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    files::Need,
    loading::{Loading, Origin, Scope},
    merge, reset,
};
use crate::{
    syntax,
    tree::{At, Node, Value},
};

/// What an include brings; everything else of the included file is its own affair.
const RESOURCES: [&str; 6] = ["services", "networks", "volumes", "configs", "secrets", "models"];
const HINT: &str = "write a list of paths, or of mappings like `- path: FILE`";
const KNOWN: &str = "remove it; known here: `path`, `project_directory`, `env_file`";

/// One entry of `include`, in long form.
struct Include {
    at: At,
    path: Vec<(String, At)>,
    directory: Option<String>,
    env_files: Option<Vec<(String, At)>>,
}

impl Loading<'_> {
    /// Replaces `include` of one document by what it brings.
    pub(super) fn include(
        &mut self,
        document: Node,
        file: &Path,
        scope: &Scope<'_>,
        resets: &reset::Paths,
    ) -> Node {
        let mut document = document;
        let Some(list) = document.remove("include").filter(|list| !list.is_null()) else {
            return document;
        };
        for include in self.entries(&list) {
            let Some(mut imported) = self.included(&include, file, scope) else {
                continue;
            };
            if let Value::Map(sections) = &mut imported.value {
                sections.retain(|section| RESOURCES.contains(&section.key.as_str()));
            }
            clear_conflicts(&mut imported, &document, resets);
            document = merge::merge(imported, document, &mut self.report);
        }
        document
    }

    fn entries(&mut self, list: &Node) -> Vec<Include> {
        let Value::List(items) = &list.value else {
            let message = format!("`include` must be a list, and is {}", list.value.kind());
            self.report.error(list.at, message, HINT);
            return Vec::new();
        };
        let mut entries = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let name = format!("include[{index}]");
            let told = self.report.errors();
            let mut include = Include {
                at: item.at,
                path: Vec::new(),
                directory: None,
                env_files: None,
            };
            match &item.value {
                Value::Text(path) => include.path.push((path.clone(), item.at)),
                Value::Map(fields) => {
                    for field in fields.iter().filter(|field| !field.key.starts_with("x-")) {
                        let value = &field.value;
                        let name = format!("{name}.{}", field.key);
                        match field.key.as_str() {
                            "path" => include.path = self.texts(value, &name),
                            "env_file" => include.env_files = Some(self.texts(value, &name)),
                            "project_directory" => match value.as_text() {
                                Some(text) => include.directory = Some(text.to_owned()),
                                None => self
                                    .report
                                    .error(value.at, format!("`{name}` must be text"), HINT),
                            },
                            _ => self
                                .report
                                .error(field.at, format!("unknown key `{name}`"), KNOWN),
                        }
                    }
                }
                _ => {
                    let message = format!("`{name}` must be text or a mapping, and is {}", item.value.kind());
                    self.report.error(item.at, message, HINT);
                    continue;
                }
            }
            if include.path.is_empty() {
                // What is in the place of the path is reported where it stands.
                if self.report.errors() == told {
                    self.report
                        .error(item.at, format!("`{name}` has no `path`"), HINT);
                }
                continue;
            }
            entries.push(include);
        }
        entries
    }

    fn texts(&mut self, node: &Node, name: &str) -> Vec<(String, At)> {
        let items = match &node.value {
            Value::Text(_) => std::slice::from_ref(node),
            Value::List(items) => items,
            _ => {
                let message = format!("`{name}` must be text or a list, and is {}", node.value.kind());
                self.report.error(node.at, message, HINT);
                return Vec::new();
            }
        };
        let mut texts = Vec::new();
        for item in items {
            match item.as_text() {
                Some(text) => texts.push((text.to_owned(), item.at)),
                None => {
                    let message = format!("`{name}` must be text, and is {}", item.value.kind());
                    self.report.error(item.at, message, HINT);
                }
            }
        }
        texts
    }

    fn included(&mut self, include: &Include, file: &Path, scope: &Scope<'_>) -> Option<Node> {
        let resolve = |(path, at): &(String, At)| (syntax::clean(&scope.directory.join(path)), *at);
        let files: Vec<(PathBuf, At)> = include.path.iter().map(resolve).collect();
        let (first, at) = files.first()?;
        if let Some((url, at)) = include.path.iter().find(|(path, _)| is_remote(path)) {
            let message = format!("`include`: `{url}` is not a file of this machine");
            self.report.error(*at, message, "fetch it, and include the copy");
            return None;
        }
        let mut chain = scope.included.to_vec();
        chain.push(file.to_owned());
        if chain.contains(first) {
            chain.push(first.clone());
            let names: Vec<_> = chain.iter().map(|file| file.display().to_string()).collect();
            let message = format!("`include` goes in a circle: {}", names.join(" → "));
            self.report.error(*at, message, "remove one of these includes");
            return None;
        }
        if chain.len() > MAX_DEPTH {
            let message = format!("`include` is nested more than {MAX_DEPTH} deep");
            self.report
                .error(*at, message, "include the files from one place");
            return None;
        }
        let directory = match &include.directory {
            Some(directory) => scope.directory.join(directory),
            None => first.parent().unwrap_or(Path::new("/")).to_owned(),
        };
        let directory = syntax::clean(&directory);
        let environment = match &include.env_files {
            Some(env_files) => {
                let files: Vec<_> = env_files
                    .iter()
                    .filter(|(path, _)| path != "/dev/null")
                    .map(|(path, at)| Origin::named(scope.directory.join(path), *at, "include.env_file"))
                    .collect();
                self.environment(&files, scope.environment)
            }
            None => {
                let mut own = Origin::named(directory.join(".env"), include.at, "include");
                own.need = Need::Default;
                self.environment(&[own], scope.environment)
            }
        };
        let inner = Scope {
            directory: &directory,
            environment: &environment,
            included: &chain,
        };
        let files: Vec<_> = files
            .into_iter()
            .map(|(path, at)| Origin::named(path, at, "include"))
            .collect();
        let model = self.model(&files, &inner);
        Some(model)
    }
}

/// Includes in includes deeper than this are refused.
const MAX_DEPTH: usize = 32;

/// What the reference hands to its remote loaders: git and OCI.
fn is_remote(path: &str) -> bool {
    ["oci://", "https://", "http://", "git://", "ssh://", "git@"]
        .iter()
        .any(|prefix| path.starts_with(prefix))
        || path.starts_with("github.com/")
}

/// `!reset` and `!override` of the including document hold against resources of the same name.
fn clear_conflicts(imported: &mut Node, document: &Node, resets: &reset::Paths) {
    for section in imported.entries_mut() {
        let Some(own) = document.get(&section.key) else {
            continue;
        };
        let own: BTreeSet<&str> = own.entries().iter().map(|entry| entry.key.as_str()).collect();
        for entry in section.value.entries_mut() {
            if own.contains(entry.key.as_str()) {
                resets.apply_to(&section.key, &entry.key, &mut entry.value);
            }
        }
    }
}
