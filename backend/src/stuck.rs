//! Processes that hang in the kernel, where no signal reaches them, and those that nobody waits for.
//!
//! Nothing here touches what such a process may hold: no file of the file system it waits for, and no
//! memory of its own.

use std::{collections::BTreeMap, fs, path::Path};

use reconciler::observed::Fault;

/// Milliseconds after which what is seen again hangs: nearly everybody does so for a moment.
pub const LASTS: u64 = 700;
/// Children not waited for: fewer come and go.
const FEW: usize = 10;
/// More of them are not counted.
const MOST: usize = 1_000;
/// Sleeps that look like a hang and are none: a parent in vfork(2), a frozen process, a core dump.
const HARMLESS: [&str; 4] = ["vfork", "kernel_clone", "refrigerator", "coredump"];

/// A thread that sleeps uninterruptibly just now.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Asleep {
    thread: u32,
    /// Of a thread that runs now and then, this grows.
    switches: u64,
}

/// Who may hang, and since which look (boot clock) it is so at each.
#[derive(Debug, Default)]
pub struct Suspects {
    asleep: BTreeMap<Asleep, u64>,
    /// Children of the first process that have ended.
    zombies: BTreeMap<u32, u64>,
}

impl Suspects {
    /// Looks at what is in `payload`, whose first process is `first`.
    pub fn look(&mut self, payload: &Path, first: u32, now: u64) {
        self.see(asleep(payload), zombies(first), now);
    }

    fn see(&mut self, asleep: Vec<Asleep>, zombies: Vec<u32>, now: u64) {
        self.asleep = aged(&self.asleep, asleep, now);
        self.zombies = aged(&self.zombies, zombies, now);
    }

    /// What is certain by now.
    pub fn faults(&self, now: u64) -> impl Iterator<Item = Fault> {
        let lasts = |since: &u64| since + LASTS <= now;
        let lasting = self.zombies.values().filter(|since| lasts(since)).count();
        let mut stuck = self.asleep.iter().filter(|(_, since)| lasts(since));
        let stuck = stuck.next().map(|(one, _)| describe(one.thread));
        unreaped(lasting).into_iter().chain(stuck)
    }

    /// Since when something is suspected that is not certain yet.
    pub fn suspected(&self, now: u64) -> Option<u64> {
        let mut zombies: Vec<u64> = self.zombies.values().copied().collect();
        zombies.sort_unstable();
        let asleep = self.asleep.values().copied();
        let all = asleep.chain(zombies.get(FEW - 1).copied());
        all.filter(|since| now < since + LASTS).min()
    }
}

/// Those who are there `now`, with the age of those who were there before.
fn aged<T: Ord>(before: &BTreeMap<T, u64>, there: Vec<T>, now: u64) -> BTreeMap<T, u64> {
    let since = |one: &T| before.get(one).copied().unwrap_or(now);
    let there = there.into_iter().map(|one| (since(&one), one));
    there.map(|(since, one)| (one, since)).collect()
}

/// In powers of ten, so that it stays the same while it lasts.
fn unreaped(counted: usize) -> Option<Fault> {
    let least = [MOST, 100, FEW].into_iter().find(|least| counted >= *least)?;
    Some(Fault::Zombies { least: least as u64 })
}

/// Threads in `payload` that sleep uninterruptibly, and not as a matter of course.
fn asleep(payload: &Path) -> Vec<Asleep> {
    let threads = fs::read_to_string(payload.join("cgroup.threads")).unwrap_or_default();
    let threads = threads.lines().filter_map(|line| line.parse::<u32>().ok());
    threads
        .filter(|thread| state(*thread) == Some('D'))
        .filter(|thread| !HARMLESS.iter().any(|sleep| wchan(*thread).contains(sleep)))
        .filter_map(|thread| {
            let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
            let switches = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some(Asleep {
                thread,
                switches: switches.trim().parse().ok()?,
            })
        })
        .collect()
}

/// What hangs in `payload`, as far as one look tells: for processes that were killed and are still there.
pub fn after_kill(payload: &Path) -> Option<Fault> {
    asleep(payload).first().map(|one| describe(one.thread))
}

/// Children of `parent` that have ended and are not waited for.
fn zombies(parent: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    children
        .filter(|pid| state(*pid) == Some('Z'))
        .take(MOST)
        .collect()
}

/// proc_pid_stat(5), field 3.
fn state(thread: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The kernel function it sleeps in; empty: not known.
fn wchan(thread: u32) -> String {
    let wchan = fs::read_to_string(format!("/proc/{thread}/wchan")).unwrap_or_default();
    if wchan == "0" { String::new() } else { wchan }
}

fn describe(thread: u32) -> Fault {
    let read = |file: &str| fs::read_to_string(format!("/proc/{thread}/{file}")).unwrap_or_default();
    Fault::Stuck {
        pid: thread,
        name: read("comm").trim().to_owned(),
        wchan: wchan(thread),
        on: file(thread, &read("syscall")).or_else(|| served(&read("mountinfo"))),
    }
}

/// The file of a call whose first argument is a descriptor, and the file system it is on.
fn file(thread: u32, syscall: &str) -> Option<String> {
    let mut words = syscall.split(' ');
    let number: i64 = words.next()?.parse().ok()?;
    let takes_descriptor = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_pread64,
        libc::SYS_pwrite64,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_getdents64,
        libc::SYS_fstat,
        libc::SYS_close,
        libc::SYS_fallocate,
        libc::SYS_ftruncate,
    ];
    if !takes_descriptor.contains(&number) {
        return None;
    }
    let descriptor = u32::from_str_radix(words.next()?.trim_start_matches("0x"), 16).ok()?;
    let path = fs::read_link(format!("/proc/{thread}/fd/{descriptor}")).ok()?;
    // A pipe or a socket has no path.
    path.is_absolute().then(|| path.display().to_string())
}

/// Mounts whose files somebody else serves, by proc_pid_mountinfo(5): what a process hangs on is nearly
/// always one of these.
fn served(mountinfo: &str) -> Option<String> {
    const SERVED: [&str; 6] = ["fuse", "nfs", "cifs", "smb3", "9p", "ceph"];
    let mounts: Vec<String> = mountinfo
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let kind = right.split(' ').next()?;
            // The control file system answers always.
            let served = kind != "fusectl" && SERVED.iter().any(|served| kind.starts_with(served));
            served.then_some(())?;
            Some(format!("{} ({kind})", left.split(' ').nth(4)?))
        })
        .collect();
    (!mounts.is_empty()).then(|| mounts.join(" or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_that_somebody_serves_are_what_may_not_answer() {
        let mounts = "21 20 0:30 / / rw - overlay overlay rw\n\
                      22 21 0:40 / /data rw - fuse.sshfs me@there rw\n\
                      23 21 0:41 / /sys/fs/fuse/connections rw - fusectl none rw\n";
        assert_eq!(served(mounts).as_deref(), Some("/data (fuse.sshfs)"));
        assert_eq!(served("21 20 0:30 / / rw - overlay overlay rw\n"), None);
    }

    fn asleep(thread: u32, switches: u64) -> Vec<Asleep> {
        vec![Asleep { thread, switches }]
    }

    /// Nobody has this number, so nothing more can be said of it.
    const NOBODY: u32 = u32::MAX;

    #[test]
    fn only_who_has_not_run_in_between_hangs() {
        // When it is seen, how often it had run by then; whether it is named at the last look.
        let cases: [(&[(u64, u64)], bool); 5] = [
            (&[(1_000, 3)], false),
            (&[(1_000, 3), (1_000 + LASTS - 1, 3)], false),
            (&[(1_000, 3), (1_000 + LASTS, 3)], true),
            (&[(1_000, 3), (1_300, 3), (1_000 + LASTS, 3)], true),
            (&[(1_000, 3), (1_300, 4), (1_000 + LASTS, 4)], false),
        ];
        for (looks, named) in cases {
            let mut suspects = Suspects::default();
            for (at, switches) in looks {
                suspects.see(asleep(NOBODY, *switches), Vec::new(), *at);
            }
            let (now, _) = looks[looks.len() - 1];
            assert_eq!(suspects.faults(now).next().is_some(), named, "{looks:?}");
            assert_eq!(suspects.suspected(now).is_none(), named, "{looks:?}");
        }
    }

    #[test]
    fn zombies_are_named_when_ten_have_lasted() {
        let mut suspects = Suspects::default();
        let named = |suspects: &Suspects, now| suspects.faults(now).next();
        let least = |least| Some(Fault::Zombies { least });
        suspects.see(Vec::new(), (0..9).collect(), 0);
        assert_eq!(
            (named(&suspects, LASTS), suspects.suspected(0)),
            (None, None),
            "a few are nothing"
        );
        // One more, and the others are as old as they are.
        suspects.see(Vec::new(), (0..10).collect(), 500);
        assert_eq!(
            (named(&suspects, LASTS), suspects.suspected(LASTS)),
            (None, Some(500))
        );
        suspects.see(Vec::new(), (0..150).collect(), 500 + LASTS);
        assert_eq!(named(&suspects, 500 + LASTS), least(10));
        assert_eq!(suspects.suspected(500 + LASTS), None, "it is certain");
        suspects.see(Vec::new(), (0..150).collect(), 500 + 2 * LASTS);
        assert_eq!(named(&suspects, 500 + 2 * LASTS), least(100));
        // Others in their place: somebody waits for them.
        suspects.see(Vec::new(), (200..350).collect(), 500 + 3 * LASTS);
        assert_eq!(named(&suspects, 500 + 3 * LASTS), None);
        assert_eq!([9, 99, 5_000].map(unreaped), [None, least(10), least(1_000)]);
    }

    #[test]
    fn what_waits_longest_is_what_is_suspected() {
        let mut suspects = Suspects::default();
        suspects.see(asleep(NOBODY, 1), Vec::new(), 100);
        suspects.see(asleep(NOBODY, 1), (0..10).collect(), 300);
        assert_eq!(suspects.suspected(300), Some(100));
        suspects.see(Vec::new(), (0..10).collect(), 400);
        assert_eq!(suspects.suspected(400), Some(300), "the other has gone on");
    }
}
