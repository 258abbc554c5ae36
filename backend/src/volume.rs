//! Named volumes: `state/volumes/<full name>/{data,identity}`.
//!
//! A volume is made once. Its record and its directory carry the same random id; when they no longer
//! agree the volume is lost, and stays so until a person acts: an empty directory in the place of data
//! is worse than a service that waits.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
};

use reconciler::{key::ResourceKey, observed, spec::VolumeSpec};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    layout::Layout,
    records::{self, ReadError, Store, WriteError, file_name, kind},
};

#[derive(Debug, Error)]
pub enum VolumeError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Its data is gone or another's.
    #[error("volume {volume}: {why}")]
    Lost { volume: ResourceKey, why: String },
    #[error(
        "volume {volume}: {path} exists but was not made by stead. Move it away, then copy its content into the new volume",
        path = path.display()
    )]
    Foreign { volume: ResourceKey, path: PathBuf },
    #[error("volume {volume}: cannot change {path}; check free space and permissions of the state directory", path = path.display())]
    Io {
        volume: ResourceKey,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The volumes of one root.
#[derive(Debug)]
pub struct Volumes {
    directory: PathBuf,
    records: Store<Record>,
}

/// What the record holds, and, without `spec`, the file `identity`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    spec: VolumeSpec,
    identity: Identity,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    /// Random, hexadecimal.
    id: String,
    /// Full name of the volume.
    name: String,
    /// For whom it was made: what a record that is lost is made again from. A stead before there was
    /// this wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<ResourceKey>,
}

/// In a record that was made again while the volume itself was gone: whatever is brought back under its
/// name is taken.
const UNKNOWN: &str = "unknown";

impl Record {
    fn fits(&self, found: &Identity) -> bool {
        *found == self.identity || (self.identity.id == UNKNOWN && found.name == self.identity.name)
    }
}

/// What is at the place of a volume.
enum Found {
    Nothing,
    Whole(Identity),
    /// Why it is no volume of ours, for people.
    Broken(String),
}

impl Volumes {
    /// Touches nothing.
    pub fn new(layout: &Layout) -> Self {
        Volumes {
            directory: layout.volumes(),
            records: Store::new(layout, kind::VOLUME),
        }
    }

    /// What is mounted: `…/volumes/<full name>/data`. Owned by root of the host until idmapped.
    pub fn data(&self, volume: &ResourceKey) -> PathBuf {
        self.place(&volume.name).join("data")
    }

    /// The file of its record, there or not.
    pub fn record(&self, volume: &ResourceKey) -> PathBuf {
        self.records.path(&volume.to_string())
    }

    /// Makes the volume if it has neither record nor directory. A directory that carries a fitting
    /// identity without a record (the agent was killed in between, or another project shares the full
    /// name) is taken as it is. Returns whether it was made new, that is, is empty.
    ///
    /// # Errors
    /// Lost, foreign, or the file system refused.
    pub fn ensure(&self, spec: &VolumeSpec) -> Result<bool, VolumeError> {
        let volume = &spec.key;
        if let Some(record) = self.records.get(&volume.to_string())? {
            return match self.lost(&record) {
                None => Ok(false),
                Some(why) => Err(VolumeError::Lost {
                    volume: volume.clone(),
                    why,
                }),
            };
        }
        // Shared with another project: if that one has lost it, it is lost for this one, too.
        for record in self
            .records
            .list()?
            .into_values()
            .filter(|record| record.spec.key.name == volume.name)
        {
            if let Some(why) = self.lost(&record) {
                return Err(VolumeError::Lost {
                    volume: volume.clone(),
                    why,
                });
            }
        }
        let (identity, new) = match self.find(&volume.name) {
            Found::Whole(identity) => {
                // Whoever made it may have been killed before it was sure to outlast a power cut.
                let place = self.place(&volume.name);
                records::sync_directory(&self.directory).map_err(|source| self.io(volume, place, source))?;
                (identity, false)
            }
            Found::Broken(_) => {
                return Err(VolumeError::Foreign {
                    volume: volume.clone(),
                    path: self.place(&volume.name),
                });
            }
            Found::Nothing => (self.make(volume)?, true),
        };
        self.records.put(
            &volume.to_string(),
            &Record {
                spec: spec.clone(),
                identity,
            },
        )?;
        Ok(new)
    }

    /// Removes record and data; the data only when no other project has a record of it. Done twice is
    /// done once. Only ever called with consent.
    ///
    /// # Errors
    /// A record cannot be read, or the file system refused.
    pub fn remove(&self, volume: &ResourceKey) -> Result<(), VolumeError> {
        let records = self.records.list()?;
        let text = volume.to_string();
        let Some(record) = records.get(&text) else {
            return Ok(());
        };
        let shared = records
            .iter()
            .any(|(key, other)| *key != text && other.spec.key.name == volume.name);
        // What lies there but is not this volume is somebody's: it stays.
        let ours = matches!(self.find(&volume.name), Found::Whole(identity) if record.fits(&identity));
        let mut doomed = None;
        if ours && !shared {
            // Aside first, in one step: a volume half removed must not come back to life.
            let aside = self.directory.join(format!(".removed-{}", record.identity.id));
            let place = self.place(&volume.name);
            fs::rename(&place, &aside)
                .and_then(|()| records::sync_directory(&self.directory))
                .map_err(|source| self.io(volume, place, source))?;
            doomed = Some(aside);
        }
        self.records.remove(&text)?;
        match doomed {
            Some(aside) => fs::remove_dir_all(&aside).map_err(|source| self.io(volume, aside, source)),
            None => Ok(()),
        }
    }

    /// Makes records again that somebody has removed or damaged: from the identity files, and for `mounted`, the
    /// volumes that live sandboxes use. One of these whose directory is gone gets a record all the same:
    /// it is lost, and must not look like one that never was. Returns whose records were made.
    ///
    /// # Errors
    /// A record or the directory cannot be read, or a record not be written.
    pub fn restore(&self, mounted: &BTreeSet<ResourceKey>) -> Result<Vec<ResourceKey>, VolumeError> {
        let records = self.records.undamaged()?;
        let mut found: BTreeMap<ResourceKey, Identity> = BTreeMap::new();
        for name in self.names() {
            if let Found::Whole(identity) = self.find(&name)
                && let Some(key) = identity.key.clone()
            {
                found.insert(key, identity);
            }
        }
        for key in mounted {
            let identity = match self.find(&key.name) {
                Found::Whole(identity) => identity,
                Found::Nothing | Found::Broken(_) => Identity {
                    id: UNKNOWN.to_owned(),
                    name: key.name.clone(),
                    key: Some(key.clone()),
                },
            };
            found.entry(key.clone()).or_insert(identity);
        }
        found.retain(|key, _| !records.contains_key(&key.to_string()));
        for (key, identity) in &found {
            let record = Record {
                spec: VolumeSpec { key: key.clone() },
                identity: identity.clone(),
            };
            self.records.put(&key.to_string(), &record)?;
        }
        Ok(found.into_keys().collect())
    }

    /// There is neither a record nor anything at its place: [`Volumes::ensure`] would make it.
    ///
    /// # Errors
    /// The record cannot be read.
    pub fn is_nowhere(&self, volume: &ResourceKey) -> Result<bool, ReadError> {
        Ok(self.records.get(&volume.to_string())?.is_none()
            && matches!(self.find(&volume.name), Found::Nothing))
    }

    /// Whether what lies at the place of a volume is the one that was made.
    pub fn is_whole(&self, volume: &ResourceKey) -> bool {
        match self.records.get(&volume.to_string()) {
            Ok(Some(record)) => self.lost(&record).is_none(),
            _ => false,
        }
    }

    /// Where the volumes are, and the directory of each: what must stay there.
    pub fn places(&self) -> Vec<PathBuf> {
        let each = self.names().into_iter().map(|name| self.place(&name));
        std::iter::once(self.directory.clone()).chain(each).collect()
    }

    /// The volumes whose directory has this name.
    pub fn named(&self, directory: &str) -> Vec<ResourceKey> {
        let records = self.records.list().unwrap_or_default();
        records
            .into_values()
            .map(|record| record.spec.key)
            .filter(|key| file_name(&key.name) == directory)
            .collect()
    }

    /// Full names, as the identity files have them.
    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let text = fs::read(entry.path().join("identity")).ok()?;
                let identity: Identity = serde_json::from_slice(&text).ok()?;
                (entry.file_name().to_str() == Some(&file_name(&identity.name))).then_some(identity.name)
            })
            .collect()
    }

    /// Every volume that has a record, and whether it is still the one that was made.
    ///
    /// # Errors
    /// A record cannot be read: then nothing is known.
    pub fn observe(&self) -> Result<BTreeMap<ResourceKey, observed::Volume>, ReadError> {
        let records = self.records.list()?;
        Ok(records
            .into_values()
            .map(|record| {
                let lost = self.lost(&record);
                (record.spec.key, observed::Volume { lost })
            })
            .collect())
    }

    /// Removes what a killed agent left half made or half removed, and lets what it made last outlast a
    /// power cut. Only for the holder of the root's lock, before it makes any.
    ///
    /// # Errors
    /// The directory cannot be read or synced, or a remainder not be removed.
    pub fn sweep(&self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with(".new-") || name.starts_with(".removed-") {
                fs::remove_dir_all(entry.path())?;
            }
        }
        records::sync_directory(&self.directory)
    }

    /// Why this is no longer the volume that was made; `None`: it is.
    fn lost(&self, record: &Record) -> Option<String> {
        let place = self.place(&record.spec.key.name);
        let remedy = "Restore the directory from a backup, or give the volume up with `stead down --volumes`";
        match self.find(&record.spec.key.name) {
            Found::Whole(identity) if record.fits(&identity) => None,
            Found::Whole(_) => Some(format!("{} holds another volume. {remedy}", place.display())),
            Found::Nothing => Some(format!("{} is missing. {remedy}", place.display())),
            Found::Broken(why) => Some(format!("{why}. {remedy}")),
        }
    }

    fn find(&self, name: &str) -> Found {
        let place = self.place(name);
        match fs::symlink_metadata(&place) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::Nothing,
            Err(error) => return Found::Broken(format!("{} cannot be read: {error}", place.display())),
            Ok(metadata) if !metadata.is_dir() => {
                return Found::Broken(format!("{} is not a directory", place.display()));
            }
            Ok(_) => {}
        }
        let data = place.join("data");
        if !fs::symlink_metadata(&data).is_ok_and(|metadata| metadata.is_dir()) {
            return Found::Broken(format!("{} is missing", data.display()));
        }
        let path = place.join("identity");
        let mut text = Vec::new();
        match File::open(&path).and_then(|file| file.take(1 << 16).read_to_end(&mut text)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Found::Broken(format!("{} is missing", path.display()))
            }
            Err(error) => Found::Broken(format!("{} cannot be read: {error}", path.display())),
            Ok(_) => match serde_json::from_slice::<Identity>(&text) {
                Ok(identity) if identity.name == name => Found::Whole(identity),
                Ok(identity) => Found::Broken(format!("{} names {}", path.display(), identity.name)),
                Err(_) => Found::Broken(format!("{} is damaged", path.display())),
            },
        }
    }

    /// Whole or not at all: made beside its place, then renamed into it.
    fn make(&self, volume: &ResourceKey) -> Result<Identity, VolumeError> {
        let place = self.place(&volume.name);
        (|| {
            let identity = Identity {
                id: random_id()?,
                name: volume.name.clone(),
                key: Some(volume.clone()),
            };
            records::make_private(&self.directory)?;
            let new = self.directory.join(format!(".new-{}", identity.id));
            let made = (|| {
                DirBuilder::new().mode(0o700).create(&new)?;
                let data = new.join("data");
                DirBuilder::new().create(&data)?;
                // By hand: the umask would have its say in `create`.
                fs::set_permissions(&data, fs::Permissions::from_mode(0o755))?;
                let text = serde_json::to_vec(&identity).map_err(io::Error::other)?;
                records::replace(&new.join("identity"), &text)?;
                fs::rename(&new, &place)
            })();
            if made.is_err() {
                let _ = fs::remove_dir_all(&new);
            }
            made?;
            records::sync_directory(&self.directory)?;
            Ok(identity)
        })()
        .map_err(|source| self.io(volume, place.clone(), source))
    }

    fn place(&self, name: &str) -> PathBuf {
        self.directory.join(file_name(name))
    }

    fn io(&self, volume: &ResourceKey, path: PathBuf, source: io::Error) -> VolumeError {
        VolumeError::Io {
            volume: volume.clone(),
            path,
            source,
        }
    }
}

fn random_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(records::hex(&bytes))
}

#[cfg(test)]
mod tests;
