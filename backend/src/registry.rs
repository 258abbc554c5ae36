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
