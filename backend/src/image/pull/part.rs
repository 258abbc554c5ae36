//! A layer that has come in part, as a file that is gone on with.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::fs::FlockOperation;
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::PullError;
use crate::image::{config::Digest, progress::Pull};

/// Waits for who else is fetching the same, or unpacking it; until the file is dropped they wait for us.
///
/// # Errors
/// It is not there: whoever had it has unpacked it.
pub(in crate::image) fn hold(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))?;
    Ok(file)
}

/// A file that is becoming a layer, and the digest of what is there of it.
pub(super) struct Part {
    file: File,
    pub path: PathBuf,
    hash: Sha256,
    pub length: u64,
    progress: Arc<Pull>,
}

impl Part {
    /// Waits for who else is fetching the same.
    pub async fn open(path: &Path, progress: Arc<Pull>) -> Result<Self, PullError> {
        let write = |source| PullError::Write {
            path: path.to_owned(),
            source,
        };
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        loop {
            let file = options.open(path).map_err(write)?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    sleep(Duration::from_millis(100)).await;
                    continue;
                }
                Err(error) => return Err(write(error.into())),
            }
            let mut part = Part {
                file,
                path: path.to_owned(),
                hash: Sha256::new(),
                length: 0,
                progress: Arc::clone(&progress),
            };
            // Who had the lock may have removed what it was of.
            if part.is_at_its_path() {
                part.hash_what_is_there().map_err(write)?;
                return Ok(part);
            }
        }
    }

    fn is_at_its_path(&self) -> bool {
        use std::os::unix::fs::MetadataExt;
        let [own, there] = [self.file.metadata(), fs::metadata(&self.path)];
        matches!((own, there), (Ok(own), Ok(there)) if (own.dev(), own.ino()) == (there.dev(), there.ino()))
    }

    fn hash_what_is_there(&mut self) -> io::Result<()> {
        let mut buffer = vec![0; 128 << 10];
        self.file.seek(SeekFrom::Start(0))?;
        loop {
            let read = self.file.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            self.hash.update(&buffer[..read]);
            self.grow(read);
        }
    }

    pub fn restart(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.progress.gone(self.length);
        (self.hash, self.length) = (Sha256::new(), 0);
        Ok(())
    }

    pub fn push(&mut self, data: &[u8]) -> io::Result<()> {
        self.file.write_all(data)?;
        self.hash.update(data);
        self.grow(data.len());
        Ok(())
    }

    fn grow(&mut self, bytes: usize) {
        self.length += bytes as u64;
        self.progress.came(bytes as u64);
    }

    /// Nothing more of it will come.
    pub fn is_unpacked(&mut self, size: u64) {
        self.progress.came(size.saturating_sub(self.length));
        self.length = size;
    }

    pub fn digest(&self) -> Digest {
        Digest::from_hash(&self.hash.clone().finalize())
    }
}
