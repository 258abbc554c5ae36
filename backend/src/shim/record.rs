//! The sealed memfd that adoption reads, and the exit record on disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
};

use reconciler::observed::Ended;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::protocol::{ExitRecord, RECORD_NAME, Record};

/// The name of the exit record.
pub const EXIT: &str = "exit";

/// Puts a sealed copy of `record` in the place of `before`: at the same number and in one call (dup3(2)), so
/// that whoever reads the descriptors of this process just then finds the one or the other.
///
/// # Errors
/// As [`seal`]; `before` is still there.
pub fn reseal(before: &mut OwnedFd, record: &Record) -> io::Result<()> {
    let new = seal(record)?;
    Ok(rustix::io::dup3(new, before, rustix::io::DupFlags::CLOEXEC)?)
}

/// A sealed copy of `record`.
///
/// # Errors
/// As memfd_create(2) and write(2).
pub fn seal(record: &Record) -> io::Result<OwnedFd> {
    let memfd = memfd_create(RECORD_NAME, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut file = File::from(memfd);
    file.write_all(&serde_json::to_vec(record).map_err(io::Error::other)?)?;
    fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file.into())
}

/// Writes `<directory>/exit`: temporary file, fsync, rename, fsync of the directory.
///
/// # Errors
/// As the calls say.
pub fn write_exit(directory: &Path, exit: &ExitRecord) -> io::Result<()> {
    let temporary = directory.join("exit.new");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(exit).map_err(io::Error::other)?)?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join(EXIT))?;
    File::open(directory)?.sync_all()
}

/// Reads `<directory>/exit`. `None`: there is none, or one that says too little (it is damaged, or of a
/// stead that wrote only the code): then the container counts as never run, as it did before there were
/// exit records.
///
/// # Errors
/// It is there and cannot be read.
pub fn read_exit(directory: &Path) -> io::Result<Option<ExitRecord>> {
    match fs::read(directory.join(EXIT)) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

impl From<ExitRecord> for Ended {
    fn from(exit: ExitRecord) -> Self {
        Ended {
            container: exit.container,
            code: exit.code,
            restarts: exit.restarts,
            died: exit.died,
        }
    }
}

/// Start time of a process in clock ticks: proc_pid_stat(5), field 22.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
