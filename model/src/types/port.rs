//! Published ports.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::syntax::port;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Tcp,
    Udp,
}

/// One port of the container and where the host offers it. Ranges are already expanded pairwise.
/// Serialised as `docker compose config` prints it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublishedPort {
    pub target: u16,
    /// `None`: an ephemeral port chosen by the plan.
    pub published: Option<PortRange>,
    /// `None`: every address of the host.
    pub host_ip: Option<IpAddr>,
    pub protocol: Protocol,
}

/// Inclusive; `first == last` for a fixed port, otherwise one free port out of the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PortRange {
    pub first: u16,
    pub last: u16,
}

/// The long form of the Compose Specification.
#[derive(Serialize, Deserialize)]
struct Long {
    /// Means nothing on one host; the reference always prints it.
    #[serde(default)]
    mode: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_ip: Option<IpAddr>,
    target: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    published: Option<String>,
    protocol: Protocol,
}

impl Serialize for PublishedPort {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let published = self.published.map(|PortRange { first, last }| {
            if first == last {
                first.to_string()
            } else {
                format!("{first}-{last}")
            }
        });
        let Self {
            host_ip,
            target,
            protocol,
            ..
        } = *self;
        Long {
            mode: "ingress".to_owned(),
            host_ip,
            target,
            published,
            protocol,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublishedPort {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Long {
            host_ip,
            target,
            published,
            protocol,
            ..
        } = Long::deserialize(deserializer)?;
        let published = published
            .map(|text| port::range(&text).map_err(de::Error::custom))
            .transpose()?;
        Ok(PublishedPort {
            target,
            published,
            host_ip,
            protocol,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_serialise_in_the_long_form_and_read_back() {
        for (host_ip, published, protocol, want) in [
            (
                None,
                None,
                Protocol::Tcp,
                json!({"mode": "ingress", "target": 80, "protocol": "tcp"}),
            ),
            (
                None,
                Some(PortRange {
                    first: 8000,
                    last: 9000,
                }),
                Protocol::Udp,
                json!({"mode": "ingress", "target": 80, "published": "8000-9000", "protocol": "udp"}),
            ),
            (
                Some("127.0.0.1".parse().unwrap()),
                Some(PortRange {
                    first: 8080,
                    last: 8080,
                }),
                Protocol::Tcp,
                json!({"mode": "ingress", "host_ip": "127.0.0.1", "target": 80, "published": "8080", "protocol": "tcp"}),
            ),
        ] {
            let port = PublishedPort {
                target: 80,
                published,
                host_ip,
                protocol,
            };
            assert_eq!(serde_json::to_value(&port).unwrap(), want);
            assert_eq!(serde_json::from_value::<PublishedPort>(want).unwrap(), port);
        }
    }
}
