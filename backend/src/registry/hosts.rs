//! Where the images of a registry are fetched from: its mirrors, then itself.

use std::collections::BTreeMap;

use hyper::Uri;
use model::types::ImageName;
use serde::Deserialize;

/// What the operator says of registries, by host (`docker.io`) or by part of one (`docker.io/library`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Hosts(BTreeMap<String, Rules>);

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Asked first, in this order.
    pub mirrors: Vec<Mirror>,
    /// Its certificate is not looked at, and where it speaks no TLS it is asked without.
    pub insecure: bool,
    /// Hosts that may see its credential, too: where tokens are had. Those of the same domain always may.
    pub tokens: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Mirror {
    Url(String),
    Named {
        url: String,
        #[serde(default)]
        insecure: bool,
    },
}

/// Somebody to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// With what comes before `/v2/`, without a slash at its end.
    pub base: String,
    /// Whose credential is told to it.
    pub registry: String,
    pub insecure: bool,
    pub mirror: bool,
    pub tokens: Vec<String>,
}

/// What Docker's own registry is called in names, and where it is.
const HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

impl Hosts {
    /// Whom to ask for an image, in this order.
    pub fn endpoints(&self, name: &ImageName) -> Vec<Endpoint> {
        let registry = &name.registry;
        let whole = format!("{registry}/{}", name.repository);
        let concerns = |key: &str| {
            whole
                .strip_prefix(key)
                .is_some_and(|rest| rest.starts_with('/') || rest.is_empty())
        };
        let rules = self.0.iter().filter(|(key, _)| concerns(key));
        let narrowest = rules.max_by_key(|(key, _)| key.len()).map(|(_, rules)| rules);
        let mirrors = narrowest.into_iter().flat_map(|rules| &rules.mirrors);
        let mut endpoints: Vec<Endpoint> = mirrors.flat_map(Mirror::endpoints).collect();
        let own = self.0.get(registry);
        let host = if registry == HUB.0 { HUB.1 } else { registry };
        let insecure = own.is_some_and(|rules| rules.insecure);
        let endpoint = |scheme: &str| Endpoint {
            base: format!("{scheme}://{host}"),
            registry: registry.clone(),
            insecure,
            mirror: false,
            tokens: own.map(|rules| rules.tokens.clone()).unwrap_or_default(),
        };
        endpoints.push(endpoint("https"));
        if insecure {
            endpoints.push(endpoint("http"));
        }
        endpoints
    }
}

impl Mirror {
    fn endpoints(&self) -> Vec<Endpoint> {
        let (url, insecure) = match self {
            Mirror::Url(url) => (url, false),
            Mirror::Named { url, insecure } => (url, *insecure),
        };
        let url = url.trim_end_matches('/');
        let bases = match url.contains("://") {
            true => vec![url.to_owned()],
            false if insecure => vec![format!("https://{url}"), format!("http://{url}")],
            false => vec![format!("https://{url}")],
        };
        let endpoint = |base: String| {
            let parsed: Option<Uri> = base.parse().ok();
            let registry = parsed
                .as_ref()
                .and_then(|url| url.authority())
                .map(ToString::to_string);
            Endpoint {
                registry: registry.unwrap_or_default(),
                insecure,
                mirror: true,
                tokens: Vec::new(),
                base,
            }
        };
        bases.into_iter().map(endpoint).collect()
    }
}

impl Endpoint {
    /// Whether whoever hands out tokens at `host` may see the credential: the registry itself, a host of the same
    /// domain, or one that the operator has named.
    pub fn may_see(&self, host: &str) -> bool {
        let own = self.base.split("://").nth(1).unwrap_or_default();
        let own = own.split('/').next().unwrap_or_default();
        let own = own.rsplit_once(':').map_or(own, |(host, _)| host);
        own == host
            || domain(own).is_some_and(|own| domain(host) == Some(own))
            || self.tokens.iter().any(|one| one == host)
    }
}

/// What belongs to one owner: `auth.docker.io` and `registry-1.docker.io` are `docker.io`. Where the last but one
/// label is as short as that of `co.uk`, three labels are. `None`: an address, or a name without a dot.
fn domain(host: &str) -> Option<&str> {
    if host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    let dots: Vec<usize> = host.rmatch_indices('.').map(|(at, _)| at).collect();
    let (last, before) = (*dots.first()?, dots.get(1));
    let start = before.map_or(0, |at| at + 1);
    let short = last - start <= 3 && host.len() - last - 1 <= 3;
    match (short, before) {
        // `ghcr.io` is no such domain, `co.uk` is: only who has a name below it is an owner.
        (true, Some(_)) => Some(&host[dots.get(2).map_or(0, |at| at + 1)..]),
        _ => Some(&host[start..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts() -> Hosts {
        serde_json::from_value(serde_json::json!({
            "docker.io": { "mirrors": ["https://mirror.example/hub/", { "url": "10.0.0.1:5000", "insecure": true }] },
            "docker.io/secret": { "mirrors": [] },
            "plain.example:5000": { "insecure": true },
        }))
        .unwrap()
    }

    #[test]
    fn mirrors_are_asked_first_and_the_narrowest_rule_counts() {
        for (name, expected) in [
            (
                "nginx",
                &[
                    "https://mirror.example/hub",
                    "https://10.0.0.1:5000",
                    "http://10.0.0.1:5000",
                    "https://registry-1.docker.io",
                ][..],
            ),
            ("secret/app", &["https://registry-1.docker.io"]),
            (
                "secretive/app",
                &[
                    "https://mirror.example/hub",
                    "https://10.0.0.1:5000",
                    "http://10.0.0.1:5000",
                    "https://registry-1.docker.io",
                ],
            ),
            (
                "plain.example:5000/a/b",
                &["https://plain.example:5000", "http://plain.example:5000"],
            ),
            ("plain.example/a/b", &["https://plain.example"]),
            ("localhost:5000/a", &["https://localhost:5000"]),
        ] {
            let endpoints = hosts().endpoints(&name.parse().unwrap());
            let bases: Vec<&str> = endpoints.iter().map(|one| one.base.as_str()).collect();
            assert_eq!(bases, expected, "{name}");
        }
    }

    #[test]
    fn a_mirror_is_told_its_own_credential_and_never_the_registrys() {
        let endpoints = hosts().endpoints(&"nginx".parse().unwrap());
        let registries: Vec<&str> = endpoints.iter().map(|one| one.registry.as_str()).collect();
        assert_eq!(
            registries,
            ["mirror.example", "10.0.0.1:5000", "10.0.0.1:5000", "docker.io"]
        );
    }

    #[test]
    fn tokens_are_had_where_the_registry_is_at_home() {
        for (registry, realm, may) in [
            ("nginx", "auth.docker.io", true),
            ("registry.gitlab.com/a", "gitlab.com", true),
            ("registry.corp.example/a", "id.corp.example", true),
            ("ghcr.io/a", "ghcr.io", true),
            ("quay.io/a", "ghcr.io", false),
            ("a.co.uk/x", "b.co.uk", false),
            ("r.a.co.uk/x", "auth.a.co.uk", true),
            ("nginx", "docker.io.evil.example", false),
            ("nginx", "evil.io", false),
            ("10.0.0.1:5000/x", "10.0.0.1", true),
            ("10.0.0.1:5000/x", "10.0.0.2", false),
            ("localhost:5000/x", "localhost", true),
            ("registry:5000/x", "evil", false),
        ] {
            let endpoint = Hosts::default().endpoints(&registry.parse().unwrap()).remove(0);
            assert_eq!(endpoint.may_see(realm), may, "{registry} {realm}");
        }
        let named = Endpoint {
            tokens: vec!["login.example".into()],
            ..Hosts::default()
                .endpoints(&"r.example.org/x".parse().unwrap())
                .remove(0)
        };
        assert!(named.may_see("login.example"));
    }
}
