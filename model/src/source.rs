//! The only way `model` reads anything: named texts that the caller provides.

use std::{
    collections::BTreeMap,
    fs::{self, File, FileType, Metadata},
    io::{self, Read},
    os::unix::fs::{FileTypeExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Where files come from. The daemon gives the disk, a test gives a map.
pub trait Sources {
    /// The bytes of a regular file of at most [`MAX_FILE`] bytes.
    ///
    /// # Errors
    /// `NotFound` for a missing file, `IsADirectory` for a directory, anything else for what must not be
    /// read (a FIFO, a device, too large): the message says which.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The path without symbolic links; sources that have none leave it as it is.
    ///
    /// # Errors
    /// `NotFound` where nothing is.
    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }

    /// The paths in a directory; sources that have no directories have none.
    ///
    /// # Errors
    /// `NotFound` where nothing is.
    fn list(&self, _directory: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::Error::from(io::ErrorKind::NotFound))
    }
}

/// A manifest larger than this is refused, unread.
pub const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Files in memory.
impl Sources for BTreeMap<PathBuf, Vec<u8>> {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.get(path)
            .cloned()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let below = self.keys().filter(|path| path.parent() == Some(directory));
        Ok(below.cloned().collect())
    }
}

/// The disk. Symbolic links are followed; only regular files of at most [`MAX_FILE`] bytes are read, and
/// `/dev/null`, which people name where they want an empty file.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

/// `O_NONBLOCK` and `O_NOCTTY` of Linux (asm-generic/fcntl.h): should the file have been replaced since
/// it was looked at, opening a FIFO must not wait for a writer, and a terminal must not become ours.
const FLAGS: i32 = 0o4000 | 0o400;

impl Sources for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        if path == Path::new("/dev/null") {
            return Ok(Vec::new());
        }
        // Before it is opened, because opening alone has effects on some devices.
        regular(&fs::metadata(path)?)?;
        let file = File::options().read(true).custom_flags(FLAGS).open(path)?;
        let metadata = file.metadata()?;
        regular(&metadata)?;
        if metadata.len() > MAX_FILE {
            return Err(too_large(metadata.len()));
        }
        // The file may grow while it is read.
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_FILE {
            return Err(too_large(bytes.len() as u64));
        }
        Ok(bytes)
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = fs::read_dir(directory)?;
        entries.map(|entry| Ok(entry?.path())).collect()
    }
}

/// The error for a file of more than [`MAX_FILE`] bytes.
pub(crate) fn too_large(bytes: u64) -> io::Error {
    let kind = io::ErrorKind::FileTooLarge;
    io::Error::new(
        kind,
        format!("it has {bytes} bytes, more than the {MAX_FILE} allowed"),
    )
}

fn regular(metadata: &Metadata) -> io::Result<()> {
    if metadata.is_file() {
        return Ok(());
    }
    let error = match metadata.is_dir() {
        true => io::ErrorKind::IsADirectory,
        false => io::ErrorKind::Other,
    };
    let kind = kind(metadata.file_type());
    Err(io::Error::new(error, format!("it is {kind}, not a regular file")))
}

fn kind(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixListener, process::Command};

    use super::*;

    #[test]
    fn the_disk_gives_regular_files_also_through_links_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        std::fs::write(path("large"), vec![0; MAX_FILE as usize + 1]).unwrap();
        std::fs::write(path("largest"), vec![0; MAX_FILE as usize]).unwrap();
        let _socket = UnixListener::bind(path("socket")).unwrap();
        assert!(
            Command::new("mkfifo")
                .arg(path("fifo"))
                .status()
                .unwrap()
                .success()
        );

        assert_eq!(Disk.read(&path("file")).unwrap(), b"text");
        assert_eq!(Disk.read(&path("link")).unwrap(), b"text");
        assert_eq!(Disk.read(&path("largest")).unwrap().len() as u64, MAX_FILE);
        assert_eq!(
            Disk.read(&path("none")).unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        for (name, want) in [
            ("fifo", "a FIFO"),
            ("socket", "a socket"),
            (".", "a directory"),
            ("large", "bytes, more than"),
        ] {
            let error = Disk.read(&path(name)).unwrap_err().to_string();
            assert!(error.contains(want), "{name}: {error}");
        }
        assert_eq!(Disk.read(Path::new("/dev/null")).unwrap(), b"");
        let error = Disk.read(Path::new("/dev/zero")).unwrap_err().to_string();
        assert!(error.contains("a device"), "{error}");
    }
}
