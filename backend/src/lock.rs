//! One agent per root: an exclusive flock(2) on `run/lock`, whose content names the holder.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
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
    _file: File,
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
    records::make_private(&layout.run).map_err(failed)?;
    // Never removed: removing a locked file lets a second holder lock a new one of the same name.
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed)?;
    let deadline = Instant::now() + DYING;
    while let Err(error) = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(failed(error.into()));
        }
        let mut text = String::new();
        file.rewind().map_err(failed)?;
        Read::by_ref(&mut file)
            .take(32)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let pid = text.trim().parse().unwrap_or(0);
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
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(Lock { _file: file })
}

/// Whether an agent holds the lock of this root at this moment, and its pid. For commands that only
/// look; makes no file.
pub fn holder(layout: &Layout) -> Option<u32> {
    let mut file = File::open(layout.lock()).ok()?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            file.read_to_string(&mut text).ok()?;
            text.trim().parse().ok()
        }
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
        assert_eq!(holder(&layout), None);
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
