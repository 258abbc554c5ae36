//! Which limits this host can keep, before anybody asks for one. Looks, and changes nothing.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use reconciler::observed::Lack;

use super::{
    Controllers, block,
    kinds::{CONTROLLERS, KINDS, SWAP_FILE},
};

/// What a limit needs of a host: a controller with one of these files.
struct Need {
    what: &'static str,
    attributes: &'static [&'static str],
    controller: &'static str,
    v2: Vec<&'static str>,
    v1: Vec<&'static str>,
}

/// What a kernel with the controller may lack all the same, and how it gets it.
const OPTIONAL: [(&str, &str); 4] = [
    ("memory.swap.max", "boot it with `swapaccount=1`"),
    (SWAP_FILE, "boot it with `swapaccount=1`"),
    (block::WEIGHTS[0], "load one that has them: modprobe bfq"),
    (block::WEIGHT_V1, "load one that has them: modprobe bfq"),
];
/// What the top of a v1 hierarchy has not, and every other group has.
const NOT_ON_TOP: [&str; 2] = ["pids.max", block::WEIGHT_V1];

fn needs() -> impl Iterator<Item = Need> {
    let kinds = KINDS.iter().map(|kind| Need {
        what: kind.what,
        attributes: kind.attributes,
        controller: kind.controller,
        v2: kind.v2.iter().map(|setting| setting.file).collect(),
        v1: kind.v1.iter().map(|setting| setting.file).collect(),
    });
    let block = |what, attributes, v2: &[&'static str], v1| Need {
        what,
        attributes,
        controller: block::CONTROLLER,
        v2: v2.to_vec(),
        v1: vec![v1],
    };
    const RATES: [&str; 4] = [
        "blkio_config.device_read_bps",
        "blkio_config.device_write_bps",
        "blkio_config.device_read_iops",
        "blkio_config.device_write_iops",
    ];
    const WEIGHTS: [&str; 2] = ["blkio_config.weight", "blkio_config.weight_device"];
    kinds.chain([
        block(block::WHAT, &RATES, &[block::MAX], block::READ_BPS),
        block(block::WEIGHT, &WEIGHTS, &block::WEIGHTS, block::WEIGHT_V1),
    ])
}

/// As v2 and people call a controller.
fn name(controller: &'static str) -> &'static str {
    match controller {
        block::CONTROLLER => block::CONTROLLER_V2,
        other => other,
    }
}

/// Who keeps a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    By(&'static str),
    Nobody,
    Unknown,
}

/// When nothing can be said of any limit.
pub fn unknown(why: &str) -> BTreeMap<&'static str, Lack> {
    let attributes = needs().flat_map(|need| need.attributes);
    attributes
        .map(|attribute| (*attribute, Lack::Unknown(why.to_owned())))
        .collect()
}

impl Controllers {
    /// Who keeps what, for people.
    pub fn kept(&self) -> Vec<(&'static str, Kept)> {
        let mut kept: Vec<_> = CONTROLLERS
            .iter()
            .map(|one| (name(one), self.keeper(one)))
            .collect();
        let swap = needs().find(|need| need.what == "swap");
        let swap = match (swap.and_then(|need| self.lack(&need)), self.keeper("memory")) {
            (None, keeper) => keeper,
            (Some(Lack::Missing { .. }), _) => Kept::Nobody,
            (Some(Lack::Unknown(_)), _) => Kept::Unknown,
        };
        kept.push(("swap", swap));
        kept
    }

    fn keeper(&self, controller: &str) -> Kept {
        match self.has_v2(controller) {
            true => Kept::By("v2"),
            false if self.v1_mount(controller).is_some() => Kept::By("v1"),
            false if self.unread.is_some() => Kept::Unknown,
            false => Kept::Nobody,
        }
    }

    /// What is missing, or not known to be there, by the attribute that asks for it.
    pub fn lacks(&self) -> BTreeMap<&'static str, Lack> {
        let mut lacks = BTreeMap::new();
        for need in needs() {
            if let Some(lack) = self.lack(&need) {
                for attribute in need.attributes {
                    lacks.entry(*attribute).or_insert_with(|| lack.clone());
                }
            }
        }
        lacks
    }

    fn lack(&self, need: &Need) -> Option<Lack> {
        let missing = |why: String, remedy: &str| {
            Some(Lack::Missing {
                what: format!("this host cannot limit {}: {why}", need.what),
                remedy: remedy.to_owned(),
            })
        };
        let unknown = |why: &str| {
            Some(Lack::Unknown(format!(
                "whether this host can limit {}: {why}",
                need.what
            )))
        };
        let controller = name(need.controller);
        let (files, groups) = match self.v1_mount(need.controller) {
            _ if self.has_v2(need.controller) => {
                let is_on = self.is_on(controller);
                if !is_on && self.is_lived_in() {
                    let why = format!(
                        "processes live in {}, so that it cannot give the cgroup controller `{controller}` to groups below",
                        self.root.display()
                    );
                    return missing(why, "run stead in a unit with `Delegate=yes`");
                }
                // Who has the controller on has its files, but for the top.
                (&need.v2, if is_on { below(&self.root) } else { Vec::new() })
            }
            Some(mount) => {
                let mut groups = below(mount);
                if groups.is_empty() && !need.v1.iter().any(|file| NOT_ON_TOP.contains(file)) {
                    groups.push(mount.to_owned());
                }
                (&need.v1, groups)
            }
            None => {
                return match &self.unread {
                    Some(why) => unknown(why),
                    None => missing(
                        format!("it has no cgroup controller `{controller}`"),
                        "boot a kernel that has it",
                    ),
                };
            }
        };
        // Of one version only, and the other does without.
        let first = files.first()?;
        let has = |group: &PathBuf| files.iter().any(|file| group.join(file).exists());
        if groups.iter().any(has) {
            return None;
        }
        let optional = OPTIONAL.iter().find(|(file, _)| file == first);
        match (optional, groups.is_empty()) {
            (Some((_, remedy)), false) => missing(format!("its kernel has no {first}"), remedy),
            (None, false) => missing(format!("its kernel has no {first}"), "boot one that has"),
            (Some(_), true) => unknown(&format!(
                "no group of it has the cgroup controller `{controller}` yet"
            )),
            (None, true) => None,
        }
    }

    fn v1_mount(&self, controller: &str) -> Option<&Path> {
        let (_, mount) = self.v1.iter().find(|(one, _)| one == controller)?;
        Some(mount)
    }

    /// Whether the groups below the root have a v2 controller.
    fn is_on(&self, controller: &str) -> bool {
        let on = fs::read_to_string(self.root.join("cgroup.subtree_control")).unwrap_or_default();
        on.split_whitespace().any(|one| one == controller)
    }

    /// The top of the whole tree may be lived in, and has no such file; any other group may not while it gives
    /// controllers away.
    fn is_lived_in(&self) -> bool {
        let inside = || fs::read_to_string(self.root.join("cgroup.procs")).unwrap_or_default();
        self.root.join("cgroup.type").exists() && !inside().is_empty()
    }
}

fn below(group: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    directories.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of groups with these files.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let top = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = top.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        top
    }

    fn on(top: &tempfile::TempDir, v2: &[&str], v1: &[&str]) -> Controllers {
        Controllers {
            root: top.path().join("v2"),
            v2: v2.iter().map(ToString::to_string).collect(),
            unread: None,
            v1: v1
                .iter()
                .map(|one| (one.to_string(), top.path().join(one)))
                .collect(),
        }
    }

    /// `attribute: what is missing`, or `attribute?` where it is not known.
    fn words(controllers: &Controllers) -> Vec<String> {
        let lacks = controllers.lacks();
        let words = lacks.iter().map(|(attribute, lack)| match lack {
            Lack::Missing { what, .. } => format!("{attribute}: {}", what.split(": ").last().unwrap()),
            Lack::Unknown(_) => format!("{attribute}?"),
        });
        words.collect()
    }

    const ALL: [&str; 5] = ["memory", "cpu", "cpuset", "pids", "io"];
    const GROUP: [(&str, &str); 11] = [
        ("v2/cgroup.subtree_control", "memory cpu cpuset pids io\n"),
        ("v2/unit/memory.max", "max"),
        ("v2/unit/memory.low", "0"),
        ("v2/unit/memory.oom.group", "0"),
        ("v2/unit/memory.swap.max", "max"),
        ("v2/unit/cpu.max", "max 100000"),
        ("v2/unit/cpu.weight", "100"),
        ("v2/unit/cpuset.cpus", ""),
        ("v2/unit/pids.max", "max"),
        ("v2/unit/io.max", ""),
        ("v2/unit/io.weight", "default 100"),
    ];

    #[test]
    fn a_tree_with_every_controller_keeps_every_limit() {
        assert!(words(&on(&tree(&GROUP), &ALL, &[])).is_empty());
        // Nobody below has had one on yet: only what a kernel may lack is open.
        let fresh = tree(&[("v2/cgroup.subtree_control", ""), ("v2/unit/cgroup.type", "")]);
        assert_eq!(
            words(&on(&fresh, &ALL, &[])),
            [
                "blkio_config.weight?",
                "blkio_config.weight_device?",
                "memswap_limit?"
            ]
        );
    }

    #[test]
    fn what_the_kernel_was_not_built_or_booted_with_is_missing() {
        let without = |file: &str| -> Vec<(&str, &str)> {
            let rest = GROUP.iter().filter(|(path, _)| !path.ends_with(file));
            rest.copied().collect()
        };
        let swapless = tree(&without("memory.swap.max"));
        assert_eq!(
            words(&on(&swapless, &ALL, &[])),
            ["memswap_limit: its kernel has no memory.swap.max"]
        );
        let found = words(&on(&tree(&GROUP), &["memory", "cpu", "cpuset", "io"], &[]));
        assert_eq!(found, ["pids_limit: it has no cgroup controller `pids`"]);
        let found = words(&on(&tree(&without("cpu.max")), &ALL, &[]));
        assert_eq!(
            found,
            [
                "cpu_quota: its kernel has no cpu.max",
                "cpus: its kernel has no cpu.max"
            ]
        );
    }

    #[test]
    fn a_controller_of_v1_does_as_well() {
        let v1 = tree(&[
            ("memory/memory.limit_in_bytes", "-1"),
            ("memory/memory.soft_limit_in_bytes", "-1"),
            ("cpu/cpu.cfs_quota_us", "-1"),
            ("cpu/cpu.cfs_period_us", "100000"),
            ("cpu/cpu.shares", "1024"),
            ("pids/pids.current", "1"),
            ("blkio/blkio.throttle.read_bps_device", ""),
            ("blkio/unit/blkio.throttle.read_bps_device", ""),
        ]);
        let hybrid = on(&v1, &["cpuset"], &["memory", "cpu", "pids", "blkio"]);
        assert_eq!(
            words(&hybrid),
            [
                "blkio_config.weight: its kernel has no blkio.bfq.weight",
                "blkio_config.weight_device: its kernel has no blkio.bfq.weight",
                "memswap_limit: its kernel has no memory.memsw.limit_in_bytes"
            ]
        );
        let kept = hybrid.kept();
        assert!(kept.contains(&("memory", Kept::By("v1"))) && kept.contains(&("cpuset", Kept::By("v2"))));
        assert!(kept.contains(&("swap", Kept::Nobody)) && kept.contains(&("io", Kept::By("v1"))));
    }

    #[test]
    fn a_group_that_is_lived_in_gives_no_controller_away() {
        let own = [
            ("v2/cgroup.type", "domain"),
            ("v2/cgroup.procs", "17\n"),
            ("v2/cgroup.subtree_control", "pids\n"),
            ("v2/other/pids.max", "max"),
        ];
        let found = words(&on(&tree(&own), &["pids", "cpuset"], &[]));
        assert_eq!(found.len(), 13, "{found:?}");
        assert!(
            found
                .iter()
                .any(|text| text.starts_with("cpuset: processes live in ")),
            "{found:?}"
        );
        assert!(
            !found.iter().any(|text| text.starts_with("pids_limit")),
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_missing() {
        let nothing = tree(&[]);
        let controllers = Controllers {
            unread: Some("permission denied".into()),
            ..on(&nothing, &[], &[])
        };
        let lacks = controllers.lacks();
        assert!(lacks.len() >= 8, "{lacks:?}");
        assert!(
            lacks.values().all(|lack| matches!(lack, Lack::Unknown(_))),
            "{lacks:?}"
        );
        assert_eq!(lacks.len(), unknown("nobody knows").len());
        assert!(controllers.kept().iter().all(|(_, kept)| *kept == Kept::Unknown));
    }
}
