//! Processes that hang in the kernel, where no signal reaches them: which, where, and what they wait for.
//!
//! Nothing here touches what such a process may hold: no file of the file system it waits for, and no
//! memory of its own.

use std::{fs, path::Path};

use reconciler::observed::Fault;

/// Sleeps that look like this and are none of it: a parent in vfork(2), a frozen process, a core dump.
const HARMLESS: [&str; 4] = ["vfork", "kernel_clone", "refrigerator", "coredump"];

/// A thread that sleeps uninterruptibly just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asleep {
    pub thread: u32,
    /// Of a thread that runs now and then, this grows.
    switches: u64,
}

/// Threads in `payload` that sleep uninterruptibly. Most do so for a moment only: whoever is there again
/// after a second, and has not run in between, hangs.
pub fn asleep(payload: &Path) -> Vec<Asleep> {
    let threads = fs::read_to_string(payload.join("cgroup.threads")).unwrap_or_default();
    let threads = threads.lines().filter_map(|line| line.parse::<u32>().ok());
    threads
        .filter(|thread| state(*thread) == Some('D'))
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

/// The first of those who were asleep before and are now. `harmless` sleeps are none.
pub fn first(before: &[Asleep], now: &[Asleep]) -> Option<Fault> {
    let both = now.iter().filter(|one| before.contains(one));
    both.filter_map(|one| describe(one.thread)).next()
}

/// What hangs in `payload`, as far as one look tells: for processes that were killed and are still there.
pub fn after_kill(payload: &Path) -> Option<Fault> {
    asleep(payload).iter().find_map(|one| describe(one.thread))
}

/// How many children of `parent` have ended and are not waited for; counted up to `most`.
pub fn zombies(parent: u32, most: usize) -> usize {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|pid| pid.parse().ok());
    children.filter(|pid| state(*pid) == Some('Z')).take(most).count()
}

/// proc_pid_stat(5), field 3.
fn state(thread: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{thread}/stat")).ok()?;
    // The name in parentheses may hold anything, so fields are counted from its end.
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

fn describe(thread: u32) -> Option<Fault> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{thread}/{file}")).unwrap_or_default();
    let wchan = read("wchan");
    if HARMLESS.iter().any(|sleep| wchan.contains(sleep)) {
        return None;
    }
    Some(Fault::Stuck {
        pid: thread,
        name: read("comm").trim().to_owned(),
        wchan: if wchan == "0" { String::new() } else { wchan },
        on: file(thread, &read("syscall")).or_else(|| served(&read("mountinfo"))),
    })
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

    #[test]
    fn only_who_has_not_run_in_between_hangs() {
        let one = |thread, switches| Asleep { thread, switches };
        // Nobody has these numbers, so nothing can be said of them: none is named without a second look.
        assert_eq!(first(&[], &[one(u32::MAX, 3)]), None);
        assert_eq!(first(&[one(u32::MAX, 2)], &[one(u32::MAX, 3)]), None);
        assert!(first(&[one(u32::MAX, 3)], &[one(u32::MAX, 3)]).is_some());
    }
}
