//! Stage 0: every source of the container's tree as a detached mount, made by the host's root.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown},
    },
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, setns, unshare},
};
use reconciler::spec::{MountSpec, Space};
use rustix::{
    fs::CWD,
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
};

use super::{
    Step, StepError, bare, binds,
    devices::{self, HostNode, Node, Nodes},
    etc,
    files::Held,
    fill::Fill,
};
use crate::{
    sandbox::Namespaces,
    shim::protocol::{Assignment, Reason, Start},
    sys::mount::{Attributes, set_attributes},
};

/// The six nodes of a container's /dev; bind mounts of the host's own.
pub const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Where init attaches the root before it pivots. Relative: the way to it from the top is closed to the
/// container's root, and the working directory is carried over into the new mount namespace.
pub const PLACE: &str = "new";

/// What init attaches.
pub struct Staged {
    pub root: OwnedFd,
    /// In the order of `container.mounts`; `None` for a tmpfs, which init makes itself.
    pub mounts: Vec<Option<Source>>,
    /// In the order of [`NODES`].
    pub nodes: Vec<OwnedFd>,
    /// /dev/shm, where it is shared.
    pub shm: Option<OwnedFd>,
    /// `etc/hosts` and the like, with their sources.
    pub generated: Vec<(&'static str, OwnedFd)>,
    /// In the order of `container.files`.
    pub files: Vec<OwnedFd>,
    /// Beside [`NODES`].
    pub devices: Vec<Node>,
    /// All others of the host, for who is privileged.
    pub host: Vec<HostNode>,
}

/// A bind or a volume.
pub struct Source {
    pub mount: OwnedFd,
    pub directory: bool,
    /// To be filled from the image first.
    pub fill: Option<Fill>,
}

/// Empties the upper directory when asked to and makes what a start needs on disk.
///
/// # Errors
/// The directory cannot be written.
pub fn prepare(assignment: &Assignment, start: &Start) -> Result<(), StepError> {
    let base = assignment.sandbox.id_base;
    let directory = &assignment.directory;
    for name in ["upper", "work"] {
        let path = directory.join(name);
        if start.fresh && path.exists() {
            fs::remove_dir_all(&path).step("empty", path.display())?;
        }
    }
    for name in ["upper", "work"] {
        let path = directory.join(name);
        fs::create_dir_all(&path).step("make", path.display())?;
    }
    let upper = directory.join("upper");
    let is = fs::metadata(&upper).step("look at", upper.display())?;
    if (is.uid(), is.gid()) != (base, base) {
        chown(&upper, Some(base), Some(base)).step("change the owner of", upper.display())?;
    }
    set_mode(&upper, 0o755)?;
    for name in etc::GENERATED {
        etc::generate(assignment, &start.container, name)?;
    }
    Ok(())
}

/// A change to what it is already would be written to disk with every start.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), StepError> {
    if fs::metadata(path).step("look at", path.display())?.mode() & 0o7777 == mode {
        return Ok(());
    }
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).step("change the mode of", path.display())
}

/// The mounts that those of a container are made among.
#[derive(Debug, Clone, Copy)]
pub enum Among {
    /// Next to none: this namespace's.
    Bare(BorrowedFd<'static>),
    /// A copy of the host's: programs of the host are to run there.
    Host,
}

/// Makes everything [`Staged`] holds and enters a mount namespace of its own.
///
/// # Errors
/// A source is missing or its file system refuses id-mapped mounts.
pub fn stage(
    assignment: &Assignment,
    start: &Start,
    held: Option<&Held>,
    asked: Option<&Nodes>,
    namespaces: &Namespaces,
    among: Among,
) -> Result<Staged, StepError> {
    let user = namespaces.user();
    let shm = shared_memory(assignment, namespaces)?;
    let mut fills = fills(start)?;
    let mut mounts = Vec::new();
    for spec in &start.container.mounts {
        mounts.push(source(spec, &start.volumes, user, &mut fills)?);
    }
    let layers = start.layers.iter();
    let layers = layers.map(|layer| idmapped(layer, user, false, true));
    let layers: Vec<OwnedFd> = layers.collect::<Result<_, _>>()?;
    let generated = etc::GENERATED
        .into_iter()
        .map(|name| Ok((name, generated(assignment, name, user)?)))
        .collect::<Result<_, StepError>>()?;
    let directory = &assignment.directory;
    let own = private(directory)?;
    let nodes = NODES
        .iter()
        .map(|name| private(&Path::new("/dev").join(name)))
        .collect::<Result<_, _>>()?;
    let host = match start.container.rights.privileged {
        true => devices::every()?,
        false => Vec::new(),
    };
    let place = enter(directory, among)?;
    let data = Some("mode=755");
    mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), data)
        .step("mount a tmpfs on", place.display())?;
    // Short relative names: the option string of a mount is one page.
    std::env::set_current_dir(place).step("enter", place.display())?;
    let mut lowers = Vec::new();
    for (number, (layer, clone)) in start.layers.iter().zip(&layers).enumerate() {
        let name = number.to_string();
        attach_at(clone, &name).step("attach layer", layer.display())?;
        lowers.push(name);
    }
    attach_at(&own, "own").step("attach", directory.display())?;
    for name in ["root", PLACE] {
        fs::create_dir(name).step("make", name)?;
    }
    let options = format!(
        "lowerdir={},upperdir=own/upper,workdir=own/work",
        lowers.join(":")
    );
    mount(
        Some("overlay"),
        "root",
        Some("overlay"),
        // A layer may have device nodes in it. Without a user namespace, others may be made.
        MsFlags::MS_NODEV,
        Some(options.as_str()),
    )
    .step(
        "mount an overlay of the image's layers over",
        directory.join("upper").display(),
    )?;
    let root = clone_tree(Path::new("root"), false).step("clone", "the overlay")?;
    let files = held.map(Held::stage).transpose()?.unwrap_or_default();
    Ok(Staged {
        root,
        mounts,
        nodes,
        shm,
        generated,
        files,
        devices: asked.map(Nodes::stage).transpose()?.unwrap_or_default(),
        host,
    })
}

/// Enters a mount namespace of its own: a directory there to build in.
fn enter(directory: &Path, among: Among) -> Result<&Path, StepError> {
    let own = || unshare(CloneFlags::CLONE_NEWNS).step("make", "a mount namespace");
    match among {
        Among::Bare(namespace) => {
            setns(namespace, CloneFlags::CLONE_NEWNS).step("enter", "an empty mount namespace")?;
            own()?;
            Ok(Path::new(bare::PLACE))
        }
        Among::Host => {
            own()?;
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).step("make private", "/")?;
            // Nothing is looked for by its path in here any more: as good a place as one made for that.
            Ok(directory)
        }
    }
}

/// Where what holds a shared /dev/shm has mounted it, below the directory of its sandbox.
pub const SHARED_MEMORY: &str = "shm";

/// The /dev/shm of the host, or that of several containers; `None`: this one makes its own.
fn shared_memory(assignment: &Assignment, namespaces: &Namespaces) -> Result<Option<OwnedFd>, StepError> {
    let Some(theirs) = &namespaces.shm else {
        let host = Path::new("/dev/shm");
        return match assignment.sandbox.spaces.ipc {
            Space::Host => Ok(Some(private(host)?)),
            Space::Own | Space::Joined => Ok(None),
        };
    };
    let path = lender(assignment).join(SHARED_MEMORY);
    let home = "/proc/self/ns/mnt";
    let ours = File::open(home).step("open", home)?;
    setns(theirs, CloneFlags::CLONE_NEWNS).step("enter", "the mounts of the shared /dev/shm")?;
    let clone = private(&path);
    setns(&ours, CloneFlags::CLONE_NEWNS).step("leave", "the mounts of the shared /dev/shm")?;
    Ok(Some(clone?))
}

/// The directory of the sandbox whose namespaces are used.
pub(super) fn lender(assignment: &Assignment) -> &Path {
    match &assignment.lender {
        Some(lender) => &lender.directory,
        None => &assignment.directory,
    }
}

/// Begins to fill the volumes that are new, each once, by its first mount. In the order of their names,
/// so that no two starts wait for each other.
fn fills(start: &Start) -> Result<BTreeMap<String, Fill>, StepError> {
    let mut fills = BTreeMap::new();
    for (name, data) in &start.volumes {
        let first = start.container.mounts.iter().find_map(|spec| match spec {
            MountSpec::Volume {
                volume,
                nocopy,
                subpath: None,
                ..
            } if volume.name == *name => Some(*nocopy),
            _ => None,
        });
        if let Some(nocopy) = first
            && let Some(fill) = Fill::begin(data, nocopy)?
        {
            fills.insert(name.clone(), fill);
        }
    }
    Ok(fills)
}

/// A volume or a bind as a detached mount. `volumes`: data directories by full name.
///
/// # Errors
/// It is missing, or its file system refuses id-mapped mounts.
pub fn source(
    spec: &MountSpec,
    volumes: &BTreeMap<String, PathBuf>,
    user: Option<BorrowedFd<'_>>,
    fills: &mut BTreeMap<String, Fill>,
) -> Result<Option<Source>, StepError> {
    match spec {
        MountSpec::Tmpfs { .. } => Ok(None),
        MountSpec::Bind {
            source,
            read_only,
            create_host_path,
            propagation,
            recursive,
            ..
        } => {
            if !source.try_exists().step("look at", source.display())? {
                if !create_host_path {
                    return Err(StepError::spec(format!(
                        "the bind source {} does not exist; create it, or set bind.create_host_path",
                        source.display()
                    )));
                }
                fs::create_dir_all(source).step("make", source.display())?;
            }
            let metadata = fs::metadata(source).step("look at", source.display())?;
            let mount = match is_node(&metadata) {
                true => private(source)?,
                false => binds::clone(source, user, *read_only, *recursive, *propagation)?,
            };
            Ok(Some(Source {
                mount,
                directory: metadata.is_dir(),
                fill: None,
            }))
        }
        MountSpec::Volume {
            volume,
            read_only,
            subpath,
            ..
        } => {
            let data = volumes.get(&volume.name).ok_or_else(|| StepError {
                message: format!(
                    "the volume {} has no directory; apply the project again",
                    volume.name
                ),
                errno: None,
                reason: Reason::Request,
            })?;
            if let Some(subpath) = subpath {
                let (place, directory) = binds::below(data, subpath)?;
                return Ok(Some(Source {
                    mount: binds::shift(place, data, user, false, *read_only)?,
                    directory,
                    fill: None,
                }));
            }
            let fill = fills.remove(&volume.name);
            // A volume to be filled becomes read-only when it is attached.
            Ok(Some(Source {
                mount: idmapped(data, user, false, *read_only && fill.is_none())?,
                directory: true,
                fill,
            }))
        }
    }
}

/// One of [`etc::GENERATED`] as a detached mount.
///
/// # Errors
/// It is missing, or its file system refuses id-mapped mounts.
pub fn generated(
    assignment: &Assignment,
    name: &str,
    user: Option<BorrowedFd<'_>>,
) -> Result<OwnedFd, StepError> {
    idmapped(&etc::directory(assignment).join(name), user, false, false)
}

pub(super) fn clone_tree(path: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags)
}

/// A clone of `path` as it is. Neither side sees what is mounted on the other later.
fn private(path: &Path) -> Result<OwnedFd, StepError> {
    let clone = clone_tree(path, false).step("clone", path.display())?;
    let attributes = Attributes {
        propagation: libc::MS_PRIVATE,
        ..Attributes::default()
    };
    set_attributes(clone.as_fd(), attributes).step("make private", path.display())?;
    Ok(clone)
}

fn attach_at(mount: &OwnedFd, name: &str) -> std::io::Result<()> {
    fs::create_dir(name)?;
    move_mount(mount, "", CWD, name, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(())
}

/// One of those that every container has in /dev: `/dev/null` is bound over files to hide them.
fn is_node(metadata: &fs::Metadata) -> bool {
    let is = |name: &str| {
        let node = fs::metadata(Path::new("/dev").join(name));
        node.is_ok_and(|node| node.rdev() == metadata.rdev())
    };
    metadata.file_type().is_char_device() && NODES.iter().any(|name| is(name))
}

/// A clone of `path` whose ids are the sandbox's, and on which no device can be opened.
fn idmapped(
    path: &Path,
    user: Option<BorrowedFd<'_>>,
    recursive: bool,
    read_only: bool,
) -> Result<OwnedFd, StepError> {
    let clone = clone_tree(path, recursive).step("clone", path.display())?;
    binds::shift(clone, path, user, recursive, read_only)
}
