//! The files of an image, whether they lie in a directory or in a tar archive.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::FileExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::{Mode, OFlags, ResolveFlags};

use super::tar::{Archive, Input, Kind, TarError};

/// Members of an image archive: two per layer, a few more.
const MAX_MEMBERS: u64 = 100_000;

/// Named files of one image.
#[derive(Debug)]
pub(super) enum Source {
    Directory(OwnedFd),
    Archive {
        file: Arc<File>,
        /// Clean path to offset and size.
        files: BTreeMap<String, (u64, u64)>,
        /// Clean path to clean path: `docker save` of old links equal layers.
        links: BTreeMap<String, String>,
    },
}

impl Source {
    pub(super) fn directory(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Source::Directory(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// # Errors
    /// Not a plain tar archive; a compressed one is told by its own message.
    pub(super) fn archive(path: &Path) -> Result<Self, TarError> {
        let file = regular(rustix::fs::open(path, read_flags(), Mode::empty()).map_err(io::Error::from)?)?;
        let size = file.metadata()?.len();
        let file = Arc::new(file);
        let mut magic = [0; 4];
        let _ = file.read_at(&mut magic, 0)?;
        if magic.starts_with(&[0x1f, 0x8b]) || magic == super::layer::ZSTD_MAGIC {
            let why = "the archive as a whole is compressed; decompress it first (gunzip, zstd -d)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, why).into());
        }
        let mut archive = Archive::new(Section::new(Arc::clone(&file), 0, size), MAX_MEMBERS);
        let (mut files, mut links) = (BTreeMap::new(), BTreeMap::new());
        while let Some(entry) = archive.next()? {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            if entry.sparse.is_some() {
                return Err(TarError::Entry {
                    path: name,
                    why: "it is sparse; files of an image are stored whole".to_owned(),
                });
            }
            let twice = match entry.kind {
                Kind::File => files
                    .insert(clean("", &name), (archive.offset(), entry.size))
                    .is_some(),
                Kind::Symlink => {
                    let base = name.rsplit_once('/').map_or("", |(base, _)| base);
                    let target = clean(base, &String::from_utf8_lossy(&entry.link));
                    links.insert(clean("", &name), target).is_some()
                }
                Kind::HardLink => {
                    let target = clean("", &String::from_utf8_lossy(&entry.link));
                    links.insert(clean("", &name), target).is_some()
                }
                _ => false,
            };
            if twice {
                return Err(TarError::Entry {
                    path: name,
                    why: "it appears twice".to_owned(),
                });
            }
        }
        Ok(Source::Archive { file, files, links })
    }

    /// A file by its path inside the image; `None`: there is none.
    pub(super) fn open(&self, name: &str) -> io::Result<Option<Section>> {
        match self {
            Source::Directory(directory) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                match rustix::fs::openat2(directory, name, read_flags(), Mode::empty(), resolve) {
                    Ok(file) => {
                        let file = regular(file)?;
                        let size = file.metadata()?.len();
                        Ok(Some(Section::new(Arc::new(file), 0, size)))
                    }
                    Err(rustix::io::Errno::NOENT) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Source::Archive { file, files, links } => {
                let mut name = clean("", name);
                for _ in 0..8 {
                    match links.get(&name) {
                        Some(target) => name.clone_from(target),
                        None => break,
                    }
                }
                Ok(files
                    .get(&name)
                    .map(|(offset, size)| Section::new(Arc::clone(file), *offset, *size)))
            }
        }
    }
}

/// A part of a file, read by offset, so that parts of one archive do not disturb each other.
#[derive(Debug, Clone)]
pub(super) struct Section {
    file: Arc<File>,
    position: u64,
    end: u64,
}

impl Section {
    fn new(file: Arc<File>, position: u64, size: u64) -> Self {
        Section {
            file,
            position,
            end: position.saturating_add(size),
        }
    }

    /// A file by itself.
    pub(super) fn whole(path: &Path) -> io::Result<Self> {
        let file = regular(rustix::fs::open(path, read_flags(), Mode::empty())?)?;
        let size = file.metadata()?.len();
        Ok(Section::new(Arc::new(file), 0, size))
    }

    pub(super) fn size(&self) -> u64 {
        self.end - self.position
    }
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.size())
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let read = self.file.read_at(&mut buffer[..room], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Input for Section {
    fn skip(&mut self, count: u64) -> io::Result<u64> {
        let skipped = count.min(self.size());
        self.position += skipped;
        Ok(skipped)
    }
}

/// Not blocking: opening a FIFO must not wait for a writer.
fn read_flags() -> OFlags {
    OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY
}

fn regular(file: OwnedFd) -> io::Result<File> {
    let file = File::from(file);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ))
    }
}

/// `./a//b/../c` below `base` → `a/c`. Only a key of a map, never a path for the kernel.
fn clean(base: &str, path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let start = if path.starts_with('/') { "" } else { base };
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::clean;

    #[test]
    fn member_names_are_cleaned() {
        for (base, path, expected) in [
            ("", "./manifest.json", "manifest.json"),
            ("", "/a//b/", "a/b"),
            ("abc", "../def/layer.tar", "def/layer.tar"),
            ("abc", "/x", "x"),
            ("", "../../x", "x"),
        ] {
            assert_eq!(clean(base, path), expected);
        }
    }
}
