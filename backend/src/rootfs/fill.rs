//! A new named volume takes over what the image has at its target, once.
//!
//! `filling` beside the data directory says that a copy has begun, `filled` that it is complete; both
//! are durable before the next step. A volume that has content and neither mark is somebody's data.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat, chownat, fstat,
    mkdirat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};

use super::{Step, StepError, tree};

fn mark(data: &Path, name: &str) -> io::Result<()> {
    let parent = data.parent().unwrap_or(Path::new("/"));
    File::create(parent.join(name))?.sync_all()?;
    File::open(parent)?.sync_all()
}

/// Whether the volume is to be filled now; remembers that it begins.
///
/// # Errors
/// The volume's directory is missing (a volume is never replaced by an empty one) or unreadable.
pub fn wanted(data: &Path, nocopy: bool) -> Result<bool, StepError> {
    let parent = data.parent().unwrap_or(Path::new("/"));
    if parent.join("filled").exists() {
        return Ok(false);
    }
    let mut entries = fs::read_dir(data).step("read the volume", data.display())?;
    let began = parent.join("filling").exists();
    if nocopy || (entries.next().is_some() && !began) {
        mark(data, "filled").step("mark the volume", data.display())?;
        return Ok(false);
    }
    mark(data, "filling").step("mark the volume", data.display())?;
    Ok(true)
}

/// The copy is complete and on disk.
///
/// # Errors
/// As fsync(2).
pub fn done(data: &Path) -> io::Result<()> {
    mark(data, "filled")?;
    let parent = data.parent().unwrap_or(Path::new("/"));
    fs::remove_file(parent.join("filling"))
}

/// Copies what `root` has at `target` into the volume: owner, mode, times, symbolic links as they are.
/// Devices and sockets are left out.
///
/// # Errors
/// The first system call that failed.
pub fn fill(root: BorrowedFd<'_>, target: &Path, volume: BorrowedFd<'_>) -> Result<(), StepError> {
    let from = match tree::open(root, target, OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(from) => from,
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(tree::refused(&Path::new("/").join(target), errno)),
    };
    let to = openat(
        volume,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open the volume for", target.display())?;
    directory(from.as_fd(), to.as_fd()).step("fill the volume from the image's", target.display())?;
    rustix::fs::syncfs(&to).step("write out the volume of", target.display())
}

fn directory(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match kind {
            FileType::Directory => {
                match mkdirat(to, name, Mode::from(0o700)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                let below_from = openat(from, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                let below_to = openat(to, name, flags | OFlags::DIRECTORY, Mode::empty())?;
                directory(below_from.as_fd(), below_to.as_fd())?;
                continue;
            }
            FileType::RegularFile => {
                clear(to, name)?;
                let mut source = File::from(openat(from, name, flags, Mode::empty())?);
                let create = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut target = File::from(openat(to, name, create, Mode::from(0o600))?);
                io::copy(&mut source, &mut target)?;
            }
            FileType::Symlink => {
                clear(to, name)?;
                let link = readlinkat(from, name, Vec::new())?;
                symlinkat(std::ffi::OsStr::from_bytes(link.to_bytes()), to, name)?;
            }
            _ => continue,
        }
        take_over(&stat, to, name)?;
    }
    let stat = fstat(from)?;
    take_over(&stat, to, c".")
}

fn clear(at: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    match unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Owner before mode: a change of owner clears set-id bits.
fn take_over(stat: &Stat, at: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    let owner = Some(Uid::from_raw(stat.st_uid));
    let group = Some(Gid::from_raw(stat.st_gid));
    chownat(at, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        chmodat(
            at,
            name,
            Mode::from_raw_mode(stat.st_mode & 0o7777),
            AtFlags::empty(),
        )?;
    }
    let modified = Timespec {
        tv_sec: stat.st_mtime as _,
        tv_nsec: stat.st_mtime_nsec as _,
    };
    let times = Timestamps {
        last_access: modified,
        last_modification: modified,
    };
    Ok(utimensat(at, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
