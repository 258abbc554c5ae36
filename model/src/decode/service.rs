//! One service.

use super::Decoder;
use crate::{
    name::is_hostname,
    syntax::{image, words},
    tree::{Node, Value},
    types::{RestartPolicy, Service},
};

impl Decoder<'_> {
    pub(super) fn service(&mut self, node: &Node, path: &str) -> Service {
        let mut service = Service::default();
        let entries = self.section(node, path, path, "services.*");
        for entry in &entries {
            let path = format!("{path}.{}", entry.key);
            let value = &entry.value;
            self.report.origin(path.clone(), entry.at);
            match entry.key.as_str() {
                "image" => service.image = self.image(value, &path).unwrap_or_default(),
                "command" => service.command = self.command(value, &path),
                "entrypoint" => service.entrypoint = self.command(value, &path),
                "environment" => {
                    for (name, value) in self.pairs(value, &path) {
                        // A name alone takes the value of the project environment, or is left out.
                        if let Some(value) = value.or_else(|| self.environment.get(&name).cloned()) {
                            service.environment.insert(name, value);
                        }
                    }
                }
                "labels" => {
                    let labels = self.pairs(value, &path).into_iter();
                    service.labels = labels
                        .map(|(name, value)| (name, value.unwrap_or_default()))
                        .collect();
                }
                "networks" => service.networks = self.attachments(value, &path),
                "ports" => service.ports = self.ports(value, &path),
                "depends_on" => service.depends_on = self.dependencies(value, &path),
                "restart" => service.restart = self.restart(value, &path).unwrap_or_default(),
                "healthcheck" => service.healthcheck = self.healthcheck(value, &path),
                "hostname" => service.hostname = self.hostname(value, &path),
                "user" => service.user = self.not_empty(value, &path),
                "working_dir" => service.working_dir = self.working_dir(value, &path),
                "stop_signal" => service.stop_signal = self.stop_signal(value, &path),
                "stop_grace_period" => service.stop_grace_period = self.duration(value, &path),
                // Below: both fill one list, volumes first.
                _ => {}
            }
        }
        for key in ["volumes", "tmpfs"] {
            if let Some(entry) = entries.iter().find(|entry| entry.key == key) {
                let key_path = format!("{path}.{key}");
                let list = format!("{path}.volumes");
                if key == "tmpfs" && service.volumes.is_empty() {
                    self.report.origin(list.clone(), entry.at);
                }
                match key {
                    "volumes" => self.volumes(&entry.value, &key_path, &mut service.volumes),
                    _ => self.tmpfs(&entry.value, &key_path, &list, &mut service.volumes),
                }
            }
        }
        // `build` is reported where it stands; an image would be missing only because of it.
        let has =
            |key: &str| matches!(&node.value, Value::Map(entries) if entries.iter().any(|e| e.key == key));
        if matches!(node.value, Value::Map(_)) && !has("image") && !has("build") {
            let at = self.report.at(path);
            self.report.error(
                at,
                format!("`{path}` has no image"),
                "add `image:`, for example `image: builtin:hello`",
            );
        }
        service
    }

    fn image(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.text(node, path)?;
        match image::resolve(text, self.directory, self.home.map(|home| home.as_path())) {
            Ok(image) => Some(image),
            Err(error) => {
                self.report
                    .error(node.at, format!("`{path}`: {error}"), error.hint());
                None
            }
        }
    }

    /// Nothing is the image's own; empty text and the empty list clear it.
    fn command(&mut self, node: &Node, path: &str) -> Option<Vec<String>> {
        let text = match &node.value {
            Value::Null => return None,
            Value::List(_) => return self.texts(node, path),
            Value::Text(text) => text,
            _ => {
                self.wrong(node, path, "text");
                return None;
            }
        };
        match words::split(text) {
            Ok(words) => {
                if let Some(dropped) = words.dropped {
                    self.report.warning(
                        node.at,
                        format!("`{path}`: no shell runs here, `{dropped}` is dropped as in Docker Compose"),
                        "for a shell, write `[\"sh\", \"-c\", \"…\"]`; otherwise quote the character",
                    );
                }
                Some(words.words)
            }
            Err(error) => {
                let message = format!("`{path}`: {error}");
                self.report.error(node.at, message, error.hint());
                None
            }
        }
    }

    fn restart(&mut self, node: &Node, path: &str) -> Option<RestartPolicy> {
        let text = self.text(node, path)?;
        match text.parse() {
            Ok(policy) => Some(policy),
            Err(error) => {
                let hint = "write `no`, `always`, `unless-stopped` or `on-failure[:N]`";
                self.report.error(node.at, format!("`{path}`: {error}"), hint);
                None
            }
        }
    }

    fn hostname(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.not_empty(node, path)?;
        if !is_hostname(&text) {
            let hint = "use letters, digits and `-` between dots, at most 64 in all (RFC 1123)";
            self.report
                .error(node.at, format!("`{path}`: `{text}` is not a host name"), hint);
            return None;
        }
        Some(text)
    }

    fn working_dir(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = self.not_empty(node, path)?;
        if !text.starts_with('/') {
            let message = format!("`{path}`: `{text}` is not an absolute path");
            self.report.error(node.at, message, "start it with `/`");
            return None;
        }
        Some(text)
    }

    fn stop_signal(&mut self, node: &Node, path: &str) -> Option<String> {
        let text = match node.value {
            Value::Int(number) => number.to_string(),
            _ => self.not_empty(node, path)?,
        };
        if !is_signal(&text) {
            let message = format!("`{path}`: `{text}` is not a signal");
            self.report.error(
                node.at,
                message,
                "write a name like `SIGINT` or a number from 1 to 64",
            );
            return None;
        }
        Some(text)
    }

    /// Text; empty text says nothing.
    fn not_empty(&mut self, node: &Node, path: &str) -> Option<String> {
        self.text(node, path)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    }
}

/// signal(7): a name with or without `SIG`, `RTMIN+n`, `RTMAX-n`, or a number.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 36] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    if let Ok(number) = text.parse::<u8>() {
        return (1..=64).contains(&number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = name
        .strip_prefix("RTMIN+")
        .or_else(|| name.strip_prefix("RTMAX-"));
    match offset {
        Some(offset) => offset.parse::<u8>().is_ok_and(|offset| offset <= 30),
        None => NAMES.contains(&name),
    }
}
