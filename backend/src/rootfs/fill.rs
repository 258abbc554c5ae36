//! A new named volume takes over what the image has at its target, once.
//!
//! The file `filled` beside the data directory says how far that is: `partly` is written before the
//! first file is copied, `filled` after the last one is on disk and before the service is executed. So a
//! service never runs on a volume that is to be filled, and a copy that was cut short is begun again. A
//! volume with content and no mark is somebody's data; a mark that cannot be read means the same.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{ffi::OsStrExt, fs::FileExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, chmodat,
    chownat, flock, fstat, mkdirat, openat, readlinkat, statat, symlinkat, unlinkat, utimensat,
};

use super::{Step, StepError, tree};
use crate::{records, shim::protocol::Reason};

const MARK: &str = "filled";
/// As long as [`FILLED`]: one write turns one into the other.
const PARTLY: &[u8; 7] = b"partly\n";
const FILLED: &[u8; 7] = b"filled\n";

/// The volume at `data` has all that it takes over.
pub fn is_done(data: &Path) -> bool {
    let mark = data.parent().unwrap_or(Path::new("/")).join(MARK);
    fs::read(mark).is_ok_and(|text| text == FILLED)
}

/// A volume that is being filled. Nobody else fills it while this lives, in any process.
#[derive(Debug)]
pub struct Fill {
    mark: File,
    path: PathBuf,
    _lock: File,
}

impl Fill {
    /// Decides whether the volume at `data` is to be filled, and writes down that it begins. Waits while
    /// another start fills it.
    ///
    /// # Errors
    /// The volume's directory is missing (a volume is never replaced by an empty one) or unreadable, or
    /// the mark cannot be read or written.
    pub fn begin(data: &Path, nocopy: bool) -> Result<Option<Self>, StepError> {
        let parent = data.parent().unwrap_or(Path::new("/"));
        let lock = File::open(parent).step("open", parent.display())?;
        loop {
            match flock(&lock, FlockOperation::LockExclusive) {
                Err(rustix::io::Errno::INTR) => {}
                other => break other.step("lock", parent.display())?,
            }
        }
        let path = parent.join(MARK);
        let empty = fs::read_dir(data)
            .and_then(|mut entries| entries.next().transpose())
            .step("read the volume", data.display())?
            .is_none();
        let begun = match fs::read(&path) {
            Ok(text) if text == PARTLY => true,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).step("read the mark of the volume,", path.display()),
        };
        let wanted = !nocopy && (begun || empty);
        // A fill that goes on has its mark already: it must not need space for another.
        if !(wanted && begun) {
            records::replace(&path, if wanted { PARTLY } else { FILLED })
                .step("mark the volume in", path.display())?;
        }
        if !wanted {
            return Ok(None);
        }
        let mark = File::options()
            .write(true)
            .open(&path)
            .step("open", path.display())?;
        Ok(Some(Fill {
            mark,
            path,
            _lock: lock,
        }))
    }

    /// The copy is complete and on disk: from now on the volume is the service's.
    ///
    /// # Errors
    /// The mark cannot be written: the service must not start.
    pub fn end(&self) -> Result<(), StepError> {
        self.mark
            .write_all_at(FILLED, 0)
            .and_then(|()| self.mark.sync_all())
            .step("mark the volume in", self.path.display())
    }
}

/// Copies what the image has at the place `point` into the volume: owner, mode, times, symbolic links as they
/// are. Devices and sockets are left out. By descriptor: somebody may swap what leads to `target`.
///
/// # Errors
/// The first system call that failed.
pub fn copy(point: BorrowedFd<'_>, target: &Path, volume: BorrowedFd<'_>) -> Result<(), StepError> {
    let from = match tree::open(point, Path::new("."), OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(from) => from,
        Err(rustix::io::Errno::NOTDIR) => return Ok(()),
        Err(errno) => return Err(tree::refused(&Path::new("/").join(target), errno)),
    };
    let to = openat(
        volume,
        ".",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open the volume for", target.display())?;
    let copied = directory(from.as_fd(), to.as_fd()).and_then(|()| Ok(rustix::fs::syncfs(&to)?));
    copied.map_err(|error| StepError {
        message: format!(
            "the volume for /{} could not be filled from the image: {error}; mend that (is there space?), the \
             start is tried again",
            target.display()
        ),
        errno: error.raw_os_error(),
        reason: Reason::System,
    })
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
