//! What must outlive the agent, one checked file per resource: `state/records/<kind>/<name>.json`.
//!
//! The file is one JSON object: `version` of the format, `key` of the resource, `sha256` over kind,
//! version, key and body, and the `body` itself. It is replaced whole (temporary file, fsync, rename,
//! fsync of the directory), so a reader sees the old value or the new one, also after a power cut.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Write},
    marker::PhantomData,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::layout::Layout;

/// The only format so far. A higher one was written by a newer stead and is left alone.
const VERSION: u64 = 1;

/// Larger than any record; what is larger is not one.
const MAX_SIZE: u64 = 16 << 20;

/// Kinds in use, which are also directory names.
pub mod kind {
    /// `NetworkSpec` by network key.
    pub const NETWORK: &str = "network";
    /// Written by [`crate::volume`] only.
    pub const VOLUME: &str = "volume";
    /// Project name to first host id (`u32`).
    pub const ID_BASE: &str = "id-base";
    /// Copies of the sealed records of sandboxes, by instance key.
    pub const INSTANCE: &str = "instance";
    /// Image reference to the digest it stood for when it was unpacked; written by [`crate::image`] only.
    pub const IMAGE: &str = "image";
}

#[derive(Debug, Error)]
pub enum ReadError {
    #[error("cannot read the record {path}; make it readable for root; nothing was changed", path = path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the record {path} is damaged ({why}). Restore it from a backup, or remove the file if the resource may be made again; nothing was changed",
        path = path.display()
    )]
    Corrupt { path: PathBuf, why: String },
    #[error(
        "the record {path} has version {found}, written by a newer stead (this one knows {VERSION}). Run the newer stead again; nothing was changed",
        path = path.display()
    )]
    Newer { path: PathBuf, found: u64 },
}

#[derive(Debug, Error)]
pub enum WriteError {
    #[error("cannot write the record {path}; check free space and permissions of the state directory", path = path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot turn the record {key} into JSON. This is a defect of stead; please report it")]
    Encode {
        key: String,
        #[source]
        source: serde_json::Error,
    },
    /// Never replace what a newer stead wrote.
    #[error(transparent)]
    Existing(ReadError),
}

/// All records of one kind. Several stores of one kind may be used at once: each write is atomic, the
/// last one wins.
#[derive(Debug)]
pub struct Store<T> {
    kind: String,
    directory: PathBuf,
    body: PhantomData<fn() -> T>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    version: u64,
    key: String,
    sha256: String,
    body: Value,
}

impl<T: Serialize + DeserializeOwned> Store<T> {
    /// `kind`: a directory name, see [`kind`]. Touches nothing.
    pub fn new(layout: &Layout, kind: &str) -> Self {
        Store {
            kind: kind.to_owned(),
            directory: layout.records().join(kind),
            body: PhantomData,
        }
    }

    /// The file of a key, there or not.
    pub fn path(&self, key: &str) -> PathBuf {
        self.directory.join(format!("{}.json", file_name(key)))
    }

    /// `None`: there is no such record.
    ///
    /// # Errors
    /// Unreadable, damaged, or of a newer version. Never treat that as absent.
    pub fn get(&self, key: &str) -> Result<Option<T>, ReadError> {
        let found = self.read(&self.path(key))?;
        match found {
            None => Ok(None),
            Some((found, _)) if found != key => Err(ReadError::Corrupt {
                path: self.path(key),
                why: format!("it belongs to {found}"),
            }),
            Some((_, body)) => Ok(Some(body)),
        }
    }

    /// Writes durably; a record that already says the same is not written again.
    ///
    /// # Errors
    /// The file system refused, or the present record is of a newer version. A damaged one is replaced.
    pub fn put(&self, key: &str, body: &T) -> Result<(), WriteError> {
        let path = self.path(key);
        let encode = |source| WriteError::Encode {
            key: key.to_owned(),
            source,
        };
        let body = serde_json::to_value(body).map_err(encode)?;
        let envelope = Envelope {
            version: VERSION,
            sha256: checksum(&self.kind, VERSION, key, &body),
            key: key.to_owned(),
            body,
        };
        let mut text = serde_json::to_vec_pretty(&envelope).map_err(encode)?;
        text.push(b'\n');
        match self.read(&path) {
            Ok(Some(_)) if fs::read(&path).is_ok_and(|present| present == text) => return Ok(()),
            Err(newer @ ReadError::Newer { .. }) => return Err(WriteError::Existing(newer)),
            _ => {}
        }
        let write = |source| WriteError::Write {
            path: path.clone(),
            source,
        };
        make_private(&self.directory).map_err(write)?;
        replace(&path, &text).map_err(write)
    }

    /// Removes durably; without such a record, done already.
    ///
    /// # Errors
    /// The file system refused.
    pub fn remove(&self, key: &str) -> Result<(), WriteError> {
        let path = self.path(key);
        match fs::remove_file(&path) {
            Ok(()) => sync_directory(&self.directory),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|source| WriteError::Write { path, source })
    }

    /// All records by key. All or nothing: a list with a hole would read as an absence.
    ///
    /// # Errors
    /// The first record that cannot be read.
    pub fn list(&self) -> Result<BTreeMap<String, T>, ReadError> {
        self.gather(Err)
    }

    /// The records that are not damaged: for whoever makes the others again from what they told of, and
    /// for nobody else.
    ///
    /// # Errors
    /// The first record that cannot be read, or is of a newer version.
    pub fn undamaged(&self) -> Result<BTreeMap<String, T>, ReadError> {
        self.gather(|error| match error {
            ReadError::Corrupt { .. } => Ok(()),
            other => Err(other),
        })
    }

    fn gather(
        &self,
        unreadable: impl Fn(ReadError) -> Result<(), ReadError>,
    ) -> Result<BTreeMap<String, T>, ReadError> {
        let failed = |source| ReadError::Read {
            path: self.directory.clone(),
            source,
        };
        let entries = match fs::read_dir(&self.directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut records = BTreeMap::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name
                .to_str()
                .filter(|name| !name.starts_with('.') && name.ends_with(".json"))
            else {
                continue;
            };
            let path = self.directory.join(name);
            match self.read(&path) {
                Ok(Some((key, _))) if self.path(&key) != path => unreadable(ReadError::Corrupt {
                    path,
                    why: format!("it belongs to {key}"),
                })?,
                Ok(Some((key, body))) => drop(records.insert(key, body)),
                // Removed since the directory was read.
                Ok(None) => {}
                Err(error) => unreadable(error)?,
            }
        }
        Ok(records)
    }

    fn read(&self, path: &Path) -> Result<Option<(String, T)>, ReadError> {
        let failed = |source| ReadError::Read {
            path: path.to_owned(),
            source,
        };
        let corrupt = |why: String| ReadError::Corrupt {
            path: path.to_owned(),
            why,
        };
        let mut text = Vec::new();
        match File::open(path) {
            Ok(file) => file.take(MAX_SIZE + 1).read_to_end(&mut text).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if text.len() as u64 > MAX_SIZE {
            return Err(corrupt(format!("it is larger than {MAX_SIZE} bytes")));
        }
        let document: Value = serde_json::from_slice(&text).map_err(|error| corrupt(error.to_string()))?;
        // The version first: a newer format may look different in everything else.
        match document.get("version").and_then(Value::as_u64) {
            Some(VERSION) => {}
            Some(found) if found > VERSION => {
                return Err(ReadError::Newer {
                    path: path.to_owned(),
                    found,
                });
            }
            _ => return Err(corrupt("it has no version".to_owned())),
        }
        let envelope: Envelope =
            serde_json::from_value(document).map_err(|error| corrupt(error.to_string()))?;
        if checksum(&self.kind, envelope.version, &envelope.key, &envelope.body) != envelope.sha256 {
            return Err(corrupt("its checksum does not match".to_owned()));
        }
        let body = serde_json::from_value(envelope.body).map_err(|error| corrupt(error.to_string()))?;
        Ok(Some((envelope.key, body)))
    }
}

/// Removes temporary files that an agent left when it was killed in the middle of a write. Only for the
/// holder of the root's lock, before it writes.
///
/// # Errors
/// A directory of records cannot be read.
pub fn sweep(layout: &Layout) -> io::Result<()> {
    let kinds = match fs::read_dir(layout.records()) {
        Ok(kinds) => kinds,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for kind in kinds {
        for entry in fs::read_dir(kind?.path())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            if is_temporary(name) {
                fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

/// A file name for any text: letters, digits, `_`, `-` and inner dots stay, the rest becomes `%XX`; what
/// would be longer than a file name may be is cut and ends in its SHA-256.
pub fn file_name(key: &str) -> String {
    let mut name = String::new();
    for (at, byte) in key.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'-' => name.push(char::from(byte)),
            b'.' if at > 0 => name.push('.'),
            _ => {
                let _ = write!(name, "%{byte:02X}");
            }
        }
    }
    if name.is_empty() {
        // A single `%` is no escape, so no other key gives it.
        return "%".to_owned();
    }
    if name.len() > 200 {
        name.truncate(120);
        let _ = write!(name, "%~{}", hex(&Sha256::digest(key.as_bytes())));
    }
    name
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Replaces `path` by `content`: the old file or the new one, never a part. The directory must exist.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
    else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let number = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = directory.join(format!(".{name}.{}.{number}.tmp", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        // Closed under its first name: who watches the directory takes the last for somebody else's edit.
        drop(file);
        fs::rename(&temporary, path)
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_directory(directory)
}

/// What [`replace`] leaves beside a file where it is killed.
pub(crate) fn is_temporary(name: &[u8]) -> bool {
    name.starts_with(b".") && name.ends_with(b".tmp")
}

/// Makes a directory for root only, with its parents, durably.
pub(crate) fn make_private(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    if let Some(parent) = directory.parent() {
        make_private(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    directory.parent().map_or(Ok(()), sync_directory)
}

pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn checksum(kind: &str, version: u64, key: &str, body: &Value) -> String {
    hex(&Sha256::digest(
        format!("{kind}\0{version}\0{key}\0{body}").as_bytes(),
    ))
}

#[cfg(test)]
mod tests;
