//! Names that are given to images by order: asked of a registry anew, or found in an archive.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

use model::types::ImageName;

use super::Store;
use crate::{
    image::{
        ImageError, Reference,
        config::Digest,
        layer,
        load::{self, Contained, Loaded},
    },
    records,
};

/// Bytes of an archive whose size is not known before: so many whole layers.
const ARCHIVE: u64 = 4;

/// What a name stood for, and stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moved {
    /// In full.
    pub name: String,
    pub before: Option<String>,
    pub now: String,
}

impl Store {
    /// Brings in what a reference stands for now, asked anew, and binds it to that. [`Store::progress`] tells how far
    /// it is.
    ///
    /// # Errors
    /// As [`Store::resolve`] and [`Store::unpack`].
    pub fn bring(&self, reference: &Reference) -> Result<Moved, ImageError> {
        let name = reference.to_string();
        let before = self.bindings.get(&name)?.map(|binding| binding.digest);
        let now = match reference {
            Reference::Registry(image) => {
                let _lease = self.lease()?;
                self.take_anew(image)?
            }
            _ => {
                let image = self.resolve(&name)?;
                self.unpack(&name, &image.digest)?;
                image.digest
            }
        };
        Ok(Moved { name, before, now })
    }

    /// Brings in the images of an archive or of an OCI layout, and binds the names that it tells, or `name` where it
    /// has one image. What is compressed as a whole is decompressed beside the store before.
    ///
    /// # Errors
    /// It is no such archive, or damaged; it tells no name, and none is given.
    pub fn load(&self, path: &Path, name: Option<&ImageName>) -> Result<Vec<Moved>, ImageError> {
        let _lease = self.lease()?;
        let found = self.contents(path)?;
        self.keep_all(&path.display().to_string(), found, name)
    }

    /// What an archive or a layout holds; nothing of it is in the store yet.
    pub(super) fn contents(&self, path: &Path) -> Result<Vec<Contained>, ImageError> {
        let plain = match path.is_dir() {
            true => None,
            false => self.decompressed(path)?,
        };
        let opened = plain
            .as_ref()
            .map(|file| format!("/proc/self/fd/{}", file.as_raw_fd()));
        let opened = opened.map_or_else(|| path.to_owned(), PathBuf::from);
        load::contents(&opened, &path.display().to_string(), &self.limits)
    }

    /// As [`Store::load`], of the one image that a reference with a transport stands for.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_reference(
        &self,
        reference: &Reference,
        name: Option<&ImageName>,
    ) -> Result<Vec<Moved>, ImageError> {
        let _lease = self.lease()?;
        let loaded = load::load(reference, &self.limits)?;
        let told = match reference {
            Reference::Oci { tag, .. } | Reference::OciArchive { tag, .. } => {
                tag.as_deref().and_then(load::told)
            }
            Reference::DockerArchive { name, .. } => name.as_deref().and_then(|name| name.parse().ok()),
            _ => None,
        };
        let found = Contained {
            loaded,
            names: told.into_iter().collect(),
        };
        self.keep_all(&reference.to_string(), vec![found], name)
    }

    fn keep_all(
        &self,
        from: &str,
        found: Vec<Contained>,
        name: Option<&ImageName>,
    ) -> Result<Vec<Moved>, ImageError> {
        let format = |why: String| ImageError::Format {
            reference: from.to_owned(),
            why,
        };
        if name.is_some() && found.len() > 1 {
            let known: Vec<String> = found
                .iter()
                .flat_map(|one| &one.names)
                .map(ToString::to_string)
                .collect();
            return Err(format(format!(
                "it holds {} images, and one name is given; leave it out, or choose one of: {}",
                found.len(),
                known.join(", ")
            )));
        }
        if name.is_none()
            && let Some(unnamed) = found.iter().find(|one| one.names.is_empty())
        {
            return Err(format(format!(
                "it tells no name for {}; give it one: stead image load -i FILE NAME",
                unnamed.loaded.digest
            )));
        }
        let mut moved = Vec::new();
        for one in found {
            let digest = one.loaded.digest.clone();
            self.keep(from, one.loaded)?;
            let names = name.map_or(one.names, |name| BTreeSet::from([name.clone()]));
            for name in names {
                let name = name.to_string();
                let before = self.bindings.get(&name)?.map(|binding| binding.digest);
                self.bind(&name, &digest, None)?;
                moved.push(Moved {
                    name,
                    before,
                    now: digest.to_string(),
                });
            }
        }
        Ok(moved)
    }

    /// Layers that are not here, then the documents.
    fn keep(&self, from: &str, loaded: Loaded) -> Result<(), ImageError> {
        self.unpack_layers(from, loaded.layers)?;
        if let Some(manifest) = &loaded.manifest {
            self.write(&self.blob(&Digest::of(manifest)), manifest)?;
        }
        self.write(&self.blob(&loaded.digest), &loaded.config)
    }

    /// A copy of what cannot be read in any order: what is compressed, and what comes through a pipe. It has no name,
    /// so nothing of it is left whatever happens. `None`: it can be read as it is.
    fn decompressed(&self, path: &Path) -> Result<Option<File>, ImageError> {
        let read = |source| ImageError::Read {
            reference: path.display().to_string(),
            path: path.to_owned(),
            source,
        };
        let file = File::open(path).map_err(read)?;
        let regular = file.metadata().map_err(read)?.is_file();
        let mut input = BufReader::with_capacity(1 << 16, file);
        let packed = layer::is_compressed(input.fill_buf().map_err(read)?);
        if regular && !packed {
            return Ok(None);
        }
        let directory = self.directory.join("pull");
        let store = |source| ImageError::Store {
            path: directory.clone(),
            source,
        };
        let name = directory.join(format!(".load.{}.tmp", std::process::id()));
        let mut copy = records::make_private(&directory)
            .and_then(|()| {
                let mut options = OpenOptions::new();
                options
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .mode(0o600);
                options.open(&name)
            })
            .map_err(store)?;
        fs::remove_file(&name).map_err(store)?;
        let most = self.limits.unpacked.saturating_mul(ARCHIVE);
        let mut plain = layer::decompress(input)
            .map_err(read)?
            .take(most.saturating_add(1));
        let mut buffer = vec![0; 1 << 16];
        let mut length = 0u64;
        loop {
            let count = match plain.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                count => count.map_err(read)?,
            };
            if count == 0 {
                break;
            }
            length += count as u64;
            if length > most {
                let why = format!("it has more than {most} bytes");
                return Err(ImageError::Format {
                    reference: path.display().to_string(),
                    why,
                });
            }
            copy.write_all(&buffer[..count]).map_err(store)?;
        }
        copy.seek(SeekFrom::Start(0)).map_err(store)?;
        Ok(Some(copy))
    }
}
