//! Attacks that take a while or an accomplice: races, keys, other processes.

use std::{
    collections::BTreeSet,
    ffi::CString,
    fs,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use crate::{
    calls::errno_name,
    entries::word,
    facts, files,
    sys::{call, pointer},
};

const SESSION: u64 = -3_i64 as u64;

/// Exchanges two names as fast as the kernel can.
pub fn exchange(one: &str, other: &str, rounds: &str) -> String {
    let names = [one, other].map(|name| CString::new(name).unwrap_or_default());
    let rounds: u64 = rounds.parse().unwrap_or(0);
    let here = libc::AT_FDCWD as i64 as u64;
    let mut count = 0_u64;
    loop {
        let flags = u64::from(libc::RENAME_EXCHANGE);
        let done = call(
            libc::SYS_renameat2,
            [here, pointer(&names[0]), here, pointer(&names[1]), flags, 0],
        );
        if let Err(errno) = done {
            return format!("exchange {}", errno_name(errno));
        }
        count += 1;
        if count == rounds {
            return format!("exchange {count}");
        }
    }
}

/// For each process there is while it looks: what its executable is, and whether it opens for writing. That many
/// times, or until a file of that name is there.
pub fn open_executables(until: &str) -> Vec<String> {
    let rounds: Option<u64> = until.parse().ok();
    let mut found = BTreeSet::new();
    let own = fs::read_link("/proc/self/exe").unwrap_or_default();
    let mut count = 0;
    while rounds.map_or_else(|| !Path::new(until).exists(), |rounds| count < rounds) {
        count += 1;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(_) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok())
            else {
                continue;
            };
            let path = entry.path().join("exe");
            let Ok(to) = fs::read_link(&path) else {
                // What cannot be read cannot be opened either; the attempt is made all the same.
                found.insert(format!("exe ? {}", opened(&path)));
                continue;
            };
            if to != own {
                found.insert(format!("exe {} {}", to.display(), opened(&path)));
            }
        }
    }
    // A process that ended in between says nothing.
    found
        .into_iter()
        .filter(|line| !line.ends_with("ENOENT") && !line.ends_with("ESRCH"))
        .collect()
}

/// Through the link: it is the file behind it that is wanted.
fn opened(path: &Path) -> String {
    match fs::File::options().write(true).open(path) {
        Ok(_) => "opens".into(),
        Err(error) => errno_name(error.raw_os_error().unwrap_or(0)),
    }
}

pub fn add_key(name: &str) -> String {
    let (kind, name) = (CString::from(c"user"), CString::new(name).unwrap_or_default());
    let done = call(
        libc::SYS_add_key,
        [pointer(&kind), pointer(&name), pointer(&kind), 4, SESSION, 0],
    );
    format!("add_key {}", word(done))
}

/// Comes back only where it fails.
pub fn hold_key(name: &str, program: &str, arguments: &[&str]) -> String {
    use std::os::unix::process::CommandExt;
    let joined = call(libc::SYS_keyctl, [1, 0, 0, 0, 0, 0]);
    let added = add_key(name);
    let error = std::process::Command::new(program).args(arguments).exec();
    format!("session {}, {added}, {program}: {error}", word(joined))
}

/// By search, by request, and by the list of all that are visible.
pub fn find_key(name: &str) -> Vec<String> {
    let (kind, wanted) = (CString::from(c"user"), CString::new(name).unwrap_or_default());
    let search = call(
        libc::SYS_keyctl,
        [10, SESSION, pointer(&kind), pointer(&wanted), 0, 0],
    );
    let request = call(
        libc::SYS_request_key,
        [pointer(&kind), pointer(&wanted), 0, 0, 0, 0],
    );
    let listed = facts::read("/proc/keys").contains(name);
    vec![
        format!("search {}", word(search)),
        format!("request {}", word(request)),
        format!("listed {listed}"),
    ]
}

/// Kills and traces what it can name, and looks for ways out of its tree.
pub fn beyond() -> Vec<String> {
    let mut lines = Vec::new();
    let numbers = (2..=4_194_304_u64).step_by(997).chain(2..3000);
    let own = u64::from(std::process::id());
    let others: Vec<u64> = numbers
        .filter(|pid| *pid != own && call(libc::SYS_kill, [*pid, 0, 0, 0, 0, 0]) != Err(libc::ESRCH))
        .collect();
    lines.push(format!("others {}", others.len()));
    lines.push(format!("trace.1 {}", {
        let first = if own == 1 { 2 } else { 1 };
        word(call(
            libc::SYS_ptrace,
            [libc::PTRACE_SEIZE as u64, first, 0, 0, 0, 0],
        ))
    }));
    // The way of shocker.c: a handle of the host's root, inode 2.
    lines.push(format!(
        "handle {}",
        match fs::File::open("/etc/hosts") {
            Ok(file) => {
                let handle: [u32; 4] = [8, 1, 2, 0];
                word(call(
                    libc::SYS_open_by_handle_at,
                    [file.as_raw_fd() as u64, handle.as_ptr() as u64, 0, 0, 0, 0],
                ))
            }
            Err(_) => "none".into(),
        }
    ));
    for path in [
        "/sys/kernel/uevent_helper",
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
    ] {
        lines.push(format!(
            "write {path} {}",
            files::open(Path::new(path), false, true)
        ));
    }
    let mut agents: Vec<PathBuf> = Vec::new();
    for place in ["/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"] {
        for name in ["release_agent", "notify_on_release", "cgroup.procs"] {
            agents.push(Path::new(place).join(name));
        }
    }
    for path in agents {
        lines.push(format!(
            "write {} {}",
            path.display(),
            files::open(&path, false, true)
        ));
    }
    lines.push(format!(
        "kill.all {}",
        word(call(libc::SYS_kill, [-1_i64 as u64, 9, 0, 0, 0, 0]))
    ));
    lines
}
