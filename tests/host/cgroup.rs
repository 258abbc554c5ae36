//! The cgroups of a root, in whatever hierarchies are mounted.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Every directory named `stead-<mark>` in a cgroup hierarchy.
pub fn find(mark: &str) -> Vec<PathBuf> {
    let name = format!("stead-{mark}");
    let mut found = Vec::new();
    for mount in mounts() {
        walk(&mount, 6, &mut |directory| {
            if directory.file_name().is_some_and(|last| last == name.as_str()) {
                found.push(directory.to_owned());
            }
        });
    }
    found
}

/// Where the tree of a v1 controller (empty: the v2 tree) is mounted, and the directory of a process in it.
pub fn of(pid: u32, controller: &str) -> Option<(PathBuf, PathBuf)> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers
            .split(',')
            .any(|one| one == controller)
            .then_some(path)
    })?;
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let top = mountinfo.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let (kind, options) = (after.split(' ').next()?, after.split(' ').nth(2)?);
        let right = match controller {
            "" => kind == "cgroup2",
            _ => kind == "cgroup" && options.split(',').any(|option| option == controller),
        };
        right.then(|| before.split(' ').nth(4).map(PathBuf::from))?
    })?;
    let directory = top.join(path.trim_start_matches('/'));
    Some((top, directory))
}

/// The directory and all below it.
pub fn tree(cgroup: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(cgroup, 6, &mut |directory| found.push(directory.to_owned()));
    found
}

/// Kills whatever lives in them and removes them: what a failed test needs.
pub fn clear(mark: &str) {
    let found = find(mark);
    // All first: only the v2 tree can kill, and those of v1 are empty after that.
    for cgroup in &found {
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
    }
    for cgroup in found {
        super::try_wait(Duration::from_secs(5), || {
            remove(&cgroup);
            (!cgroup.exists()).then_some(())
        });
    }
}

fn mounts() -> Vec<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            after
                .starts_with("cgroup")
                .then(|| before.split(' ').nth(4).map(PathBuf::from))?
        })
        .collect()
}

fn walk(directory: &Path, depth: u32, visit: &mut impl FnMut(&Path)) {
    visit(directory);
    if depth == 0 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), depth - 1, visit);
        }
    }
}

fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&entry.path());
        }
    }
    let _ = fs::remove_dir(cgroup);
}
