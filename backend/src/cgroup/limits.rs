//! What a container may use: memory, processor time, processes; by the v2 controllers, or, where a host
//! has one of them in v1, in a directory of the same name there.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use reconciler::spec::Limits;

use kinds::{CONTROLLERS, KINDS, MEMORY_FILE, SWAP_FILE};

mod block;
pub mod gauges;
pub mod kept;
mod kinds;

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
        "this host cannot limit {what}: its kernel has no {file}; boot one that has, or remove the limit"
    )]
    NoFile { what: &'static str, file: &'static str },
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
    #[error(
        "{} is on no block device of this host; write the path of a disk, of a partition, or of a file on one", path.display()
    )]
    NoDevice {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "the scheduler of the block device {device} knows no weights; write `bfq` to /sys/dev/block/{device}/queue/scheduler, \
         or remove `weight_device`"
    )]
    NoWeights { device: String },
    #[error("cannot find the cgroup controllers of this host")]
    Find(#[source] io::Error),
}

/// Where the controllers of this host are.
#[derive(Debug)]
pub struct Controllers {
    /// As [`super::root`].
    root: PathBuf,
    /// Of the v2 tree, at its root.
    v2: Vec<String>,
    /// Why it is not known which those are.
    unread: Option<String>,
    /// Mount points by controller.
    v1: Vec<(String, PathBuf)>,
}

impl Controllers {
    /// # Errors
    /// There is no v2 tree, or /proc cannot be read.
    pub fn find() -> Result<Self, LimitError> {
        let find = || -> io::Result<Self> {
            let root = super::root()?;
            let path = root.join("cgroup.controllers");
            let (v2, unread) = match fs::read_to_string(&path) {
                Ok(text) => (text, None),
                Err(error) => (String::new(), Some(format!("{}: {error}", path.display()))),
            };
            Ok(Controllers {
                v2: v2.split_whitespace().map(str::to_owned).collect(),
                unread,
                v1: v1_mounts(&fs::read_to_string("/proc/self/mountinfo")?),
                root,
            })
        };
        find().map_err(LimitError::Find)
    }

    fn has_v2(&self, controller: &str) -> bool {
        let name = match controller {
            block::CONTROLLER => block::CONTROLLER_V2,
            other => other,
        };
        self.v2.iter().any(|one| one == name)
    }

    /// The directory of an instance in the v1 hierarchy of a controller.
    fn v1(&self, instance: &Path, controller: &str) -> Option<PathBuf> {
        let below = instance.strip_prefix(&self.root).ok()?;
        let (_, mount) = self.v1.iter().find(|(one, _)| one == controller)?;
        Some(mount.join(below))
    }

    /// The v1 directories of an instance, there or not.
    fn all_v1<'a>(&'a self, instance: &'a Path) -> impl Iterator<Item = PathBuf> + 'a {
        CONTROLLERS
            .iter()
            .filter(|controller| !self.has_v2(controller))
            .filter_map(|controller| self.v1(instance, controller))
    }

    /// Writes what differs. `instance`: the directory of the sandbox in the v2 tree, with its leaf
    /// `payload`. Without any limit nothing is made and nothing asked of the host.
    ///
    /// # Errors
    /// The host cannot keep a limit; the text says which, and what to do.
    pub fn apply(&self, instance: &Path, limits: &Limits) -> Result<(), LimitError> {
        if *limits == Limits::default() && !self.may_limit(instance) {
            return Ok(());
        }
        for kind in &KINDS {
            let v2 = self.has_v2(kind.controller);
            let v1 = self.v1(instance, kind.controller);
            let (directory, setting) = match (&kind.v2, &kind.v1, v1) {
                (Some(setting), _, _) if v2 => (instance.join("payload"), setting),
                (_, Some(setting), Some(directory)) if !v2 => (directory, setting),
                (Some(setting), _, None)
                    if !v2 && (setting.value)(limits).is_some() && (kind.asked)(limits) =>
                {
                    return Err(LimitError::NoController {
                        what: kind.what,
                        controller: kind.controller,
                    });
                }
                _ => continue,
            };
            let limit = (setting.value)(limits);
            let path = directory.join(setting.file);
            if !path.exists() {
                match limit {
                    None => continue,
                    Some(_) if v2 => self.delegate(instance, kind.controller)?,
                    Some(_) => self.make_v1(&directory, kind.controller)?,
                }
                if !path.exists() && !(kind.asked)(limits) {
                    continue;
                }
                if !path.exists() {
                    return Err(LimitError::NoFile {
                        what: kind.what,
                        file: setting.file,
                    });
                }
            }
            let value = match limit {
                Some(limit) => limit,
                // A group that is lived in cannot give its processors back: it gets all there are.
                None if kind.controller == "cpuset" => match above(&path) {
                    Some(all) => all,
                    None => continue,
                },
                None => setting.unlimited.to_owned(),
            };
            write(&path, &value).map_err(|source| LimitError::Write {
                what: kind.what,
                value: value.clone(),
                path: path.clone(),
                source,
            })?;
        }
        self.apply_block(instance, limits.block.as_ref())
    }

    /// Whether there may be a limit already: a group that is to have none is in no v1 hierarchy, as most are.
    fn may_limit(&self, instance: &Path) -> bool {
        CONTROLLERS.iter().any(|controller| self.has_v2(controller))
            || self.all_v1(instance).any(|directory| directory.is_dir())
    }

    /// A directory in a v1 hierarchy, with what is above it; what it inherits is "no limit".
    fn make_v1(&self, directory: &Path, controller: &'static str) -> Result<(), LimitError> {
        let failed = |source| LimitError::NotDelegated {
            controller,
            path: directory.to_owned(),
            source,
        };
        fs::create_dir_all(directory).map_err(failed)?;
        if controller != "cpuset" {
            return Ok(());
        }
        // Nobody may live in one of these before it has processors and memory of its own, cpuset(7).
        let mut above: Vec<&Path> = directory
            .ancestors()
            .take_while(|path| {
                path.parent()
                    .is_some_and(|parent| parent.join("cpuset.mems").exists())
            })
            .collect();
        above.reverse();
        for path in above {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let own = fs::read_to_string(path.join(file)).map_err(failed)?;
                if own.trim().is_empty()
                    && let Some(parent) = path.parent()
                {
                    let given = fs::read_to_string(parent.join(file)).map_err(failed)?;
                    fs::write(path.join(file), given).map_err(failed)?;
                }
            }
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
        let mut outside = BTreeSet::new();
        for kind in &KINDS {
            let v2 = self.has_v2(kind.controller);
            let (path, setting) = match (&kind.v2, &kind.v1, self.v1(instance, kind.controller)) {
                (Some(setting), _, _) if v2 => (instance.join("payload").join(setting.file), setting),
                (_, Some(setting), Some(directory)) if !v2 => (directory.join(setting.file), setting),
                _ => continue,
            };
            let limit = (setting.value)(limits);
            let is_limited = limit.is_some();
            let wanted = limit.unwrap_or_else(|| setting.unlimited.to_owned());
            match fs::read_to_string(&path) {
                Ok(found) => {
                    let found = plain(found.trim());
                    // All there are, once there was a limit.
                    let given = !is_limited && kind.controller == "cpuset";
                    if found != wanted && !given {
                        drift.push(format!("{} is {found} instead of {wanted}", setting.file));
                    } else if is_limited
                        && let Some(directory) = path.parent()
                        && !processes(directory).contains(&pid)
                        && outside.insert(kind.controller)
                    {
                        drift.push(format!("process {pid} is outside the limit of {}", kind.what));
                    }
                }
                Err(_) if is_limited && (kind.asked)(limits) => {
                    drift.push(format!("{} is not limited", kind.what));
                }
                Err(_) => {}
            }
        }
        self.drift_block(instance, limits.block.as_ref(), pid, &mut drift);
        drift
    }

    /// Moves the caller, who has one thread only, to where v1 controllers limit the instance. That one goes by
    /// `tasks`: for a move of a whole process the kernel waits until nobody forks, some 10 ms.
    ///
    /// # Errors
    /// As a write to cgroup.procs.
    pub fn enter(&self, instance: &Path) -> io::Result<()> {
        for directory in self.all_v1(instance).filter(|directory| directory.is_dir()) {
            fs::write(directory.join("tasks"), "0")?;
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
        let v1 = CONTROLLERS.iter().filter(|controller| !self.has_v2(controller));
        let v1 = v1.filter_map(|controller| self.v1.iter().find(|(one, _)| one == controller));
        let mut tops: Vec<PathBuf> = v1.map(|(_, mount)| mount.clone()).collect();
        tops.push(self.root.clone());
        tops
    }

    /// Where a controller counts for an instance, and whether that is the v2 tree. `None`: nowhere, because
    /// nothing of its kind is limited.
    pub fn counts(&self, instance: &Path, controller: &str) -> Option<(PathBuf, bool)> {
        let v2 = self.has_v2(controller);
        let directory = match v2 {
            true => instance.join("payload"),
            false => self.v1(instance, controller)?,
        };
        // The root of a v2 subtree that was not given the controller has none of its files.
        let telling = match controller {
            "memory" if v2 => "memory.events",
            "memory" => "memory.oom_control",
            "cpu" => "cpu.max",
            _ => "pids.events",
        };
        let telling = if controller == "cpu" && !v2 {
            "cpu.cfs_quota_us"
        } else {
            telling
        };
        directory.join(telling).exists().then_some((directory, v2))
    }

    /// The v1 directory of an instance whose processes are in it.
    pub fn joined(&self, instance: &Path, controller: &str) -> Option<PathBuf> {
        let directory = self.v1(instance, controller)?;
        let inside = fs::read_to_string(directory.join("cgroup.procs")).ok()?;
        (!inside.is_empty()).then_some(directory)
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

/// The processors of the group above; `None`: this one has none of its own.
fn above(path: &Path) -> Option<String> {
    let read = |path: PathBuf| fs::read_to_string(path).map(|text| text.trim().to_owned()).ok();
    read(path.to_owned()).filter(|own| !own.is_empty())?;
    let parent = path.parent()?.parent()?;
    read(parent.join("cpuset.cpus.effective")).or_else(|| read(parent.join("cpuset.cpus")))
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    let written = fs::write(path, value);
    // v1 keeps the two in order: memory cannot grow beyond what both may be, which is written after it.
    match written {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) && path.ends_with(MEMORY_FILE) => {
            fs::write(path.with_file_name(SWAP_FILE), "-1")?;
            fs::write(path, value)
        }
        other => other,
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
            for controller in CONTROLLERS {
                if options.split(',').any(|option| option == controller) {
                    found.push((controller.to_owned(), PathBuf::from(point)));
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
             31 29 0:27 / /sys/fs/cgroup/blkio rw - cgroup cgroup rw,blkio\n\
             32 29 0:28 /docker/a /elsewhere rw - cgroup cgroup rw,pids\n\
             33 29 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
        );
        let expected = [
            ("cpu", "/sys/fs/cgroup/cpu,cpuacct"),
            ("memory", "/sys/fs/cgroup/memory"),
            ("blkio", "/sys/fs/cgroup/blkio"),
        ];
        assert_eq!(
            mounts,
            expected.map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
        );
    }

    #[test]
    fn nothing_is_written_of_what_is_not_limited() {
        let none = Limits::default();
        let settings = KINDS.iter().flat_map(|kind| kind.v1.iter().chain(&kind.v2));
        let written = settings.filter_map(|setting| (setting.value)(&none));
        assert_eq!(written.collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn a_limit_without_a_controller_is_refused_and_none_is_not() {
        let controllers = Controllers {
            root: "/nowhere".into(),
            v2: Vec::new(),
            unread: None,
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
