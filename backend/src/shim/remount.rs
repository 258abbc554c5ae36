//! Volumes, binds and the files of stead's own that somebody unmounted or deleted under a running container
//! are hung into its tree again.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    sched::{CloneFlags, setns},
    sys::wait::{WaitPidFlag, waitpid},
    unistd::{Pid, pipe2},
};
use reconciler::spec::MountSpec;
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    mount::{MoveMountFlags, UnmountFlags, move_mount, unmount},
};

use super::{ground, protocol::Record};
use crate::{
    rootfs::{Step, StepError, etc, stage, tree},
    sys::process::{self, Side},
};

/// Where a volume or a bind is in the container, if it can be hung there again while it runs: a target
/// that leads through a symbolic link of the image is left to the next start.
pub fn point(spec: &MountSpec) -> Option<PathBuf> {
    match spec {
        MountSpec::Volume { target, .. } | MountSpec::Bind { target, .. } => {
            Some(Path::new("/").join(tree::normal(target)))
        }
        MountSpec::Tmpfs { .. } => None,
    }
}

/// What is hung in again.
enum Wanted<'r> {
    Spec(&'r MountSpec),
    /// One of [`etc::GENERATED`].
    Generated(&'static str),
}

/// Whether stead wrote what is mounted there.
pub fn is_generated(point: &Path) -> bool {
    generated(point).is_some()
}

fn generated(point: &Path) -> Option<&'static str> {
    let name = point.strip_prefix("/etc").ok()?;
    etc::GENERATED.into_iter().find(|one| name == Path::new(one))
}

/// A child makes the mounts as the host's root and attaches them in the container's mount namespace.
///
/// # Errors
/// The step that failed. What was attached before stays.
pub fn remount(
    pid: i32,
    first: BorrowedFd<'_>,
    user: Option<BorrowedFd<'_>>,
    record: &Record,
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<(), StepError> {
    let missing = ground::missing(pid as u32, &record.ground).step("look at the mounts of process", pid)?;
    let specs = record.container.iter().flat_map(|container| &container.mounts);
    let specs: Vec<(&MountSpec, PathBuf)> = specs.filter_map(|spec| Some((spec, point(spec)?))).collect();
    let wanted: Vec<(Wanted<'_>, PathBuf)> = missing
        .mounts
        .into_iter()
        .filter_map(|point| {
            let spec = specs.iter().find(|(_, place)| *place == point);
            let spec = spec.map(|(spec, _)| Wanted::Spec(spec));
            Some((spec.or_else(|| generated(&point).map(Wanted::Generated))?, point))
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (ear, mouth) = pipe2(OFlag::O_CLOEXEC).step("make", "a pipe")?;
    let child = match process::clone(0, None).step("fork", "to mount")? {
        Side::Parent(pid) => pid,
        Side::Child => {
            drop(ear);
            if let Err(error) = attach(first, user, record, &wanted, volumes)
                && let Ok(text) = serde_json::to_vec(&error)
            {
                let _ = nix::unistd::write(&mouth, &text);
            }
            process::exit(0);
        }
    };
    drop(mouth);
    let mut text = Vec::new();
    let heard = File::from(ear).read_to_end(&mut text);
    let _ = waitpid(Pid::from_raw(child), Some(WaitPidFlag::__WALL));
    heard.step("hear of", "the mounts")?;
    match serde_json::from_slice(&text) {
        Ok(error) => Err(error),
        Err(_) => Ok(()),
    }
}

fn attach(
    first: BorrowedFd<'_>,
    user: Option<BorrowedFd<'_>>,
    record: &Record,
    wanted: &[(Wanted<'_>, PathBuf)],
    volumes: &BTreeMap<String, PathBuf>,
) -> Result<(), StepError> {
    let mut sources: Vec<(OwnedFd, &PathBuf)> = Vec::new();
    for (wanted, point) in wanted {
        let source = match wanted {
            Wanted::Spec(spec) => {
                // What was there at the start is not made anew: an empty directory is not what was mounted.
                if let MountSpec::Bind { source, .. } = spec {
                    std::fs::metadata(source).step("mount again", source.display())?;
                }
                stage::source(spec, volumes, user, &mut BTreeMap::new())?.map(|source| source.mount)
            }
            Wanted::Generated(name) => {
                if let Some(container) = &record.container {
                    etc::restore(&record.assignment, container, name)?;
                }
                Some(stage::generated(&record.assignment, name, user)?)
            }
        };
        sources.extend(source.map(|source| (source, point)));
    }
    setns(first, CloneFlags::CLONE_NEWNS)
        .step("enter", "the mount namespace; the container may have just ended")?;
    for (source, point) in sources {
        // What was deleted under its mount is still mounted.
        while open(point).is_ok_and(|place| is_mount_point(&place)) {
            unmount(point.as_path(), UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
                .step("unmount", point.display())?;
        }
        let place = open(point).step("open in the container", point.display())?;
        if tree::on_kernel_filesystem(&place).step("look at", point.display())? {
            return Err(StepError::spec(format!(
                "{} leads into /proc or /sys of the container; choose another target",
                point.display()
            )));
        }
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(source.as_fd(), "", &place, "", flags).step("mount on", point.display())?;
    }
    Ok(())
}

/// The tree is the container's to change: no link of its making is followed.
fn open(point: &Path) -> rustix::io::Result<OwnedFd> {
    openat2(
        CWD,
        point,
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS,
    )
}

fn is_mount_point(place: &OwnedFd) -> bool {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, statx};
    statx(place, "", AtFlags::EMPTY_PATH, StatxFlags::empty())
        .is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}
