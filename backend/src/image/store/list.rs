//! What is in the store, to the last file: images with their names, what they take on the disk, and what is left over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Store,
    measure::{Kind, Part},
};
use crate::image::{
    ImageError,
    config::{Configuration, Digest, Document},
    hello, load,
};

/// Everything below `state/images`.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// By their first name; those without one last.
    pub images: Vec<Stored>,
    /// By their path below `state/images`.
    pub parts: BTreeMap<PathBuf, Part>,
    /// Bytes on the disk, as du(1) counts them.
    pub total: u64,
}

/// An image that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// `sha256:…` of its configuration.
    pub digest: String,
    /// What stands for it, in full.
    pub names: BTreeSet<String>,
    /// What stands for it only to who follows the tag.
    pub followed: BTreeSet<String>,
    /// As its configuration says: RFC 3339.
    pub created: Option<String>,
    /// Its parts, by their path below `state/images`.
    pub parts: BTreeSet<PathBuf>,
    /// When it was bound, or a container of it was last started.
    pub used: SystemTime,
    /// What is wrong with its documents, so that its layers are not known.
    pub unreadable: Option<PathBuf>,
    /// Layers are missing.
    pub incomplete: bool,
}

/// What of a configuration only people want to know.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Told {
    #[serde(default)]
    pub created: Option<String>,
}

impl Stored {
    /// The name it is spoken of by, or its digest.
    pub fn title(&self) -> &str {
        self.all_names().next().unwrap_or(&self.digest)
    }

    /// Those that stand for it to all first.
    pub fn all_names(&self) -> impl Iterator<Item = &String> {
        self.names.iter().chain(&self.followed)
    }
}

impl Survey {
    /// Bytes of an image on the disk, and how many of them other images have, too.
    pub fn size(&self, image: &Stored) -> (u64, u64) {
        let others: BTreeSet<&PathBuf> = self
            .images
            .iter()
            .filter(|other| other.digest != image.digest)
            .flat_map(|other| &other.parts)
            .collect();
        let size = |part: &PathBuf| self.parts.get(part).map_or(0, |part| part.size);
        let shared = image.parts.iter().filter(|part| others.contains(part)).map(size);
        (image.parts.iter().map(size).sum(), shared.sum())
    }

    /// What no image consists of.
    pub fn leftovers(&self) -> impl Iterator<Item = (&PathBuf, &Part)> {
        let of_images: BTreeSet<&PathBuf> = self.images.iter().flat_map(|image| &image.parts).collect();
        self.parts
            .iter()
            .filter(move |(path, _)| !of_images.contains(path))
    }

    /// By a name in full, a digest, or at least four digits of the beginning of one.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn find(&self, text: &str) -> Result<&Stored, FindError> {
        let canonical = canonical(text);
        let named = |image: &&Stored| canonical.as_ref().is_some_and(|name| image.names.contains(name));
        if let Some(image) = self.images.iter().find(named) {
            return Ok(image);
        }
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        let fits = |image: &&Stored| image.digest["sha256:".len()..].starts_with(hex);
        let mut fitting = self.images.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(image), None) if hex.len() >= 4 => Ok(image),
            (Some(_), Some(_)) if hex.len() >= 4 => Err(FindError::Several(text.to_owned())),
            _ => Err(FindError::None(text.to_owned())),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    #[error("there is no image {0} here; `stead image ls` shows those there are")]
    None(String),
    #[error("several images begin with {0}; write more of the digest")]
    Several(String),
}

/// A reference as it is bound; `None`: it is none.
pub fn canonical(text: &str) -> Option<String> {
    let reference: crate::image::Reference = text.parse().ok()?;
    Some(reference.to_string())
}

/// What is known of an image.
#[derive(Debug, Clone)]
pub struct Inspection {
    pub digest: String,
    /// Each with what its tag stood for in its registry.
    pub names: BTreeMap<String, Option<String>>,
    /// Digest of the manifest, where it came with one.
    pub manifest: Option<String>,
    /// The whole configuration; null: it is none of stored documents.
    pub config: Value,
    /// Bottom first: diff id, bytes on the disk, whether it is there.
    pub layers: Vec<(String, u64, bool)>,
    pub size: u64,
    pub shared: u64,
}

impl Store {
    /// Looks at every file, and changes nothing. What comes or goes meanwhile is there or not.
    ///
    /// # Errors
    /// A record or a directory cannot be read.
    pub fn survey(&self) -> Result<Survey, ImageError> {
        self.survey_of(self.measure()?)
    }

    /// With sizes that were measured before, which takes long in a large store. What has come since is known as an
    /// image, and not as a part.
    ///
    /// # Errors
    /// As [`Store::survey`].
    pub fn survey_of(&self, mut survey: Survey) -> Result<Survey, ImageError> {
        let mut digests: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut followed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, binding) in self.bindings.list()? {
            if let Some(latest) = binding.latest {
                digests.entry(latest.digest.clone()).or_default();
                followed.entry(latest.digest).or_default().insert(name.clone());
            }
            digests.entry(binding.digest).or_default().insert(name);
        }
        let documents = self.documents()?;
        for digest in documents.configurations.keys() {
            digests.entry(digest.to_string()).or_default();
        }
        if self.hello().is_dir() {
            let names = digests.entry(hello::DIGEST.to_owned()).or_default();
            names.insert("builtin:hello".to_owned());
        }
        for (path, part) in &survey.parts {
            if part.kind == Kind::Rootfs
                && let Some(hex) = path.file_name().and_then(|name| name.to_str())
                && let Ok(directory) = fs::read(self.directory.join(path))
            {
                let name = format!("rootfs:{}", String::from_utf8_lossy(&directory));
                digests.entry(format!("sha256:{hex}")).or_default().insert(name);
            }
        }
        let images = digests.into_iter().map(|(digest, names)| {
            let followed = followed.remove(&digest).unwrap_or_default();
            self.stored_image(digest, (names, followed), &documents, &survey)
        });
        survey.images = images.collect();
        let order = |image: &Stored| (image.all_names().next().is_none(), image.title().to_owned());
        survey.images.sort_by_key(order);
        Ok(survey)
    }

    fn stored_image(
        &self,
        digest: String,
        (names, followed): (BTreeSet<String>, BTreeSet<String>),
        documents: &Documents,
        survey: &Survey,
    ) -> Stored {
        let mut image = Stored {
            created: None,
            parts: BTreeSet::new(),
            used: SystemTime::UNIX_EPOCH,
            unreadable: None,
            incomplete: false,
            digest,
            names,
            followed,
        };
        let parsed = Digest::parse(&image.digest);
        let hex = parsed.as_ref().map_or("", Digest::hex);
        let bound = |name: &String| fs::metadata(self.bindings.path(name)).and_then(|file| file.modified());
        let at = image.all_names().filter_map(|name| bound(name).ok()).max();
        image.used = at.unwrap_or(SystemTime::UNIX_EPOCH);
        let [document, rootfs] = ["blobs/sha256", "rootfs"].map(|place| Path::new(place).join(hex));
        if image.digest == hello::DIGEST || survey.parts.contains_key(&rootfs) {
            let part = match image.digest == hello::DIGEST {
                true => Path::new("layers").join(hex),
                false => rootfs,
            };
            let changed = survey.parts.get(&part).map(|part| part.changed);
            image.used = image.used.max(changed.unwrap_or(SystemTime::UNIX_EPOCH));
            image.parts.insert(part);
            return image;
        }
        let Some(configuration) = parsed.and_then(|digest| documents.configurations.get(&digest)) else {
            image.unreadable = Some(self.directory.join(document));
            return image;
        };
        let touched = survey.parts.get(&document).map(|part| part.changed);
        image.used = image.used.max(touched.unwrap_or(SystemTime::UNIX_EPOCH));
        image.created.clone_from(&configuration.created);
        image.parts.insert(document);
        for diff_id in &configuration.diff_ids {
            let layer = Path::new("layers").join(diff_id.hex());
            image.incomplete |= !survey.parts.contains_key(&layer);
            image.parts.insert(layer);
            image.parts.insert(Path::new("recipes").join(diff_id.hex()));
        }
        let manifests = documents.manifests.get(&image.digest).into_iter().flatten();
        image
            .parts
            .extend(manifests.map(|manifest| Path::new("blobs/sha256").join(manifest.hex())));
        image.parts.retain(|part| survey.parts.contains_key(part));
        image
    }

    /// # Errors
    /// It is not here any more, or its configuration is damaged.
    pub fn inspect(&self, survey: &Survey, image: &Stored) -> Result<Inspection, ImageError> {
        let missing = || ImageError::Missing {
            digest: image.digest.clone(),
        };
        let digest = Digest::parse(&image.digest).ok_or_else(missing)?;
        let mut names = BTreeMap::new();
        for name in image.all_names() {
            names.insert(name.clone(), self.pinned_manifest(name, &image.digest)?);
        }
        let (size, shared) = survey.size(image);
        let mut inspection = Inspection {
            digest: image.digest.clone(),
            names,
            manifest: self.manifests_of(&image.digest)?.first().map(Digest::to_string),
            config: Value::Null,
            layers: Vec::new(),
            size,
            shared,
        };
        let of = |diff_id: &Digest| {
            let part = survey.parts.get(&Path::new("layers").join(diff_id.hex()));
            (
                diff_id.to_string(),
                part.map_or(0, |part| part.size),
                part.is_some(),
            )
        };
        if image.digest == hello::DIGEST || self.rootfs_file(&digest).is_file() {
            if image.digest == hello::DIGEST {
                inspection.layers.push(of(&digest));
            }
            return Ok(inspection);
        }
        let bytes = fs::read(self.blob(&digest)).map_err(|_| missing())?;
        let (_, diff_ids) = self.stored_config(&digest).ok_or_else(missing)?;
        inspection.config = serde_json::from_slice(&bytes).map_err(|_| missing())?;
        inspection.layers = diff_ids.iter().map(of).collect();
        Ok(inspection)
    }

    /// The stored manifests that name a configuration.
    pub(super) fn manifests_of(&self, digest: &str) -> Result<Vec<Digest>, ImageError> {
        Ok(self.documents()?.manifests.remove(digest).unwrap_or_default())
    }

    /// Reads the stored documents; one that is not what its digest says is neither.
    fn documents(&self) -> Result<Documents, ImageError> {
        let mut documents = Documents::default();
        let directory = self.directory.join("blobs/sha256");
        let failed = |source| ImageError::Store {
            path: directory.clone(),
            source,
        };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(documents),
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let path = entry.map_err(failed)?.path();
            let hex = path
                .file_name()
                .map(|name| name.to_string_lossy())
                .unwrap_or_default();
            let Some(digest) = Digest::parse(&format!("sha256:{hex}")) else {
                continue;
            };
            let mut bytes = Vec::new();
            let limit = self.limits.config.max(self.limits.manifest);
            let read = fs::File::open(&path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
            if read.is_err() || Digest::of(&bytes) != digest {
                continue;
            }
            if let Ok(Document {
                config: Some(config),
                layers: Some(_),
                ..
            }) = serde_json::from_slice(&bytes)
            {
                documents.manifests.entry(config.digest).or_default().push(digest);
            } else if let Ok(configuration) = serde_json::from_slice::<Configuration>(&bytes)
                && let Ok(diff_ids) = load::diff_ids(&configuration)
            {
                let told: Told = serde_json::from_slice(&bytes).unwrap_or_default();
                let facts = Facts {
                    diff_ids,
                    created: told.created,
                };
                documents.configurations.insert(digest, facts);
            }
        }
        Ok(documents)
    }
}

/// What is stored of an image beside its layers.
#[derive(Default)]
struct Documents {
    configurations: BTreeMap<Digest, Facts>,
    /// By the digest of the configuration that they name.
    manifests: BTreeMap<String, Vec<Digest>>,
}

struct Facts {
    diff_ids: Vec<Digest>,
    created: Option<String>,
}

#[cfg(test)]
mod tests;
