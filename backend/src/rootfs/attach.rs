//! The container's root hangs the staged mounts into its tree, hides what must be hidden, and pivots.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use reconciler::spec::{ContainerSpec, MountSpec};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, symlinkat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree, unmount,
    },
};

use super::{
    Step, StepError, devices, fill,
    stage::{NODES, Staged},
    tree::{self, Kind},
};
use crate::{
    procfs,
    shim::terminal::Terminal,
    sys::mount::{Attributes, set_attributes},
};

/// Files read as empty, directories as empty and read-only (what Docker hides).
const MASKED: [&str; 12] = [
    "proc/acpi",
    "proc/asound",
    "proc/interrupts",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/sched_debug",
    "proc/scsi",
    "proc/timer_list",
    "proc/timer_stats",
    "sys/devices/virtual/powercap",
    "sys/firmware",
];

const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];

/// Everything up to pivot_root(2), with the root at `place`. The terminal, where the container has one.
///
/// # Errors
/// The first step that failed; nothing of the host was touched.
pub fn attach(
    staged: &Staged,
    container: &ContainerSpec,
    place: &Path,
) -> Result<Option<Terminal>, StepError> {
    let root = staged.root.as_fd();
    move_mount(root, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .step("attach", "the container's root")?;
    kernel_filesystems(root, container.rights.privileged)?;
    let terminal = devices(root, staged, container)?;
    for (name, source) in &staged.generated {
        let target = Path::new("etc").join(name);
        let point = tree::make(root, &target, Kind::File)?;
        refuse_kernel(&point, &target)?;
        hang(source.as_fd(), &point, &target)?;
    }
    for (spec, source) in container.mounts.iter().zip(&staged.mounts) {
        let (MountSpec::Volume { target, .. }
        | MountSpec::Bind { target, .. }
        | MountSpec::Tmpfs { target, .. }) = spec;
        let clean = clean(target)?;
        let Some(source) = source else {
            let point = tree::make(root, &clean, Kind::Directory)?;
            refuse_kernel(&point, target)?;
            let MountSpec::Tmpfs {
                size,
                mode,
                uid,
                gid,
                exec,
                ..
            } = spec
            else {
                continue;
            };
            let mut options = vec![("mode", format!("{:o}", mode.unwrap_or(0o1777)))];
            // Ids as in the container: the file system belongs to its user namespace.
            for (name, number) in [
                ("size", *size),
                ("uid", uid.map(u64::from)),
                ("gid", gid.map(u64::from)),
            ] {
                options.extend(number.map(|number| (name, number.to_string())));
            }
            let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
            if !exec {
                flags |= MountAttrFlags::MOUNT_ATTR_NOEXEC;
            }
            let mount = filesystem("tmpfs", &options, flags).step("make a tmpfs for", target.display())?;
            hang(mount.as_fd(), &point, target)?;
            continue;
        };
        let kind = if source.directory {
            Kind::Directory
        } else {
            Kind::File
        };
        let point = tree::make(root, &clean, kind)?;
        // Before a volume is filled from there: /proc has files without an end.
        refuse_kernel(&point, target)?;
        if let Some(fill) = &source.fill {
            fill::copy(point.as_fd(), &clean, source.mount.as_fd())?;
            fill.end()?;
            if let MountSpec::Volume { read_only: true, .. } = spec {
                read_only(source.mount.as_fd()).step("make read-only", target.display())?;
            }
        }
        hang(source.mount.as_fd(), &point, target)?;
    }
    for (spec, source) in container.files.iter().zip(&staged.files) {
        let clean = clean(&spec.target)?;
        let point = tree::make(root, &clean, Kind::File)?;
        refuse_kernel(&point, &spec.target)?;
        hang(source.as_fd(), &point, &spec.target)?;
    }
    for (target, source) in &staged.devices {
        let clean = clean(target)?;
        let point = tree::make(root, &clean, Kind::File)?;
        refuse_kernel(&point, target)?;
        hang(source.as_fd(), &point, target)?;
    }
    if !container.rights.unmasked {
        hide(root, staged)?;
    }
    Ok(terminal)
}

/// Leaves the tree of the host for that of the container.
///
/// # Errors
/// As pivot_root(2).
pub fn pivot(staged: &Staged) -> Result<(), StepError> {
    let root = staged.root.as_fd();
    nix::unistd::fchdir(root).step("enter", "the container's root")?;
    nix::unistd::pivot_root(".", ".").step("change the root to", "the container's root")?;
    unmount(".", UnmountFlags::DETACH).step("leave", "the host's tree")?;
    nix::unistd::chdir("/").step("enter", "/")
}

/// A target as a path below the root.
fn clean(target: &Path) -> Result<PathBuf, StepError> {
    let clean = tree::normal(target);
    if clean.as_os_str().is_empty() || ["proc", "sys"].iter().any(|name| clean.starts_with(name)) {
        return Err(StepError::spec(format!(
            "nothing can be mounted at {}; choose a target outside /, /proc and /sys",
            target.display()
        )));
    }
    Ok(clean)
}

fn refuse_kernel(point: &OwnedFd, target: &Path) -> Result<(), StepError> {
    if tree::on_kernel_filesystem(point).step("look at", target.display())? {
        return Err(StepError::spec(format!(
            "{} leads into /proc or /sys of the container; choose another target, or mend the image",
            target.display()
        )));
    }
    Ok(())
}

fn hang(source: BorrowedFd<'_>, point: &OwnedFd, target: &Path) -> Result<(), StepError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(source, "", point, "", flags).step("mount on", target.display())
}

/// A new file system as a detached mount.
fn filesystem(
    name: &str,
    options: &[(&str, String)],
    attributes: MountAttrFlags,
) -> rustix::io::Result<OwnedFd> {
    let context = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in options {
        fsconfig_set_string(context.as_fd(), *key, value.as_str())?;
    }
    fsconfig_create(context.as_fd())?;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn read_only(mount: BorrowedFd<'_>) -> std::io::Result<()> {
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_RDONLY,
        recursive: true,
        idmap: None,
        propagation: 0,
    };
    set_attributes(mount, attributes)
}

/// `/proc`, `/sys`, `/dev`: a real directory, because an image that makes one a symbolic link wants
/// our mounts to land elsewhere.
fn own_directory(root: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, StepError> {
    match mkdirat(root, name, Mode::from(0o755)) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(error).step("make in the container", name),
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(
        root,
        name,
        flags,
        Mode::empty(),
        ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
    )
    .map_err(|_| {
        StepError::spec(format!(
            "/{name} in the image is no directory; mend the image (a symbolic link there is refused)"
        ))
    })
}

fn kernel_filesystems(root: BorrowedFd<'_>, privileged: bool) -> Result<(), StepError> {
    let strict = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let kept = match privileged {
        true => strict,
        false => strict | MountAttrFlags::MOUNT_ATTR_RDONLY,
    };
    let proc = filesystem("proc", &[], strict).step("make", "a procfs")?;
    hang(proc.as_fd(), &own_directory(root, "proc")?, Path::new("/proc"))?;
    let sys = filesystem("sysfs", &[], kept).step("make", "a sysfs")?;
    hang(sys.as_fd(), &own_directory(root, "sys")?, Path::new("/sys"))?;
    // Not every host lets a cgroup namespace mount its tree; a container does without.
    if let Ok(cgroup) = filesystem("cgroup2", &[], kept) {
        let path = Path::new("sys/fs/cgroup");
        if let Ok(point) = tree::open(root, path, OFlags::PATH | OFlags::DIRECTORY) {
            hang(cgroup.as_fd(), &point, path)?;
        }
    }
    Ok(())
}

fn devices(
    root: BorrowedFd<'_>,
    staged: &Staged,
    container: &ContainerSpec,
) -> Result<Option<Terminal>, StepError> {
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let noexec = MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let options = [("mode", "755".to_owned()), ("size", "65536k".to_owned())];
    let nodev = match container.rights.privileged {
        true => MountAttrFlags::empty(),
        false => MountAttrFlags::MOUNT_ATTR_NODEV,
    };
    let dev = filesystem("tmpfs", &options, nosuid | noexec | nodev).step("make", "a tmpfs for /dev")?;
    hang(dev.as_fd(), &own_directory(root, "dev")?, Path::new("/dev"))?;
    let dev = dev.as_fd();
    devices::copy(dev, &staged.host)?;
    for (name, node) in NODES.iter().zip(&staged.nodes) {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::WRONLY;
        openat(dev, *name, flags, Mode::from(0o666)).step("make /dev/", name)?;
        let point =
            openat(dev, *name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open /dev/", name)?;
        hang(node.as_fd(), &point, &Path::new("/dev").join(name))?;
    }
    let shm = [
        ("mode", "1777".to_owned()),
        ("size", container.shm_size.to_string()),
    ];
    let pts = [
        ("ptmxmode", "0666".to_owned()),
        ("mode", "0620".to_owned()),
        ("gid", "5".to_owned()),
    ];
    let below = [
        ("pts", "devpts", &pts[..], nosuid | noexec),
        ("shm", "tmpfs", &shm[..], nosuid | noexec | nodev),
        ("mqueue", "mqueue", &[], nosuid | noexec | nodev),
    ];
    let mut terminal = None;
    for (name, kind, options, flags) in below {
        let shared = staged.shm.as_ref().filter(|_| name == "shm");
        if name == "shm" && shared.is_none() && container.shm_size == 0 {
            continue;
        }
        mkdirat(dev, name, Mode::from(0o755)).step("make /dev/", name)?;
        let point =
            openat(dev, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).step("open /dev/", name)?;
        let place = Path::new("/dev").join(name);
        match shared {
            Some(shared) => hang(shared.as_fd(), &point, &place)?,
            None => {
                let mount = filesystem(kind, options, flags).step("make the file system of /dev/", name)?;
                hang(mount.as_fd(), &point, &place)?;
                if kind == "devpts" && container.tty {
                    terminal = Some(Terminal::new(mount.as_fd(), dev)?);
                }
            }
        }
    }
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
        ("/proc/kcore", "core"),
    ];
    for (to, name) in links {
        symlinkat(to, dev, name).step("link /dev/", name)?;
    }
    Ok(terminal)
}

fn hide(root: BorrowedFd<'_>, staged: &Staged) -> Result<(), StepError> {
    let clone_flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    for name in READ_ONLY {
        let path = Path::new(name);
        let Ok(point) = tree::open(root, path, OFlags::PATH) else {
            continue;
        };
        let clone = open_tree(&point, "", clone_flags).step("clone", path.display())?;
        read_only(clone.as_fd()).step("make read-only", path.display())?;
        hang(clone.as_fd(), &point, path)?;
    }
    // One empty file system for every hidden directory: a superblock each makes the end slow.
    let flags = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    let empty = filesystem("tmpfs", &[("mode", "555".to_owned())], flags).step("make", "an empty tmpfs")?;
    let mut paths: Vec<String> = MASKED.iter().map(ToString::to_string).collect();
    for number in 0.. {
        let path = format!("sys/devices/system/cpu/cpu{number}");
        if tree::open(root, Path::new(&path), OFlags::PATH).is_err() {
            break;
        }
        paths.push(format!("{path}/thermal_throttle"));
    }
    let null = &staged.nodes[0];
    // Only what is attached can be cloned before kernel 6.15: the node is, in /dev; the empty file system
    // is from its first place on.
    let mut empty_attached = false;
    for name in &paths {
        let path = Path::new(name);
        let Ok(point) = tree::open(root, path, OFlags::PATH) else {
            continue;
        };
        let stat = rustix::fs::fstat(&point).step("look at", path.display())?;
        let directory = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        if directory && !empty_attached {
            hang(empty.as_fd(), &point, path)?;
            empty_attached = true;
            continue;
        }
        let cover = if directory { empty.as_fd() } else { null.as_fd() };
        let clone = open_tree(cover, "", clone_flags).step("clone the cover of", path.display())?;
        hang(clone.as_fd(), &point, path)?;
    }
    Ok(())
}

/// Writes one value under /proc of this process's network namespace.
///
/// # Errors
/// As write(2).
pub fn sysctl(name: impl AsRef<Path>, value: &str) -> std::io::Result<()> {
    procfs::write(Path::new("/proc/sys").join(name), value)
}
