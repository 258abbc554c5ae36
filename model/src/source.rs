//! The only way `model` reads anything: named texts that the caller provides.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

/// Where files come from. The daemon gives the disk, a test gives a map.
pub trait Sources {
    /// The bytes of a regular file of at most [`MAX_FILE`] bytes.
    ///
    /// # Errors
    /// `NotFound` for a missing file; anything else for one that must not be read (a FIFO, a device,
    /// a directory, too large): the message says which.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
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
}
