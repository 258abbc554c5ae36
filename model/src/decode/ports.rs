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
                Value::Int(number) => self.parsed(item, &path, port::published_ports(&number.to_string())),
                Value::Text(text) => self.parsed(item, &path, port::published_ports(text)),
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
        let mut target = None;
        let mut published = None;
        let mut host_ip = None;
        let mut protocol = Protocol::Tcp;
        let mut target_given = false;
        for entry in self.section(node, path, path, "services.*.ports.*") {
            let path = format!("{path}.{}", entry.key);
            let value = &entry.value;
            match entry.key.as_str() {
                "target" => {
                    target_given = true;
                    let target_text = self.port_text(value, &path)?;
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
                    let published_text = self.port_text(value, &path)?;
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
        let port = PublishedPort {
            target: target?.first,
            published,
            host_ip,
            protocol,
        };
        Some(vec![port])
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
                let hint = error.hint();
                self.report.error(node.at, format!("`{path}`: {error}"), hint);
                None
            }
        }
    }
}
