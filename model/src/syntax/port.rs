//! The short form of a published port: `[[HOST_IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTOCOL]`.

use std::net::IpAddr;

use crate::types::{PortRange, Protocol, PublishedPort};

/// Why a text is no published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParsePortError {
    #[error("`{0}` is not a port: a port is a number from 1 to 65535")]
    Number(String),
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
    #[error("`{0}` is not an IP address")]
    Address(String),
    #[error("the protocol `{0}` is not supported: only tcp and udp are")]
    Protocol(String),
    #[error("the host ports `{0}` and the container ports `{1}` are ranges of different lengths")]
    Lengths(String, String),
    #[error("there is no container port")]
    Empty,
}

/// Ranges come out pairwise; a host range for one container port stays a range.
pub(crate) fn parse(text: &str) -> Result<Vec<PublishedPort>, ParsePortError> {
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, name)) => (ports, protocol(name)?),
        None => (text, Protocol::Tcp),
    };
    let (front, container) = match ports.rsplit_once(':') {
        Some((front, container)) => (Some(front), container),
        None => (None, ports),
    };
    if container.is_empty() {
        return Err(ParsePortError::Empty);
    }
    let (address, host) = match front {
        None => (None, ""),
        Some(front) => match front.rsplit_once(':') {
            Some((address, host)) => (Some(address), host),
            None => (None, front),
        },
    };
    let host_ip = match address {
        None | Some("") => None,
        Some(text) => Some(self::address(text)?),
    };
    let target = range(container)?;
    let published = match host {
        "" => None,
        host => published(host)?,
    };
    expand(target, container, published, host, host_ip, protocol)
}

/// Pairs a container range with a host range.
pub(crate) fn expand(
    target: PortRange,
    target_text: &str,
    published: Option<PortRange>,
    published_text: &str,
    host_ip: Option<IpAddr>,
    protocol: Protocol,
) -> Result<Vec<PublishedPort>, ParsePortError> {
    let port = |target, published| PublishedPort {
        target,
        published,
        host_ip,
        protocol,
    };
    let Some(host) = published else {
        return Ok((target.first..=target.last)
            .map(|target| port(target, None))
            .collect());
    };
    if target.first == target.last {
        return Ok(vec![port(target.first, Some(host))]);
    }
    if host.last - host.first != target.last - target.first {
        return Err(ParsePortError::Lengths(
            published_text.to_owned(),
            target_text.to_owned(),
        ));
    }
    Ok((target.first..=target.last)
        .zip(host.first..=host.last)
        .map(|(target, host)| {
            port(
                target,
                Some(PortRange {
                    first: host,
                    last: host,
                }),
            )
        })
        .collect())
}

/// `80` or `80-90`, from 1.
pub(crate) fn range(text: &str) -> Result<PortRange, ParsePortError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = match (number(first), number(last)) {
        (Some(first), Some(last)) => PortRange { first, last },
        _ => return Err(ParsePortError::Number(text.to_owned())),
    };
    if range.first > range.last {
        return Err(ParsePortError::Backwards(text.to_owned()));
    }
    Ok(range)
}

/// A host port or range; `0` stands for any free port.
pub(crate) fn published(text: &str) -> Result<Option<PortRange>, ParsePortError> {
    if text == "0" {
        Ok(None)
    } else {
        range(text).map(Some)
    }
}

pub(crate) fn protocol(text: &str) -> Result<Protocol, ParsePortError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(ParsePortError::Protocol(text.to_owned())),
    }
}

/// IPv6 with or without brackets.
pub(crate) fn address(text: &str) -> Result<IpAddr, ParsePortError> {
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    bare.parse().map_err(|_| ParsePortError::Address(text.to_owned()))
}

/// Digits only: `parse` alone would take `+80`.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(ports: &[PublishedPort]) -> Vec<String> {
        ports
            .iter()
            .map(|port| {
                let ip = port.host_ip.map(|ip| format!("{ip} ")).unwrap_or_default();
                let host = match port.published {
                    None => "?".to_owned(),
                    Some(range) if range.first == range.last => range.first.to_string(),
                    Some(range) => format!("{}-{}", range.first, range.last),
                };
                let udp = if port.protocol == Protocol::Udp {
                    " udp"
                } else {
                    ""
                };
                format!("{ip}{host}>{}{udp}", port.target)
            })
            .collect()
    }

    #[test]
    fn the_short_form_is_read_as_compose_reads_it() {
        for (text, want) in [
            ("80", &["?>80"][..]),
            ("8080:80", &["8080>80"]),
            ("8080:80/udp", &["8080>80 udp"]),
            ("8080:80/TCP", &["8080>80"]),
            (":80", &["?>80"]),
            ("0:80", &["?>80"]),
            ("80-81", &["?>80", "?>81"]),
            ("8080-8081:80-81", &["8080>80", "8081>81"]),
            ("8000-9000:80", &["8000-9000>80"]),
            ("127.0.0.1:8080:80", &["127.0.0.1 8080>80"]),
            ("127.0.0.1::80", &["127.0.0.1 ?>80"]),
            (
                "127.0.0.1:5000-5001:5000-5001/udp",
                &["127.0.0.1 5000>5000 udp", "127.0.0.1 5001>5001 udp"],
            ),
            ("[::1]:8080:80", &["::1 8080>80"]),
            ("::1:8080:80", &["::1 8080>80"]),
            ("0.0.0.0:80:80", &["0.0.0.0 80>80"]),
        ] {
            assert_eq!(
                show(&parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))),
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_port_is_refused_with_its_reason() {
        for (text, want) in [
            ("", "no container port"),
            ("80:", "no container port"),
            ("http", "`http` is not a port"),
            ("70000", "`70000` is not a port"),
            ("80:0", "`0` is not a port"),
            ("+80:80", "`+80` is not a port"),
            ("90-80", "ends before it begins"),
            ("localhost:80:80", "`localhost` is not an IP address"),
            ("80:80/sctp", "`sctp` is not supported"),
            ("8080-8082:80-81", "different lengths"),
            ("8080:80-81", "different lengths"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
