//! Registries: the OCI distribution protocol, from the name of an image to verified bytes.
//!
//! ```text
//!   client       one registry or mirror after the other: manifests, blobs, tokens
//!   challenge    what a registry asks for before it answers
//!   credentials  whose name and password it is told
//!   transport    HTTP: TLS, proxies, redirects, time limits
//! ```
//!
//! A registry is not trusted: what it sends is bounded, and believed only by its digest.

pub mod challenge;
pub mod client;
mod connection;
pub mod credentials;
pub mod hosts;
pub mod origin;
pub mod proxy;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod transport;

use std::{fmt, sync::Arc};

use rustls::RootCertStore;

pub use client::{Client, ClientError};
use credentials::Credentials;
use hosts::Hosts;
use proxy::Proxies;
use transport::{Patience, Transport};

/// All that is known about registries before one is asked.
#[derive(Debug, Clone, Default)]
pub struct Registries {
    pub hosts: Hosts,
    pub credentials: Credentials,
    pub proxies: Proxies,
    pub patience: Patience,
}

/// Where that is read from, each time anew.
#[derive(Clone)]
pub struct Settings(Arc<dyn Fn() -> Result<Registries, String> + Send + Sync>);

/// What the operator has written cannot be understood; says what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

impl Settings {
    pub fn new(read: impl Fn() -> Result<Registries, String> + Send + Sync + 'static) -> Self {
        Settings(Arc::new(read))
    }

    /// # Errors
    /// As whoever reads it says.
    pub fn read(&self) -> Result<Registries, SettingsError> {
        (self.0)().map_err(SettingsError)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings::new(|| Ok(Registries::default()))
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings(..)")
    }
}

impl Registries {
    /// For the transfers of one image; what this host trusts and who is known is looked up anew.
    pub fn client(&self) -> Client {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate of this host cannot be read");
        }
        roots.add_parsable_certificates(found.certs);
        let transport = Transport::new(roots, self.proxies.clone(), self.patience);
        Client::new(transport, self.hosts.clone(), self.credentials.clone())
    }
}
