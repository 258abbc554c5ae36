//! Which proxy a request goes through, as curl and Docker read the environment: `HTTPS_PROXY`, `HTTP_PROXY` and
//! `NO_PROXY`, also in lower case.

use std::{fmt, net::IpAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{Uri, header::HeaderValue};

use super::origin::Origin;

#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    pub origin: Origin,
    /// `Proxy-Authorization`. Never printed.
    pub authorization: Option<HeaderValue>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.origin)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable} names no proxy; write http://HOST:PORT")]
pub struct ProxyError {
    pub variable: &'static str,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    https: Option<Proxy>,
    http: Option<Proxy>,
    exempt: Vec<Exempt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exempt {
    All,
    /// A host and all below it.
    Host(String, Option<u16>),
    /// An address and how many bits of it count.
    Network(IpAddr, u8, Option<u16>),
}

impl Proxies {
    /// `variable`: the environment.
    ///
    /// # Errors
    /// A proxy that cannot be understood: going around it might be forbidden.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let given = |name: &str| {
            let lower = variable(&name.to_lowercase()).filter(|value| !value.is_empty());
            lower.or_else(|| variable(name).filter(|value| !value.is_empty()))
        };
        let proxy = |name: &'static str| {
            let parsed = given(name).map(|text| parse(&text).ok_or(ProxyError { variable: name }));
            parsed.transpose()
        };
        let exempt = given("NO_PROXY").unwrap_or_default();
        Ok(Proxies {
            https: proxy("HTTPS_PROXY")?,
            http: proxy("HTTP_PROXY")?,
            exempt: exempt.split([',', ' ']).filter_map(Exempt::of).collect(),
        })
    }

    /// `None`: straight there. The host itself is never reached by way of another.
    pub fn towards(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = match origin.tls {
            true => self.https.as_ref(),
            false => self.http.as_ref(),
        }?;
        let address: Option<IpAddr> = origin.host.parse().ok();
        let own = origin.host == "localhost" || address.is_some_and(|address| address.is_loopback());
        let exempt = || self.exempt.iter().any(|exempt| exempt.holds(origin, address));
        (!own && !exempt()).then_some(proxy)
    }
}

fn parse(text: &str) -> Option<Proxy> {
    let text = match text.contains("://") {
        true => text.to_owned(),
        false => format!("http://{text}"),
    };
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    let url: Uri = format!("{scheme}://{host}/").parse().ok()?;
    let authorization = match user {
        None => None,
        Some(user) => {
            let plain = percent(user)?;
            let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(plain))).ok()?;
            value.set_sensitive(true);
            Some(value)
        }
    };
    Some(Proxy {
        origin: Origin::of(&url)?,
        authorization,
    })
}

/// `%40` → `@` (RFC 3986, section 2.1).
fn percent(text: &str) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                let (high, low) = (digit()?, digit()?);
                u8::try_from(high * 16 + low).ok()?
            }
            byte => byte,
        });
    }
    Some(plain)
}

impl Exempt {
    fn of(text: &str) -> Option<Self> {
        let text = text.trim();
        if text == "*" {
            return Some(Exempt::All);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address: IpAddr = address.parse().ok()?;
            let most = if address.is_ipv4() { 32 } else { 128 };
            let bits = bits.parse().ok().filter(|bits| *bits <= most)?;
            return Some(Exempt::Network(address, bits, None));
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return Some(Exempt::Network(address, bits, None));
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse().ok()?)),
            None => (text, None),
        };
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            return Some(Exempt::Network(address, bits, port));
        }
        let host = host
            .trim_start_matches("*.")
            .trim_start_matches('.')
            .to_ascii_lowercase();
        (!host.is_empty()).then_some(Exempt::Host(host, port))
    }

    fn holds(&self, origin: &Origin, address: Option<IpAddr>) -> bool {
        let of_port = |port: &Option<u16>| port.is_none_or(|port| port == origin.port);
        match self {
            Exempt::All => true,
            Exempt::Host(host, port) => {
                let below = origin.host.strip_suffix(host.as_str());
                of_port(port) && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
            Exempt::Network(network, bits, port) => {
                of_port(port) && address.is_some_and(|address| same_bits(address, *network, *bits))
            }
        }
    }
}

fn same_bits(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let (one, other, width) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (u128::from(u32::from(one)), u128::from(u32::from(other)), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => (u128::from(one), u128::from(other), 128),
        _ => return false,
    };
    let rest = u32::from(width - bits);
    (one ^ other).checked_shr(rest).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, ProxyError> {
        Proxies::of(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn towards(variables: &[(&str, &str)], url: &str) -> Option<String> {
        let origin = Origin::of(&url.parse().unwrap()).unwrap();
        let proxies = proxies(variables).unwrap();
        proxies.towards(&origin).map(|proxy| proxy.origin.to_string())
    }

    #[test]
    fn each_scheme_has_its_proxy_and_lower_case_goes_first() {
        let both = [
            ("HTTPS_PROXY", "http://secure:3128"),
            ("HTTP_PROXY", "plain:8080/"),
            ("http_proxy", ""),
        ];
        assert_eq!(
            towards(&both, "https://r.example"),
            Some("http://secure:3128".into())
        );
        assert_eq!(
            towards(&both, "http://r.example"),
            Some("http://plain:8080".into())
        );
        let lower = [("HTTPS_PROXY", "a:1"), ("https_proxy", "https://b:2")];
        assert_eq!(towards(&lower, "https://r.example"), Some("https://b:2".into()));
        assert_eq!(towards(&lower, "http://r.example"), None);
        assert_eq!(towards(&[], "https://r.example"), None);
    }

    #[test]
    fn who_is_exempt_is_asked_directly() {
        for (exempt, url, direct) in [
            ("r.example", "https://r.example", true),
            ("r.example", "https://a.r.example:5000", true),
            ("r.example", "https://other.example", false),
            ("r.example", "https://notr.example", false),
            (".example", "https://r.example", true),
            ("*.example", "https://r.example", true),
            ("r.example:5000", "https://r.example", false),
            ("r.example:5000", "https://r.example:5000", true),
            ("*", "https://r.example", true),
            ("a, r.example", "https://r.example", true),
            ("10.0.0.0/8", "https://10.1.2.3", true),
            ("10.0.0.0/8", "https://11.1.2.3", false),
            ("10.0.0.0/33", "https://11.1.2.3", false),
            ("0.0.0.0/0", "https://11.1.2.3", true),
            ("192.0.2.1", "https://192.0.2.1:5000", true),
            ("192.0.2.1:443", "https://192.0.2.1:5000", false),
            ("2001:db8::/32", "https://[2001:db8::1]", true),
            ("2001:db8::1", "https://[2001:db8::1]", true),
            ("", "https://r.example", false),
            ("", "https://localhost:5000", true),
            ("", "https://127.0.0.1:5000", true),
            ("", "https://[::1]:5000", true),
        ] {
            let variables = [("HTTPS_PROXY", "http://proxy:1"), ("NO_PROXY", exempt)];
            assert_eq!(
                towards(&variables, url).is_none(),
                direct,
                "NO_PROXY={exempt} {url}"
            );
        }
    }

    #[test]
    fn a_proxy_may_want_a_name_and_nobody_sees_the_password() {
        let given = proxies(&[("HTTPS_PROXY", "http://me:p%40ss@proxy:3128")]).unwrap();
        let proxy = given.https.clone().unwrap();
        let expected = format!("Basic {}", STANDARD.encode("me:p@ss"));
        assert_eq!(proxy.authorization.unwrap(), expected.as_str());
        assert!(!format!("{given:?}").contains("ss"), "{given:?}");
    }

    #[test]
    fn a_proxy_that_is_none_is_refused_and_not_gone_around() {
        for text in [
            "socks5://proxy:1080",
            "http://",
            "http://me:%zz@proxy",
            "http://a b",
        ] {
            let error = proxies(&[("HTTPS_PROXY", text)]).unwrap_err();
            assert_eq!(error.variable, "HTTPS_PROXY", "{text}");
        }
    }
}
