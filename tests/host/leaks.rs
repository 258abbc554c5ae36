//! What is left of a root: everything a test must not leave behind.

use std::{fs, path::Path, process::Command};

use super::{Host, cgroup, process};

impl Host {
    /// One line for each thing that carries this root's mark. Volumes and the image store are files
    /// that stay; they are not looked at.
    pub fn leaks(&self) -> Vec<String> {
        let mut left = Vec::new();
        left.extend(self.links().into_iter().map(|link| format!("link {link}")));
        // Nobody else lives in the namespace of this host: any table is ours.
        for table in self.tool("nft", &["list", "tables"]).lines() {
            left.push(format!("nft {table}"));
        }
        for cgroup in cgroup::find(&self.mark) {
            left.extend(
                cgroup::tree(&cgroup)
                    .iter()
                    .map(|path| format!("cgroup {}", path.display())),
            );
        }
        left.extend(
            mounts_below(&self.root)
                .iter()
                .map(|path| format!("mount {path}")),
        );
        left.extend(
            self.processes()
                .iter()
                .map(|&pid| format!("process {pid}: {}", process::arguments(pid))),
        );
        for directory in ["run/shims", "run/zones", "state/containers"] {
            for entry in fs::read_dir(self.root.join(directory))
                .into_iter()
                .flatten()
                .flatten()
            {
                left.push(format!("file {}", entry.path().display()));
            }
        }
        left
    }

    /// Links on the host apart from its own two.
    pub fn links(&self) -> Vec<String> {
        let text = self.tool("ip", &["-o", "link"]);
        text.lines()
            .filter_map(|line| line.split(": ").nth(1))
            .map(|name| name.split('@').next().unwrap_or(name).to_owned())
            .filter(|name| name != "lo" && name != "up0")
            .collect()
    }

    /// Processes of this root: services, shims, agents.
    pub fn processes(&self) -> Vec<u32> {
        let cgroup = format!("stead-{}", self.mark);
        let root = format!("{} ", self.root.display());
        process::all()
            .into_iter()
            .filter(|&pid| pid != std::process::id() && process::alive(pid))
            .filter(|&pid| {
                process::cgroups(pid).contains(&cgroup)
                    || process::lives_below(pid, &self.root)
                    || format!("{} ", process::arguments(pid)).contains(&root)
            })
            .collect()
    }
}

fn mounts_below(root: &Path) -> Vec<String> {
    let root = root.display().to_string();
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mountinfo
        .lines()
        .filter(|line| line.contains(&format!("{root}/")) || line.contains(&format!("{root} ")))
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .collect()
}

/// The deepest first.
pub fn unmount_below(root: &Path) {
    for mount in mounts_below(root).iter().rev() {
        let _ = Command::new("umount").args(["-l", mount]).output();
    }
}
