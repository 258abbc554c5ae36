//! Volumes and tmpfs of a service, short and long.

use std::path::{Path, PathBuf};

use super::Decoder;
use crate::{
    syntax::{self, size, volume},
    tree::{Node, Value},
    types::Mount,
};

/// Where Docker listens; there is nothing to find here.
const DOCKER_SOCKETS: [&str; 2] = ["/var/run/docker.sock", "/run/docker.sock"];

impl Decoder<'_> {
    pub(super) fn volumes(&mut self, node: &Node, path: &str, mounts: &mut Vec<Mount>) {
        for (index, item) in self.list(node, path).unwrap_or_default().iter().enumerate() {
            // By its place in the canonical list the mount is found again.
            self.report.origin(format!("{path}.{}", mounts.len()), item.at);
            let path = format!("{path}[{index}]");
            let mount = match &item.value {
                Value::Text(text) => self.short_volume(item, text, &path),
                Value::Map(_) => self.long_volume(item, &path),
                _ => {
                    self.wrong(item, &path, "text or a mapping");
                    None
                }
            };
            if let Some(Mount::Bind { source, .. }) = &mount
                && DOCKER_SOCKETS.iter().any(|socket| source == Path::new(socket))
            {
                let message = format!("`{path}`: there is no Docker socket here");
                self.report.error(
                    item.at,
                    message,
                    "remove this volume; what needs Docker's API cannot run on stead",
                );
                continue;
            }
            mounts.extend(mount);
        }
    }

    fn short_volume(&mut self, node: &Node, text: &str, path: &str) -> Option<Mount> {
        let short = match volume::parse(text) {
            Ok(short) => short,
            Err(error) => {
                let hint = error.hint();
                self.report.error(node.at, format!("`{path}`: {error}"), hint);
                return None;
            }
        };
        if short.drive {
            let message = format!("`{path}`: `{text}` is taken for a Windows drive by Compose");
            self.report
                .error(node.at, message, "give the volume a name of two letters or more");
            return None;
        }
        let bind = short.bind.unwrap_or_default();
        match bind.propagation.as_deref() {
            None | Some("private" | "rprivate") => {}
            Some(option) => {
                let message = format!("`{path}`: the propagation `{option}` is not supported yet");
                self.report
                    .error(node.at, message, "remove it; mounts are `rprivate`");
            }
        }
        if let Some(option) = bind.selinux {
            let message = format!("`{path}`: the option `{option}` has no effect here");
            self.report.warning(node.at, message, "remove it");
        }
        for option in &short.ignored {
            let message = format!("`{path}`: the option `{option}` has no effect here");
            self.report.warning(node.at, message, "remove it");
        }
        let target = self.target(node, &short.target, path)?;
        let read_only = short.read_only;
        Some(match (short.kind, short.source) {
            (volume::Kind::Bind, Some(source)) => Mount::Bind {
                source: self.source(node, &source, path)?,
                target,
                read_only,
                create_host_path: true,
            },
            (_, source) => Mount::Volume {
                source,
                target,
                read_only,
                nocopy: short.volume.is_some_and(|volume| volume.nocopy),
            },
        })
    }

    fn long_volume(&mut self, node: &Node, path: &str) -> Option<Mount> {
        let mut kind = None;
        let (mut source, mut target, mut target_given) = (None, None, false);
        let (mut read_only, mut nocopy, mut create_host_path) = (false, false, true);
        let (mut size, mut mode) = (None, None);
        for entry in self.section(node, path, path, "services.*.volumes.*") {
            let path = format!("{path}.{}", entry.key);
            let value = &entry.value;
            match entry.key.as_str() {
                "type" => kind = self.text(value, &path).map(|kind| (kind, value)),
                "source" => {
                    source = self
                        .text(value, &path)
                        .filter(|text| !text.is_empty())
                        .map(|text| (text, value))
                }
                "target" => {
                    target_given = true;
                    target = self
                        .text(value, &path)
                        .and_then(|text| self.target(value, text, &path));
                }
                "read_only" => read_only = self.boolean(value, &path).unwrap_or_default(),
                "bind" | "volume" | "tmpfs" => {
                    let section = format!("services.*.volumes.*.{}", entry.key);
                    for entry in self.section(value, &path, &path, &section) {
                        let path = format!("{path}.{}", entry.key);
                        let value = &entry.value;
                        match entry.key.as_str() {
                            "create_host_path" => {
                                create_host_path = self.boolean(value, &path).unwrap_or(true)
                            }
                            "nocopy" => nocopy = self.boolean(value, &path).unwrap_or_default(),
                            "size" => size = self.size(value, &path),
                            "mode" => mode = self.mode(value, &path),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        if !target_given {
            self.report.error(
                node.at,
                format!("`{path}` has no `target`"),
                "add the path in the container: `target: /data`",
            );
        }
        let Some((kind, kind_at)) = kind else {
            self.report.error(
                node.at,
                format!("`{path}` has no `type`"),
                "add `type: bind`, `type: volume` or `type: tmpfs`",
            );
            return None;
        };
        let target = target?;
        match kind {
            "volume" => {
                let source = source.map(|(text, _)| text.to_owned());
                Some(Mount::Volume {
                    source,
                    target,
                    read_only,
                    nocopy,
                })
            }
            "bind" => {
                let Some((text, at)) = source else {
                    self.report.error(
                        node.at,
                        format!("`{path}` has no `source`"),
                        "add the path on the host: `source: ./data`",
                    );
                    return None;
                };
                let source = self.source(at, text, path)?;
                Some(Mount::Bind {
                    source,
                    target,
                    read_only,
                    create_host_path,
                })
            }
            "tmpfs" => Some(Mount::Tmpfs { target, size, mode }),
            other => {
                let message = format!("`{path}.type`: volumes of the type `{other}` are not supported yet");
                self.report
                    .error(kind_at.at, message, "write `bind`, `volume` or `tmpfs`");
                None
            }
        }
    }

    /// `tmpfs: PATH[:OPTION,…]`, one or a list.
    pub(super) fn tmpfs(&mut self, node: &Node, path: &str, list: &str, mounts: &mut Vec<Mount>) {
        let items = match &node.value {
            Value::Text(_) => std::slice::from_ref(node),
            Value::List(items) => items,
            _ => return self.wrong(node, path, "text or a list"),
        };
        for item in items {
            let Some(text) = self.text(item, path) else {
                continue;
            };
            self.report.origin(format!("{list}.{}", mounts.len()), item.at);
            let (target, options) = text.split_once(':').unwrap_or((text, ""));
            let (mut size, mut mode) = (None, None);
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option.split_once('=').unwrap_or((option, "")) {
                    // What a tmpfs of a container is anyway.
                    ("rw" | "noexec" | "nosuid" | "nodev", "") => {}
                    ("size", value) => match size::bytes(value) {
                        Ok(bytes) => size = Some(bytes),
                        Err(error) => self
                            .report
                            .error(item.at, format!("`{path}`: {error}"), SIZE_HINT),
                    },
                    ("mode", value) => {
                        match u32::from_str_radix(value, 8).ok().filter(|mode| *mode <= 0o7777) {
                            Some(bits) => mode = Some(bits),
                            None => {
                                let message = format!("`{path}`: `{value}` is not a mode");
                                self.report.error(item.at, message, MODE_HINT);
                            }
                        }
                    }
                    (other, _) => {
                        let message = format!("`{path}`: the option `{other}` is not supported yet");
                        self.report
                            .error(item.at, message, "remove it; `size=` and `mode=` are supported");
                    }
                }
            }
            if let Some(target) = self.target(item, target, path) {
                mounts.push(Mount::Tmpfs { target, size, mode });
            }
        }
    }

    fn target(&mut self, node: &Node, text: &str, path: &str) -> Option<PathBuf> {
        let target = syntax::clean(Path::new(text));
        if !target.is_absolute() {
            let message = format!("`{path}`: the path in the container, `{text}`, is not absolute");
            self.report.error(node.at, message, "start it with `/`");
            return None;
        }
        if target.parent().is_none() {
            let message = format!("`{path}`: nothing can be mounted on `/`");
            self.report
                .error(node.at, message, "mount on a directory below `/`");
            return None;
        }
        Some(target)
    }

    fn source(&mut self, node: &Node, text: &str, path: &str) -> Option<PathBuf> {
        let source = syntax::absolute(text, self.directory, self.home.map(|home| home.as_path()));
        if source.is_none() {
            let message = format!("`{path}`: there is no home directory to put for the `~` of `{text}`");
            self.report.error(node.at, message, "write the path out");
        }
        source
    }

    /// Bytes as a number, or text with a unit.
    fn size(&mut self, node: &Node, path: &str) -> Option<u64> {
        let text = match node.value {
            Value::Text(_) | Value::Int(_) => node.value.scalar()?,
            _ => {
                self.wrong(node, path, "a size");
                return None;
            }
        };
        match size::bytes(&text) {
            Ok(size) => Some(size),
            Err(error) => {
                self.report
                    .error(node.at, format!("`{path}`: {error}"), SIZE_HINT);
                None
            }
        }
    }

    /// A YAML number is what it is (`0o1777`, `01777`); text is octal.
    fn mode(&mut self, node: &Node, path: &str) -> Option<u32> {
        let mode = match &node.value {
            Value::Int(mode) => u32::try_from(*mode).ok(),
            Value::Text(text) => u32::from_str_radix(text.strip_prefix("0o").unwrap_or(text), 8).ok(),
            _ => None,
        };
        let mode = mode.filter(|mode| *mode <= 0o7777);
        if mode.is_none() {
            self.report
                .error(node.at, format!("`{path}` is not a mode"), MODE_HINT);
        }
        mode
    }
}

const SIZE_HINT: &str = "write bytes, or a number with a unit, like `64m`";
const MODE_HINT: &str = "write permissions in octal, like `01777`";
