//! Paths inside a container: resolved within its root by openat2(2), never as strings of the host.

use std::{
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, fstatfs, mkdirat, openat, openat2},
    io::Errno,
};

use super::{Step, StepError};

/// What a mount point is made as when it is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File,
}

/// To find the way while it changes: a few microseconds each.
const ATTEMPTS: usize = 4096;

const PROC_SUPER_MAGIC: i64 = 0x9fa0;
const SYSFS_MAGIC: i64 = 0x6265_6572;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// `/a/../b//c` as `b/c`: what a process at the root would mean, without symbolic links.
pub fn normal(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            _ => {}
        }
    }
    clean
}

/// Opens `path` below `root` as a process confined to `root` would.
///
/// # Errors
/// As openat2(2); ELOOP for a magic link such as `/proc/self/fd/3`.
pub fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() {
        Path::new(".")
    } else {
        path
    };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(Errno::AGAIN);
    // A rename elsewhere makes the walk start again (openat2(2), EAGAIN). Somebody may rename without end.
    for _ in 0..ATTEMPTS {
        result = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// Opens the place at `path` (O_PATH), making what is missing of it.
///
/// # Errors
/// A component is no directory or a symbolic link to nothing.
pub fn make(root: BorrowedFd<'_>, path: &Path, kind: Kind) -> Result<OwnedFd, StepError> {
    make_owned(root, path, kind, None)
}

/// As [`make`]; what is made belongs to `owner`.
///
/// # Errors
/// As [`make`].
pub fn make_owned(
    root: BorrowedFd<'_>,
    path: &Path,
    kind: Kind,
    owner: Option<(u32, u32)>,
) -> Result<OwnedFd, StepError> {
    let clean = normal(path);
    let place = |path: &Path| Path::new("/").join(path).display().to_string();
    match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        other => return other.map_err(|errno| refused(&Path::new("/").join(&clean), errno)),
    }
    let mut done = PathBuf::new();
    let mut current = open(root, Path::new("."), OFlags::PATH | OFlags::DIRECTORY).step("open", "/")?;
    let count = clean.components().count();
    for (number, component) in clean.components().enumerate() {
        done.push(component);
        let name = component.as_os_str();
        match open(root, &done, OFlags::PATH) {
            Ok(next) => {
                current = next;
                continue;
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(refused(&Path::new("/").join(&done), errno)),
        }
        let made = if kind == Kind::File && number + 1 == count {
            openat(
                &current,
                name,
                OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC,
                Mode::from(0o644),
            )
            .map(drop)
        } else {
            mkdirat(&current, name, Mode::from(0o755))
        };
        match made {
            Ok(()) => {}
            Err(Errno::EXIST) => {
                return Err(StepError::spec(format!(
                    "{} in the image is a symbolic link to nothing; remove it from the image or choose \
                     another target",
                    place(&done)
                )));
            }
            Err(error) => return Err(error).step("make in the container", place(&done)),
        }
        let next = openat(
            &current,
            name,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .step("open in the container", place(&done))?;
        if let Some((uid, gid)) = owner {
            rustix::fs::chownat(
                &next,
                "",
                Some(rustix::fs::Uid::from_raw(uid)),
                Some(rustix::fs::Gid::from_raw(gid)),
                rustix::fs::AtFlags::EMPTY_PATH,
            )
            .step("change the owner of", place(&done))?;
        }
        current = next;
    }
    Ok(current)
}

/// What a failed [`open`] means: a path of an image that leads nowhere good is the image's fault.
pub fn refused(path: &Path, errno: Errno) -> StepError {
    let error = StepError::system("open in the container", path.display(), errno);
    match errno {
        Errno::LOOP | Errno::NOTDIR | Errno::XDEV => StepError {
            message: format!("{}; mend the image or choose another path", error.message),
            reason: crate::shim::protocol::Reason::Spec,
            ..error
        },
        _ => error,
    }
}

/// Whether `fd` is on procfs, sysfs or what is mounted there, wherever symbolic links led.
///
/// # Errors
/// As fstatfs(2).
pub fn on_kernel_filesystem(fd: impl AsFd) -> rustix::io::Result<bool> {
    let kind = fstatfs(fd)?.f_type as i64;
    Ok([PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP2_SUPER_MAGIC].contains(&kind))
}

/// A regular file of at most 1 MiB; `None` when there is none. A FIFO or a device is not waited for.
///
/// # Errors
/// It is something else or longer.
pub fn read_small(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<String>> {
    const MOST: u64 = 1 << 20;
    let probe = match open(root, path, OFlags::PATH) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    if FileType::from_raw_mode(fstat(&probe)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no regular file",
        ));
    }
    let file = File::from(open(
        root,
        path,
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY,
    )?);
    let stat = fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || stat.st_size as u64 > MOST {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is no regular file of at most 1 MiB",
        ));
    }
    let mut bytes = Vec::new();
    file.take(MOST).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
