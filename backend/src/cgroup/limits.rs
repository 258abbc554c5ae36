//! What a container may use: memory, processor time, processes; by the v2 controllers, or, where a host
//! has one of them in v1, in a directory of the same name there.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use reconciler::spec::Limits;

/// Microseconds over which processor time is dealt out, as Docker has it.
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller share of a period (microseconds).
const LEAST: u64 = 1_000;
/// The kernel counts memory in pages.
const PAGE: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    #[error(
        "this host cannot limit {what}: it has no cgroup controller `{controller}`; boot with it, or remove the limit"
    )]
    NoController {
        what: &'static str,
        controller: &'static str,
    },
    #[error(
        "cannot give the cgroup controller `{controller}` to {}; no process may live in that very group, and a unit must delegate it", path.display()
    )]
    NotDelegated {
        controller: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot limit {what} to {value} in {}; choose another limit", path.display())]
    Write {
        what: &'static str,
        value: String,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot find the cgroup controllers of this host")]
    Find(#[source] io::Error),
}

struct Kind {
    controller: &'static str,
    what: &'static str,
    /// The limit, and how v2 and v1 write it.
    limit: fn(&Limits) -> Option<u64>,
    v2: Setting,
    v1: Setting,
}

struct Setting {
    file: &'static str,
    unlimited: &'static str,
    write: fn(u64) -> String,
}

const KINDS: [Kind; 3] = [
    Kind {
        controller: "memory",
        what: "memory",
        limit: |limits| limits.memory.map(|bytes| bytes / PAGE * PAGE),
        v2: Setting {
            file: "memory.max",
            unlimited: "max",
            write: |bytes| bytes.to_string(),
        },
        v1: Setting {
            file: "memory.limit_in_bytes",
            unlimited: "-1",
            write: |bytes| bytes.to_string(),
        },
    },
    Kind {
        controller: "cpu",
        what: "processor time",
        limit: |limits| {
            limits
                .cpu
                .map(|thousandths| (thousandths * PERIOD / 1000).max(LEAST))
        },
        v2: Setting {
            file: "cpu.max",
            unlimited: "max 100000",
            write: |quota| format!("{quota} {PERIOD}"),
        },
        v1: Setting {
            file: "cpu.cfs_quota_us",
            unlimited: "-1",
            write: |quota| quota.to_string(),
        },
    },
    Kind {
        controller: "pids",
        what: "processes",
        limit: |limits| limits.pids,
        v2: Setting {
            file: "pids.max",
            unlimited: "max",
            write: |count| count.to_string(),
        },
        v1: Setting {
            file: "pids.max",
            unlimited: "max",
            write: |count| count.to_string(),
        },
    },
];

/// Where the controllers of this host are.
#[derive(Debug)]
pub struct Controllers {
    /// As [`super::root`].
    root: PathBuf,
    /// Of the v2 tree, at its root.
    v2: Vec<String>,
    /// Mount points by controller.
    v1: Vec<(String, PathBuf)>,
}

impl Controllers {
    /// # Errors
    /// There is no v2 tree, or /proc cannot be read.
    pub fn find() -> Result<Self, LimitError> {
        let find = || -> io::Result<Self> {
            let root = super::root()?;
            let v2 = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
            Ok(Controllers {
                v2: v2.split_whitespace().map(str::to_owned).collect(),
                v1: v1_mounts(&fs::read_to_string("/proc/self/mountinfo")?),
                root,
            })
        };
        find().map_err(LimitError::Find)
    }

    fn has_v2(&self, controller: &str) -> bool {
        self.v2.iter().any(|one| one == controller)
    }

    /// The directory of an instance in the v1 hierarchy of a controller.
    fn v1(&self, instance: &Path, controller: &str) -> Option<PathBuf> {
        let below = instance.strip_prefix(&self.root).ok()?;
        let (_, mount) = self.v1.iter().find(|(one, _)| one == controller)?;
        Some(mount.join(below))
    }

    /// The v1 directories of an instance, there or not.
    fn all_v1<'a>(&'a self, instance: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
        KINDS
            .iter()
            .filter(|kind| !self.has_v2(kind.controller))
            .filter_map(|kind| self.v1(instance, kind.controller))
    }

    /// Writes what differs. `instance`: the directory of the sandbox in the v2 tree, with its leaf
    /// `payload`. Without any limit nothing is made and nothing asked of the host.
    ///
    /// # Errors
    /// The host cannot keep a limit; the text says which, and what to do.
    pub fn apply(&self, instance: &Path, limits: &Limits) -> Result<(), LimitError> {
        for kind in &KINDS {
            let limit = (kind.limit)(limits);
            let v2 = self.has_v2(kind.controller);
            let (directory, setting) = match self.v1(instance, kind.controller) {
                _ if v2 => (instance.join("payload"), &kind.v2),
                Some(directory) => (directory, &kind.v1),
                None if limit.is_none() => continue,
                None => {
                    return Err(LimitError::NoController {
                        what: kind.what,
                        controller: kind.controller,
                    });
                }
            };
            let path = directory.join(setting.file);
            if !path.exists() {
                match limit {
                    None => continue,
                    Some(_) if v2 => self.delegate(instance, kind.controller)?,
                    Some(_) => {}
                }
            }
            let value = limit.map_or_else(|| setting.unlimited.to_owned(), setting.write);
            let write = || {
                // Made along with what is above it, and what v1 inherits is "no limit".
                fs::create_dir_all(&directory)?;
                if setting.file == "cpu.cfs_quota_us" {
                    fs::write(directory.join("cpu.cfs_period_us"), PERIOD.to_string())?;
                }
                fs::write(&path, &value)
            };
            write().map_err(|source| LimitError::Write {
                what: kind.what,
                value: value.clone(),
                path: path.clone(),
                source,
            })?;
        }
        Ok(())
    }

    /// Turns a v2 controller on in every group above `payload`.
    fn delegate(&self, instance: &Path, controller: &'static str) -> Result<(), LimitError> {
        let mut above: Vec<&Path> = instance
            .ancestors()
            .take_while(|path| path.starts_with(&self.root))
            .collect();
        above.reverse();
        for path in above {
            fs::write(path.join("cgroup.subtree_control"), format!("+{controller}")).map_err(|source| {
                LimitError::NotDelegated {
                    controller,
                    path: path.to_owned(),
                    source,
                }
            })?;
        }
        Ok(())
    }

    /// What is not as `limits` say, for people. `pid`: the first process.
    pub fn drift(&self, instance: &Path, limits: &Limits, pid: u32) -> Vec<String> {
        let mut drift = Vec::new();
        for kind in &KINDS {
            let limit = (kind.limit)(limits);
            let (path, setting) = match self.v1(instance, kind.controller) {
                _ if self.has_v2(kind.controller) => (instance.join("payload").join(kind.v2.file), &kind.v2),
                Some(directory) => (directory.join(kind.v1.file), &kind.v1),
                None => continue,
            };
            let wanted = limit.map_or_else(|| setting.unlimited.to_owned(), setting.write);
            match fs::read_to_string(&path) {
                Ok(found) => {
                    let found = plain(found.trim());
                    if found != wanted {
                        drift.push(format!("{} is {found} instead of {wanted}", setting.file));
                    } else if limit.is_some()
                        && let Some(directory) = path.parent()
                        && !processes(directory).contains(&pid)
                    {
                        drift.push(format!("process {pid} is outside the limit of {}", kind.what));
                    }
                }
                Err(_) if limit.is_some() => drift.push(format!("{} is not limited", kind.what)),
                Err(_) => {}
            }
        }
        drift
    }

    /// Moves a process (0: the caller) to where v1 controllers limit the instance.
    ///
    /// # Errors
    /// As a write to cgroup.procs.
    pub fn enter(&self, instance: &Path, pid: u32) -> io::Result<()> {
        for directory in self.all_v1(instance) {
            if directory.is_dir() {
                super::enter(&directory, pid)?;
            }
        }
        Ok(())
    }

    /// Moves everything that lives in `payload` to where v1 controllers limit the instance: a limit that
    /// comes while it runs, or somebody has moved a process.
    ///
    /// # Errors
    /// As a write to cgroup.procs. What has ended meanwhile is no error.
    pub fn gather(&self, instance: &Path) -> io::Result<()> {
        for directory in self.all_v1(instance).filter(|directory| directory.is_dir()) {
            let there = processes(&directory);
            for pid in processes(&instance.join("payload")).difference(&there) {
                match super::enter(&directory, *pid) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Where somebody may move a process to who wants it out of its limits.
    pub fn tops(&self) -> Vec<PathBuf> {
        let v1 = KINDS.iter().filter(|kind| !self.has_v2(kind.controller));
        let v1 = v1.filter_map(|kind| self.v1.iter().find(|(one, _)| one == kind.controller));
        let mut tops: Vec<PathBuf> = v1.map(|(_, mount)| mount.clone()).collect();
        tops.push(self.root.clone());
        tops
    }

    /// Files of the instance that somebody may change: where to watch.
    pub fn directories(&self, instance: &Path) -> Vec<PathBuf> {
        let v1 = self.all_v1(instance).filter(|directory| directory.is_dir());
        std::iter::once(instance.join("payload")).chain(v1).collect()
    }

    /// Removes the v1 directories of an instance, and those above that are empty then.
    ///
    /// # Errors
    /// A process lives in one.
    pub fn remove(&self, instance: &Path) -> io::Result<()> {
        for directory in self.all_v1(instance) {
            super::absent_is_fine(fs::remove_dir(&directory))?;
            for above in directory.ancestors().skip(1).take(2) {
                // In use: refused.
                let _ = fs::remove_dir(above);
            }
        }
        Ok(())
    }
}

/// Those that live directly in a group.
fn processes(directory: &Path) -> BTreeSet<u32> {
    let text = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// v1 writes "no limit" as a number that depends on the page size.
fn plain(found: &str) -> String {
    match found.parse::<u64>() {
        Ok(number) if number >= 1 << 62 => "-1".to_owned(),
        _ => found.to_owned(),
    }
}

fn v1_mounts(mountinfo: &str) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for line in mountinfo.lines() {
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let mut right = right.split(' ');
        let mut left = left.split(' ').skip(3);
        if let (Some("cgroup"), _, Some(options), Some("/"), Some(point)) =
            (right.next(), right.next(), right.next(), left.next(), left.next())
        {
            for kind in &KINDS {
                if options.split(',').any(|option| option == kind.controller) {
                    found.push((kind.controller.to_owned(), PathBuf::from(point)));
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_controllers_are_found_where_they_are_mounted() {
        let mounts = v1_mounts(
            "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
             31 29 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
             32 29 0:28 /docker/a /elsewhere rw - cgroup cgroup rw,pids\n\
             33 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let expected = [
            ("cpu", "/sys/fs/cgroup/cpu,cpuacct"),
            ("memory", "/sys/fs/cgroup/memory"),
        ];
        assert_eq!(
            mounts,
            expected.map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
        );
    }

    #[test]
    fn a_limit_without_a_controller_is_refused_and_none_is_not() {
        let controllers = Controllers {
            root: "/nowhere".into(),
            v2: Vec::new(),
            v1: Vec::new(),
        };
        let instance = Path::new("/nowhere/stead-000000/shop/web-1a");
        controllers.apply(instance, &Limits::default()).unwrap();
        let limits = Limits {
            pids: Some(3),
            ..Limits::default()
        };
        let error = controllers.apply(instance, &limits).unwrap_err().to_string();
        assert!(
            error.contains("`pids`") && error.contains("remove the limit"),
            "{error}"
        );
    }
}
