//! Images: what a reference stands for, and its layers unpacked once, content-addressed.
//!
//! ```text
//!   state/images/blobs/sha256/<hex>   manifests and configurations of unpacked images
//!   state/images/layers/<hex>/        one unpacked layer, by the digest of its tar stream (diff id)
//!   state/images/recipes/<hex>        what its files do not tell of that tar stream
//!   state/images/pull/<hex>          a layer on its way from a registry, by the digest of its bytes there
//!   state/images/rootfs/<hex>         the path of a plain directory, by its digest
//!   state/records/image/<ref>.json    what a reference stood for when it was unpacked
//! ```
//!
//! Nothing is believed before its digest is: manifest, configuration, compressed layer, diff id.

pub mod config;
mod hello;
mod layer;
mod load;
pub(crate) mod pax;
mod progress;
mod pull;
pub mod recipe;
pub mod reference;
mod source;
mod space;
pub mod store;
pub(crate) mod tar;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod tree;

use std::{
    io,
    path::{Path, PathBuf},
};

use thiserror::Error;

pub use hello::DIGEST as HELLO_DIGEST;
pub use layer::LayerError;
pub use progress::Progress;
pub use pull::PullError;
pub use reference::{Reference, ReferenceError};
pub use space::SpaceError;
pub use store::Store;
pub use tar::TarError;
pub use tree::TreeError;

use crate::records;

/// Where reading stops. An image beyond a limit is refused, and nothing of it stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of an index or a manifest.
    pub manifest: u64,
    /// Bytes of a configuration.
    pub config: u64,
    pub layers: usize,
    /// Headers in one layer.
    pub entries: u64,
    /// Bytes of one layer's tar stream; see also [`Limits::unpacked_from`].
    pub unpacked: u64,
}

impl Limits {
    /// Bytes of a tar stream that comes in so many bytes: no layer is worth a hundred times what it weighs.
    pub(crate) fn unpacked_from(&self, stored: u64) -> u64 {
        self.unpacked
            .min(stored.saturating_mul(100).saturating_add(1 << 30))
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            manifest: 4 << 20,
            config: 8 << 20,
            // Overlay takes 500 lower directories, Docker 127.
            layers: 128,
            entries: 2_000_000,
            unpacked: 16 << 30,
        }
    }
}

#[derive(Debug, Error)]
pub enum ImageError {
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error("image {reference}: cannot read {path}; check that it exists and is readable", path = path.display())]
    Read {
        reference: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Not an image of this transport, or one that cannot run here.
    #[error("image {reference}: {why}. Save the image again with a current tool, or name another one")]
    Format { reference: String, why: String },
    #[error(
        "image {reference}: {what} should have the digest {expected} but has {found}. The image is damaged; save it again"
    )]
    Digest {
        reference: String,
        what: String,
        expected: String,
        found: String,
    },
    /// It was decided on another digest.
    #[error(
        "image {reference}: it stands for {found} now, not for {expected}. The next plan takes the new one"
    )]
    Changed {
        reference: String,
        expected: String,
        found: String,
    },
    #[error("image {reference}: layer {layer} cannot be unpacked. Save the image again, or name another one")]
    Layer {
        reference: String,
        layer: String,
        #[source]
        source: LayerError,
    },
    #[error("image {reference} cannot be fetched")]
    Pull {
        reference: String,
        #[source]
        source: Box<PullError>,
    },
    /// Its policy is `never`.
    #[error(
        "image {name} is not here whole, and is not to be fetched. Bring it with `stead image pull {name}` or `stead image \
         load`, what is missing of it with `stead image verify --repair {name}`, or write another `pull_policy`"
    )]
    NotHere { name: String },
    #[error("image {reference} does not fit")]
    Space {
        reference: String,
        #[source]
        source: SpaceError,
    },
    #[error("image {digest} is not in the store. Apply the project again to unpack it")]
    Missing { digest: String },
    #[error("layer {layer} cannot be put together again")]
    Recipe {
        layer: String,
        #[source]
        source: recipe::RecipeError,
    },
    #[error("what was asked for cannot be written; check free space and permissions where it goes")]
    Save {
        #[source]
        source: io::Error,
    },
    #[error(
        "images are being brought in, and nothing may be removed from {path} meanwhile; try again when that is done",
        path = path.display()
    )]
    Busy { path: PathBuf },
    /// Nothing is removed where it is not known what is needed.
    #[error(
        "it is not known what needs {path}, because that cannot be read; nothing was removed. `stead image verify` says more",
        path = path.display()
    )]
    Unknown { path: PathBuf },
    #[error("cannot write to the image store at {path}; check free space and permissions", path = path.display())]
    Store {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    RecordRead(#[from] records::ReadError),
    #[error(transparent)]
    RecordWrite(#[from] records::WriteError),
}

impl ImageError {
    /// Of a layer that cannot be unpacked to `target`. That is the disk's fault where it is full, not the image's.
    fn of_layer(reference: &str, layer: &config::Digest, target: &Path, source: LayerError) -> Self {
        match source {
            LayerError::Tree(TreeError::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                ImageError::Store {
                    path: target.to_owned(),
                    source,
                }
            }
            source => ImageError::Layer {
                reference: reference.to_owned(),
                layer: layer.to_string(),
                source,
            },
        }
    }

    /// Whether trying again without any change of image or host may help.
    pub fn may_pass(&self) -> bool {
        match self {
            ImageError::Store { .. }
            | ImageError::Space { .. }
            | ImageError::RecordWrite(_)
            | ImageError::Changed { .. } => true,
            ImageError::Pull { source, .. } => source.may_pass(),
            ImageError::Layer { source, .. } => matches!(source, LayerError::Store { .. }),
            _ => false,
        }
    }
}
