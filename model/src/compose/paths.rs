//! Relative paths of a model, made absolute against the directory of the file that names them.

use std::path::{Path, PathBuf};

use crate::{
    report::Report,
    syntax,
    tree::{Node, Value},
};

/// Resolves the paths of a model in long form. What is absolute already stays as it is written.
pub(crate) fn resolve(model: &mut Node, directory: &Path, home: Option<&Path>, report: &mut Report) {
    let mut resolver = Resolver {
        directory,
        home,
        report,
    };
    for section in model.entries_mut() {
        match section.key.as_str() {
            "services" => {
                for service in section.value.entries_mut() {
                    resolver.service(&mut service.value, &service.key);
                }
            }
            "configs" | "secrets" => {
                for entry in section.value.entries_mut() {
                    if let Some(file) = entry.value.get_mut("file") {
                        resolver.path(file);
                    }
                }
            }
            "volumes" => {
                for entry in section.value.entries_mut() {
                    resolver.volume(&mut entry.value);
                }
            }
            _ => {}
        }
    }
}

struct Resolver<'a> {
    directory: &'a Path,
    home: Option<&'a Path>,
    report: &'a mut Report,
}

impl Resolver<'_> {
    fn service(&mut self, service: &mut Node, name: &str) {
        for field in service.entries_mut() {
            let value = &mut field.value;
            match field.key.as_str() {
                "build" => self.build(value),
                "env_file" => each(value, |item| {
                    if let Some(path) = item.get_mut("path") {
                        self.some_path(path);
                    }
                }),
                "label_file" => match value.value {
                    Value::List(_) => each(value, |item| self.some_path(item)),
                    _ => self.some_path(value),
                },
                "extends" => {
                    if let Some(file) = value.get_mut("file") {
                        self.some_path(file);
                    }
                }
                "develop" => {
                    if let Some(watch) = value.get_mut("watch") {
                        each(watch, |item| {
                            if let Some(path) = item.get_mut("path") {
                                self.some_path(path);
                            }
                        });
                    }
                }
                "volumes" => {
                    if let Value::List(items) = &mut value.value {
                        for (index, item) in items.iter_mut().enumerate() {
                            self.mount(item, &format!("services.{name}.volumes[{index}]"));
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn build(&mut self, build: &mut Node) {
        for field in build.entries_mut() {
            let value = &mut field.value;
            match field.key.as_str() {
                "context" => self.context(value),
                "additional_contexts" => {
                    for context in value.entries_mut() {
                        self.context(&mut context.value);
                    }
                }
                "ssh" => {
                    for key in value.entries_mut() {
                        self.path(&mut key.value);
                    }
                }
                _ => {}
            }
        }
    }

    /// A build context may be a URL, an image, or another service.
    fn context(&mut self, node: &mut Node) {
        const ELSEWHERE: [&str; 4] = ["service:", "github.com/", "git@", "docker-image:"];
        let elsewhere = node.as_text().is_some_and(|text| {
            text.contains("://") || ELSEWHERE.iter().any(|prefix| text.starts_with(prefix))
        });
        if !elsewhere {
            self.some_path(node);
        }
    }

    fn mount(&mut self, mount: &mut Node, path: &str) {
        if mount.get("type").and_then(Node::as_text) != Some("bind") {
            return;
        }
        match mount.get_mut("source") {
            Some(source) => self.path(source),
            None => {
                let hint = "add the path on the host: `source: ./data`";
                self.report
                    .error(mount.at, format!("`{path}` has no `source`"), hint);
            }
        }
    }

    /// `driver: local` with `o: bind` is a bind mount.
    fn volume(&mut self, volume: &mut Node) {
        if volume.get("driver").and_then(Node::as_text) != Some("local") {
            return;
        }
        let Some(options) = volume.get_mut("driver_opts") else {
            return;
        };
        if options.get("o").and_then(Node::as_text) == Some("bind")
            && let Some(device) = options.get_mut("device")
        {
            self.path(device);
        }
    }

    /// Nothing stays nothing, where that is no path.
    fn some_path(&mut self, node: &mut Node) {
        if node.as_text() != Some("") {
            self.path(node);
        }
    }

    fn path(&mut self, node: &mut Node) {
        let Value::Text(text) = &mut node.value else {
            return;
        };
        if text.starts_with('/') || is_windows(text) {
            return;
        }
        let path = match text.strip_prefix('~') {
            None => self.directory.join(&*text),
            Some(rest) => {
                if !(rest.is_empty() || rest.starts_with('/')) {
                    let message = format!("`{text}`: the home of another user is not known here");
                    self.report.refuse(node.at, message, "write the path out");
                }
                match self.home {
                    Some(home) => home.join(rest.trim_start_matches('/')),
                    None => {
                        let message = format!("`{text}`: there is no home directory to put for the `~`");
                        self.report.refuse(node.at, message, "write the path out");
                        PathBuf::from(&*text)
                    }
                }
            }
        };
        *text = syntax::clean(&path).to_string_lossy().into_owned();
    }
}

/// `C:\` or `C:/`, or a UNC path.
fn is_windows(text: &str) -> bool {
    let bytes = text.as_bytes();
    matches!(bytes, [drive, b':', b'\\' | b'/', ..] if drive.is_ascii_alphabetic())
        || text.starts_with("\\\\")
}

fn each(node: &mut Node, mut visit: impl FnMut(&mut Node)) {
    if let Value::List(items) = &mut node.value {
        items.iter_mut().for_each(&mut visit);
    }
}
