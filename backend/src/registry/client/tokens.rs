//! What a registry is told so that it answers: a password, or a token that somebody else has given for one.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{Method, Uri, header::HeaderValue};
use model::types::ImageName;
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{Client, ClientError, SAID, Wanted, status};
use crate::registry::{
    challenge::{self, Challenge},
    credentials::Credential,
    hosts::Endpoint,
    origin::Origin,
    transport::{Answer, Ask},
};

/// A token without a time of its own is good for so long (distribution specification, "Token Authentication").
const TOKEN: Duration = Duration::from_secs(60);
/// A password is looked for anew then: whoever logs in again is believed.
const PASSWORD: Duration = Duration::from_secs(300);

impl Client {
    /// What is to be told, and how long that is good for; `None`: there is nothing that could be told.
    pub(super) async fn authorize(
        &self,
        endpoint: &Endpoint,
        wanted: &Wanted<'_>,
        answer: &Answer,
    ) -> Result<Option<(HeaderValue, Duration)>, ClientError> {
        let headers = answer.headers.get_all("www-authenticate").iter();
        let challenges: Vec<Challenge> = headers
            .filter_map(|header| header.to_str().ok())
            .flat_map(challenge::parse)
            .collect();
        let name = ImageName {
            registry: endpoint.registry.clone(),
            ..wanted.name.clone()
        };
        let credentials = self.credentials.clone();
        // A helper may take its time; what is under way meanwhile does not wait for it.
        let found = spawn_blocking(move || credentials.find(&name)).await;
        let credential = found.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
        let bearer = challenges
            .iter()
            .find(|one| matches!(one, Challenge::Bearer { .. }));
        match (bearer, challenges.contains(&Challenge::Basic), &credential) {
            (
                Some(Challenge::Bearer {
                    realm,
                    service,
                    scope,
                }),
                ..,
            ) => {
                let own = format!("repository:{}:pull", wanted.name.repository);
                let scope = scope.as_deref().unwrap_or(&own);
                let ask = (realm.as_str(), service.as_deref(), scope);
                self.bearer(endpoint, answer, ask, credential.as_ref())
                    .await
                    .map(Some)
            }
            (None, true, Some(Credential::Password { name, password })) => {
                Ok(Some((basic(name, password), PASSWORD)))
            }
            _ => Ok(None),
        }
    }

    /// A token (distribution specification, "Token Authentication" and "OAuth2 Token Authentication").
    async fn bearer(
        &self,
        endpoint: &Endpoint,
        asked: &Answer,
        (realm, service, scope): (&str, Option<&str>, &str),
        credential: Option<&Credential>,
    ) -> Result<(HeaderValue, Duration), ClientError> {
        #[derive(Deserialize)]
        struct Told {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let origin = &asked.origin;
        let protocol = |why| ClientError::Protocol {
            origin: origin.clone(),
            why,
        };
        let mut query = format!("scope={}", escaped(scope));
        if let Some(service) = service {
            query.push_str(&format!("&service={}", escaped(service)));
        }
        let parsed: Option<Uri> = realm.parse().ok();
        let there = parsed.as_ref().and_then(Origin::of);
        let there = there.ok_or_else(|| protocol("its tokens are had at no URL"))?;
        if !there.tls && !endpoint.insecure {
            return Err(protocol("its tokens are had without TLS"));
        }
        if credential.is_some() && !endpoint.may_see(&there.host) {
            return Err(ClientError::Realm {
                origin: origin.clone(),
                realm: there.to_string(),
                registry: endpoint.registry.clone(),
            });
        }
        // Who is elsewhere sends nobody to this host, unless the operator has named it.
        let near = asked.near || endpoint.tokens.contains(&there.host);
        let url = |query: &str| -> Result<Uri, ClientError> {
            let sign = if realm.contains('?') { '&' } else { '?' };
            let whole = if query.is_empty() {
                realm.to_owned()
            } else {
                format!("{realm}{sign}{query}")
            };
            whole
                .parse()
                .map_err(|_| protocol("its tokens are had at no URL"))
        };
        let answer = match credential {
            Some(Credential::Identity(token)) => {
                let url = url("")?;
                let form = format!(
                    "grant_type=refresh_token&client_id=stead&refresh_token={}&{query}",
                    escaped(token)
                );
                let ask = Ask {
                    method: Method::POST,
                    form: Some(form),
                    near,
                    ..Ask::get(&url)
                };
                self.transport.send(ask, endpoint.insecure).await?
            }
            Some(Credential::Password { name, password }) => {
                let (url, authorization) = (url(&query)?, basic(name, password));
                let ask = Ask {
                    authorization: Some(&authorization),
                    near,
                    ..Ask::get(&url)
                };
                self.transport.send(ask, endpoint.insecure).await?
            }
            None => {
                let url = url(&query)?;
                let ask = Ask {
                    near,
                    ..Ask::get(&url)
                };
                self.transport.send(ask, endpoint.insecure).await?
            }
        };
        let answer = status(answer, "a token").await?;
        let told: Told = serde_json::from_slice(&answer.read(SAID).await?)
            .map_err(|_| protocol("what it gives as a token is none"))?;
        let token = told.token.or(told.access_token).unwrap_or_default();
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let mut value = value.map_err(|_| protocol("what it gives as a token is none"))?;
        value.set_sensitive(true);
        // A little early: it is to be good when it arrives.
        let good = told.expires_in.map_or(TOKEN, Duration::from_secs);
        Ok((value, good.saturating_sub(Duration::from_secs(10))))
    }
}

fn basic(name: &str, password: &str) -> HeaderValue {
    let encoded = STANDARD.encode(format!("{name}:{password}"));
    let mut value = HeaderValue::from_str(&format!("Basic {encoded}")).expect("base64 is plain");
    value.set_sensitive(true);
    value
}

/// For a query or a form (RFC 3986, section 2.3).
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            byte => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}
