//! Who brings something in and who takes something away: a lock (flock(2)) on the directory of the store.
//!
//! It is shared from the first layer to the binding, and while a container is started, so that what is here but
//! named by nobody yet is not taken for nobody's; it is exclusive for whoever removes. The directory itself is
//! locked: a file could be removed while it is.

use std::{
    fs::File,
    io,
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;

use super::Store;
use crate::{image::ImageError, records};

/// How often is looked whether those who bring something in are done.
const EVERY: Duration = Duration::from_millis(50);

/// Nothing is collected while it is held.
#[derive(Debug)]
pub struct Lease {
    _directory: File,
}

/// Nothing is brought in while it is held.
#[derive(Debug)]
pub struct Hold {
    _directory: File,
}

impl Store {
    /// Waits for a collection, which holds the store for moments only.
    ///
    /// # Errors
    /// The directory of the store cannot be made or locked.
    pub fn lease(&self) -> Result<Lease, ImageError> {
        let directory = self.open_directory()?;
        let locked = rustix::io::retry_on_intr(|| rustix::fs::flock(&directory, FlockOperation::LockShared));
        locked.map_err(|error| self.unlockable(error.into()))?;
        Ok(Lease {
            _directory: directory,
        })
    }

    /// # Errors
    /// [`ImageError::Busy`]: something is still being brought in after `patience`.
    pub fn hold(&self, patience: Duration) -> Result<Hold, ImageError> {
        let directory = self.open_directory()?;
        let start = Instant::now();
        while let Err(error) = rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            match error {
                rustix::io::Errno::WOULDBLOCK if start.elapsed() < patience => std::thread::sleep(EVERY),
                rustix::io::Errno::WOULDBLOCK => {
                    return Err(ImageError::Busy {
                        path: self.directory.clone(),
                    });
                }
                rustix::io::Errno::INTR => {}
                error => return Err(self.unlockable(error.into())),
            }
        }
        Ok(Hold {
            _directory: directory,
        })
    }

    fn open_directory(&self) -> Result<File, ImageError> {
        let opened = match File::open(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                records::make_private(&self.directory).and_then(|()| File::open(&self.directory))
            }
            opened => opened,
        };
        opened.map_err(|error| self.unlockable(error))
    }

    fn unlockable(&self, source: io::Error) -> ImageError {
        ImageError::Store {
            path: self.directory.clone(),
            source,
        }
    }
}
