//! What an instance uses, and its processes: read from its cgroup, its network namespace and /proc. Nothing of
//! the container is run.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, Mode, OFlags, openat};
use serde::Serialize;

use crate::{
    cgroup::{self, limits::Controllers},
    rootfs::tree,
    shim::protocol::Record,
};

/// What one sandbox maps.
const IDS: u32 = 65_536;

/// Per second, in /proc on every machine that Linux runs on today (time(7), USER_HZ).
const TICKS: u64 = 100;

/// Where a number is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The kernel counts it for the whole instance.
    Cgroup,
    /// The sum over the processes that are alive: this host has no controller there.
    Processes,
}

/// Bytes, as far as they can be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Since the start, in microseconds.
    pub cpu_usec: Option<u64>,
    /// Without what the kernel could drop at once.
    pub memory: Option<u64>,
    pub memory_source: Source,
    /// `None`: as much as the host has.
    pub memory_limit: Option<u64>,
    pub received: Option<u64>,
    pub sent: Option<u64>,
    pub read: Option<u64>,
    pub written: Option<u64>,
    pub block_source: Source,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// One process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Process {
    /// As the host counts.
    pub pid: u32,
    /// Of the container: a name of its passwd(5), or the number.
    pub user: String,
    /// Since its start, in milliseconds.
    pub cpu_ms: u64,
    /// For how long it has been there.
    pub age_ms: u64,
    /// Resident, in bytes.
    pub memory: u64,
    /// As in proc_pid_stat(5): R, S, D, Z, T…
    pub state: String,
    pub command: String,
}

/// # Errors
/// The cgroup cannot be read: the instance has just ended.
pub fn usage(record: &Record) -> io::Result<Usage> {
    let instance = &record.assignment.cgroup;
    let payload = instance.join("payload");
    let pids = cgroup::pids(&payload)?;
    let controllers = Controllers::find().map_err(io::Error::other)?;
    let group = |v2: &str, v1: &str, controller: &str| {
        let own = payload.join(v2);
        let other = controllers
            .joined(instance, controller)
            .map(|place| place.join(v1));
        [Some(own), other]
            .into_iter()
            .flatten()
            .find(|path| path.exists())
    };
    let current = group("memory.current", "memory.usage_in_bytes", "memory");
    let memory = current.as_deref().and_then(resident);
    let limit = group("memory.max", "memory.limit_in_bytes", "memory");
    let limit = limit.and_then(|path| number(&path));
    let io = group("io.stat", "blkio.throttle.io_service_bytes_recursive", "blkio");
    let block = io.as_deref().and_then(blocks);
    let network = record.pid.and_then(network);
    let sum = |file: &str, field: &str| {
        let each = pids.iter().filter_map(|pid| field_of(&proc(*pid, file), field));
        Some(each.sum::<u64>()).filter(|_| !pids.is_empty())
    };
    let host = field_of(Path::new("/proc/meminfo"), "MemTotal:").map(|kib| kib << 10);
    Ok(Usage {
        cpu_usec: field_of(&payload.join("cpu.stat"), "usage_usec"),
        // The share of each process in what several have.
        memory: memory.or_else(|| sum("smaps_rollup", "Pss:").map(|kib| kib << 10)),
        memory_source: source(memory.is_some()),
        memory_limit: limit.filter(|limit| host.is_none_or(|host| *limit < host)),
        received: network.map(|(received, _)| received),
        sent: network.map(|(_, sent)| sent),
        read: block.map_or_else(|| sum("io", "read_bytes:"), |(read, _)| Some(read)),
        written: block.map_or_else(|| sum("io", "write_bytes:"), |(_, written)| Some(written)),
        block_source: source(block.is_some()),
        pids: fs::read_to_string(payload.join("cgroup.threads"))
            .ok()
            .map(|text| text.lines().count() as u64),
    })
}

fn source(known: bool) -> Source {
    if known { Source::Cgroup } else { Source::Processes }
}

fn proc(pid: u32, file: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join(file)
}

/// The number behind `field` at the beginning of a line.
fn field_of(path: &Path, field: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| {
        if words.next()? == field {
            words.next()?.parse().ok()
        } else {
            None
        }
    })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// What is used, without the files that were not looked at for long: as docker counts it.
fn resident(current: &Path) -> Option<u64> {
    let stat = current.with_file_name("memory.stat");
    let idle = field_of(&stat, "total_inactive_file").or_else(|| field_of(&stat, "inactive_file"));
    Some(number(current)?.saturating_sub(idle.unwrap_or(0)))
}

/// Read and written, of all devices: `8:0 rbytes=1 wbytes=2 …` or `8:0 Read 1`.
fn blocks(path: &Path) -> Option<(u64, u64)> {
    let text = fs::read_to_string(path).ok()?;
    let mut sums = (0, 0);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        for word in &words {
            if let Some(count) = word.strip_prefix("rbytes=") {
                sums.0 += count.parse::<u64>().ok()?;
            } else if let Some(count) = word.strip_prefix("wbytes=") {
                sums.1 += count.parse::<u64>().ok()?;
            }
        }
        match words.as_slice() {
            [_, "Read", count] => sums.0 += count.parse::<u64>().ok()?,
            [_, "Write", count] => sums.1 += count.parse::<u64>().ok()?,
            _ => {}
        }
    }
    Some(sums)
}

/// Received and sent by every interface but loopback, in the network namespace of `pid`.
fn network(pid: u32) -> Option<(u64, u64)> {
    let text = fs::read_to_string(proc(pid, "net/dev")).ok()?;
    let mut sums = (0, 0);
    for line in text.lines() {
        let Some((name, counts)) = line.split_once(':') else {
            continue;
        };
        if name.trim() == "lo" {
            continue;
        }
        let counts: Vec<u64> = counts
            .split_whitespace()
            .map_while(|one| one.parse().ok())
            .collect();
        sums.0 += counts.first()?;
        sums.1 += counts.get(8)?;
    }
    Some(sums)
}

/// The processes of an instance, in the order of their ids.
///
/// # Errors
/// The cgroup cannot be read: the instance has just ended.
pub fn processes(record: &Record) -> io::Result<Vec<Process>> {
    let names = record.pid.map(names).unwrap_or_default();
    let base = record.assignment.sandbox.id_base;
    let mut pids = cgroup::pids(&record.assignment.cgroup.join("payload"))?;
    pids.sort_unstable();
    let found = pids.into_iter().filter_map(|pid| process(pid, base, &names));
    Ok(found.collect())
}

/// `None`: it has just ended.
fn process(pid: u32, base: u32, names: &BTreeMap<u32, String>) -> Option<Process> {
    let stat = fs::read_to_string(proc(pid, "stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let fields: Vec<&str> = after.split_whitespace().collect();
    // Counted as in proc_pid_stat(5), where the state is the third.
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let milliseconds = |ticks: u64| ticks * 1000 / TICKS;
    let status = fs::read_to_string(proc(pid, "status")).ok()?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let uid: u32 = uid.split_whitespace().nth(1)?.parse().ok()?;
    let user = match uid.checked_sub(base).filter(|inside| *inside < IDS) {
        Some(inside) => names.get(&inside).cloned().unwrap_or_else(|| inside.to_string()),
        None => format!("host:{uid}"),
    };
    let words = fs::read(proc(pid, "cmdline")).ok()?;
    let words = String::from_utf8_lossy(&words);
    let words: Vec<&str> = words.trim_end_matches('\0').split('\0').collect();
    let command = match words.as_slice() {
        // A zombie, or one that has no arguments.
        [""] => format!("[{name}]"),
        words => words.join(" "),
    };
    let up = crate::sys::process::clock_milliseconds(libc::CLOCK_BOOTTIME);
    Some(Process {
        pid,
        user,
        cpu_ms: milliseconds(field(14)? + field(15)?),
        age_ms: up.saturating_sub(milliseconds(field(22)?)),
        // A zombie has none.
        memory: field_of(&proc(pid, "status"), "VmRSS:").unwrap_or(0) << 10,
        state: (*fields.first()?).to_owned(),
        command,
    })
}

/// The users of the container by number.
fn names(first: u32) -> BTreeMap<u32, String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = openat(CWD, proc(first, "root"), flags, Mode::empty()) else {
        return BTreeMap::new();
    };
    let text = tree::read_small(root.as_fd(), Path::new("etc/passwd"))
        .ok()
        .flatten();
    let text = text.unwrap_or_default();
    let entries = text.lines().rev().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((fields.nth(1)?.parse().ok()?, name))
    });
    entries.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_either_version_of_cgroups() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let v2 = write(
            "io.stat",
            "8:0 rbytes=10 wbytes=20 rios=1\n8:16 rbytes=1 wbytes=2\n",
        );
        assert_eq!(blocks(&v2), Some((11, 22)));
        let v1 = write("blkio", "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n");
        assert_eq!(blocks(&v1), Some((10, 20)));
        let current = write("memory.current", "1000\n");
        assert_eq!(resident(&current), Some(1000), "without more to know");
        write("memory.stat", "anon 1\ninactive_file 400\n");
        assert_eq!(resident(&current), Some(600));
        write("memory.stat", "inactive_file 1\ntotal_inactive_file 300\n");
        assert_eq!(resident(&current), Some(700));
        assert_eq!(number(&write("memory.max", "max\n")), None);
        assert_eq!(blocks(Path::new("/no/such")), None);
    }
}
