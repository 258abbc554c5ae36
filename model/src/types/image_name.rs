//! Names of images in registries, read as Docker reads them (distribution/reference, OCI distribution
//! specification 1.1, "pulling manifests").

use std::{fmt, str::FromStr};

use crate::syntax::cut;

/// Where a name without a host leads.
const HUB: &str = "docker.io";
/// What the same host is called in old names.
const HUB_OF_OLD: &str = "index.docker.io";
/// Bytes of host and repository.
const LONGEST: usize = 255;
/// Bytes of a tag.
const LONGEST_TAG: usize = 128;

/// A complete name: nothing of it is left to a default.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// Host and, with a colon, port.
    pub registry: String,
    /// Without the host: `library/nginx`.
    pub repository: String,
    /// `None` only where there is a digest.
    pub tag: Option<String>,
    /// `sha256:…` of an index or a manifest.
    pub digest: Option<String>,
}

/// Which part of a name is none; the beginning of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseImageNameError {
    #[error("`{0}` before the first slash is no host")]
    Host(String),
    #[error("the name of an image is written in lower case, not `{0}`")]
    Case(String),
    #[error("`{0}` is no part of the name of an image")]
    Component(String),
    #[error("host and name of the image have {0} characters, more than {LONGEST}")]
    Long(usize),
    #[error("`{0}` is no tag of an image")]
    Tag(String),
    #[error("`{0}` is no digest of an image")]
    Digest(String),
    #[error("`{0}` is the id of an image, which no registry knows")]
    Id(String),
}

impl ParseImageNameError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ParseImageNameError::Host(_) => "write HOST or HOST:PORT there".into(),
            ParseImageNameError::Case(text) => format!("write `{}`", text.to_lowercase()),
            ParseImageNameError::Component(_) => {
                "use lower-case letters and digits, with one `.`, `_`, `__` or any number of `-` between them"
                    .into()
            }
            ParseImageNameError::Long(_) => "shorten the name".into(),
            ParseImageNameError::Tag(_) => format!(
                "use up to {LONGEST_TAG} letters, digits, `_`, `.` and `-`, and begin with a letter, a digit or `_`"
            ),
            ParseImageNameError::Digest(_) => "write `sha256:` and 64 lower-case hexadecimal digits".into(),
            ParseImageNameError::Id(_) => "write its name".into(),
        }
    }
}

impl FromStr for ImageName {
    type Err = ParseImageNameError;

    fn from_str(text: &str) -> Result<Self, ParseImageNameError> {
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((_, digest)) if !is_digest(digest) => {
                return Err(ParseImageNameError::Digest(cut(digest)));
            }
            Some((rest, digest)) => (rest, Some(digest)),
        };
        // A colon before a slash is that of a port.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ParseImageNameError::Tag(cut(tag)));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if is_meant_as_host(first) => (first, rest),
            _ => (HUB, path),
        };
        if !is_host(registry) {
            return Err(ParseImageNameError::Host(cut(registry)));
        }
        if repository.len() == 64 && repository.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseImageNameError::Id(cut(repository)));
        }
        if repository.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(ParseImageNameError::Case(cut(repository)));
        }
        if let Some(wrong) = repository.split('/').find(|part| !is_component(part)) {
            return Err(ParseImageNameError::Component(cut(wrong)));
        }
        let registry = if registry == HUB_OF_OLD { HUB } else { registry };
        let repository = match registry == HUB && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        let length = registry.len() + 1 + repository.len();
        if length > LONGEST {
            return Err(ParseImageNameError::Long(length));
        }
        let tag = tag.or_else(|| digest.is_none().then_some("latest"));
        Ok(ImageName {
            registry: registry.to_owned(),
            repository,
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }
}

/// As skopeo(1) and podman(1) take it after `docker://`; Docker takes it as it is.
impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

/// What comes before the first slash is the beginning of a repository otherwise.
fn is_meant_as_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|byte| byte.is_ascii_uppercase())
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => (None, rest),
            _ => return false,
        },
        None => text
            .find(':')
            .map_or((Some(text), ""), |colon| (Some(&text[..colon]), &text[colon..])),
    };
    let label = |label: &str| {
        let inner = label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        inner && !label.is_empty() && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_port = |port: &str| {
        let digits = port.strip_prefix(':').unwrap_or_default();
        digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse::<u16>().is_ok_and(|port| port > 0)
    };
    host.is_none_or(|host| host.split('.').all(label)) && (port.is_empty() || is_port(port))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let ends =
        bytes.first().is_some_and(|byte| plain(*byte)) && bytes.last().is_some_and(|byte| plain(*byte));
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    ends && separators
        .filter(|between| !between.is_empty())
        .all(|between| matches!(between, "." | "_" | "__") || between.bytes().all(|byte| byte == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= LONGEST_TAG
        && bytes.first().is_some_and(|byte| word(*byte))
        && bytes
            .iter()
            .all(|byte| word(*byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_name_is_completed_as_docker_does() {
        let pinned = format!("nginx@sha256:{HEX}");
        let both = format!("ghcr.io/a/b:1@sha256:{HEX}");
        for (text, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27-alpine", "docker.io/library/nginx:1.27-alpine"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            (
                "registry.example/a/b__c/d-e.f:V1_2",
                "registry.example/a/b__c/d-e.f:V1_2",
            ),
            ("Host/x", "Host/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
            ("a---b", "docker.io/library/a---b:latest"),
            (&pinned, &format!("docker.io/library/nginx@sha256:{HEX}")),
            (&both, &both),
        ] {
            let name: ImageName = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(name.to_string(), expected, "{text}");
            assert_eq!(name.to_string().parse(), Ok(name), "complete names stay: {text}");
        }
    }

    #[test]
    fn what_is_no_name_is_told_by_its_part() {
        use ParseImageNameError::{Case, Component, Digest, Host, Id, Long, Tag};
        let long = format!("example.com/{}a", "a/".repeat(130));
        let tag = "t".repeat(129);
        let own = |text: &str| text.to_owned();
        for (text, expected) in [
            (own("Nginx"), Case(own("Nginx"))),
            (own("example.com/Web:V1"), Case(own("Web"))),
            (String::new(), Component(String::new())),
            (own("a//b"), Component(String::new())),
            (own("a/"), Component(String::new())),
            (own("/a"), Component(String::new())),
            (own("a..b"), Component(own("a..b"))),
            (own("a___b"), Component(own("a___b"))),
            (own("a_-b"), Component(own("a_-b"))),
            (own("-a"), Component(own("-a"))),
            (own("a b"), Component(own("a b"))),
            (own("ä"), Component(own("ä"))),
            (own("../../x"), Host(own(".."))),
            (own("example.com:x/a"), Host(own("example.com:x"))),
            (own("example.com:/a"), Host(own("example.com:"))),
            (own("example.com:0/a"), Host(own("example.com:0"))),
            (own("example.com:65536/a"), Host(own("example.com:65536"))),
            (own("-x.com/a"), Host(own("-x.com"))),
            (own("[fe80::zz]/a"), Host(own("[fe80::zz]"))),
            (own("nginx:"), Tag(String::new())),
            (own("nginx:-x"), Tag(own("-x"))),
            (format!("nginx:{tag}"), Tag(cut(&tag))),
            (own("nginx@sha256:12"), Digest(own("sha256:12"))),
            (
                format!("nginx@sha512:{HEX}"),
                Digest(cut(&format!("sha512:{HEX}"))),
            ),
            (
                format!("nginx@sha256:{}", HEX.to_uppercase()),
                Digest(cut(&format!("sha256:{}", HEX.to_uppercase()))),
            ),
            (own(HEX), Id(cut(HEX))),
            (long.clone(), Long(long.len())),
        ] {
            let error = text.parse::<ImageName>().expect_err(&text);
            assert_eq!(error, expected, "{text}");
            assert!(!error.hint().is_empty() && !error.to_string().is_empty());
        }
    }
}
