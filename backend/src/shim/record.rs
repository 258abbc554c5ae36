//! The sealed memfd that adoption reads, and the exit record on disk.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use super::protocol::{RECORD_NAME, Record};

/// A sealed copy of `record`. The one before it is to be closed only after.
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
pub fn write_exit(directory: &Path, code: i32, at: u64, boot_id: &str) -> io::Result<()> {
    let temporary = directory.join("exit.new");
    let mut file = File::create(&temporary)?;
    let value = serde_json::json!({ "code": code, "at": at, "boot_id": boot_id });
    file.write_all(value.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, directory.join("exit"))?;
    File::open(directory)?.sync_all()
}

/// Start time of a process in clock ticks: proc_pid_stat(5), field 22.
pub fn start_ticks(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}
