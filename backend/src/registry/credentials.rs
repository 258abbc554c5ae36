//! Whose name and password a registry is told: the files of `docker login` and `podman login`, and the helpers that
//! they name (docker/cli, "Credential stores"; containers-auth.json(5)).
//!
//! A credential belongs to the registry, or the part of it, that its key names, and is given to nobody else.

mod keeper;

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use model::types::ImageName;
use serde::Deserialize;

pub use keeper::Helpers;

/// Bytes of a file of credentials.
const LONGEST: u64 = 1 << 20;
/// The key of Docker's own registry, in every file since the first.
const HUB: &str = "docker.io";
const HUB_KEYS: [&str; 3] = [
    "https://index.docker.io/v1/",
    "index.docker.io",
    "registry-1.docker.io",
];

/// What is told to a registry, or to whom it sends for a token. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    Password {
        name: String,
        password: String,
    },
    /// A refresh token of OAuth2.
    Identity(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(..)")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    #[error("cannot read the credentials in {path}; correct its owner and mode, or remove it", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Without what was read: it may be a password.
    #[error(
        "the credentials in {path} are no JSON of `docker login` (line {line}, column {column}); write them anew with \
         `docker login` or `podman login`", path = path.display()
    )]
    Malformed {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    #[error("the credential of {key} in {path} is not `NAME:PASSWORD` in base64; log in to it again", path = path.display())]
    Auth { path: PathBuf, key: String },
    #[error(
        "the credential helper `docker-credential-{helper}` cannot be asked about {registry}; install it where the \
         agent finds it (PATH), or log in without it"
    )]
    Helper {
        helper: String,
        registry: String,
        #[source]
        source: io::Error,
    },
    #[error(
        "the credential helper `docker-credential-{helper}` has not answered about {registry} within {} s and was \
         killed; see what it waits for (a password?), or log in without it", limit.as_secs()
    )]
    Silent {
        helper: String,
        registry: String,
        limit: Duration,
    },
    #[error("the credential helper `docker-credential-{helper}` says about {registry}: {said}")]
    Refused {
        helper: String,
        registry: String,
        said: String,
    },
}

/// One file, as it is written by `docker login`.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Written {
    auths: BTreeMap<String, Entry>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// Where to look: the first file that knows something of a registry is believed.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    pub files: Vec<PathBuf>,
    pub helpers: Helpers,
}

impl Credentials {
    /// What `name`'s registry is to be told; `None`: nothing is known of it, and it is asked without.
    ///
    /// # Errors
    /// A file that is there cannot be read, or its helper not be asked.
    pub fn find(&self, name: &ImageName) -> Result<Option<Credential>, CredentialError> {
        for path in &self.files {
            let Some(written) = read(path)? else { continue };
            if let Some(found) = written.find(path, name, &self.helpers)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl Written {
    fn find(
        &self,
        path: &Path,
        name: &ImageName,
        helpers: &Helpers,
    ) -> Result<Option<Credential>, CredentialError> {
        // A helper of its own goes before what is written, as with Docker.
        let registry = &name.registry;
        let mut hosts = [registry.as_str()]
            .into_iter()
            .chain(hub_keys(registry).iter().copied());
        if let Some((key, helper)) = hosts.find_map(|host| Some((host, self.cred_helpers.get(host)?))) {
            return helpers.ask(helper, key);
        }
        for key in keys(name) {
            let of_key = |(written, entry): (&String, _)| (bare(written) == key).then_some(entry);
            if let Some(entry) = self.auths.iter().find_map(of_key)
                && let Some(found) = entry.credential(path, &key)?
            {
                return Ok(Some(found));
            }
        }
        let key = hub_keys(registry).first().copied().unwrap_or(registry);
        match &self.creds_store {
            Some(helper) if !helper.is_empty() => helpers.ask(helper, key),
            _ => Ok(None),
        }
    }
}

impl Entry {
    /// An entry without a secret says only that a helper has it.
    fn credential(&self, path: &Path, key: &str) -> Result<Option<Credential>, CredentialError> {
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Credential::Identity(token.to_owned())));
        }
        if let (Some(name), Some(password)) = (given(&self.username), given(&self.password)) {
            return Ok(Some(Credential::Password {
                name: name.to_owned(),
                password: password.to_owned(),
            }));
        }
        let Some(auth) = given(&self.auth) else {
            return Ok(None);
        };
        let decoded = STANDARD_NO_PAD.decode(auth.trim_end_matches('='));
        let text = decoded.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let (name, password) = text
            .as_deref()
            // Docker pads with NUL.
            .and_then(|text| text.trim_end_matches('\0').split_once(':'))
            .ok_or_else(|| CredentialError::Auth {
                path: path.to_owned(),
                key: key.to_owned(),
            })?;
        Ok(Some(Credential::Password {
            name: name.to_owned(),
            password: password.to_owned(),
        }))
    }
}

fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

fn read(path: &Path) -> Result<Option<Written>, CredentialError> {
    use io::Read;
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST).read_to_string(&mut text));
    match read {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            let path = path.to_owned();
            return Err(CredentialError::Read { path, source });
        }
        Ok(_) => {}
    }
    let parsed = serde_json::from_str(&text).map_err(|error| CredentialError::Malformed {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
    });
    parsed.map(Some)
}

/// The keys under which something of this image may be written, the narrowest first.
fn keys(name: &ImageName) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = format!("{}/{}", name.registry, name.repository);
    while let Some((shorter, _)) = path.rsplit_once('/') {
        let shorter = shorter.to_owned();
        keys.push(std::mem::replace(&mut path, shorter));
    }
    keys.push(path);
    keys.extend(hub_keys(&name.registry).iter().map(|key| bare(key).to_owned()));
    keys
}

fn hub_keys(registry: &str) -> &'static [&'static str] {
    match registry {
        HUB => &HUB_KEYS,
        _ => &[],
    }
}

/// Without a scheme and the version of an interface long gone.
fn bare(key: &str) -> &str {
    let key = key
        .strip_prefix("https://")
        .or(key.strip_prefix("http://"))
        .unwrap_or(key);
    let key = key.trim_end_matches('/');
    key.strip_suffix("/v1").or(key.strip_suffix("/v2")).unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is told about `image`, by files with these contents; `name:password`, or the reason.
    fn told(files: &[serde_json::Value], image: &str) -> Result<Option<String>, String> {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = vec![directory.path().join("none")];
        for (number, file) in files.iter().enumerate() {
            let path = directory.path().join(number.to_string());
            std::fs::write(&path, file.to_string()).unwrap();
            paths.push(path);
        }
        let credentials = Credentials {
            files: paths,
            ..Credentials::default()
        };
        let found = credentials.find(&image.parse().unwrap());
        let text = |credential| match credential {
            Credential::Password { name, password } => format!("{name}:{password}"),
            Credential::Identity(token) => format!("token {token}"),
        };
        found
            .map(|credential| credential.map(text))
            .map_err(|error| error.to_string())
    }

    fn auth(text: &str) -> serde_json::Value {
        json!({ "auth": base64::engine::general_purpose::STANDARD.encode(text) })
    }

    #[test]
    fn the_narrowest_key_of_the_first_file_counts() {
        let hub = json!({ "auths": { "https://index.docker.io/v1/": auth("hub:1") } });
        let parts = json!({ "auths": {
            "r.example": auth("all:1"),
            "r.example/team": auth("team:2"),
            "https://r.example/team/app/": auth("app:3"),
        } });
        let port = json!({ "auths": { "r.example:5000": { "username": "port", "password": "4" } } });
        let token = json!({ "auths": { "r.example": { "auth": "", "identitytoken": "t" } } });
        let empty = json!({ "auths": { "r.example": {} } });
        for (files, image, expected) in [
            (vec![&hub], "nginx", Some("hub:1")),
            (vec![&hub], "r.example/nginx", None),
            (vec![&parts], "r.example/other", Some("all:1")),
            (vec![&parts], "r.example/team/x", Some("team:2")),
            (vec![&parts], "r.example/teams/x", Some("all:1")),
            (vec![&parts], "r.example/team/app", Some("app:3")),
            (vec![&parts], "r.example:5000/team/app", None),
            (vec![&parts], "sub.r.example/team/app", None),
            (vec![&port, &parts], "r.example:5000/x", Some("port:4")),
            (vec![&port, &parts], "r.example/x", Some("all:1")),
            (vec![&token, &parts], "r.example/x", Some("token t")),
            (vec![&empty, &parts], "r.example/x", Some("all:1")),
            (vec![], "r.example/x", None),
        ] {
            let files: Vec<serde_json::Value> = files.into_iter().cloned().collect();
            assert_eq!(
                told(&files, image),
                Ok(expected.map(str::to_owned)),
                "{files:?} {image}"
            );
        }
    }

    #[test]
    fn what_cannot_be_read_is_named_and_never_shown() {
        for (file, says) in [
            (
                json!({ "auths": { "r.example": { "auth": "c2VjcmV0" } } }),
                "NAME:PASSWORD",
            ),
            (
                json!({ "auths": { "r.example": { "auth": "%%secret" } } }),
                "NAME:PASSWORD",
            ),
            (json!({ "auths": "secret" }), "line 1"),
            (
                json!({ "credHelpers": { "r.example": "../secret" } }),
                "docker-credential-",
            ),
            (
                json!({ "credsStore": "is-not-installed" }),
                "docker-credential-is-not-installed",
            ),
        ] {
            let error = told(std::slice::from_ref(&file), "r.example/x").unwrap_err();
            assert!(error.contains(says), "{error}");
            assert!(
                !error.contains("secret") || error.contains("-../secret"),
                "{error}"
            );
        }
        let shown = format!("{:?}", Credential::Identity("secret".to_owned()));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
