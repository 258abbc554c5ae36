//! HTTP/1.1 to one origin after the other: TLS, proxies, redirects, time limits. Knows nothing of registries.
//!
//! A credential is for one origin. What an answer leads to elsewhere is asked without it, and not at all where
//! it is this host or one of its links, or where TLS would be given up.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header::{
        AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT,
    },
};
use rustls::RootCertStore;
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    connection::{Connection, Connector},
    origin::Origin,
    proxy::Proxies,
};

const REDIRECTS: usize = 5;
/// Connections to one origin that are kept for the next request.
const KEPT: usize = 4;
/// Who drips a little faster than [`Patience::least`] is asked anew after so long: by another connection, perhaps by another
/// mirror. A slow line loses nothing by it, and an hour brings it at least 3.5 MiB.
const BLOB: Duration = Duration::from_secs(3600);
/// A document has some kilobytes, and a few megabytes at most.
const DOCUMENT: Duration = Duration::from_secs(60);
const AGENT: &str = concat!("stead/", env!("CARGO_PKG_VERSION"));

/// How long is waited for what.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a connection, TLS included.
    pub connect: Duration,
    /// From a request to the head of its answer.
    pub head: Duration,
    /// In so long a time of waiting a body brings at least [`Patience::least`] bytes.
    pub stall: Duration,
    pub least: u64,
    /// For the body of a blob; what came until then is gone on with by another request.
    pub blob: Duration,
    /// For a body that is read as a whole: a manifest, a configuration, a token.
    pub document: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            connect: Duration::from_secs(10),
            head: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            least: 30 << 10,
            blob: BLOB,
            document: DOCUMENT,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("{0} is no address of a registry; write https://HOST[:PORT]")]
    Url(String),
    #[error("cannot find the address of {host}; check the name, and that the DNS of this host answers")]
    Resolve {
        host: String,
        #[source]
        source: io::Error,
    },
    #[error("cannot connect to {origin}; check the network, and that it listens")]
    Connect {
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error("{origin} cannot be trusted; give this host the certificate of its authority, or check its name")]
    Tls {
        origin: Origin,
        #[source]
        source: io::Error,
    },
    #[error(
        "the proxy {proxy} does not let anybody to {origin}: it answers {status}; check its rules and the password"
    )]
    Proxy {
        proxy: Origin,
        origin: Origin,
        status: StatusCode,
    },
    #[error("{from} sends on to {to}, which is not followed: {why}; ask whoever runs {from}")]
    Redirect {
        from: Origin,
        to: String,
        why: &'static str,
    },
    #[error(
        "what a registry leads to is at {origin}, which is this host or one of its links, and is not asked; ask whoever \
         runs the registry"
    )]
    Near { origin: Origin },
    #[error("{origin} has not answered within {} s; check the network, it is asked again", limit.as_secs())]
    Silent { origin: Origin, limit: Duration },
    #[error("{origin} sends less than {least} bytes in {} s; check the network, it is asked again", limit.as_secs())]
    Stalled {
        origin: Origin,
        least: u64,
        limit: Duration,
    },
    #[error("{origin} has not sent all within {} s; check the network, it is asked again", limit.as_secs())]
    Slow { origin: Origin, limit: Duration },
    #[error("the connection to {origin} broke; it is asked again")]
    Broken {
        origin: Origin,
        #[source]
        source: hyper::Error,
    },
    #[error("{origin} answers with more than {limit} bytes where it should not; ask whoever runs it")]
    Long { origin: Origin, limit: u64 },
}

impl TransportError {
    /// Whether the same request may have another answer a little later.
    pub fn may_pass(&self) -> bool {
        match self {
            TransportError::Resolve { .. }
            | TransportError::Connect { .. }
            | TransportError::Silent { .. }
            | TransportError::Stalled { .. }
            | TransportError::Slow { .. }
            | TransportError::Broken { .. } => true,
            TransportError::Proxy { status, .. } => status.is_server_error(),
            TransportError::Url(_)
            | TransportError::Tls { .. }
            | TransportError::Redirect { .. }
            | TransportError::Near { .. }
            | TransportError::Long { .. } => false,
        }
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    pub method: Method,
    pub url: &'a Uri,
    pub headers: HeaderMap,
    /// For the origin of `url`, and nobody else.
    pub authorization: Option<&'a HeaderValue>,
    /// What a POST brings along, as a form.
    pub form: Option<String>,
    /// It may lead to this host or one of its links.
    pub near: bool,
}

impl<'a> Ask<'a> {
    pub fn get(url: &'a Uri) -> Self {
        Ask {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            authorization: None,
            form: None,
            near: true,
        }
    }
}

/// The head of an answer, and its body as far as it is read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Who has answered in the end.
    pub origin: Origin,
    /// Whether that is this host or one of its links.
    pub near: bool,
    body: Incoming,
    patience: Patience,
    /// When its body began, and how long it may take.
    begun: Instant,
    limit: Duration,
    /// How long the body has been waited for since it last was fast enough, and what came in that time.
    waited: Duration,
    came: u64,
}

pub struct Transport {
    connector: Connector,
    proxies: Proxies,
    patience: Patience,
    /// By origin, and whether its certificate was left unverified.
    idle: Mutex<HashMap<(Origin, bool), Vec<Connection>>>,
}

impl Transport {
    /// `roots`: authorities that are trusted.
    pub fn new(roots: RootCertStore, proxies: Proxies, patience: Patience) -> Self {
        Transport {
            connector: Connector::new(roots),
            proxies,
            patience,
            idle: Mutex::default(),
        }
    }

    /// The answer of whoever has it in the end, whatever its status. `unverified`: of the first origin no
    /// certificate is asked for that somebody trusted has signed.
    ///
    /// # Errors
    /// No answer, or a redirect that is not followed.
    pub async fn send(&self, ask: Ask<'_>, unverified: bool) -> Result<Answer, TransportError> {
        let first = origin(ask.url)?;
        let (mut url, mut here) = (ask.url.clone(), first.clone());
        let mut near = ask.near;
        for _ in 0..=REDIRECTS {
            let own = here == first;
            let trusting = unverified && own;
            let authorization = ask.authorization.filter(|_| own);
            let (answer, is_near) = self
                .once(&ask, &url, &here, authorization, trusting, near)
                .await?;
            let followed =
                matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) && ask.form.is_none();
            if !followed {
                return Ok(self.answer(answer, here, is_near));
            }
            let location = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let (next, there) = follow(&url, &here, location).map_err(|why| TransportError::Redirect {
                from: here.clone(),
                to: location.unwrap_or("nowhere").chars().take(200).collect(),
                why,
            })?;
            // Only who is near itself may lead to what is.
            near &= is_near;
            (url, here) = (next, there);
        }
        Err(TransportError::Redirect {
            from: first,
            to: here.to_string(),
            why: "there were too many redirects",
        })
    }

    fn answer(&self, response: Response<Incoming>, origin: Origin, near: bool) -> Answer {
        let (head, body) = response.into_parts();
        Answer {
            status: head.status,
            headers: head.headers,
            origin,
            near,
            body,
            patience: self.patience,
            begun: Instant::now(),
            limit: self.patience.blob,
            waited: Duration::ZERO,
            came: 0,
        }
    }

    /// One request, and whether who answered it is near. `near`: it may be.
    async fn once(
        &self,
        ask: &Ask<'_>,
        url: &Uri,
        origin: &Origin,
        authorization: Option<&HeaderValue>,
        unverified: bool,
        near: bool,
    ) -> Result<(Response<Incoming>, bool), TransportError> {
        let proxy = self.proxies.towards(origin);
        let through_http = proxy.filter(|_| !origin.tls);
        let request = || {
            // A proxy for http wants the whole URL, a server the path.
            let target = match through_http {
                Some(_) => url.clone(),
                None => path(url),
            };
            let mut request = Request::new(Full::new(Bytes::from(ask.form.clone().unwrap_or_default())));
            *request.method_mut() = ask.method.clone();
            *request.uri_mut() = target;
            let headers = request.headers_mut();
            *headers = ask.headers.clone();
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            if let Ok(host) = origin.authority().parse() {
                headers.insert(HOST, host);
            }
            if ask.form.is_some() {
                headers.insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("application/x-www-form-urlencoded"),
                );
            }
            if let Some(authorization) = authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            if let Some(authorization) = through_http.and_then(|proxy| proxy.authorization.as_ref()) {
                headers.insert(PROXY_AUTHORIZATION, authorization.clone());
            }
            request
        };
        let key = (origin.clone(), unverified);
        while let Some(mut kept) = self.kept(&key, near) {
            // It may be closed by now: then another one is asked the same.
            match self.head(origin, kept.sender.send_request(request())).await {
                Err(TransportError::Broken { .. }) => {}
                answered => {
                    let response = answered?;
                    let near = kept.near;
                    self.keep(key, kept);
                    return Ok((response, near));
                }
            }
        }
        let limit = self.patience.connect;
        let connecting = self.connector.connect(origin, proxy, unverified, near);
        let mut made = timeout(limit, connecting)
            .await
            .map_err(|_| TransportError::Silent {
                origin: origin.clone(),
                limit,
            })??;
        let response = self.head(origin, made.sender.send_request(request())).await?;
        let near = made.near;
        self.keep(key, made);
        Ok((response, near))
    }

    async fn head(
        &self,
        origin: &Origin,
        answer: impl Future<Output = hyper::Result<Response<Incoming>>>,
    ) -> Result<Response<Incoming>, TransportError> {
        let limit = self.patience.head;
        let origin = || origin.clone();
        match timeout(limit, answer).await {
            Err(_) => Err(TransportError::Silent {
                origin: origin(),
                limit,
            }),
            Ok(Err(source)) => Err(TransportError::Broken {
                origin: origin(),
                source,
            }),
            Ok(Ok(response)) => Ok(response),
        }
    }

    fn kept(&self, key: &(Origin, bool), near: bool) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(key)?;
        kept.retain(|one| !one.sender.is_closed());
        let fit = kept
            .iter()
            .position(|one| one.sender.is_ready() && (near || !one.near))?;
        Some(kept.swap_remove(fit))
    }

    /// For the next request, once the body of this one was read.
    fn keep(&self, key: (Origin, bool), connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(key).or_default();
        if kept.len() < KEPT {
            kept.push(connection);
        }
    }
}

fn origin(url: &Uri) -> Result<Origin, TransportError> {
    Origin::of(url).ok_or_else(|| TransportError::Url(url.to_string()))
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The next piece of the body; `None`: there is no more.
    ///
    /// # Errors
    /// The connection broke, brings too little for too long, or has not brought all in time.
    pub async fn next(&mut self) -> Result<Option<Bytes>, TransportError> {
        loop {
            let begun = Instant::now();
            let stalled = begun + self.patience.stall.saturating_sub(self.waited);
            let late = self.begun + self.limit;
            // What waits to be read is read also when it is late, but then nothing more is waited for.
            let frame = timeout_at(stalled.min(late), self.body.frame()).await;
            // Only what was waited for counts: who reads may be slow himself.
            self.waited += begun.elapsed();
            match frame {
                Ok(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    self.came += data.len() as u64;
                    if self.came >= self.patience.least {
                        (self.waited, self.came) = (Duration::ZERO, 0);
                    }
                    if !data.is_empty() {
                        return Ok(Some(data));
                    }
                }
                Ok(Some(Err(source))) => {
                    let origin = self.origin.clone();
                    return Err(TransportError::Broken { origin, source });
                }
                Ok(None) => return Ok(None),
                Err(_) if late < stalled => {
                    let (origin, limit) = (self.origin.clone(), self.limit);
                    return Err(TransportError::Slow { origin, limit });
                }
                Err(_) => {
                    return Err(TransportError::Stalled {
                        origin: self.origin.clone(),
                        least: self.patience.least,
                        limit: self.patience.stall,
                    });
                }
            }
        }
    }

    /// The whole body.
    ///
    /// # Errors
    /// As [`Answer::next`]; it is longer than `limit`.
    pub async fn read(mut self, limit: u64) -> Result<Vec<u8>, TransportError> {
        let mut whole = Vec::new();
        self.limit = self.patience.document;
        while let Some(data) = self.next().await? {
            if whole.len() as u64 + data.len() as u64 > limit {
                return Err(TransportError::Long {
                    origin: self.origin,
                    limit,
                });
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole)
    }
}

fn path(url: &Uri) -> Uri {
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    path.parse().unwrap_or_else(|_| Uri::from_static("/"))
}

/// Where an answer of `here` leads, or why nobody goes there.
fn follow(url: &Uri, here: &Origin, location: Option<&str>) -> Result<(Uri, Origin), &'static str> {
    let location = location.ok_or("there is no place in its answer")?;
    let next = join(url, location).ok_or("it is no URL")?;
    let there = Origin::of(&next).ok_or("it is neither http nor https")?;
    match here.tls && !there.tls {
        true => Err("it gives up TLS"),
        false => Ok((next, there)),
    }
}

/// `location` as seen from `base` (RFC 3986, section 5.2), without its fragment.
fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next()?;
    let (scheme, authority) = (base.scheme_str()?, base.authority()?);
    let scheme_of_its_own = location.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    let whole = if scheme_of_its_own {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let directory = base
            .path()
            .rsplit_once('/')
            .map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    whole.parse().ok()
}

#[cfg(test)]
mod tests;
