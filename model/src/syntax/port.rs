//! The short form of a published port: `[[HOST_IP:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/PROTOCOL]`.

use std::net::IpAddr;

use super::cut;
use crate::types::{PortRange, Protocol};

/// Why a text is no published port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParsePortError {
    #[error("`{0}` is not a port: a port is a number from 1 to 65535")]
    Number(String),
    #[error("the range `{0}` ends before it begins")]
    Backwards(String),
    #[error("`{0}` is not an IP address")]
    Address(String),
    #[error("`{0}` is not a protocol")]
    Protocol(String),
    #[error("the protocol `{0}` is not supported: only tcp and udp are")]
    UnsupportedProtocol(String),
    #[error("the host ports `{0}` and the container ports `{1}` are ranges of different lengths")]
    Lengths(String, String),
    #[error("`{0}` has no container port")]
    Empty(String),
    #[error("`{0}` makes it more ports than a project may publish")]
    TooMany(String),
}

impl ParsePortError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ParsePortError::Address(_) => "write an address like `127.0.0.1` or `[::1]`, not a name",
            ParsePortError::Lengths(..) => {
                "write as many host ports as container ports, or one container port"
            }
            ParsePortError::Protocol(_) | ParsePortError::UnsupportedProtocol(_) => {
                "write `/tcp` or `/udp`, or leave it out for tcp"
            }
            ParsePortError::TooMany(_) => "publish fewer or smaller ranges",
            _ => "write `HOST:CONTAINER`, for example \"8080:80\" or \"127.0.0.1:8080:80/tcp\"",
        }
    }
}

/// One entry of the long form; the `mode` of all that have a short form is `ingress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    /// Without brackets, else as written. `None`: every address.
    pub host_ip: Option<String>,
    /// A number or a range, of which one port is taken. `None` and `0`: any free port.
    pub published: Option<String>,
    /// May be 0.
    pub target: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// Ranges come out pairwise, in the order of the container ports as texts (`10` before `9`), which is
/// that of the reference loader; a host range for one container port stays a range. A range of more than
/// `most` ports is an error.
pub(crate) fn parse(text: &str, most: usize) -> Result<Vec<Port>, ParsePortError> {
    let (front, last) = match text.rsplit_once(':') {
        Some((front, last)) => (Some(front), last),
        None => (None, text),
    };
    let (container, protocol) = last.split_once('/').unwrap_or((last, ""));
    if container.is_empty() {
        return Err(ParsePortError::Empty(cut(text)));
    }
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => "tcp",
        "udp" => "udp",
        "sctp" => "sctp",
        _ => return Err(ParsePortError::Protocol(cut(protocol))),
    };
    let (address, host) = match front.map(|front| front.rsplit_once(':').unwrap_or(("", front))) {
        Some((address, host)) => (address, host),
        None => ("", ""),
    };
    let host_ip = match unbracketed(address) {
        "" => None,
        bare => {
            self::address(bare)?;
            Some(bare.to_owned())
        }
    };
    let (first, last) = ends(container)?;
    let host_range = match host {
        "" => None,
        _ => Some(ends(host)?),
    };
    if let Some((host_first, host_last)) = host_range
        && first != last
        && host_last - host_first != last - first
    {
        return Err(ParsePortError::Lengths(cut(host), cut(container)));
    }
    if usize::from(last.saturating_sub(first)) >= most {
        return Err(ParsePortError::TooMany(cut(text)));
    }
    let mut ports: Vec<Port> = (first..=last)
        .map(|target| Port {
            host_ip: host_ip.clone(),
            published: host_range.map(|(host_first, host_last)| match host_first == host_last {
                _ if first != last => (host_first + (target - first)).to_string(),
                true => host_first.to_string(),
                false => format!("{host_first}-{host_last}"),
            }),
            target,
            protocol: protocol.to_owned(),
        })
        .collect();
    ports.sort_by_cached_key(|port| port.target.to_string());
    Ok(ports)
}

/// `80` or `80-90`, from 1.
pub(crate) fn range(text: &str) -> Result<PortRange, ParsePortError> {
    match ends(text)? {
        (0, _) => Err(ParsePortError::Number(cut(text))),
        (first, last) => Ok(PortRange { first, last }),
    }
}

/// A host port or range; `0` stands for any free port.
pub(crate) fn published(text: &str) -> Result<Option<PortRange>, ParsePortError> {
    match ends(text)? {
        (0, 0) => Ok(None),
        _ => range(text).map(Some),
    }
}

pub(crate) fn protocol(text: &str) -> Result<Protocol, ParsePortError> {
    match text.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(ParsePortError::UnsupportedProtocol(cut(text))),
    }
}

/// IPv6 with or without brackets.
pub(crate) fn address(text: &str) -> Result<IpAddr, ParsePortError> {
    unbracketed(text)
        .parse()
        .map_err(|_| ParsePortError::Address(cut(text)))
}

fn unbracketed(address: &str) -> &str {
    address
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(address)
}

/// `80` or `80-90`, from 0.
fn ends(text: &str) -> Result<(u16, u16), ParsePortError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Err(ParsePortError::Backwards(cut(text))),
        (Some(first), Some(last)) => Ok((first, last)),
        _ => Err(ParsePortError::Number(cut(text))),
    }
}

/// Digits only: `parse` alone would take `+80`.
fn number(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(ports: &[Port]) -> Vec<String> {
        let part = |text: &Option<String>, end: &str| match text {
            Some(text) => format!("{text}{end}"),
            None => String::new(),
        };
        ports
            .iter()
            .map(|port| {
                let ip = part(&port.host_ip, " ");
                let host = part(&port.published, "");
                format!("{ip}{host}>{}/{}", port.target, port.protocol)
            })
            .collect()
    }

    #[test]
    fn the_short_form_is_read_as_compose_reads_it() {
        for (text, want) in [
            ("80", &[">80/tcp"][..]),
            ("080", &[">80/tcp"]),
            ("8080:80", &["8080>80/tcp"]),
            ("8080:80/udp", &["8080>80/udp"]),
            ("8080:80/TCP", &["8080>80/tcp"]),
            ("80/Sctp", &[">80/sctp"]),
            ("80/", &[">80/tcp"]),
            (":80", &[">80/tcp"]),
            ("::80", &[">80/tcp"]),
            ("0:80", &["0>80/tcp"]),
            ("0", &[">0/tcp"]),
            ("80-81", &[">80/tcp", ">81/tcp"]),
            ("8080-8081:80-81", &["8080>80/tcp", "8081>81/tcp"]),
            ("80-80:8080", &["80>8080/tcp"]),
            ("80-80:8080-8080", &["80>8080/tcp"]),
            ("8000-9000:80", &["8000-9000>80/tcp"]),
            // By the text of the container port.
            (
                "1009-1011:9-11/udp",
                &["1010>10/udp", "1011>11/udp", "1009>9/udp"],
            ),
            ("127.0.0.1:8080:80", &["127.0.0.1 8080>80/tcp"]),
            ("127.0.0.1::80", &["127.0.0.1 >80/tcp"]),
            (
                "127.0.0.1:5000-5001:5000-5001/udp",
                &["127.0.0.1 5000>5000/udp", "127.0.0.1 5001>5001/udp"],
            ),
            ("[::1]:8080:80", &["::1 8080>80/tcp"]),
            ("[2001:DB8::1]::80", &["2001:DB8::1 >80/tcp"]),
            ("[127.0.0.1]:1:80", &["127.0.0.1 1>80/tcp"]),
            ("::1:8080:80", &["::1 8080>80/tcp"]),
            ("0.0.0.0:80:80", &["0.0.0.0 80>80/tcp"]),
            ("65535:65535", &["65535>65535/tcp"]),
        ] {
            let ports = parse(text, usize::MAX).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(show(&ports), want, "{text}");
        }
    }

    #[test]
    fn a_wrong_port_is_refused_with_its_reason() {
        for (text, want) in [
            ("", "no container port"),
            ("80:", "no container port"),
            ("/udp", "no container port"),
            ("http", "`http` is not a port"),
            ("udp", "`udp` is not a port"),
            ("70000", "`70000` is not a port"),
            ("65536:80", "`65536` is not a port"),
            ("+80:80", "`+80` is not a port"),
            ("-1", "`-1` is not a port"),
            ("80-", "`80-` is not a port"),
            ("80-82-84", "`80-82-84` is not a port"),
            (" 80", "` 80` is not a port"),
            ("80.10", "`80.10` is not a port"),
            ("90-80", "ends before it begins"),
            ("localhost:80:80", "`localhost` is not an IP address"),
            ("[::1:80:80", "`[::1` is not an IP address"),
            ("fe80::1%eth0:80:80", "`fe80::1%eth0` is not an IP address"),
            ("80:80/xyz", "`xyz` is not a protocol"),
            ("80/tcp/udp", "`tcp/udp` is not a protocol"),
            ("80/tcp:80", "`80/tcp` is not a port"),
            ("8080-8082:80-81", "different lengths"),
            ("8080:80-81", "different lengths"),
        ] {
            let error = parse(text, usize::MAX).unwrap_err();
            assert!(error.to_string().contains(want), "{text}: {error}");
            assert!(!error.hint().is_empty());
        }
    }

    #[test]
    fn what_runs_has_a_port_and_a_protocol_that_stead_knows() {
        assert_eq!(published("0"), Ok(None));
        for (error, want) in [
            (range("0").unwrap_err(), "`0` is not a port"),
            (published("0-1").unwrap_err(), "`0-1` is not a port"),
            (protocol("sctp").unwrap_err(), "`sctp` is not supported"),
        ] {
            assert!(error.to_string().contains(want), "{error}");
        }
    }
}
