//! Whether what an image is going to need fits on the disk, told before anything is written.
//!
//! Only what is certain counts: what seems to fit may still fill the disk, but what is refused would have.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// No more than this share of a file system is kept back, and no more than so many bytes: a full disk also stops what
/// runs already.
const SHARE: u64 = 20;
const MOST: u64 = 1 << 30;

/// What is left of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    /// Bytes of all of it.
    pub total: u64,
    /// Bytes that whoever is not root may still write.
    pub free: u64,
    /// Files that may still be made; `None`: it has no such limit.
    pub files: Option<u64>,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpaceError {
    #[error(
        "it needs at least {} in {path}, where {} are left beside the {} that are kept for what runs; remove what is not \
         needed there (`stead image gc`), or give it a larger file system", Bytes(*needed), Bytes(*left), Bytes(*reserve), path = path.display()
    )]
    Bytes {
        path: PathBuf,
        needed: u64,
        /// What of it may be used.
        left: u64,
        reserve: u64,
    },
    #[error(
        "no further file can be made in {path}: its file system has no inode left; remove files that are not needed \
         there, or give it one with more inodes", path = path.display()
    )]
    Files { path: PathBuf },
}

/// Whether `needed` more bytes may be written to where `path` is. What cannot be measured is no obstacle.
///
/// # Errors
/// They do not fit.
pub(super) fn check(path: &Path, needed: u64) -> Result<(), SpaceError> {
    match measure(path) {
        Ok(space) => space.fits(path, needed),
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "free space cannot be measured");
            Ok(())
        }
    }
}

/// Of the nearest directory that is there.
fn measure(path: &Path) -> io::Result<Space> {
    let there = path.ancestors().find(|path| path.is_dir());
    let found = rustix::fs::statvfs(there.unwrap_or(path))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Space {
        total: bytes(found.f_blocks),
        free: bytes(found.f_bavail),
        files: (found.f_files > 0).then_some(found.f_favail),
    })
}

impl Space {
    fn fits(&self, path: &Path, needed: u64) -> Result<(), SpaceError> {
        let path = path.to_owned();
        // A file system that gives no size has none to run out of.
        if needed == 0 || self.total == 0 {
            return Ok(());
        }
        if self.files == Some(0) {
            return Err(SpaceError::Files { path });
        }
        let reserve = (self.total / SHARE).min(MOST);
        let left = self.free.saturating_sub(reserve);
        if needed <= left {
            return Ok(());
        }
        Err(SpaceError::Bytes {
            path,
            needed,
            left,
            reserve,
        })
    }
}

/// `81.3 MiB`
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["B", "KiB", "MiB", "GiB"] {
            if value < 1000.0 {
                return write!(
                    f,
                    "{value:.precision$} {unit}",
                    precision = usize::from(unit != "B")
                );
            }
            value /= 1024.0;
        }
        write!(f, "{value:.1} TiB")
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io::Write;

    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };

    use super::*;

    const MIB: u64 = 1 << 20;
    const NONE: Option<&str> = None;

    /// A file system with these options (tmpfs(5)) for this test alone, gone with it. Where none is to be had that is
    /// said.
    pub(in crate::image) fn on_a_disk_of(options: &str, test: impl FnOnce(&Path) + Send) {
        let directory = tempfile::tempdir().unwrap();
        let mounted = || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
            mount(
                NONE,
                directory.path(),
                Some("tmpfs"),
                MsFlags::empty(),
                Some(options),
            )
        };
        // A thread of its own has mounts of its own.
        let ran = std::thread::scope(|scope| {
            let run = || mounted().map(|()| test(directory.path()));
            let ended = scope.spawn(run).join();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        if let Err(error) = ran {
            let required = std::env::var_os("STEAD_REQUIRE_KERNEL").is_some_and(|value| value == "1");
            assert!(
                !required,
                "STEAD_REQUIRE_KERNEL is set, but nothing can be mounted: {error}"
            );
            let _ = writeln!(io::stderr(), "skipped: nothing can be mounted: {error}");
        }
    }

    /// Within such a test: other options for it.
    pub(in crate::image) fn grow(disk: &Path, options: &str) {
        mount(NONE, disk, NONE, MsFlags::MS_REMOUNT, Some(options)).unwrap();
    }

    #[test]
    fn a_twentieth_but_never_more_than_a_gibibyte_is_kept() {
        let path = Path::new("/store");
        let large = 1 << 40;
        for (total, free, needed, left) in [
            (100 * MIB, 50 * MIB, 45 * MIB, None),
            (100 * MIB, 50 * MIB, 45 * MIB + 1, Some(45 * MIB)),
            (100 * MIB, 5 * MIB, 1, Some(0)),
            (100 * MIB, 0, 1, Some(0)),
            (100 * MIB, 0, 0, None),
            (large, 2 << 30, 1 << 30, None),
            (large, 2 << 30, (1 << 30) + 1, Some(1 << 30)),
            (large, 2 << 30, u64::MAX, Some(1 << 30)),
            (0, 0, 1, None),
        ] {
            let space = Space {
                total,
                free,
                files: Some(1),
            };
            let found = space.fits(path, needed).err();
            let expected = left.map(|left| SpaceError::Bytes {
                path: path.to_owned(),
                needed,
                left,
                reserve: (total / SHARE).min(MOST),
            });
            assert_eq!(found, expected, "{needed} of {free} of {total}");
        }
    }

    #[test]
    fn without_an_inode_nothing_fits() {
        let path = Path::new("/store");
        let none = |needed, files| {
            Space {
                total: MIB,
                free: MIB,
                files,
            }
            .fits(path, needed)
            .err()
        };
        assert_eq!(
            none(1, Some(0)),
            Some(SpaceError::Files {
                path: path.to_owned()
            })
        );
        for (needed, files) in [(1, Some(1)), (1, None), (0, Some(0))] {
            assert_eq!(none(needed, files), None, "{needed} {files:?}");
        }
    }

    #[test]
    fn what_is_left_is_that_of_the_file_system_on_which_it_will_be() {
        on_a_disk_of("size=8m,nr_inodes=4", |disk| {
            let path = disk.join("images/pull");
            let error = check(&path, 100 * MIB).unwrap_err().to_string();
            assert!(error.contains("at least 100.0 MiB in"), "{error}");
            assert!(error.contains("7.6 MiB are left beside the 409.6 KiB"), "{error}");
            assert_eq!(check(&path, 7 * MIB), Ok(()));
            for name in ["a", "b", "c"] {
                std::fs::write(disk.join(name), "").unwrap();
            }
            assert_eq!(check(&path, 1), Err(SpaceError::Files { path }));
        });
    }
}
