//! One image's registry and its mirrors: tags, manifests and blobs (OCI distribution specification 1.1).

mod tokens;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use hyper::{
    Method, StatusCode, Uri,
    header::{ACCEPT, HeaderMap, HeaderValue, RANGE},
};
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};
use model::types::ImageName;
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    credentials::{CredentialError, Credentials},
    hosts::{Endpoint, Hosts},
    origin::Origin,
    transport::{Answer, Ask, Transport, TransportError},
};
use crate::image::config::Digest;

/// Every kind of manifest that can be run from, the oldest last.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
/// Bytes of an answer that says what is wrong, or is a token.
const SAID: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("{origin} knows no {what}; check the name and the tag, and whether it is private")]
    Missing { origin: Origin, what: String },
    #[error(
        "{origin} does not let us have {what} ({status}{said}); log in to it with `docker login` or `podman login` as the \
         user whose credentials the agent reads, or check the name"
    )]
    Denied {
        origin: Origin,
        what: String,
        status: StatusCode,
        said: String,
    },
    #[error("{origin} wants to be asked later ({status}); it is asked again")]
    Later {
        origin: Origin,
        status: StatusCode,
        /// `Retry-After`.
        after: Option<Duration>,
    },
    #[error("{origin} answers {status} when asked for {what}{said}; ask whoever runs it")]
    Status {
        origin: Origin,
        what: String,
        status: StatusCode,
        said: String,
    },
    #[error(
        "{origin} sends for its tokens to {realm}, which may not see the credential of {registry}; if it may, name its host \
         under `tokens` of that registry"
    )]
    Realm {
        origin: Origin,
        realm: String,
        registry: String,
    },
    #[error("{origin} sends {what} whose digest is {found}, not {expected}; ask whoever runs it")]
    Digest {
        origin: Origin,
        what: String,
        expected: String,
        found: String,
    },
    #[error("{origin} does not speak as a registry: {why}; check the name of the image")]
    Protocol { origin: Origin, why: &'static str },
}

impl ClientError {
    /// Whether the same may be answered otherwise a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            ClientError::Transport(error) => error.may_pass(),
            ClientError::Later { .. } => true,
            ClientError::Status { status, .. } => status.is_server_error(),
            // A login or a push elsewhere may change it, and nothing here tells.
            ClientError::Missing { .. } | ClientError::Denied { .. } | ClientError::Credential(_) => true,
            ClientError::Realm { .. } | ClientError::Digest { .. } | ClientError::Protocol { .. } => false,
        }
    }

    /// What the registry wants to be waited for.
    pub fn after(&self) -> Option<Duration> {
        match self {
            ClientError::Later { after, .. } => *after,
            _ => None,
        }
    }
}

/// An index or a manifest, of the digest that it was asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub digest: Digest,
    pub media_type: Option<String>,
    pub bytes: Vec<u8>,
}

/// The body of a blob, from that byte on.
#[derive(Debug)]
pub struct Blob {
    pub from: u64,
    pub answer: Answer,
}

pub struct Client {
    transport: Transport,
    hosts: Hosts,
    credentials: Credentials,
    /// `Authorization` by who is asked and for what, and until when.
    tokens: Mutex<HashMap<(String, String), (HeaderValue, Instant)>>,
}

/// What is asked of an endpoint.
struct Wanted<'a> {
    method: Method,
    /// `manifests/latest`.
    path: &'a str,
    headers: HeaderMap,
    name: &'a ImageName,
}

impl Client {
    pub fn new(transport: Transport, hosts: Hosts, credentials: Credentials) -> Self {
        Client {
            transport,
            hosts,
            credentials,
            tokens: Mutex::default(),
        }
    }

    /// What the tag stands for now, without the manifest itself where the registry can tell.
    ///
    /// # Errors
    /// Nobody tells.
    pub async fn digest(&self, name: &ImageName) -> Result<Digest, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
        let path = format!("manifests/{}", wanted(name));
        let answer = self.ask(name, Method::HEAD, &path, headers).await?;
        let told = answer.header("docker-content-digest").and_then(Digest::parse);
        match told {
            Some(digest) => Ok(digest),
            // Not all of them say it.
            None => Ok(self.manifest(name, &wanted(name), u64::MAX).await?.digest),
        }
    }

    /// The manifest that `reference` (a tag, or a digest) stands for.
    ///
    /// # Errors
    /// Nobody has it; it is longer than `limit`; its digest is another.
    pub async fn manifest(
        &self,
        name: &ImageName,
        reference: &str,
        limit: u64,
    ) -> Result<Manifest, ClientError> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(MANIFESTS));
        let path = format!("manifests/{reference}");
        let answer = self.ask(name, Method::GET, &path, headers).await?;
        let origin = answer.origin.clone();
        let told = answer.header("docker-content-digest").map(str::to_owned);
        let media_type = answer.header("content-type").map(str::to_owned);
        let bytes = answer.read(limit).await?;
        let digest = Digest::of(&bytes);
        // By digest it must be that one, by tag the one that the registry says it is.
        let by_digest = reference.contains(':').then(|| reference.to_owned());
        for expected in by_digest.into_iter().chain(told) {
            if expected != digest.to_string() {
                return Err(ClientError::Digest {
                    origin,
                    what: format!("a manifest of {name}"),
                    expected,
                    found: digest.to_string(),
                });
            }
        }
        Ok(Manifest {
            digest,
            media_type,
            bytes,
        })
    }

    /// A blob from byte `from` on, if the registry can; from the beginning otherwise. Who reads it checks its digest.
    ///
    /// # Errors
    /// Nobody has it.
    pub async fn blob(&self, name: &ImageName, digest: &Digest, from: u64) -> Result<Blob, ClientError> {
        let mut headers = HeaderMap::new();
        if let Some(range) = (from > 0).then(|| format!("bytes={from}-")) {
            headers.extend(range.parse().ok().map(|range| (RANGE, range)));
        }
        let path = format!("blobs/{digest}");
        let answer = match self.ask(name, Method::GET, &path, headers).await {
            // It has less than there is here already, or cannot tell: from the beginning, then.
            Err(ClientError::Status {
                status: StatusCode::RANGE_NOT_SATISFIABLE,
                ..
            }) if from > 0 => self.ask(name, Method::GET, &path, HeaderMap::new()).await?,
            answered => answered?,
        };
        let begins = match answer.status {
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.header("content-range").unwrap_or_default();
                let begins = range
                    .strip_prefix("bytes ")
                    .and_then(|range| range.split('-').next()?.parse().ok());
                if begins != Some(from) {
                    let origin = answer.origin;
                    let why = "it sends another part of a blob than it was asked for";
                    return Err(ClientError::Protocol { origin, why });
                }
                from
            }
            _ => 0,
        };
        Ok(Blob { from: begins, answer })
    }

    /// The first answer that is one: of a mirror, or of the registry. What the registry itself says counts.
    async fn ask(
        &self,
        name: &ImageName,
        method: Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Answer, ClientError> {
        let wanted = Wanted {
            method,
            path,
            headers,
            name,
        };
        let endpoints = self.hosts.endpoints(name);
        let mut last = None;
        for (at, endpoint) in endpoints.iter().enumerate() {
            let error = match self.endpoint(endpoint, &wanted).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            // What speaks no TLS is asked without, if it may; and what a mirror has not another may have.
            let next = endpoints.get(at + 1);
            let without_tls = next.is_some_and(|next| !endpoint.mirror && !next.mirror);
            let unreached = matches!(
                error,
                ClientError::Transport(
                    TransportError::Tls { .. }
                        | TransportError::Connect { .. }
                        | TransportError::Silent { .. }
                )
            );
            if endpoint.mirror {
                tracing::warn!(mirror = endpoint.base, image = %name, error = %error, "a mirror has no answer");
            }
            let goes_on = endpoint.mirror || (without_tls && unreached);
            last = Some(error);
            if !goes_on {
                break;
            }
        }
        Err(last.expect("a registry is one endpoint at least"))
    }

    async fn endpoint(&self, endpoint: &Endpoint, wanted: &Wanted<'_>) -> Result<Answer, ClientError> {
        let text = format!("{}/v2/{}/{}", endpoint.base, wanted.name.repository, wanted.path);
        let url: Uri = text.parse().map_err(|_| TransportError::Url(text.clone()))?;
        let key = (endpoint.base.clone(), wanted.name.repository.clone());
        if let Some(known) = self.token(&key) {
            let answer = self.send(endpoint, wanted, &url, Some(&known)).await?;
            // It may have ended before its time.
            if answer.status != StatusCode::UNAUTHORIZED {
                return checked(answer, wanted).await;
            }
        }
        let answer = self.send(endpoint, wanted, &url, None).await?;
        // What somebody else wants to be told, to whom a registry has sent us, is nobody's business.
        let own = Origin::of(&url).is_some_and(|own| own == answer.origin);
        if answer.status != StatusCode::UNAUTHORIZED || !own {
            return checked(answer, wanted).await;
        }
        let Some((value, good)) = self.authorize(endpoint, wanted, &answer).await? else {
            return checked(answer, wanted).await;
        };
        let answer = self.send(endpoint, wanted, &url, Some(&value)).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            self.keep(key, value, good);
        }
        checked(answer, wanted).await
    }

    async fn send(
        &self,
        endpoint: &Endpoint,
        wanted: &Wanted<'_>,
        url: &Uri,
        authorization: Option<&HeaderValue>,
    ) -> Result<Answer, TransportError> {
        let ask = Ask {
            method: wanted.method.clone(),
            headers: wanted.headers.clone(),
            authorization,
            ..Ask::get(url)
        };
        self.transport.send(ask, endpoint.insecure).await
    }

    fn token(&self, key: &(String, String)) -> Option<HeaderValue> {
        let tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (value, until) = tokens.get(key)?;
        (Instant::now() < *until).then(|| value.clone())
    }

    fn keep(&self, key: (String, String), value: HeaderValue, good: Duration) {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(key, (value, Instant::now() + good));
    }
}

/// The reference within a repository: the digest counts where both are given.
fn wanted(name: &ImageName) -> String {
    let digest = name.digest.as_ref().or(name.tag.as_ref());
    digest.cloned().unwrap_or_else(|| "latest".to_owned())
}

async fn checked(answer: Answer, wanted: &Wanted<'_>) -> Result<Answer, ClientError> {
    status(answer, &format!("{} of {}", wanted.path, wanted.name.repository)).await
}

/// An answer that is one, or what it says instead.
async fn status(answer: Answer, what: &str) -> Result<Answer, ClientError> {
    let (origin, status, what) = (answer.origin.clone(), answer.status, what.to_owned());
    match status.as_u16() {
        200..=299 => Ok(answer),
        404 => Err(ClientError::Missing { origin, what }),
        429 | 503 => {
            let after = answer.header("retry-after");
            let after = after.and_then(|text| retry_after(text, Timestamp::now()));
            Err(ClientError::Later {
                origin,
                status,
                after,
            })
        }
        code => {
            let said = said(answer).await;
            Err(match code {
                401 | 403 => ClientError::Denied {
                    origin,
                    what,
                    status,
                    said,
                },
                _ => ClientError::Status {
                    origin,
                    what,
                    status,
                    said,
                },
            })
        }
    }
}

/// Seconds, or a date (RFC 9110, section 10.2.3); one that is over means now.
fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = DateTimeParser::new().parse_timestamp(text).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

/// `: ` and the first message of an error (distribution specification, "Error Codes"); nothing where there is none.
async fn said(answer: Answer) -> String {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Message>,
    }
    #[derive(Deserialize)]
    struct Message {
        message: Option<String>,
    }
    let body = answer.read(SAID).await.unwrap_or_default();
    let errors: Option<Errors> = serde_json::from_slice(&body).ok();
    let first = errors.and_then(|errors| errors.errors.into_iter().find_map(|error| error.message));
    // Nothing of it may act on a terminal.
    let plain = |text: String| -> String { text.chars().filter(|c| !c.is_control()).take(200).collect() };
    first.map(|text| format!(": {}", plain(text))).unwrap_or_default()
}

#[cfg(test)]
mod tests;
