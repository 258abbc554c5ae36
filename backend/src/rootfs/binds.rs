//! Binds with what is mounted below them and later, and directories of volumes, as detached mounts.

use std::{
    fs,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use reconciler::spec::{Propagation, Recursive};
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxFlags, fstat, open, openat2, statx},
    io::Errno,
    mount::{OpenTreeFlags, open_tree},
};

use super::{Step, StepError, stage::clone_tree};
use crate::{
    shim::protocol::Reason,
    sys::mount::{Attributes, set_attributes},
};

/// A bind of `source`.
///
/// # Errors
/// Nobody could tell of mounts there, or its file system refuses id-mapped mounts.
pub fn clone(
    source: &Path,
    user: Option<BorrowedFd<'_>>,
    read_only: bool,
    recursive: Recursive,
    propagation: Propagation,
) -> Result<OwnedFd, StepError> {
    let whole = recursive != Recursive::Disabled;
    let writable_below = read_only && recursive == Recursive::Writable;
    if propagation.is_shared() && user.is_some() {
        return Err(StepError::spec(format!(
            "what the container mounts below {} would appear on the host, which a container with a user namespace \
             must not do; use `rslave`, or add `userns_mode: host`",
            source.display()
        )));
    }
    if !propagation.is_private() {
        is_told(source, propagation)?;
    }
    let clone = clone_tree(source, whole).step("clone", source.display())?;
    let clone = match propagation.is_private() {
        true => shift(clone, source, user, whole, read_only && !writable_below)?,
        false => {
            // What is mounted later comes with the ids and the devices of the host: such a container has a
            // filter of devices.
            let attributes = Attributes {
                set: libc::MOUNT_ATTR_NODEV,
                idmap: user,
                recursive: whole,
                propagation: match propagation.is_shared() {
                    true => libc::MS_SHARED,
                    false => libc::MS_SLAVE,
                },
            };
            set_attributes(clone.as_fd(), attributes).map_err(|error| no_ids(source, error))?;
            clone
        }
    };
    if read_only && (writable_below || !propagation.is_private()) {
        let attributes = Attributes {
            set: libc::MOUNT_ATTR_RDONLY,
            recursive: whole && !writable_below,
            ..Attributes::default()
        };
        set_attributes(clone.as_fd(), attributes).step("make read-only", source.display())?;
    }
    Ok(clone)
}

/// Gives a clone of `path` the ids of the sandbox, and takes its devices. What is mounted on the host later is not
/// seen there, nor the other way round.
pub(super) fn shift(
    clone: OwnedFd,
    path: &Path,
    user: Option<BorrowedFd<'_>>,
    recursive: bool,
    read_only: bool,
) -> Result<OwnedFd, StepError> {
    let read_only = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attributes = Attributes {
        set: read_only | libc::MOUNT_ATTR_NODEV,
        idmap: user,
        recursive,
        propagation: libc::MS_PRIVATE,
    };
    set_attributes(clone.as_fd(), attributes).map_err(|error| no_ids(path, error))?;
    Ok(clone)
}

/// Why the ids of a mount cannot be shifted.
fn no_ids(path: &Path, error: std::io::Error) -> StepError {
    StepError {
        message: format!(
            "the file system of {} does not take id-mapped mounts ({error}); use a directory on ext4, xfs, \
             btrfs or tmpfs, or `userns_mode: host`",
            path.display()
        ),
        errno: error.raw_os_error(),
        reason: if error.raw_os_error() == Some(libc::EINVAL) {
            Reason::Spec
        } else {
            Reason::System
        },
    }
}

/// As with other engines, propagation from where there is none is refused instead of doing nothing.
fn is_told(source: &Path, propagation: Propagation) -> Result<(), StepError> {
    let place = open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open", source.display())?;
    let found =
        statx(&place, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).step("look at", source.display())?;
    let table = fs::read_to_string("/proc/self/mountinfo").step("read", "/proc/self/mountinfo")?;
    let (point, kinds) = peers(&table, found.stx_mnt_id).unwrap_or_default();
    let (shared, slave) = (kinds.contains("shared:"), kinds.contains("master:"));
    if shared || (slave && !propagation.is_shared()) {
        return Ok(());
    }
    Err(StepError::spec(format!(
        "{} is on a mount that shares nothing ({point}), so nothing can be propagated; run `mount --make-shared \
         {point}`, or remove `propagation`",
        source.display()
    )))
}

/// Mount point and optional fields of a mount, proc_pid_mountinfo(5).
fn peers(table: &str, id: u64) -> Option<(String, String)> {
    let line = table
        .lines()
        .find(|line| line.split(' ').next().and_then(|text| text.parse().ok()) == Some(id))?;
    let (left, _) = line.split_once(" - ")?;
    let words: Vec<&str> = left.split(' ').collect();
    Some(((*words.get(4)?).to_owned(), words.get(6..)?.join(" ")))
}

/// A clone of what `subpath` is in the volume at `data`, and whether it is a directory. No link leads out of the
/// volume.
///
/// # Errors
/// It is missing, leads outside, or is neither a directory nor a file.
pub fn below(data: &Path, subpath: &str) -> Result<(OwnedFd, bool), StepError> {
    let root = open(
        data,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .step("open", data.display())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let place = openat2(&root, subpath, flags, Mode::empty(), resolve).map_err(|errno| {
        let why = match errno {
            Errno::NOENT | Errno::NOTDIR => "is not there; make it first, for example from another service",
            Errno::XDEV => "leads out of the volume by a symbolic link; correct it",
            Errno::LOOP => "is a symbolic link to itself; correct it",
            errno => return StepError::system("open in the volume", subpath, errno),
        };
        StepError::spec(format!(
            "the subpath {subpath} of the volume at {} {why}",
            data.display()
        ))
    })?;
    let kind = FileType::from_raw_mode(fstat(&place).step("look at", subpath)?.st_mode);
    if !matches!(kind, FileType::Directory | FileType::RegularFile) {
        return Err(StepError::spec(format!(
            "the subpath {subpath} of the volume at {} is neither a directory nor a file; choose another",
            data.display()
        )));
    }
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let clone = open_tree(&place, "", flags).step("clone", subpath)?;
    Ok((clone, kind == FileType::Directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_shares_a_mount_is_read_from_the_table() {
        let table = "21 20 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n\
                     22 21 0:30 / /run rw master:2 propagate_from:1 - tmpfs tmpfs rw\n\
                     23 21 0:31 / /tmp rw - tmpfs tmpfs rw\n";
        let found = |id| peers(table, id).map(|(point, kinds)| format!("{point} {kinds}"));
        assert_eq!(found(21).as_deref(), Some("/ shared:1"));
        assert_eq!(found(22).as_deref(), Some("/run master:2 propagate_from:1"));
        assert_eq!(found(23).as_deref(), Some("/tmp "));
        assert_eq!(found(24), None);
    }
}
