//! The files of each limit, in either version of cgroups, and what is written there.

use reconciler::spec::Limits;

/// Microseconds over which processor time is dealt out, as Docker has it.
const PERIOD: u64 = 100_000;
/// The kernel takes no smaller share of a period (microseconds).
const LEAST: u64 = 1_000;
/// The kernel counts memory in pages.
const PAGE: u64 = 4096;

pub struct Kind {
    pub controller: &'static str,
    pub what: &'static str,
    /// Of a service: what asks for it. None: it is never asked for by itself.
    pub attributes: &'static [&'static str],
    pub v2: Option<Setting>,
    pub v1: Option<Setting>,
    /// Whether a manifest asks for it; else a host that cannot is not complained of.
    pub asked: fn(&Limits) -> bool,
}

pub struct Setting {
    pub file: &'static str,
    pub unlimited: &'static str,
    /// `None`: no limit.
    pub value: fn(&Limits) -> Option<String>,
}

const fn setting(
    file: &'static str,
    unlimited: &'static str,
    value: fn(&Limits) -> Option<String>,
) -> Option<Setting> {
    Some(Setting {
        file,
        unlimited,
        value,
    })
}

pub const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuset", "pids", super::block::CONTROLLER];
const PERIOD_FILE: &str = "cpu.cfs_period_us";
pub const MEMORY_FILE: &str = "memory.limit_in_bytes";
pub const SWAP_FILE: &str = "memory.memsw.limit_in_bytes";

pub const KINDS: [Kind; 9] = [
    Kind {
        controller: "memory",
        what: "memory",
        attributes: &["mem_limit"],
        v2: setting("memory.max", "max", memory),
        v1: setting(MEMORY_FILE, "-1", memory),
        asked: |_| true,
    },
    Kind {
        controller: "memory",
        what: "reserved memory",
        attributes: &["mem_reservation"],
        v2: setting("memory.low", "0", |limits| limits.memory_reservation.map(pages)),
        v1: setting("memory.soft_limit_in_bytes", "-1", |limits| {
            limits.memory_reservation.map(pages)
        }),
        asked: |_| true,
    },
    Kind {
        controller: "memory",
        what: "swap",
        attributes: &["memswap_limit"],
        // Swap alone here, memory and swap together there.
        v2: setting("memory.swap.max", "max", |limits| {
            Some(pages(swap(limits)?.saturating_sub(limits.memory?)))
        }),
        v1: setting(SWAP_FILE, "-1", |limits| swap(limits).map(pages)),
        asked: |limits| limits.memory_swap.is_some(),
    },
    Kind {
        controller: "memory",
        // A service that has lost some of its processes is no service. v1 has no such file: the supervisor
        // kills the rest.
        what: "what dies when memory is out",
        attributes: &[],
        v2: setting("memory.oom.group", "0", |limits| {
            limits.memory.map(|_| "1".to_owned())
        }),
        v1: None,
        asked: |_| false,
    },
    Kind {
        controller: "cpu",
        what: "processor time",
        attributes: &["cpus", "cpu_quota"],
        v2: setting("cpu.max", "max 100000", |limits| {
            Some(format!("{} {}", quota(limits)?, period(limits)))
        }),
        v1: setting("cpu.cfs_quota_us", "-1", |limits| {
            quota(limits).map(|quota| quota.to_string())
        }),
        asked: |_| true,
    },
    Kind {
        controller: "cpu",
        what: "the period of processor time",
        attributes: &[],
        v2: None,
        v1: setting(PERIOD_FILE, "100000", |limits| {
            quota(limits).map(|_| period(limits).to_string())
        }),
        asked: |_| true,
    },
    Kind {
        controller: "cpu",
        what: "the share of processor time",
        attributes: &["cpu_shares"],
        v2: setting("cpu.weight", "100", |limits| {
            limits.cpu_shares.map(|shares| weight(shares).to_string())
        }),
        v1: setting("cpu.shares", "1024", |limits| {
            limits.cpu_shares.map(|shares| shares.max(2).to_string())
        }),
        asked: |_| true,
    },
    Kind {
        controller: "cpuset",
        what: "processors",
        attributes: &["cpuset"],
        v2: setting("cpuset.cpus", "", |limits| limits.cpuset.clone()),
        v1: setting("cpuset.cpus", "", |limits| limits.cpuset.clone()),
        asked: |_| true,
    },
    Kind {
        controller: "pids",
        what: "processes",
        attributes: &["pids_limit"],
        v2: setting("pids.max", "max", |limits| {
            limits.pids.map(|pids| pids.to_string())
        }),
        v1: setting("pids.max", "max", |limits| {
            limits.pids.map(|pids| pids.to_string())
        }),
        asked: |_| true,
    },
];

fn pages(bytes: u64) -> String {
    (bytes / PAGE * PAGE).to_string()
}

fn memory(limits: &Limits) -> Option<String> {
    limits.memory.map(pages)
}

/// Bytes of memory and swap together.
fn swap(limits: &Limits) -> Option<u64> {
    match limits.memory_swap {
        Some(both) => u64::try_from(both).ok(),
        None => limits.memory.map(|memory| memory.saturating_mul(2)),
    }
}

/// Microseconds of a period.
fn quota(limits: &Limits) -> Option<u64> {
    let of_cpus = |thousandths: u64| thousandths.saturating_mul(period(limits)) / 1000;
    let quota = limits.cpu_quota.or(limits.cpu.map(of_cpus))?;
    Some(quota.max(LEAST))
}

fn period(limits: &Limits) -> u64 {
    limits.cpu_period.unwrap_or(PERIOD)
}

/// From 2 … 262,144 to 1 … 10,000, as runc does for Docker.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_each_tree_has_them() {
        let none = Limits::default();
        let swap = |memory_swap| Limits {
            memory: Some(64 << 20),
            memory_swap,
            ..Limits::default()
        };
        let cpu = |cpu, cpu_quota, cpu_period, cpu_shares| Limits {
            cpu,
            cpu_quota,
            cpu_period,
            cpu_shares,
            ..Limits::default()
        };
        // What is asked; a file of v2 and its text, one of v1 and its.
        for (limits, v2, text2, v1, text1) in [
            (&none, "memory.swap.max", "max", SWAP_FILE, "-1"),
            (&swap(None), "memory.swap.max", "67108864", SWAP_FILE, "134217728"),
            (
                &swap(Some(64 << 20)),
                "memory.swap.max",
                "0",
                SWAP_FILE,
                "67108864",
            ),
            (&swap(Some(-1)), "memory.swap.max", "max", SWAP_FILE, "-1"),
            (
                &swap(Some(100 << 20)),
                "memory.swap.max",
                "37748736",
                SWAP_FILE,
                "104857600",
            ),
            (&none, "cpu.max", "max 100000", "cpu.cfs_quota_us", "-1"),
            (
                &cpu(Some(1500), None, None, None),
                "cpu.max",
                "150000 100000",
                "cpu.cfs_quota_us",
                "150000",
            ),
            (
                &cpu(Some(1), None, None, None),
                "cpu.max",
                "1000 100000",
                "cpu.cfs_quota_us",
                "1000",
            ),
            (
                &cpu(None, Some(5000), Some(20_000), None),
                "cpu.max",
                "5000 20000",
                PERIOD_FILE,
                "20000",
            ),
            (&none, "cpu.weight", "100", "cpu.shares", "1024"),
            (
                &cpu(None, None, None, Some(2)),
                "cpu.weight",
                "1",
                "cpu.shares",
                "2",
            ),
            (
                &cpu(None, None, None, Some(1024)),
                "cpu.weight",
                "39",
                "cpu.shares",
                "1024",
            ),
            (
                &cpu(None, None, None, Some(262_144)),
                "cpu.weight",
                "10000",
                "cpu.shares",
                "262144",
            ),
        ] {
            let text = |setting: &Setting| (setting.value)(limits).unwrap_or(setting.unlimited.to_owned());
            let v2s = KINDS.iter().filter_map(|kind| kind.v2.as_ref());
            let v1s = KINDS.iter().filter_map(|kind| kind.v1.as_ref());
            let of = |setting: Option<&Setting>| setting.map(text);
            let found = (
                of(v2s.into_iter().find(|one| one.file == v2)),
                of(v1s.into_iter().find(|one| one.file == v1)),
            );
            assert_eq!(
                found,
                (Some(text2.to_owned()), Some(text1.to_owned())),
                "{limits:?}"
            );
        }
    }
}
