//! All the images of an archive or of an OCI layout, whatever it is, and the names that it tells for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use model::types::ImageName;

use super::{Loaded, Loader, Naming};
use crate::image::{
    ImageError, Limits, TarError,
    config::{CONTAINERD_NAME, Digest, Document, REF_NAME, SavedImage, architecture},
    source::Source,
};

/// An image of an archive that may hold several, and the names that the archive tells for it.
#[derive(Debug)]
pub(in crate::image) struct Contained {
    pub loaded: Loaded,
    pub names: BTreeSet<ImageName>,
}

/// All images for this host in what is at `path`, whatever it is: an OCI layout as a directory or as an archive, what
/// `docker save` writes, or both in one. `reference`: as messages call it.
///
/// # Errors
/// As [`load`]; it is none of these.
pub(in crate::image) fn contents(
    path: &Path,
    reference: &str,
    limits: &Limits,
) -> Result<Vec<Contained>, ImageError> {
    let format = |why: String| ImageError::Format {
        reference: reference.to_owned(),
        why,
    };
    let read = |source| ImageError::Read {
        reference: reference.to_owned(),
        path: path.to_owned(),
        source,
    };
    let source = match path.is_dir() {
        true => Source::directory(path).map_err(read)?,
        false => Source::archive(path).map_err(|error| match error {
            TarError::Read(source) => read(source),
            error => format(format!("it is no image archive: {error}")),
        })?,
    };
    let has = |name: &str| source.open(name).is_ok_and(|file| file.is_some());
    let (layout, saved) = (has("index.json"), has("manifest.json"));
    let loader = Loader {
        reference: reference.to_owned(),
        path: path.to_owned(),
        source,
        limits,
    };
    match (layout, saved) {
        (true, saved) => loader.layout(saved),
        (false, true) => loader.archive(),
        (false, false) => Err(format(
            "it has neither an index.json nor a manifest.json: it is no OCI layout, and not what docker save writes"
                .to_owned(),
        )),
    }
}

/// The name that an annotation tells: a whole one, no mere tag.
pub(in crate::image) fn told(annotation: &str) -> Option<ImageName> {
    let whole = annotation.contains('/') || annotation.contains(':');
    whole.then(|| annotation.parse().ok())?
}

impl Loader<'_> {
    /// Every image of an OCI layout. `saved`: docker's list of names is beside it.
    fn layout(&self, saved: bool) -> Result<Vec<Contained>, ImageError> {
        let index = self.read("index.json", self.limits.manifest)?;
        let document: Document = self.parse(&index, "index")?;
        let listed: Vec<SavedImage> = match saved {
            true => self.parse(
                &self.read("manifest.json", self.limits.manifest)?,
                "manifest.json",
            )?,
            false => Vec::new(),
        };
        let mut found: BTreeMap<Digest, Contained> = BTreeMap::new();
        for entry in document.manifests.unwrap_or_default() {
            let ours = entry
                .platform
                .as_ref()
                .is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture());
            // Signatures and provenance are manifests, too.
            let of_another = entry.annotation("vnd.docker.reference.type").is_some();
            if !ours || of_another {
                continue;
            }
            let names = [CONTAINERD_NAME, REF_NAME];
            let names = names
                .iter()
                .filter_map(|name| entry.annotation(name))
                .filter_map(told);
            let names: BTreeSet<ImageName> = names.collect();
            let bytes = self.blob(&entry, Naming::Layout, true, self.limits.manifest, "manifest")?;
            let loaded = self.image(bytes, None, Naming::Layout)?;
            let listed = listed
                .iter()
                .filter(|image| image.config.ends_with(loaded.digest.hex()))
                .flat_map(|image| image.repo_tags.iter().flatten())
                .filter_map(|tag| tag.parse().ok());
            let names: BTreeSet<ImageName> = names.into_iter().chain(listed).collect();
            found
                .entry(loaded.digest.clone())
                .or_insert(Contained {
                    loaded,
                    names: BTreeSet::new(),
                })
                .names
                .extend(names);
        }
        if found.is_empty() {
            return Err(self.format(&format!("it has no image for linux/{}", architecture())));
        }
        Ok(found.into_values().collect())
    }

    /// Every image that `docker save` has listed.
    fn archive(&self) -> Result<Vec<Contained>, ImageError> {
        let list = self.read("manifest.json", self.limits.manifest)?;
        let images: Vec<SavedImage> = self.parse(&list, "manifest.json")?;
        images
            .into_iter()
            .map(|image| {
                let tags = image.repo_tags.iter().flatten();
                let names = tags.filter_map(|tag| tag.parse().ok()).collect();
                Ok(Contained {
                    loaded: self.saved_image(image)?,
                    names,
                })
            })
            .collect()
    }
}
