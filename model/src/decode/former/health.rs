//! The healthcheck of a service.

use super::Decoder;
use crate::{
    tree::{Node, Value},
    types::Healthcheck,
};

impl Decoder<'_> {
    pub(super) fn healthcheck(&mut self, node: &Node, path: &str) -> Option<Healthcheck> {
        let mut check = Healthcheck::default();
        let mut disabled = false;
        for entry in self.section(node, path, path, "services.*.healthcheck") {
            let path = format!("{path}.{}", entry.key);
            let value = &entry.value;
            self.report.origin(path.clone(), entry.at);
            match entry.key.as_str() {
                "test" => check.test = self.test(value, &path),
                // Zero means "not said" in the Engine API (HealthConfig).
                "interval" => check.interval = self.duration(value, &path).filter(|interval| interval.0 > 0),
                "timeout" => check.timeout = self.duration(value, &path).filter(|timeout| timeout.0 > 0),
                "retries" => check.retries = self.number(value, &path).filter(|retries| *retries > 0),
                "disable" => {
                    disabled = self.boolean(value, &path).unwrap_or_default();
                    if disabled {
                        self.report.origin(path.replace(".disable", ".test"), entry.at);
                    }
                }
                _ => {}
            }
        }
        if disabled {
            return Some(Healthcheck {
                test: Some(vec!["NONE".to_owned()]),
                ..Healthcheck::default()
            });
        }
        Some(check).filter(|check| *check != Healthcheck::default())
    }

    fn test(&mut self, node: &Node, path: &str) -> Option<Vec<String>> {
        match &node.value {
            Value::Text(text) => Some(vec!["CMD-SHELL".to_owned(), text.clone()]),
            Value::List(items) if items.is_empty() => None,
            Value::List(_) => {
                let test = self.texts(node, path)?;
                let words = test.len();
                let wrong = match test.first().map(String::as_str) {
                    Some("NONE") if words == 1 => return Some(test),
                    Some("CMD") if words > 1 => return Some(test),
                    Some("CMD-SHELL") if words == 2 => return Some(test),
                    Some("NONE") => "takes nothing after `NONE`",
                    Some("CMD") => "has no command after `CMD`",
                    Some("CMD-SHELL") => "takes one text after `CMD-SHELL`",
                    _ => "must begin with `CMD`, `CMD-SHELL` or `NONE`",
                };
                let hint = "write `[\"CMD\", \"program\", \"argument\"]`, or plain text for a shell";
                self.report.error(node.at, format!("`{path}` {wrong}"), hint);
                None
            }
            _ => {
                self.wrong(node, path, "text or a list");
                None
            }
        }
    }
}
