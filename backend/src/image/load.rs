//! From a reference to the verified documents of one image and the places of its layers.

mod contents;

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

use super::{
    ImageError, Limits,
    config::{Configuration, Descriptor, Digest, Document, SavedImage, architecture},
    layer::Layer,
    reference::Reference,
    source::{Section, Source},
};

pub(super) use contents::{Contained, contents, told};

/// An image as its transport offers it now. Every document has the digest it is known by; layers are
/// checked when they are unpacked.
#[derive(Debug)]
pub(super) struct Loaded {
    pub digest: Digest,
    pub configuration: Configuration,
    pub config: Vec<u8>,
    /// `None` in a `docker save` archive, which has no manifest with digests.
    pub manifest: Option<Vec<u8>>,
    /// Bottom first.
    pub layers: Vec<Layer>,
}

/// How a transport names its blobs.
#[derive(Clone, Copy)]
enum Naming {
    /// `blobs/sha256/<hex>`
    Layout,
    /// `<hex>`, and `<hex>.manifest.json` for a manifest below an index.
    Flat,
}

struct Loader<'a> {
    reference: String,
    path: PathBuf,
    source: Source,
    limits: &'a Limits,
}

/// The file whose change means that the image may be another one.
pub(super) fn key_file(reference: &Reference) -> Option<PathBuf> {
    match reference {
        Reference::Hello | Reference::Rootfs(_) | Reference::Registry(_) => None,
        Reference::Oci { path, .. } => Some(path.join("index.json")),
        Reference::Dir(path) => Some(path.join("manifest.json")),
        Reference::OciArchive { path, .. } | Reference::DockerArchive { path, .. } => Some(path.clone()),
    }
}

/// # Errors
/// Unreadable, malformed, ambiguous, for another platform, beyond a limit, or of another digest.
pub(super) fn load(reference: &Reference, limits: &Limits) -> Result<Loaded, ImageError> {
    let text = reference.to_string();
    let format = |why: &str| ImageError::Format {
        reference: text.clone(),
        why: why.to_owned(),
    };
    let path = reference
        .path()
        .ok_or_else(|| format("it is not read from a file"))?;
    let read = |source| ImageError::Read {
        reference: text.clone(),
        path: path.to_owned(),
        source,
    };
    let source = match reference {
        Reference::Oci { .. } | Reference::Dir(_) => Source::directory(path).map_err(read)?,
        _ => Source::archive(path).map_err(|error| match error {
            super::TarError::Read(source) => read(source),
            error => format(&format!("{} is no image archive: {error}", path.display())),
        })?,
    };
    let loader = Loader {
        reference: text.clone(),
        path: path.to_owned(),
        source,
        limits,
    };
    match reference {
        Reference::Oci { tag, .. } | Reference::OciArchive { tag, .. } => {
            let index = loader.read("index.json", limits.manifest)?;
            loader.image(index, tag.as_deref(), Naming::Layout)
        }
        Reference::Dir(_) => {
            let manifest = loader.read("manifest.json", limits.manifest)?;
            loader.image(manifest, None, Naming::Flat)
        }
        Reference::DockerArchive { name, .. } => loader.saved(name.as_deref()),
        Reference::Hello | Reference::Rootfs(_) | Reference::Registry(_) => {
            Err(format("it is not read from a file"))
        }
    }
}

/// The parts of a configuration that must hold before anything is unpacked.
pub(super) fn diff_ids(configuration: &Configuration) -> Result<Vec<Digest>, String> {
    let ids = configuration.rootfs.diff_ids.iter().flatten();
    ids.map(|id| Digest::parse(id).ok_or_else(|| format!("{id} is no sha256 digest")))
        .collect()
}

/// The one manifest of an index that is asked for and can run here, or why there is none.
pub(super) fn choose(manifests: Vec<Descriptor>, tag: Option<&str>) -> Result<Descriptor, String> {
    let tags: BTreeSet<String> = manifests
        .iter()
        .filter_map(|entry| entry.tag().map(str::to_owned))
        .collect();
    let known = || tags.iter().cloned().collect::<Vec<_>>().join(", ");
    let mut fitting = manifests
        .into_iter()
        .filter(|entry| tag.is_none_or(|tag| entry.tag() == Some(tag)));
    if let Some(tag) = tag
        && !tags.contains(tag)
    {
        return Err(format!("it has no tag {tag}, only: {}", known()));
    }
    let mut fitting = fitting.by_ref().filter(|entry| {
        let platform = entry.platform.as_ref();
        platform.is_none_or(|platform| platform.os == "linux" && platform.architecture == architecture())
    });
    let Some(chosen) = fitting.next() else {
        return Err(format!("it has no image for linux/{}", architecture()));
    };
    // Variants of one platform: the first. Different tags: somebody has to say which.
    if fitting.any(|other| other.tag() != chosen.tag() && other.digest != chosen.digest) {
        return Err(format!(
            "it holds several images; name one of the tags: {}",
            known()
        ));
    }
    Ok(chosen)
}

/// The diff ids of an image that can run here, or why it cannot. `layers`: how many its manifest has.
pub(super) fn fits(
    configuration: &Configuration,
    layers: usize,
    limits: &Limits,
) -> Result<Vec<Digest>, String> {
    if let Some(why) = configuration.unfit() {
        return Err(why);
    }
    let diff_ids = diff_ids(configuration)?;
    if diff_ids.len() != layers {
        let own = diff_ids.len();
        return Err(format!(
            "its manifest has {layers} layers, its configuration {own}"
        ));
    }
    if layers == 0 {
        return Err("it has no layers".to_owned());
    }
    if layers > limits.layers {
        return Err(format!("it has {layers} layers, more than {}", limits.layers));
    }
    Ok(diff_ids)
}

impl Loader<'_> {
    /// Index or manifest to image; an index may point to an index.
    fn image(&self, document: Vec<u8>, tag: Option<&str>, naming: Naming) -> Result<Loaded, ImageError> {
        let (mut bytes, mut tag) = (document, tag);
        let mut media_type = String::new();
        for _ in 0..4 {
            let document: Document = self.parse(&bytes, "manifest")?;
            if let Some(own) = &document.media_type
                && !media_type.is_empty()
                && *own != media_type
            {
                return Err(self.format(&format!(
                    "its manifest is called {media_type} but calls itself {own}"
                )));
            }
            match (document.manifests, document.config, document.layers) {
                (Some(manifests), None, None) => {
                    let chosen = choose(manifests, tag.take()).map_err(|why| self.format(&why))?;
                    bytes = self.blob(&chosen, naming, true, self.limits.manifest, "manifest")?;
                    media_type = chosen.media_type;
                }
                (None, Some(config), Some(layers)) => return self.manifest(bytes, &config, &layers, naming),
                _ => return Err(self.format("its manifest is neither an index nor an image manifest")),
            }
        }
        Err(self.format("its indexes are nested too deeply"))
    }

    fn manifest(
        &self,
        manifest: Vec<u8>,
        config: &Descriptor,
        layers: &[Descriptor],
        naming: Naming,
    ) -> Result<Loaded, ImageError> {
        let bytes = self.blob(config, naming, false, self.limits.config, "configuration")?;
        self.assemble(bytes, Some(manifest), layers.len(), |at, diff_id| {
            let descriptor = &layers[at];
            let digest = self.digest(&descriptor.digest)?;
            Ok(Layer {
                section: self.open(&naming.name(&digest))?,
                blob: Some((digest, descriptor.size)),
                diff_id,
            })
        })
    }

    /// `docker save`: names instead of digests, but the configuration names the diff ids.
    fn saved(&self, name: Option<&str>) -> Result<Loaded, ImageError> {
        let list = self.read("manifest.json", self.limits.manifest)?;
        let images: Vec<SavedImage> = self.parse(&list, "manifest.json")?;
        let names: Vec<String> = images
            .iter()
            .flat_map(|image| image.repo_tags.iter().flatten().cloned())
            .collect();
        let mut fitting = images.into_iter().filter(|image| match name {
            None => true,
            Some(name) => image
                .repo_tags
                .iter()
                .flatten()
                .any(|tag| full_name(tag) == full_name(name)),
        });
        let Some(image) = fitting.next() else {
            let asked = name.unwrap_or("an image");
            return Err(self.format(&format!("it does not hold {asked}, only: {}", names.join(", "))));
        };
        if fitting.next().is_some() {
            return Err(self.format(&format!(
                "it holds several images; name one of: {}",
                names.join(", ")
            )));
        }
        self.saved_image(image)
    }

    fn saved_image(&self, image: SavedImage) -> Result<Loaded, ImageError> {
        let config = self.read(&image.config, self.limits.config)?;
        let stem = image.config.rsplit('/').next().unwrap_or_default();
        if let Some(named) = Digest::parse(&format!("sha256:{}", stem.strip_suffix(".json").unwrap_or(stem)))
        {
            self.verify("its configuration", &named, &config)?;
        }
        self.assemble(config, None, image.layers.len(), |at, diff_id| {
            Ok(Layer {
                section: self.open(&image.layers[at])?,
                blob: None,
                diff_id,
            })
        })
    }

    fn assemble(
        &self,
        config: Vec<u8>,
        manifest: Option<Vec<u8>>,
        count: usize,
        layer: impl Fn(usize, Digest) -> Result<Layer, ImageError>,
    ) -> Result<Loaded, ImageError> {
        let configuration: Configuration = self.parse(&config, "configuration")?;
        let diff_ids = fits(&configuration, count, self.limits).map_err(|why| self.format(&why))?;
        let layers = diff_ids
            .into_iter()
            .enumerate()
            .map(|(at, diff_id)| layer(at, diff_id));
        Ok(Loaded {
            layers: layers.collect::<Result<_, _>>()?,
            digest: Digest::of(&config),
            configuration,
            config,
            manifest,
        })
    }

    fn blob(
        &self,
        descriptor: &Descriptor,
        naming: Naming,
        manifest: bool,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>, ImageError> {
        let digest = self.digest(&descriptor.digest)?;
        let mut name = naming.name(&digest);
        if manifest && matches!(naming, Naming::Flat) {
            name.push_str(".manifest.json");
        }
        let bytes = self.read(&name, limit)?;
        self.verify(&format!("its {what}"), &digest, &bytes)?;
        if bytes.len() as u64 != descriptor.size {
            let why = format!(
                "its {what} should have {} bytes but has {}",
                descriptor.size,
                bytes.len()
            );
            return Err(self.format(&why));
        }
        Ok(bytes)
    }

    fn verify(&self, what: &str, expected: &Digest, bytes: &[u8]) -> Result<(), ImageError> {
        let found = Digest::of(bytes);
        if found == *expected {
            return Ok(());
        }
        Err(ImageError::Digest {
            reference: self.reference.clone(),
            what: what.to_owned(),
            expected: expected.to_string(),
            found: found.to_string(),
        })
    }

    fn digest(&self, text: &str) -> Result<Digest, ImageError> {
        Digest::parse(text).ok_or_else(|| self.format(&format!("{text} is no sha256 digest")))
    }

    fn open(&self, name: &str) -> Result<Section, ImageError> {
        let opened = self.source.open(name).map_err(|source| ImageError::Read {
            reference: self.reference.clone(),
            path: self.path.join(name),
            source,
        })?;
        opened.ok_or_else(|| self.format(&format!("{name} is missing in {}", Path::display(&self.path))))
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>, ImageError> {
        let section = self.open(name)?;
        if section.size() > limit {
            return Err(self.format(&format!("{name} has {} bytes, more than {limit}", section.size())));
        }
        let mut bytes = Vec::new();
        // The size again: the file may grow while it is read.
        section
            .take(limit)
            .read_to_end(&mut bytes)
            .map_err(|source| ImageError::Read {
                reference: self.reference.clone(),
                path: self.path.join(name),
                source,
            })?;
        Ok(bytes)
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8], what: &str) -> Result<T, ImageError> {
        serde_json::from_slice(bytes)
            .map_err(|error| self.format(&format!("its {what} is malformed: {error}")))
    }

    fn format(&self, why: &str) -> ImageError {
        ImageError::Format {
            reference: self.reference.clone(),
            why: why.to_owned(),
        }
    }
}

impl Naming {
    fn name(self, digest: &Digest) -> String {
        match self {
            Naming::Layout => format!("blobs/sha256/{}", digest.hex()),
            Naming::Flat => digest.hex().to_owned(),
        }
    }
}

/// `busybox` and `docker.io/library/busybox:latest` are one image.
fn full_name(name: &str) -> String {
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    match short.rsplit('/').next().is_some_and(|last| last.contains(':')) {
        true => short.to_owned(),
        false => format!("{short}:latest"),
    }
}
