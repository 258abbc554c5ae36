//! The v2 tree: where it is, its leaves, and what lives in them.
//!
//! Kill, freeze and "populated" work without controllers, so a hybrid host serves as well; [`limits`]
//! finds the controllers wherever they are.

pub mod devices;
pub mod limits;

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use crate::shim::protocol::{RECORD_NAME, Record};

/// The directory below which `stead-<mark>` is made: the own unit when systemd delegated it
/// (`user.delegate` or `trusted.delegate` set), else the top of the v2 tree.
///
/// # Errors
/// No v2 tree is mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified` makes one on a v1 host.
pub fn root() -> io::Result<PathBuf> {
    let top = mount_point(&fs::read_to_string("/proc/self/mountinfo")?).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::NotFound,
            "no cgroup v2 tree is mounted; mount one (cgroup2 on /sys/fs/cgroup, or on \
             /sys/fs/cgroup/unified of a v1 host)",
        )
    })?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    if let Some(unit) = own.lines().find_map(|line| line.strip_prefix("0::")) {
        let mut path = top.join(unit.trim_start_matches('/'));
        // The agent may sit in a leaf of its delegated unit.
        for _ in 0..2 {
            if path != top && delegated(&path) {
                return Ok(path);
            }
            match path.parent() {
                Some(parent) => path = parent.to_owned(),
                None => break,
            }
        }
    }
    Ok(top)
}

fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        (right.split(' ').next()? == "cgroup2").then_some(())?;
        let mut fields = left.split(' ').skip(3);
        (fields.next()? == "/").then_some(())?;
        Some(PathBuf::from(fields.next()?))
    })
}

fn delegated(path: &Path) -> bool {
    let mut value = [0_u8; 8];
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        rustix::fs::getxattr(path, *name, &mut value[..])
            .is_ok_and(|length| value[..length].starts_with(b"1"))
    })
}

/// Makes the directory and those above it.
///
/// # Errors
/// As mkdir(2).
pub fn create(path: &Path) -> io::Result<()> {
    fs::create_dir_all(path)
}

/// Moves a process; 0 is the caller.
///
/// # Errors
/// As a write to cgroup.procs, cgroups(7).
pub fn enter(path: &Path, pid: u32) -> io::Result<()> {
    fs::write(path.join("cgroup.procs"), pid.to_string())
}

/// SIGKILL to everything at and below `path`; an absent one is dead already.
///
/// # Errors
/// The write fails, or the kernel is older than 5.14.
pub fn kill(path: &Path) -> io::Result<()> {
    absent_is_fine(fs::write(path.join("cgroup.kill"), "1"))
}

/// Whether a process lives at or below `path`; false when it is absent.
///
/// # Errors
/// As a read of cgroup.events.
pub fn populated(path: &Path) -> io::Result<bool> {
    match fs::read_to_string(path.join("cgroup.events")) {
        Ok(text) => Ok(text.lines().any(|line| line == "populated 1")),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The processes at and below `path`.
///
/// # Errors
/// As a read of cgroup.procs; an absent directory has none.
pub fn pids(path: &Path) -> io::Result<Vec<u32>> {
    listed(tree(path)?)
}

/// Of the root at `path`, without those of containers: what is forked there has, for a moment, all that its
/// supervisor has.
fn supervisors(path: &Path) -> io::Result<Vec<u32>> {
    let mut directories = tree(path)?;
    // Project, instance, leaf.
    let leaf = |directory: &PathBuf| Some(directory.strip_prefix(path).ok()?.iter().nth(2)? == "payload");
    directories.retain(|directory| leaf(directory) != Some(true));
    listed(directories)
}

fn listed(directories: Vec<PathBuf>) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for directory in directories {
        match fs::read_to_string(directory.join("cgroup.procs")) {
            Ok(text) => found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Removes the directory and all below it. Empty of processes they must be; absent is done.
///
/// # Errors
/// EBUSY while a process lives in it.
pub fn remove(path: &Path) -> io::Result<()> {
    for directory in tree(path)?.iter().rev() {
        absent_is_fine(fs::remove_dir(directory))?;
    }
    Ok(())
}

/// Parents before children.
fn tree(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = vec![path.to_owned()];
    let mut next = 0;
    while next < found.len() {
        match fs::read_dir(&found[next]) {
            Ok(entries) => {
                for entry in entries {
                    let entry = entry?;
                    if entry.file_type()?.is_dir() {
                        found.push(entry.path());
                    }
                }
            }
            Err(error) if gone(&error) => {}
            Err(error) => return Err(error),
        }
        next += 1;
    }
    Ok(found)
}

fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if gone(&error) => Ok(()),
        other => other,
    }
}

/// Whether somebody has stopped the sandbox at `path`, or a leaf of it, by the freezer.
pub fn frozen(path: &Path) -> bool {
    freezers(path).any(|file| fs::read_to_string(file).is_ok_and(|text| text.trim() == "1"))
}

/// # Errors
/// As a write to cgroup.freeze; an absent one holds nobody.
pub fn thaw(path: &Path) -> io::Result<()> {
    freezers(path).try_for_each(|file| absent_is_fine(fs::write(file, "0")))
}

fn freezers(sandbox: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "shim", "payload"]
        .map(|leaf| sandbox.join(leaf).join("cgroup.freeze"))
        .into_iter()
}

/// The processes at and below `first` in the tree of parents that live in another cgroup than `payload`,
/// which may be gone.
///
/// # Errors
/// `first` has ended.
pub fn strays(payload: &Path, first: u32) -> io::Result<Vec<u32>> {
    let inside = match fs::read_to_string(payload.join("cgroup.procs")) {
        Err(error) if gone(&error) => String::new(),
        read => read?,
    };
    let inside: BTreeSet<u32> = inside.lines().filter_map(|line| line.parse().ok()).collect();
    let mut found = vec![first];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        // Children are told by the thread that made them.
        let threads = match fs::read_dir(format!("/proc/{pid}/task")) {
            Ok(threads) => threads,
            Err(error) if *pid == first => return Err(error),
            Err(_) => {
                next += 1;
                continue;
            }
        };
        let lists = threads
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let children: Vec<u32> = lists
            .flat_map(|list| {
                list.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<u32>>()
            })
            .collect();
        found.extend(children);
        next += 1;
    }
    found.retain(|pid| !inside.contains(pid));
    // Born or ended since the list was read: only where it is now counts.
    found.retain(|pid| lives_in(*pid, payload) == Some(false));
    Ok(found)
}

/// `None`: the process has ended. Compared by the names that stead gave, because the top of the tree may
/// be another one to us than to the kernel.
fn lives_in(pid: u32, payload: &Path) -> Option<bool> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let ours = payload.iter().rev().take(4);
    Some(Path::new(path).iter().rev().take(4).eq(ours))
}

/// Whether a process lives somewhere in the tree of the root with this mark; `None`: it has ended.
pub fn lives_with(pid: u32, mark: &str) -> Option<bool> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let ours = crate::names::cgroup(mark);
    Some(Path::new(path).iter().any(|name| name == ours.as_str()))
}

/// Every shim of the root with this mark, with the record it carries: what adoption starts from.
/// Idle shims have no record and are not among them.
///
/// # Errors
/// The v2 tree cannot be read. A process that ends meanwhile is no error.
pub fn find_shims(mark: &str) -> io::Result<Vec<(u32, Record)>> {
    let own = root()?.join(crate::names::cgroup(mark));
    Ok(supervisors(&own)?
        .into_iter()
        .filter_map(|pid| Some((pid, record_of(pid)?)))
        .filter(|(_, record)| record.mark == mark)
        .collect())
}

/// The shim of any root whose control socket was made at `path`, whatever is there now.
///
/// # Errors
/// The v2 tree cannot be read.
pub fn shim_listening_at(path: &Path) -> io::Result<Option<u32>> {
    for entry in fs::read_dir(root()?)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b"stead-") {
            continue;
        }
        let found = supervisors(&entry.path())?
            .into_iter()
            .find(|pid| record_of(*pid).is_some_and(|record| record.assignment.socket == path));
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The record a process carries, if it is a shim.
pub fn record_of(pid: u32) -> Option<Record> {
    let prefix = format!("/memfd:{RECORD_NAME}");
    // Payload processes live in the same tree and must not be believed: a shim is of the host's user
    // namespace.
    let host = fs::read_link("/proc/self/ns/user").ok()?;
    if fs::read_link(format!("/proc/{pid}/ns/user")).ok()? != host {
        return None;
    }
    fs::read_dir(format!("/proc/{pid}/fd"))
        .ok()?
        .flatten()
        .find_map(|entry| {
            let link = fs::read_link(entry.path()).ok()?;
            link.to_str()?.starts_with(&prefix).then_some(())?;
            serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()
        })
}
