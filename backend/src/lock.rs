//! One agent per root: an exclusive flock(2) on the state directory itself, which nobody removes who
//! wants to keep anything. The file `run/lock` names the holder; without it /proc/locks does.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::fs::FlockOperation;
use thiserror::Error;

use crate::{layout::Layout, records};

#[derive(Debug, Error)]
pub enum LockError {
    #[error(
        "another agent holds {path}: process {pid} ({command}). Use it, stop it, or give this one another --root",
        path = path.display()
    )]
    Held {
        path: PathBuf,
        /// 0 when the holder has not written it yet.
        pid: u32,
        /// Its command line, or `?` when it cannot be read.
        command: String,
    },
    #[error("cannot lock {path}; run as root, on a file system that knows flock", path = path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// Held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _directory: File,
}

/// A holder that was killed lets go when its last thread, or a child between fork and exec, is gone.
const DYING: Duration = Duration::from_secs(2);

/// Takes the lock of this root. Waits only for a holder that is dead already.
///
/// # Errors
/// Somebody holds it, or the file cannot be made.
pub fn acquire(layout: &Layout) -> Result<Lock, LockError> {
    let path = layout.lock();
    let failed = |source| LockError::Io {
        path: path.clone(),
        source,
    };
    let state = |source| LockError::Io {
        path: layout.state.clone(),
        source,
    };
    records::make_private(&layout.run).map_err(failed)?;
    records::make_private(&layout.state).map_err(state)?;
    // Not the file: whoever removes a locked file lets a second holder lock a new one of the same name.
    let directory = File::open(&layout.state).map_err(state)?;
    let deadline = Instant::now() + DYING;
    while let Err(error) = rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(state(error.into()));
        }
        let pid = named(layout, &directory).unwrap_or(0);
        match command(pid) {
            Some(command) => return Err(LockError::Held { path, pid, command }),
            None if Instant::now() > deadline => {
                return Err(LockError::Held {
                    path,
                    pid,
                    command: "it is ending".to_owned(),
                });
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(Lock {
        _directory: directory,
    })
}

/// Who holds the lock, which is held: as the kernel says, else as the holder wrote.
fn named(layout: &Layout, directory: &File) -> Option<u32> {
    let inode = directory.metadata().ok()?.ino();
    let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
    let written = fs::read_to_string(layout.lock())
        .ok()
        .and_then(|text| text.trim().parse().ok());
    // proc_locks(5). The device is another one to stat(2) on some file systems, so the number of the
    // inode must do, and what was written decides between several.
    let holders: Vec<u32> = locks
        .lines()
        .filter(|line| !line.contains("->"))
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, "FLOCK", _, "WRITE", pid, place, ..] = fields[..] else {
                return None;
            };
            (place.rsplit(':').next()?.parse::<u64>().ok()? == inode).then(|| pid.parse().ok())?
        })
        .collect();
    match written {
        Some(written) if holders.is_empty() || holders.contains(&written) => Some(written),
        _ => holders.first().copied(),
    }
}

/// Whether an agent holds the lock of this root at this moment, and its pid. For commands that only
/// look; makes no file.
pub fn holder(layout: &Layout) -> Option<u32> {
    let directory = File::open(&layout.state).ok()?;
    match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => named(layout, &directory),
        _ => None,
    }
}

/// `None`: it is gone, or a zombie.
fn command(pid: u32) -> Option<String> {
    match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) if !line.is_empty() => Some(
            line.split(|byte| *byte == 0)
                .filter(|word| !word.is_empty())
                .map(|word| {
                    String::from_utf8_lossy(word)
                        .chars()
                        .filter(|c| !c.is_control())
                        .collect()
                })
                .collect::<Vec<String>>()
                .join(" "),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> (tempfile::TempDir, Layout) {
        let root = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(root.path())).unwrap();
        (root, layout)
    }

    /// Soon nobody holds it: programs that other tests start have our descriptors until they are executed.
    fn free(layout: &Layout) {
        let waited = std::time::Instant::now();
        while holder(layout).is_some() {
            assert!(waited.elapsed().as_secs() < 10, "it is still held");
            std::thread::yield_now();
        }
    }

    #[test]
    fn the_second_holder_learns_who_the_first_is() {
        let (_root, layout) = layout();
        let first = acquire(&layout).unwrap();
        assert_eq!(holder(&layout), Some(std::process::id()));
        match acquire(&layout).unwrap_err() {
            LockError::Held { pid, command, .. } => {
                assert_eq!(pid, std::process::id());
                assert_ne!(command, "?");
            }
            other => panic!("{other}"),
        }
        drop(first);
        free(&layout);
        acquire(&layout).unwrap();
    }

    #[test]
    fn the_lock_outlives_its_file() {
        let (_root, layout) = layout();
        let first = acquire(&layout).unwrap();
        fs::remove_file(layout.lock()).unwrap();
        assert_eq!(holder(&layout), Some(std::process::id()));
        match acquire(&layout).unwrap_err() {
            LockError::Held { pid, .. } => assert_eq!(pid, std::process::id()),
            other => panic!("{other}"),
        }
        drop(first);
        free(&layout);
        acquire(&layout).unwrap();
    }

    #[test]
    fn a_lock_file_left_by_a_dead_agent_is_taken_over() {
        let (_root, layout) = layout();
        fs::create_dir_all(&layout.run).unwrap();
        fs::write(layout.lock(), "4194305000000").unwrap();
        assert_eq!(holder(&layout), None);
        let _lock = acquire(&layout).unwrap();
        assert_eq!(
            fs::read_to_string(layout.lock()).unwrap(),
            format!("{}\n", std::process::id())
        );
    }

    #[test]
    fn a_root_that_cannot_be_written_is_an_error_with_its_path() {
        let (root, mut layout) = layout();
        fs::write(root.path().join("file"), "").unwrap();
        layout.run = root.path().join("file/run");
        let error = acquire(&layout).unwrap_err();
        assert!(error.to_string().contains("file/run/lock"), "{error}");
    }
}
