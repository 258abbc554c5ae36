//! What the kernel says about this process: rights, namespaces, ids, limits, settings.

use std::{fs, os::unix::fs::FileTypeExt};

/// Of capabilities(7), by number.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP \
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO \
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE \
    AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON \
    BPF CHECKPOINT_RESTORE";

pub fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn field(status: &str, name: &str) -> String {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or("?")
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ")
}

/// What was open when this process began; the listing itself opens one more.
pub fn descriptors() -> Vec<String> {
    let mut open: Vec<(u32, String)> = fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.parse().ok()?;
            let to = fs::read_link(entry.path()).ok()?.display().to_string();
            Some((number, to))
        })
        .filter(|(_, to)| !(to.starts_with("/proc/") && to.ends_with("/fd")))
        .collect();
    open.sort();
    let numbers: Vec<String> = open.iter().map(|(number, _)| number.to_string()).collect();
    vec![format!("descriptors {}", numbers.join(" "))]
}

pub fn rights() -> Vec<String> {
    let status = read("/proc/self/status");
    let mut lines = Vec::new();
    for (name, key) in [
        ("bounding", "CapBnd"),
        ("permitted", "CapPrm"),
        ("effective", "CapEff"),
        ("inheritable", "CapInh"),
        ("ambient", "CapAmb"),
    ] {
        let bits = u64::from_str_radix(&field(&status, key), 16).unwrap_or(u64::MAX);
        let names: Vec<&str> = CAPABILITIES
            .split_whitespace()
            .enumerate()
            .filter(|(number, _)| bits >> number & 1 == 1)
            .map(|(_, name)| name)
            .collect();
        let text = if names.is_empty() {
            "none".into()
        } else {
            names.join(" ")
        };
        lines.push(format!("capabilities.{name} {text}"));
    }
    let dumpable = crate::sys::call(libc::SYS_prctl, [libc::PR_GET_DUMPABLE as u64, 0, 0, 0, 0, 0]);
    lines.push(format!("dumpable {}", dumpable.unwrap_or(-1)));
    lines.push(format!("no_new_privs {}", field(&status, "NoNewPrivs")));
    lines.push(format!("seccomp.mode {}", field(&status, "Seccomp")));
    lines.push(format!("seccomp.filters {}", field(&status, "Seccomp_filters")));
    lines.push(format!("groups {}", field(&status, "Groups")));
    lines.push(format!("umask {}", field(&status, "Umask")));
    let label = read("/proc/self/attr/current");
    let label = label.trim_end_matches('\0');
    lines.push(format!(
        "host.label {}",
        if label.is_empty() { "none" } else { label }
    ));
    lines
}

/// `host`: what readlink(2) says of the host's, `user:[4026531837]`.
pub fn namespaces(host: &[&str]) -> Vec<String> {
    ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"]
        .iter()
        .map(|name| {
            let own = fs::read_link(format!("/proc/self/ns/{name}"));
            let own = own.map(|to| to.display().to_string()).unwrap_or_default();
            let verdict = if host.contains(&own.as_str()) {
                "the host's"
            } else {
                "own"
            };
            format!("namespace.{name} {verdict}")
        })
        .collect()
}

pub fn ids() -> Vec<String> {
    let mut lines = Vec::new();
    for name in ["uid", "gid"] {
        for (number, line) in read(&format!("/proc/self/{name}_map")).lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [inside, outside, count] = words[..] else {
                continue;
            };
            let outside = if inside == outside { "the same" } else { "others" };
            lines.push(format!(
                "ids.{name}.{number} {count} from {inside} are {outside} outside"
            ));
        }
    }
    lines.push(format!("ids.setgroups {}", read("/proc/self/setgroups")));
    lines.push(format!("cgroup {}", own_cgroups()));
    lines.push(format!("processes {}", processes()));
    lines.push(format!("host.keys {}", read("/proc/keys").lines().count()));
    lines
}

/// Where this process is in the trees, as it sees them.
fn own_cgroups() -> String {
    let text = read("/proc/self/cgroup");
    let mut paths: Vec<&str> = text
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2))
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths.join(" ")
}

fn processes() -> usize {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
        .count()
}

pub fn limits() -> Vec<String> {
    let text = read("/proc/self/limits");
    let limits = text.lines().skip(1).filter_map(|line| {
        let (name, rest) = line.split_at_checked(25)?;
        let words: Vec<&str> = rest.split_whitespace().take(2).collect();
        let name = name.trim().to_lowercase().replace(' ', "-");
        Some(format!(
            "host.limit.{} {}",
            name.trim_start_matches("max-"),
            words.join(" ")
        ))
    });
    limits.collect()
}

pub fn settings() -> Vec<String> {
    let mut lines: Vec<String> = [
        "kernel/hostname",
        "kernel/domainname",
        "user/max_user_namespaces",
        "net/ipv4/ip_unprivileged_port_start",
        "net/ipv4/ping_group_range",
    ]
    .iter()
    .map(|name| {
        let value = read(&format!("/proc/sys/{name}")).replace('\t', " ");
        format!("setting.{} {value}", name.replace('/', "."))
    })
    .collect();
    let cgroup = read("/proc/self/oom_score_adj");
    lines.push(format!("oom_score_adj {cgroup}"));
    let sockets = read("/proc/net/unix");
    let abstracts = sockets.lines().filter(|line| {
        line.split_whitespace()
            .last()
            .is_some_and(|name| name.starts_with('@'))
    });
    lines.push(format!("sockets.abstract {}", abstracts.count()));
    let console = fs::metadata("/dev/console").is_ok_and(|found| found.file_type().is_char_device());
    lines.push(format!("console {}", if console { "present" } else { "none" }));
    lines
}
