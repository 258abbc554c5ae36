//! Published ports of a service, short and long.

use super::Decoder;
use crate::{
    syntax::port::{self, ParsePortError},
    tree::{Node, Value},
    types::{PortRange, Protocol, PublishedPort},
};

impl Decoder<'_> {
    pub(super) fn ports(&mut self, node: &Node, path: &str) -> Vec<PublishedPort> {
        let mut ports: Vec<PublishedPort> = Vec::new();
        for (index, item) in self.list(node, path).unwrap_or_default().iter().enumerate() {
            let path = format!("{path}[{index}]");
            let parsed = match &item.value {
                Value::Int(number) => self.parsed(item, &path, port::parse(&number.to_string())),
                Value::Text(text) => self.parsed(item, &path, port::parse(text)),
                Value::Map(_) => self.long_port(item, &path),
                _ => {
                    let message = format!("`{path}` must be a port, and is {}", item.value.kind());
                    self.report
                        .error(item.at, message, "write it in quotes: \"8080:80\"");
                    None
                }
            };
            for port in parsed.unwrap_or_default() {
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
        }
        ports
    }

    fn long_port(&mut self, node: &Node, path: &str) -> Option<Vec<PublishedPort>> {
        let (mut target, mut target_text) = (None, String::new());
        let (mut published, mut published_text) = (None, String::new());
        let mut host_ip = None;
        let mut protocol = Protocol::Tcp;
        let mut target_given = false;
        for entry in self.section(node, path, path, "services.*.ports.*") {
            let path = format!("{path}.{}", entry.key);
            let value = &entry.value;
            match entry.key.as_str() {
                "target" => {
                    target_given = true;
                    target_text = self.port_text(value, &path)?;
                    let range = port::range(&target_text).and_then(|range: PortRange| {
                        // The long form has one container port.
                        if range.first == range.last {
                            Ok(range)
                        } else {
                            Err(ParsePortError::Number(target_text.clone()))
                        }
                    });
                    target = self.parsed(value, &path, range);
                }
                "published" if value.value == Value::Text(String::new()) => {}
                "published" => {
                    published_text = self.port_text(value, &path)?;
                    published = self
                        .parsed(value, &path, port::published(&published_text))
                        .flatten();
                }
                "host_ip" => {
                    if let Some(text) = self.text(value, &path).filter(|text| !text.is_empty()) {
                        host_ip = self.parsed(value, &path, port::address(text));
                    }
                }
                "protocol" => {
                    if let Some(text) = self.text(value, &path) {
                        protocol = self
                            .parsed(value, &path, port::protocol(text))
                            .unwrap_or(protocol);
                    }
                }
                _ => {}
            }
        }
        if !target_given {
            self.report.error(
                node.at,
                format!("`{path}` has no `target`"),
                "add the port of the container: `target: 80`",
            );
        }
        let ports = port::expand(
            target?,
            &target_text,
            published,
            &published_text,
            host_ip,
            protocol,
        );
        self.parsed(node, path, ports)
    }

    /// A port may be a number or text.
    fn port_text(&mut self, node: &Node, path: &str) -> Option<String> {
        match &node.value {
            Value::Int(number) => Some(number.to_string()),
            Value::Text(text) => Some(text.clone()),
            _ => {
                self.wrong(node, path, "a port");
                None
            }
        }
    }

    fn parsed<T>(&mut self, node: &Node, path: &str, result: Result<T, ParsePortError>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let hint = match &error {
                    ParsePortError::Address(_) => "write an address like `127.0.0.1` or `[::1]`, not a name",
                    ParsePortError::Lengths(..) => {
                        "write as many host ports as container ports, or one container port"
                    }
                    ParsePortError::Protocol(_) => "write `/tcp` or `/udp`, or leave it out for tcp",
                    _ => "write `HOST:CONTAINER`, for example \"8080:80\" or \"127.0.0.1:8080:80/tcp\"",
                };
                self.report.error(node.at, format!("`{path}`: {error}"), hint);
                None
            }
        }
    }
}
