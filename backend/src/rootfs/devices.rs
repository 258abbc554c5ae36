//! Devices of the host that a service asks for: nodes of their own, on a tmpfs of the host's root.
//!
//! The root of a user namespace can make none, and those in the host's /dev belong to ids it does not have.

use std::{
    fs,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::FileTypeExt,
    },
    path::{Path, PathBuf},
};

use reconciler::spec::{DeviceSpec, NodeLike};
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chmodat, chownat, makedev, mkdirat, mknodat, stat},
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use super::{Step, StepError, stage::NODES};

/// The ids that a sandbox has.
const IDS: u32 = 65_536;
/// A directory of more is none of devices.
const MOST: usize = 1024;

/// A node to be made.
#[derive(Debug, Clone)]
pub struct Found {
    pub target: PathBuf,
    /// Of `r`, `w` and `m`.
    pub access: String,
    pub node: Likeness,
}

/// What a node is, and whose: ids are those of the container.
#[derive(Debug, Clone, Copy)]
pub struct Likeness {
    pub kind: FileType,
    pub number: u64,
    mode: u32,
    uid: u32,
    gid: u32,
}

impl From<&rustix::fs::Stat> for Likeness {
    fn from(stat: &rustix::fs::Stat) -> Self {
        Likeness {
            kind: FileType::from_raw_mode(stat.st_mode),
            number: stat.st_rdev,
            mode: stat.st_mode & 0o777,
            uid: stat.st_uid,
            gid: stat.st_gid,
        }
    }
}

impl Likeness {
    fn changed(mut self, like: &NodeLike) -> Self {
        if let Some((kind, major, minor)) = like.number {
            self.kind = match kind {
                'b' => FileType::BlockDevice,
                _ => FileType::CharacterDevice,
            };
            self.number = makedev(major, minor);
        }
        self.mode = like.mode.unwrap_or(self.mode);
        self.uid = like.uid.unwrap_or(self.uid);
        self.gid = like.gid.unwrap_or(self.gid);
        self
    }
}

/// Every node that is asked for: a directory stands for those below it.
///
/// # Errors
/// There is no such device.
pub fn nodes(devices: &[DeviceSpec]) -> Result<Vec<Found>, StepError> {
    let mut nodes = Vec::new();
    for device in devices {
        let before = nodes.len();
        // With numbers of its own, the host need not have it.
        if device.like.number.is_some() {
            let root = Likeness {
                kind: FileType::CharacterDevice,
                number: 0,
                mode: 0o666,
                uid: 0,
                gid: 0,
            };
            nodes.push(Found {
                target: device.target.clone(),
                access: device.access.clone(),
                node: root.changed(&device.like),
            });
            continue;
        }
        collect(&device.source, &device.target, device, &mut nodes)?;
        if nodes.len() == before {
            return Err(StepError::spec(format!(
                "{} is no device of this host; correct `devices`",
                device.source.display()
            )));
        }
    }
    Ok(nodes)
}

fn collect(
    source: &Path,
    target: &Path,
    device: &DeviceSpec,
    nodes: &mut Vec<Found>,
) -> Result<(), StepError> {
    let found = stat(source).map_err(|error| match error {
        rustix::io::Errno::NOENT => StepError::spec(format!(
            "this host has no {}; plug it in, load its driver, or correct `devices`",
            source.display()
        )),
        _ => StepError::system("look at", source.display(), error),
    })?;
    match FileType::from_raw_mode(found.st_mode) {
        FileType::CharacterDevice | FileType::BlockDevice => nodes.push(Found {
            target: target.to_owned(),
            access: device.access.clone(),
            node: Likeness::from(&found).changed(&device.like),
        }),
        FileType::Directory => {
            let mut names: Vec<_> = fs::read_dir(source)
                .step("list", source.display())?
                .flatten()
                .map(|entry| entry.file_name())
                .collect();
            names.sort();
            for name in names {
                let path = source.join(&name);
                let is_link = fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink());
                if !is_link && nodes.len() < MOST {
                    collect(&path, &target.join(&name), device, nodes)?;
                }
            }
        }
        _ => {}
    }
    Ok(())
}

/// The nodes of one start.
pub struct Nodes {
    mount: OwnedFd,
    targets: Vec<PathBuf>,
}

/// One of them as a detached mount, and where it goes.
pub type Node = (PathBuf, OwnedFd);

impl Nodes {
    /// Made by the supervisor, whose own cgroup forbids nothing. Owner and mode are those of the host.
    ///
    /// # Errors
    /// There is no such device.
    pub fn new(devices: &[DeviceSpec], id_base: u32) -> Result<Option<Self>, StepError> {
        let all = nodes(devices)?;
        if all.is_empty() {
            return Ok(None);
        }
        let mount = tmpfs().step("make a tmpfs for", "devices")?;
        let mut targets = Vec::new();
        for (place, found) in all.into_iter().enumerate() {
            node(mount.as_fd(), &place.to_string(), &found.node, id_base)
                .step("make the node", found.target.display())?;
            targets.push(found.target);
        }
        Ok(Some(Nodes { mount, targets }))
    }

    /// Called in a mount namespace of its own, in a directory of it.
    ///
    /// # Errors
    /// As move_mount(2) and open_tree(2).
    pub fn stage(&self) -> Result<Vec<Node>, StepError> {
        fs::create_dir("devices").step("make", "devices")?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&self.mount, "", CWD, "devices", flags).step("attach", "devices")?;
        let targets = self.targets.iter().enumerate();
        targets
            .map(|(place, target)| {
                let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
                let clone = open_tree(&self.mount, place.to_string(), flags);
                Ok((target.clone(), clone.step("clone", target.display())?))
            })
            .collect()
    }
}

fn tmpfs() -> rustix::io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "mode", "700")?;
    fsconfig_set_string(context.as_fd(), "size", "64k")?;
    fsconfig_create(context.as_fd())?;
    let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, flags)
}

fn node(directory: BorrowedFd<'_>, name: &str, like: &Likeness, id_base: u32) -> rustix::io::Result<()> {
    mknodat(directory, name, like.kind, Mode::from(0o600), like.number)?;
    // An id that the sandbox does not have is that of its root.
    let own = |id: u32| id_base + if id < IDS { id } else { 0 };
    let (uid, gid) = (own(like.uid), own(like.gid));
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    chmodat(directory, name, Mode::from(like.mode), AtFlags::empty())
}

/// A node of the host's /dev.
pub struct HostNode {
    /// Below /dev.
    path: PathBuf,
    like: Likeness,
}

/// Directories of /dev that a container has of its own.
const OWN: [&str; 3] = ["pts", "shm", "mqueue"];

/// Every node of the host but for those that a container has anyway.
///
/// # Errors
/// /dev cannot be read.
pub fn every() -> Result<Vec<HostNode>, StepError> {
    let mut nodes = Vec::new();
    let mut next = vec![PathBuf::from("/dev")];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(&directory)
            .step("list", directory.display())?
            .flatten()
        {
            let path = entry.path();
            let Ok(below) = path.strip_prefix("/dev") else {
                continue;
            };
            let own = |name: &&str| below == Path::new(name);
            let has = OWN.iter().chain(&NODES).chain(&["console", "ptmx"]).any(own);
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if has {
                continue;
            }
            if kind.is_dir() {
                next.push(path);
            } else if (kind.is_char_device() || kind.is_block_device())
                && let Ok(like) = stat(&path)
            {
                let path = below.to_owned();
                let like = Likeness::from(&like);
                nodes.push(HostNode { path, like });
            }
        }
    }
    Ok(nodes)
}

/// Makes them again in `dev`, which is nobody else's yet.
///
/// # Errors
/// As mknodat(2): only the host's root may.
pub fn copy(dev: BorrowedFd<'_>, nodes: &[HostNode]) -> Result<(), StepError> {
    for HostNode { path, like } in nodes {
        let parents = path.ancestors().skip(1).filter(|path| path.file_name().is_some());
        let mut parents: Vec<&Path> = parents.collect();
        parents.reverse();
        for parent in parents {
            match mkdirat(dev, parent, Mode::from(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error).step("make in /dev", parent.display()),
            }
        }
        let name = path.to_string_lossy();
        node(dev, &name, like, 0).step("make in /dev", path.display())?;
    }
    Ok(())
}
