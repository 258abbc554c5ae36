//! Images as others take them: an OCI layout with docker's list beside it, the layers put together again from their
//! recipes. The same images give the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

use model::types::ImageName;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::{Store, list::Stored};
use crate::image::{
    ImageError, Reference,
    config::{CONTAINERD_NAME, Digest, REF_NAME},
    recipe::{self, RecipeError},
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIGURATION: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const BLOBS: &str = "blobs/sha256";

/// What is in a saved file, in its order.
#[derive(Default)]
struct Content {
    /// Below `blobs/sha256`.
    blobs: BTreeMap<Digest, Blob>,
    /// `index.json`, `manifest.json`, `oci-layout`.
    files: BTreeMap<&'static str, Vec<u8>>,
}

enum Blob {
    Document(Vec<u8>),
    /// Its size.
    Layer(u64),
}

/// Where it goes to.
trait Target {
    fn begin(&mut self, name: &str, size: u64) -> io::Result<()>;
    fn write(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn end(&mut self) -> io::Result<()>;
}

impl Store {
    /// Writes one tar archive, which is an OCI layout and what `docker save` writes in one.
    ///
    /// # Errors
    /// A layer is damaged or has no recipe; an image is none of stored documents; `out` takes no more.
    pub fn save(&self, images: &[&Stored], out: &mut dyn Write) -> Result<(), ImageError> {
        let _lease = self.lease()?;
        let content = self.content(images)?;
        let mut archive = Archive { out, size: 0 };
        for directory in ["blobs/", "blobs/sha256/"] {
            archive
                .header(directory, EntryType::Directory, 0o755, 0)
                .map_err(unwritten)?;
        }
        self.pour(&content, &mut archive)?;
        // Two blocks of nothing end it.
        archive.out.write_all(&[0; 1024]).map_err(unwritten)?;
        archive.out.flush().map_err(unwritten)
    }

    /// Writes the same as files into a directory, which is made.
    ///
    /// # Errors
    /// As [`Store::save`]; there is something in the directory already.
    pub fn save_layout(&self, images: &[&Stored], directory: &Path) -> Result<(), ImageError> {
        let _lease = self.lease()?;
        let content = self.content(images)?;
        let made = fs::create_dir_all(directory).and_then(|()| match fs::read_dir(directory)?.next() {
            Some(_) => Err(io::ErrorKind::DirectoryNotEmpty.into()),
            None => fs::create_dir_all(directory.join(BLOBS)),
        });
        made.map_err(unwritten)?;
        let mut files = Files {
            directory,
            file: None,
        };
        self.pour(&content, &mut files)
    }

    fn content(&self, images: &[&Stored]) -> Result<Content, ImageError> {
        let mut content = Content::default();
        let (mut listed, mut manifests) = (Vec::new(), Vec::new());
        for image in images {
            let missing = || ImageError::Missing {
                digest: image.digest.clone(),
            };
            let digest = Digest::parse(&image.digest).ok_or_else(missing)?;
            let (_, diff_ids) = self.stored_config(&digest).ok_or_else(missing)?;
            let config = fs::read(self.blob(&digest)).map_err(|_| missing())?;
            let mut layers = Vec::new();
            for diff_id in &diff_ids {
                let size = match content.blobs.get(diff_id) {
                    Some(Blob::Layer(size)) => *size,
                    _ => self.layer_size(diff_id)?,
                };
                content.blobs.insert(diff_id.clone(), Blob::Layer(size));
                layers.push(json!({ "mediaType": LAYER, "digest": diff_id.to_string(), "size": size }));
            }
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": { "mediaType": CONFIGURATION, "digest": image.digest, "size": config.len() },
                "layers": layers,
            });
            let manifest = manifest.to_string().into_bytes();
            let described = json!({
                "mediaType": MANIFEST,
                "digest": Digest::of(&manifest).to_string(),
                "size": manifest.len(),
            });
            content
                .blobs
                .insert(Digest::of(&manifest), Blob::Document(manifest));
            content.blobs.insert(digest.clone(), Blob::Document(config));
            // Only a name of a registry means anything elsewhere.
            let names: BTreeSet<ImageName> = image
                .names
                .iter()
                .filter_map(|name| registry_name(name))
                .collect();
            for name in &names {
                let mut entry = described.clone();
                let name = name.to_string();
                entry["annotations"] = json!({ CONTAINERD_NAME: name, REF_NAME: name });
                manifests.push(entry);
            }
            if names.is_empty() {
                manifests.push(described);
            }
            let path = |digest: &Digest| format!("{BLOBS}/{}", digest.hex());
            // In full: docker shortens them, and podman would take a short one for one of this host.
            let tags: Vec<String> = names.iter().map(ToString::to_string).collect();
            listed.push(json!({
                "Config": path(&digest),
                "RepoTags": if tags.is_empty() { Value::Null } else { json!(tags) },
                "Layers": diff_ids.iter().map(path).collect::<Vec<_>>(),
            }));
        }
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests });
        let layout = json!({ "imageLayoutVersion": "1.0.0" });
        let documents = [
            ("index.json", index),
            ("manifest.json", Value::Array(listed)),
            ("oci-layout", layout),
        ];
        let documents = documents.map(|(name, document)| (name, document.to_string().into_bytes()));
        content.files = documents.into();
        Ok(content)
    }

    /// Bytes of a layer's tar stream, which is put together once for that: its header comes before it.
    fn layer_size(&self, diff_id: &Digest) -> Result<u64, ImageError> {
        let mut counted = Counted {
            out: &mut io::sink(),
            hash: Sha256::new(),
            size: 0,
        };
        self.assemble(diff_id, &mut counted)
    }

    /// The stream of a layer, verified; how many bytes it has.
    fn assemble(&self, diff_id: &Digest, counted: &mut Counted<'_>) -> Result<u64, ImageError> {
        let (recipe, layer) = (self.recipe(diff_id), self.layer(diff_id));
        let assembled = recipe::assemble(&recipe, &layer, counted);
        assembled.map_err(|source| ImageError::Recipe {
            layer: diff_id.to_string(),
            source,
        })?;
        let found = Digest::from_hash(&counted.hash.clone().finalize());
        if found == *diff_id {
            return Ok(counted.size);
        }
        Err(ImageError::Recipe {
            layer: diff_id.to_string(),
            source: RecipeError::Damaged {
                path: recipe,
                why: format!("what it makes has the digest {found}"),
            },
        })
    }

    pub(super) fn recipe(&self, diff_id: &Digest) -> std::path::PathBuf {
        self.directory.join("recipes").join(diff_id.hex())
    }

    fn pour(&self, content: &Content, target: &mut dyn Target) -> Result<(), ImageError> {
        for (digest, blob) in &content.blobs {
            let name = format!("{BLOBS}/{}", digest.hex());
            match blob {
                Blob::Document(bytes) => whole(target, &name, bytes).map_err(unwritten)?,
                Blob::Layer(size) => {
                    target.begin(&name, *size).map_err(unwritten)?;
                    let mut counted = Counted {
                        out: &mut Member(target),
                        hash: Sha256::new(),
                        size: 0,
                    };
                    self.assemble(digest, &mut counted)?;
                    target.end().map_err(unwritten)?;
                }
            }
        }
        for (name, bytes) in &content.files {
            whole(target, name, bytes).map_err(unwritten)?;
        }
        Ok(())
    }
}

fn whole(target: &mut dyn Target, name: &str, bytes: &[u8]) -> io::Result<()> {
    target.begin(name, bytes.len() as u64)?;
    target.write(bytes)?;
    target.end()
}

fn unwritten(source: io::Error) -> ImageError {
    ImageError::Save { source }
}

/// The name of a reference that is one of a registry, with its tag: a digest alone is no name elsewhere.
fn registry_name(text: &str) -> Option<ImageName> {
    match text.parse() {
        Ok(Reference::Registry(name)) if name.tag.is_some() && name.digest.is_none() => Some(name),
        _ => None,
    }
}

/// What goes through, counted and hashed.
struct Counted<'a> {
    out: &'a mut dyn Write,
    hash: Sha256,
    size: u64,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        self.size += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A member of a target as something to write to.
struct Member<'a>(&'a mut dyn Target);

impl Write for Member<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One tar archive; nothing in it is of a time or of a person.
struct Archive<'a> {
    out: &'a mut dyn Write,
    size: u64,
}

impl Archive<'_> {
    fn header(&mut self, name: &str, kind: EntryType, mode: u32, size: u64) -> io::Result<()> {
        let mut header = Header::new_ustar();
        // More than 8 GiB is written as GNU tar does.
        if size >> 33 != 0 {
            header = Header::new_gnu();
        }
        header.set_path(name)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        self.out.write_all(header.as_bytes())
    }
}

impl Target for Archive<'_> {
    fn begin(&mut self, name: &str, size: u64) -> io::Result<()> {
        self.size = size;
        self.header(name, EntryType::Regular, 0o644, size)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    fn end(&mut self) -> io::Result<()> {
        let rest = usize::try_from(self.size % 512).unwrap_or(0);
        match rest {
            0 => Ok(()),
            rest => self.out.write_all(&[0; 512][rest..]),
        }
    }
}

/// Files in a directory.
struct Files<'a> {
    directory: &'a Path,
    file: Option<File>,
}

impl Target for Files<'_> {
    fn begin(&mut self, name: &str, _size: u64) -> io::Result<()> {
        self.file = Some(File::create_new(self.directory.join(name))?);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes))
    }

    fn end(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.sync_all())
    }
}
