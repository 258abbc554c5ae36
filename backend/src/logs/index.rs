//! `index` beside the log files: where in all that was ever printed each file begins. Who follows and finds that
//! files were rotated away before they were read knows by it how much that was.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

const NAME: &str = "index";

/// Of each file by its inode: bytes that were printed before it. The newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index(Vec<(u64, u64)>);

impl Index {
    /// Without a readable one nothing is known.
    pub fn read(directory: &Path) -> Self {
        let text = fs::read_to_string(directory.join(NAME)).unwrap_or_default();
        let lines = text.lines().map_while(|line| {
            let (inode, before) = line.split_once(' ')?;
            Some((inode.parse().ok()?, before.parse().ok()?))
        });
        Index(lines.collect())
    }

    pub fn before(&self, inode: u64) -> Option<u64> {
        self.0
            .iter()
            .find(|(known, _)| *known == inode)
            .map(|(_, before)| *before)
    }

    /// `file` is the newest from now on; of the others as many as there may be are kept.
    ///
    /// # Errors
    /// As write(2).
    pub fn add(&mut self, directory: &Path, file: &fs::File, before: u64, files: usize) -> io::Result<()> {
        let inode = file.metadata()?.ino();
        self.0.retain(|(known, _)| *known != inode);
        self.0.insert(0, (inode, before));
        self.0.truncate(files);
        let lines = self.0.iter().map(|(inode, before)| format!("{inode} {before}\n"));
        let new = directory.join("index.new");
        fs::write(&new, lines.collect::<String>())?;
        fs::rename(new, directory.join(NAME))
    }
}
