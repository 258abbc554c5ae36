//! The images of one root: resolved, unpacked, and found again by digest.

mod collect;
mod lease;
mod list;
mod measure;
mod names;
mod pulled;
mod save;
mod tags;
mod verify;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::types::ImageName;
use reconciler::{
    observed::{Image, ImageConfig},
    port::Ask,
};
use serde::{Deserialize, Serialize};

use super::{
    ImageError, Limits,
    config::{Configuration, Digest},
    hello, layer, load,
    progress::{Progress, Pulls},
    pull,
    reference::Reference,
    space,
};
use crate::{
    layout::Layout,
    records::{self, kind},
    registry::Settings,
};

pub use collect::{Selected, Use, What, select};
pub use lease::{Hold, Lease};
pub use list::{FindError, Inspection, Stored, Survey, canonical};
pub use measure::{Kind, Part};
pub use names::Moved;
pub use verify::{Checked, Fault, Repaired};

/// A program that is being started holds our locks for a moment longer than we do.
const SWEEP_PATIENCE: Duration = Duration::from_millis(500);

/// One per root and process; shared between threads.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    bindings: records::Store<Binding>,
    limits: Limits,
    /// What was read from a source, until the source changes.
    seen: Mutex<BTreeMap<String, Seen>>,
    registries: Settings,
    /// What registries have offered, until it is unpacked.
    offers: Mutex<BTreeMap<ImageName, Arc<pull::Offer>>>,
    /// When registries have told that a tag has not moved.
    answers: Mutex<BTreeMap<ImageName, u64>>,
    pulls: Pulls,
    /// Registries that want to be asked later.
    waits: Mutex<BTreeMap<String, pulled::Wait>>,
}

/// What a reference stood for when it was unpacked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Binding {
    digest: String,
    /// Of the file that it was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamp: Option<Stamp>,
    /// Of the index or the manifest that its tag stood for in its registry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    /// What the tag stands for to those who follow it, where that is another image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    latest: Option<Pin>,
    /// When its registry said so, milliseconds since the epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    asked: Option<u64>,
}

/// An image of a registry, by the digests of its configuration and of its index or manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    digest: String,
    manifest: String,
}

/// Equal stamps: the same bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Clone)]
struct Seen {
    stamp: Option<Stamp>,
    digest: Digest,
    config: ImageConfig,
    diff_ids: Vec<Digest>,
}

impl Store {
    /// Touches nothing.
    pub fn open(layout: &Layout) -> Self {
        Self::with_limits(layout, Limits::default())
    }

    pub fn with_limits(layout: &Layout, limits: Limits) -> Self {
        Store {
            directory: layout.images(),
            bindings: records::Store::new(layout, kind::IMAGE),
            limits,
            seen: Mutex::default(),
            registries: Settings::default(),
            offers: Mutex::default(),
            answers: Mutex::default(),
            pulls: Pulls::default(),
            waits: Mutex::default(),
        }
    }

    pub fn with_registries(self, registries: Settings) -> Self {
        Store { registries, ..self }
    }

    /// How far the pulls into this store are that are under way, the oldest first.
    pub fn progress(&self) -> Vec<Progress> {
        self.pulls.progress()
    }

    /// What a reference stands for now. Reads indexes, manifest and configuration only, and those only
    /// when the source has changed (device, inode, size, times). When the source is gone, an image that
    /// was unpacked from it still stands.
    ///
    /// `rootfs:DIR` has no content digest; its digest is that of the canonical path. What a name of a registry
    /// stood for when it was unpacked it stands for from then on; `ask` says whether its registry is asked.
    ///
    /// # Errors
    /// Not a reference, unreadable, malformed, for another platform, or a digest does not match.
    pub fn look(&self, reference: &str, ask: Ask) -> Result<Image, ImageError> {
        let parsed: Reference = reference.parse()?;
        Ok(match &parsed {
            Reference::Hello => Image::new(hello::DIGEST.to_owned(), self.hello().is_dir(), hello::config()),
            Reference::Rootfs(path) => {
                let (digest, _) = rootfs(reference, path)?;
                let unpacked = self.rootfs_file(&digest).is_file();
                Image::new(digest.to_string(), unpacked, ImageConfig::default())
            }
            Reference::Registry(name) => self.of_registry(name, ask)?,
            _ => {
                let seen = self.read(&parsed)?;
                let unpacked = self.stored(&seen.digest, &seen.diff_ids);
                Image::new(seen.digest.to_string(), unpacked, seen.config)
            }
        })
    }

    /// As [`Store::look`]; what is missing is asked for.
    ///
    /// # Errors
    /// As there.
    pub fn resolve(&self, reference: &str) -> Result<Image, ImageError> {
        self.look(reference, Ask::Missing)
    }

    /// Brings the image into the store: every layer unpacked once, by diff id; then manifest and
    /// configuration by digest; then what the reference stands for. Done twice is done once, also at the
    /// same time: none waits for another, whose source may stall.
    ///
    /// # Errors
    /// As [`Store::resolve`]; the reference no longer stands for `digest`; a layer is refused; the disk
    /// is full. Nothing half unpacked stays.
    pub fn unpack(&self, reference: &str, digest: &str) -> Result<(), ImageError> {
        let parsed: Reference = reference.parse()?;
        let _lease = self.lease()?;
        let changed = |found: String| ImageError::Changed {
            reference: reference.to_owned(),
            expected: digest.to_owned(),
            found,
        };
        let layer_error = |layer: String| {
            move |source| ImageError::Layer {
                reference: reference.to_owned(),
                layer,
                source,
            }
        };
        match &parsed {
            Reference::Hello if digest != hello::DIGEST => Err(changed(hello::DIGEST.to_owned())),
            Reference::Hello if self.hello().is_dir() => Ok(()),
            Reference::Hello => hello::unpack(&self.hello()).map_err(layer_error(digest.to_owned())),
            Reference::Rootfs(path) => {
                let (found, path) = rootfs(reference, path)?;
                if found.to_string() != digest {
                    return Err(changed(found.to_string()));
                }
                self.write(&self.rootfs_file(&found), path.as_os_str().as_bytes())
            }
            Reference::Registry(name) => self.take(name, digest, false),
            _ => {
                let seen = self.read(&parsed)?;
                if seen.digest.to_string() != digest {
                    return Err(changed(seen.digest.to_string()));
                }
                if self.stored(&seen.digest, &seen.diff_ids) {
                    return self.bind(reference, &seen.digest, seen.stamp);
                }
                let loaded = load::load(&parsed, &self.limits)?;
                if loaded.digest != seen.digest {
                    return Err(changed(loaded.digest.to_string()));
                }
                self.unpack_layers(reference, loaded.layers)?;
                if let Some(manifest) = &loaded.manifest {
                    self.write(&self.blob(&Digest::of(manifest)), manifest)?;
                }
                self.write(&self.blob(&loaded.digest), &loaded.config)?;
                self.bind(reference, &seen.digest, seen.stamp)
            }
        }
    }

    /// As [`Store::unpack`]; only who follows the tag has it then, and to all others the name stands for what it
    /// stood for.
    ///
    /// # Errors
    /// As there.
    pub fn unpack_latest(&self, reference: &str, digest: &str) -> Result<(), ImageError> {
        match reference.parse()? {
            Reference::Registry(name) => {
                let _lease = self.lease()?;
                self.take(&name, digest, true)
            }
            _ => self.unpack(reference, digest),
        }
    }

    /// The directories of an unpacked image, topmost first, as overlayfs wants them. Needs no source.
    /// A layer that occurs twice is listed once, at its highest place: there it covers the lower one
    /// entirely, and overlayfs refuses the same directory twice.
    ///
    /// # Errors
    /// The image or one of its layers is not in the store.
    pub fn layers(&self, digest: &str) -> Result<Vec<PathBuf>, ImageError> {
        let missing = || ImageError::Missing {
            digest: digest.to_owned(),
        };
        let parsed = Digest::parse(digest).ok_or_else(missing)?;
        let paths = if digest == hello::DIGEST {
            vec![self.hello()]
        } else if let Ok(path) = fs::read(self.rootfs_file(&parsed)) {
            vec![PathBuf::from(std::ffi::OsStr::from_bytes(&path))]
        } else {
            let (_, diff_ids) = self.stored_config(&parsed).ok_or_else(missing)?;
            let mut seen = BTreeSet::new();
            let topmost = diff_ids
                .iter()
                .rev()
                .filter(|diff_id| seen.insert((*diff_id).clone()));
            topmost.map(|diff_id| self.layer(diff_id)).collect()
        };
        if paths.iter().all(|path| path.is_dir()) {
            Ok(paths)
        } else {
            Err(missing())
        }
    }

    /// Removes what a killed agent left half unpacked or half removed. Only for the holder of the root's lock. What
    /// somebody else is bringing in just now stays, and with it the rest, until the next collection.
    ///
    /// # Errors
    /// The store cannot be read, or a remainder not be removed.
    pub fn sweep(&self) -> Result<(), ImageError> {
        self.sweep_parts();
        let layers = self.directory.join("layers");
        let failed = |source| ImageError::Store {
            path: layers.clone(),
            source,
        };
        let entries = match fs::read_dir(&layers) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(error)),
        };
        let _hold = match self.hold(SWEEP_PATIENCE) {
            Err(ImageError::Busy { .. }) => return Ok(()),
            held => held?,
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let begins = |with: &str| name.as_bytes().starts_with(with.as_bytes());
            if begins(layer::NEW) || begins(measure::GONE) {
                fs::remove_dir_all(entry.path()).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// From memory, from the record of an earlier agent, from the source, or, when that is gone, from
    /// the store.
    fn read(&self, reference: &Reference) -> Result<Seen, ImageError> {
        let text = reference.to_string();
        let file = load::key_file(reference).unwrap_or_default();
        let stamp = match fs::metadata(&file) {
            Ok(metadata) => Some(Stamp::of(&metadata)),
            Err(source) => {
                let gone = matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                );
                let stored = if gone { self.bound(&text)? } else { None };
                return stored.ok_or(ImageError::Read {
                    reference: text,
                    path: file,
                    source,
                });
            }
        };
        if let Some(seen) = lock(&self.seen).get(&text).filter(|seen| seen.stamp == stamp) {
            return Ok(seen.clone());
        }
        let seen = match self.bound(&text)? {
            Some(bound) if bound.stamp == stamp => bound,
            _ => {
                let loaded = load::load(reference, &self.limits)?;
                Seen {
                    stamp,
                    digest: loaded.digest,
                    diff_ids: loaded.layers.into_iter().map(|layer| layer.diff_id).collect(),
                    config: loaded.configuration.runtime(),
                }
            }
        };
        lock(&self.seen).insert(text, seen.clone());
        Ok(seen)
    }

    /// What the store knows of a reference, if all of it is there.
    fn bound(&self, reference: &str) -> Result<Option<Seen>, ImageError> {
        let Some(binding) = self.bindings.get(reference)? else {
            return Ok(None);
        };
        let Some(digest) = Digest::parse(&binding.digest) else {
            return Ok(None);
        };
        let stored = self.stored_config(&digest);
        Ok(stored
            .filter(|(_, diff_ids)| self.stored(&digest, diff_ids))
            .map(|(config, diff_ids)| Seen {
                stamp: binding.stamp,
                digest,
                config,
                diff_ids,
            }))
    }

    /// A configuration by its digest, checked again: the disk may lie. `None`: not here, or damaged.
    fn stored_config(&self, digest: &Digest) -> Option<(ImageConfig, Vec<Digest>)> {
        let mut bytes = Vec::new();
        let file = File::open(self.blob(digest)).ok()?;
        file.take(self.limits.config + 1).read_to_end(&mut bytes).ok()?;
        if Digest::of(&bytes) != *digest {
            return None;
        }
        let configuration: Configuration = serde_json::from_slice(&bytes).ok()?;
        let diff_ids = load::diff_ids(&configuration).ok()?;
        Some((configuration.runtime(), diff_ids))
    }

    fn stored(&self, digest: &Digest, diff_ids: &[Digest]) -> bool {
        self.blob(digest).is_file() && diff_ids.iter().all(|diff_id| self.layer(diff_id).is_dir())
    }

    /// Only what has been unpacked whole is ever bound to a reference.
    fn bind(&self, reference: &str, digest: &Digest, stamp: Option<Stamp>) -> Result<(), ImageError> {
        let binding = Binding {
            digest: digest.to_string(),
            stamp,
            manifest: None,
            latest: None,
            asked: None,
        };
        Ok(self.bindings.put(reference, &binding)?)
    }

    /// Those that are not here.
    fn unpack_layers(&self, from: &str, layers: Vec<layer::Layer>) -> Result<(), ImageError> {
        let missing: Vec<_> = layers
            .into_iter()
            .map(|layer| (self.layer(&layer.diff_id), layer))
            .filter(|(target, _)| !target.is_dir())
            .map(|(target, layer)| (layer, target))
            .collect();
        // Files take about what a plain layer has, and more than a compressed one.
        let needed = missing
            .iter()
            .fold(0u64, |sum, (layer, _)| sum.saturating_add(layer.section.size()));
        space::check(&self.directory, needed).map_err(|source| ImageError::Space {
            reference: from.to_owned(),
            source,
        })?;
        let places: Vec<_> = missing
            .iter()
            .map(|(layer, target)| (layer.diff_id.clone(), target.clone()))
            .collect();
        layer::unpack(missing, &self.limits).map_err(|(at, source)| {
            let (diff_id, target) = &places[at];
            ImageError::of_layer(from, diff_id, target, source)
        })
    }

    /// Content-addressed: what is there with the same content stays.
    fn write(&self, path: &Path, content: &[u8]) -> Result<(), ImageError> {
        if fs::read(path).is_ok_and(|present| present == content) {
            return Ok(());
        }
        let parent = path.parent().unwrap_or(&self.directory);
        let written = records::make_private(parent).and_then(|()| records::replace(path, content));
        written.map_err(|source| ImageError::Store {
            path: path.to_owned(),
            source,
        })
    }

    fn layer(&self, diff_id: &Digest) -> PathBuf {
        self.directory.join("layers").join(diff_id.hex())
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    fn rootfs_file(&self, digest: &Digest) -> PathBuf {
        self.directory.join("rootfs").join(digest.hex())
    }

    fn hello(&self) -> PathBuf {
        let hex = hello::DIGEST.strip_prefix("sha256:").unwrap_or(hello::DIGEST);
        self.directory.join("layers").join(hex)
    }
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The digest that stands for a plain directory, and its canonical path.
fn rootfs(reference: &str, path: &Path) -> Result<(Digest, PathBuf), ImageError> {
    let canonical = fs::canonicalize(path).and_then(|canonical| match canonical.is_dir() {
        true => Ok(canonical),
        false => Err(io::ErrorKind::NotADirectory.into()),
    });
    let canonical = canonical.map_err(|source| ImageError::Read {
        reference: reference.to_owned(),
        path: path.to_owned(),
        source,
    })?;
    Ok((Digest::of(canonical.as_os_str().as_bytes()), canonical))
}

/// A panic elsewhere leaves these maps whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
