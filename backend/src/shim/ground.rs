//! What a container stands on: its mounts, its upper directory, the layers of its image.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{Mode, OFlags, openat};

use super::protocol::{Directory, Ground, MountId};

/// What is there right after a start. What cannot be read (the program has ended already) is left out,
/// and is not missed later.
pub fn look(pid: i32, directory: &Path, layers: &[PathBuf]) -> Ground {
    let upper = directory.join("upper");
    let mounts = mounted(pid as u32).unwrap_or_default();
    let (ids, mounts) = mounts.into_iter().map(|mount| (mount.id, mount.point)).unzip();
    Ground {
        mounts,
        ids,
        directories: std::iter::once(&upper)
            .chain(layers)
            .filter_map(|path| {
                let metadata = fs::metadata(path).ok()?;
                Some(Directory {
                    path: path.clone(),
                    device: metadata.dev(),
                    inode: metadata.ino(),
                })
            })
            .collect(),
    }
}

/// After something was hung in again: what is at a place now is what is looked for from now on.
///
/// # Errors
/// As [`missing`].
pub fn renew(pid: u32, ground: &mut Ground) -> io::Result<()> {
    let now = whole(pid)?;
    for (point, id) in ground.mounts.iter().zip(&mut ground.ids) {
        if !now.iter().any(|mount| mount.id == *id)
            && let Some(mount) = now.iter().rev().find(|mount| mount.point == *point)
        {
            id.clone_from(&mount.id);
        }
    }
    Ok(())
}

/// One line of mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    pub id: MountId,
    pub point: PathBuf,
    /// What is mounted there was deleted from its file system.
    pub deleted: bool,
}

/// Everything mounted where a process lives and below its root directory, in the order of mounting:
/// proc_pid_mountinfo(5).
///
/// # Errors
/// The process has ended.
pub fn mounted(pid: u32) -> io::Result<Vec<Mount>> {
    Ok(parse(&fs::read_to_string(format!("/proc/{pid}/mountinfo"))?))
}

/// Also what is not below its root directory: it may have changed that (chroot(2)), and stands on the same.
/// A thread sees it by entering the namespace, where its root is the namespace's own.
fn whole(pid: u32) -> io::Result<Vec<Mount>> {
    let (host, theirs) = (File::open("/proc")?, File::open(format!("/proc/{pid}/ns/mnt"))?);
    let look = move || -> io::Result<String> {
        // The root and working directory are those of all threads before.
        unshare(CloneFlags::CLONE_FS)?;
        setns(&theirs, CloneFlags::CLONE_NEWNS)?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut text = String::new();
        File::from(openat(&host, "thread-self/mountinfo", flags, Mode::empty())?)
            .read_to_string(&mut text)?;
        Ok(text)
    };
    let seen = thread::Builder::new().name("mounts".into()).spawn(look)?;
    let text = seen
        .join()
        .map_err(|_| io::Error::other("whoever looked at the mounts of a container did not come back"))??;
    Ok(parse(&text))
}

fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ');
            let (id, device) = (fields.next()?, fields.nth(1)?);
            let (root, point) = (fields.next()?, fields.next()?);
            Some(Mount {
                id: MountId {
                    id: id.parse().ok()?,
                    device: device.to_owned(),
                },
                point: unescape(point),
                deleted: root.ends_with("//deleted"),
            })
        })
        .collect()
}

/// Space, tab, line feed and backslash are written as `\ooo`.
fn unescape(text: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let octal = bytes
            .get(at + 1..at + 4)
            .filter(|_| *byte == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        plain.push(octal.unwrap_or(*byte));
        at += if octal.is_some() { 4 } else { 1 };
    }
    std::ffi::OsString::from_vec(plain).into()
}

/// What is no longer under a running container.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// The process stands on nothing: it must be started again.
    pub broken: Option<String>,
    /// Mounts that are gone, or lead to what was deleted.
    pub mounts: Vec<PathBuf>,
}

/// Compares what was there with what is.
///
/// # Errors
/// The process has ended.
pub fn missing(pid: u32, ground: &Ground) -> io::Result<Missing> {
    let mut missing = Missing::default();
    if !ground.mounts.is_empty() {
        missing = compare(ground, &mounted(pid)?);
        if missing != Missing::default() {
            missing = compare(ground, &whole(pid)?);
        }
    }
    if missing.broken.is_none() {
        missing.broken = ground.directories.iter().find_map(gone);
    }
    Ok(missing)
}

/// A mount is where it was, or it is the same mount elsewhere: a container may rename the directories above it.
fn compare(ground: &Ground, now: &[Mount]) -> Missing {
    let mut missing = Missing::default();
    for (index, point) in ground.mounts.iter().enumerate() {
        let moved = |mount: &&Mount| Some(&mount.id) == ground.ids.get(index) && !mount.deleted;
        // The last one of a place covers the others.
        match now.iter().rev().find(|mount| mount.point == *point) {
            Some(mount) if !mount.deleted => {}
            // The root of an overlay has no name that could be deleted; a device node stays one.
            Some(_) if point == Path::new("/") || point.starts_with("/dev") => {}
            _ if now.iter().any(|mount| moved(&mount)) => {}
            _ => missing.mounts.push(point.clone()),
        }
    }
    if missing.mounts.iter().any(|point| point == Path::new("/")) {
        missing.broken = Some("its root is not mounted any more".to_owned());
        missing.mounts.clear();
    }
    missing
}

/// Why a directory or file is not what it was.
pub(super) fn gone(directory: &Directory) -> Option<String> {
    match fs::metadata(&directory.path) {
        Ok(metadata) if (metadata.dev(), metadata.ino()) == (directory.device, directory.inode) => None,
        Ok(_) => Some(format!("{} is another directory", directory.path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some(format!("{} was deleted", directory.path.display()))
        }
        // Unreadable is not gone.
        Err(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "\
21 20 0:30 / / rw - overlay overlay rw
22 21 8:1 /v/data /with\\040space rw - ext4 /dev/sda1 rw
23 21 8:1 /w/data//deleted /gone rw - ext4 /dev/sda1 rw
24 21 0:31 / /dev rw - tmpfs tmpfs rw
";

    fn ground(points: &[&str]) -> Ground {
        Ground {
            mounts: points.iter().map(PathBuf::from).collect(),
            ids: Vec::new(),
            directories: Vec::new(),
        }
    }

    /// Above it a directory was renamed: that is the container's business. A number that was given away again
    /// is another mount, and one whose directory was deleted is as good as gone.
    #[test]
    fn a_mount_that_is_elsewhere_is_not_missed() {
        let cases: [(u64, &str, &[&str]); 4] = [
            (22, "8:1", &[]),
            (22, "0:44", &["/before"]),
            (25, "8:1", &["/before"]),
            (23, "8:1", &["/before"]),
        ];
        for (id, device, expected) in cases {
            let device = device.to_owned();
            let ground = Ground {
                ids: vec![MountId { id, device }],
                ..ground(&["/before"])
            };
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(compare(&ground, &parse(NOW)).mounts, expected, "{ground:?}");
        }
    }

    #[test]
    fn what_was_mounted_and_is_not_is_missed() {
        let cases: [(&[&str], Option<&str>, &[&str]); 5] = [
            (&["/", "/with space", "/dev"], None, &[]),
            (&["/", "/data"], None, &["/data"]),
            (&["/", "/gone"], None, &["/gone"]),
            (&["/", "/proc", "/with space"], None, &["/proc"]),
            (&[], None, &[]),
        ];
        for (points, broken, mounts) in cases {
            let missing = compare(&ground(points), &parse(NOW));
            assert_eq!(missing.broken.as_deref(), broken, "{points:?}");
            let mounts: Vec<PathBuf> = mounts.iter().map(PathBuf::from).collect();
            assert_eq!(missing.mounts, mounts, "{points:?}");
        }
        let without_root: Vec<Mount> = parse(NOW).split_off(1);
        let missing = compare(&ground(&["/", "/data"]), &without_root);
        assert_eq!(
            missing.broken.as_deref(),
            Some("its root is not mounted any more")
        );
    }
}
