//! Which namespaces a service shares, and with whom.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::text::serialised_as_text;

/// Serialised beside the other fields of the service, under the names of Compose. `None`: its own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_mode: Option<Namespace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipc: Option<Namespace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<Namespace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uts: Option<Namespace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub userns_mode: Option<Namespace>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Namespace>,
}

/// Whose namespace; which of these an attribute takes is checked where it is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Namespace {
    Private,
    /// Private, and others may join it (`ipc` only).
    Shareable,
    None,
    Host,
    /// The bridge that Docker has for containers without a network (`network_mode` only).
    Bridge,
    Service(String),
    Container(String),
}

/// The text names no namespace.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is none of the modes that Docker knows")]
pub struct ParseNamespaceError(String);

impl FromStr for Namespace {
    type Err = ParseNamespaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text.split_once(':') {
            Some(("service", name)) if !name.is_empty() => Namespace::Service(name.to_owned()),
            Some(("container", name)) if !name.is_empty() => Namespace::Container(name.to_owned()),
            None if text == "private" => Namespace::Private,
            None if text == "shareable" => Namespace::Shareable,
            None if text == "none" => Namespace::None,
            None if text == "host" => Namespace::Host,
            None if text == "bridge" => Namespace::Bridge,
            _ => return Err(ParseNamespaceError(text.to_owned())),
        })
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Namespace::Private => f.write_str("private"),
            Namespace::Shareable => f.write_str("shareable"),
            Namespace::None => f.write_str("none"),
            Namespace::Host => f.write_str("host"),
            Namespace::Bridge => f.write_str("bridge"),
            Namespace::Service(name) => write!(f, "service:{name}"),
            Namespace::Container(name) => write!(f, "container:{name}"),
        }
    }
}

serialised_as_text!(Namespace);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_read_and_print_as_in_compose() {
        for text in [
            "private",
            "shareable",
            "none",
            "host",
            "bridge",
            "service:db",
            "container:x",
        ] {
            assert_eq!(text.parse::<Namespace>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "Host",
            "service:",
            "container",
            "pasta:--ipv4-only",
            "service",
        ] {
            assert!(text.parse::<Namespace>().is_err(), "{text}");
        }
    }
}
