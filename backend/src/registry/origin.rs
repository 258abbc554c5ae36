//! Where a request goes, and where an answer may send it on to.

use std::{fmt, net::IpAddr};

use hyper::Uri;

/// Scheme, host and port: what must stay the same for a credential to go along (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    pub tls: bool,
    /// Lower case; an address without brackets.
    pub host: String,
    pub port: u16,
}

impl Origin {
    /// `None`: neither `http` nor `https`, or without a host.
    pub fn of(url: &Uri) -> Option<Self> {
        let tls = match url.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let host = url.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
        let port = url.port_u16().unwrap_or(if tls { 443 } else { 80 });
        (!host.is_empty()).then_some(Origin { tls, host, port })
    }

    /// As a request's `Host` says it: without the port that the scheme has anyway.
    pub fn authority(&self) -> String {
        let host = match self.host.contains(':') {
            true => format!("[{}]", self.host),
            false => self.host.clone(),
        };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// Whether an address is this host itself or a link of it, where services answer that trust whoever asks: no
/// answer of a registry elsewhere leads there.
pub fn is_near(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            // 0.0.0.0/8 is this host (RFC 1122, section 3.2.1.3).
            address.is_loopback()
                || address.is_link_local()
                || address.octets()[0] == 0
                || address.is_multicast()
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.is_multicast()
                // An IPv4 address in the clothes of NAT64 (RFC 6052) or of old (RFC 4291, section 2.5.5.1).
                || embedded(address).is_some_and(|address| is_near(IpAddr::V4(address)))
        }
    }
}

fn embedded(address: std::net::Ipv6Addr) -> Option<std::net::Ipv4Addr> {
    let segments = address.segments();
    let low = || {
        let [a, b] = [segments[6].to_be_bytes(), segments[7].to_be_bytes()];
        std::net::Ipv4Addr::new(a[0], a[1], b[0], b[1])
    };
    let nat64 = segments[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let of_old = segments[..6] == [0; 6];
    (nat64 || of_old).then(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        for (url, expected) in [
            (
                "https://Registry.Example/v2/",
                Some(("https://registry.example", 443)),
            ),
            (
                "https://registry.example:443/",
                Some(("https://registry.example", 443)),
            ),
            (
                "http://registry.example:5000/x?y",
                Some(("http://registry.example:5000", 5000)),
            ),
            ("http://[::1]:5000/", Some(("http://[::1]:5000", 5000))),
            ("http://[::1]/", Some(("http://[::1]", 80))),
            ("ftp://registry.example/", None),
            ("file:///etc/passwd", None),
            ("/v2/", None),
        ] {
            let origin = url.parse().ok().and_then(|url| Origin::of(&url));
            let found = origin.as_ref().map(|origin| (origin.to_string(), origin.port));
            assert_eq!(
                found,
                expected.map(|(text, port)| (text.to_owned(), port)),
                "{url}"
            );
        }
    }

    #[test]
    fn what_is_near_is_near_in_every_spelling() {
        for (address, near) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("169.254.169.254", true),
            ("224.0.0.1", true),
            ("::1", true),
            ("::", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("::127.0.0.1", true),
            ("64:ff9b::a9fe:a9fe", true),
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("198.51.100.1", false),
            ("2001:db8::1", false),
            ("64:ff9b::c633:6401", false),
            ("fd00::1", false),
        ] {
            assert_eq!(is_near(address.parse().unwrap()), near, "{address}");
        }
    }
}
