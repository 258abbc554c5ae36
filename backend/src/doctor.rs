//! Looks whether this host can run stead, and says what to do where it cannot. Changes nothing.

mod abilities;
mod forward;
mod limits;
mod modules;

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink};

pub use self::{abilities::abilities, forward::foreign_forwarding};
use crate::layout::Layout;

/// The name of that finding.
pub const USER_NAMESPACES: &str = "user namespaces";

/// The oldest kernel the tests run on.
const KERNEL: (u32, u32) = (6, 1);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Ok,
    /// Works, with a limit.
    Warn,
    /// Services cannot run.
    Fail,
}

/// One thing looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `kernel`, `cgroups`, …: stable, for scripts.
    pub name: &'static str,
    pub verdict: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do; empty when all is well.
    pub remedy: String,
}

/// Everything there is to look at, in the order of importance. Never fails: what cannot be read is a
/// finding.
pub fn check(layout: &Layout) -> Vec<Finding> {
    let host = Host::here();
    vec![
        user(rustix::process::geteuid().is_root()),
        kernel(&rustix::system::uname().release().to_string_lossy()),
        user_namespaces(&host, abilities::try_user_namespace()),
        overlay(&host),
        cgroups(&host.read("proc/self/mountinfo").unwrap_or_default()),
        nftables(),
        foreign_forwarding(),
        links(&host),
        idmapped_mounts(layout, &rustix::system::uname().release().to_string_lossy()),
        limits::limits(),
        seccomp(&host),
        modules::apparmor(&host),
        modules::selinux(&host),
        forwarding(&host),
        disk(layout),
        inotify(&host),
        time(&host),
    ]
}

/// Where the files of the kernel are; a directory of a test, or `/`.
struct Host {
    root: PathBuf,
}

impl Host {
    fn here() -> Self {
        Host {
            root: PathBuf::from("/"),
        }
    }

    fn read(&self, path: &str) -> io::Result<String> {
        let mut text = String::new();
        fs::File::open(self.root.join(path))?
            .take(1 << 20)
            .read_to_string(&mut text)?;
        Ok(text)
    }

    /// A number in a file; `None`: no such file, or no number.
    fn number(&self, path: &str) -> Option<u64> {
        self.read(path).ok()?.trim().parse().ok()
    }

    fn has(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }
}

fn user(root: bool) -> Finding {
    match root {
        true => ok("root", "running as root"),
        false => fail("root", "not running as root", "run it as root: sudo stead …"),
    }
}

/// Major and minor number.
fn version(release: &str) -> (u32, u32) {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel(release: &str) -> Finding {
    match version(release) >= KERNEL {
        true => ok("kernel", release),
        false => fail(
            "kernel",
            release,
            &format!("install a kernel of version {}.{} or later", KERNEL.0, KERNEL.1),
        ),
    }
}

/// `tried`: how it went to make one.
fn user_namespaces(host: &Host, tried: io::Result<()>) -> Finding {
    const NAME: &str = USER_NAMESPACES;
    if !host.has("proc/self/ns/user") {
        return fail(
            NAME,
            "the kernel has none",
            "use a kernel with CONFIG_USER_NS, or give each service `userns_mode: host`",
        );
    }
    match host.number(abilities::MOST) {
        Some(0) => {
            return fail(
                NAME,
                "switched off",
                "set the sysctl user.max_user_namespaces to 15000 or more, or give each service `userns_mode: host`",
            );
        }
        Some(count) if count < 256 => {
            let detail = format!("at most {count}");
            return warn(
                NAME,
                &detail,
                "raise the sysctl user.max_user_namespaces: each service takes one",
            );
        }
        _ => {}
    }
    if let Err(error) = tried {
        return fail(
            NAME,
            &format!("refused: {error}"),
            "see which security module or limit of this host forbids them, or give each service `userns_mode: host`",
        );
    }
    // These bind processes without CAP_SYS_ADMIN only: good to know, no hindrance for the agent.
    let restricted: Vec<&str> = [
        (
            "proc/sys/kernel/unprivileged_userns_clone",
            0,
            "kernel.unprivileged_userns_clone=0",
        ),
        (
            "proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            1,
            "kernel.apparmor_restrict_unprivileged_userns=1",
        ),
    ]
    .into_iter()
    .filter(|(path, value, _)| host.number(path) == Some(*value))
    .map(|(_, _, text)| text)
    .collect();
    match restricted.as_slice() {
        [] => ok(NAME, "allowed"),
        some => ok(NAME, &format!("allowed for root ({})", some.join(", "))),
    }
}

fn overlay(host: &Host) -> Finding {
    let filesystems = host.read("proc/filesystems").unwrap_or_default();
    match filesystems
        .lines()
        .any(|line| line.split_whitespace().last() == Some("overlay"))
    {
        true => ok("overlay", "in the kernel"),
        // Loaded by the first mount where the module is installed.
        false if module(host, "overlay") => ok("overlay", "module, loaded on use"),
        false => fail(
            "overlay",
            "not in the kernel",
            "load it (modprobe overlay), or use a kernel with CONFIG_OVERLAY_FS",
        ),
    }
}

/// `mountinfo`: proc_pid_mountinfo(5).
fn cgroups(mountinfo: &str) -> Finding {
    const NAME: &str = "cgroups";
    let mounts = |kind: &str| -> Vec<String> {
        let lines = mountinfo.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            (after.split(' ').next() == Some(kind))
                .then(|| before.split(' ').nth(4).unwrap_or("?").to_owned())
        });
        lines.collect()
    };
    let (v2, v1) = (mounts("cgroup2"), mounts("cgroup"));
    match (v2.first(), v1.is_empty()) {
        (Some(path), true) => ok(NAME, &format!("v2 at {path}")),
        (Some(path), false) => warn(
            NAME,
            &format!("hybrid: v2 at {path}, controllers on v1"),
            "services run, and `limits` below says what is limited; booted with systemd.unified_cgroup_hierarchy=1, all of it is in one tree",
        ),
        (None, _) => fail(
            NAME,
            "no cgroup v2 tree is mounted",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount it: mount -t cgroup2 none /sys/fs/cgroup/unified",
        ),
    }
}

fn nftables() -> Finding {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        Some(netlink::NETFILTER),
    );
    match socket {
        Ok(_) => ok("nftables", "the kernel answers"),
        Err(error) => fail(
            "nftables",
            &format!("no netfilter socket: {error}"),
            "load it (modprobe nf_tables), or use a kernel with CONFIG_NF_TABLES",
        ),
    }
}

fn links(host: &Host) -> Finding {
    let missing: Vec<&str> = ["bridge", "veth"]
        .into_iter()
        .filter(|name| !host.has(&format!("sys/module/{name}")) && !module(host, name))
        .collect();
    match missing.as_slice() {
        [] => ok("links", "bridge and veth"),
        // A module without parameters that is built in shows nowhere.
        some if !host.has(&modules()) => ok(
            "links",
            &format!("no modules; {} can only be built in", some.join(", ")),
        ),
        some => warn(
            "links",
            &format!("no module {}", some.join(", ")),
            &format!(
                "if networks fail, install it and run: modprobe {}",
                some.join(" ")
            ),
        ),
    }
}

fn modules() -> String {
    format!(
        "lib/modules/{}",
        rustix::system::uname().release().to_string_lossy()
    )
}

/// Known to modprobe, as a file or built in.
fn module(host: &Host, name: &str) -> bool {
    let directory = modules();
    let file = format!("/{name}.ko");
    ["modules.dep", "modules.builtin"].into_iter().any(|list| {
        let list = fs::read_to_string(host.root.join(&directory).join(list)).unwrap_or_default();
        list.lines()
            .any(|line| line.split(':').next().is_some_and(|path| path.contains(&file)))
    })
}

fn idmapped_mounts(layout: &Layout, release: &str) -> Finding {
    const NAME: &str = "idmapped mounts";
    let (path, magic) = match file_system(&layout.state) {
        Ok(found) => found,
        Err(error) => {
            return warn(
                NAME,
                &format!("{}: {error}", layout.state.display()),
                "make the directory readable",
            );
        }
    };
    // statfs(2). All of these have FS_ALLOW_IDMAP in 6.1, but tmpfs (6.3).
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0xf2f5_2010 => "f2fs",
        0x0102_1994 if version(release) < (6, 3) => {
            let remedy =
                "put the state directory on ext4, xfs or btrfs, or install a kernel of version 6.3 or later";
            return fail(NAME, &format!("{} is on tmpfs", path.display()), remedy);
        }
        0x0102_1994 => "tmpfs",
        0x2fc1_2fc1 => "zfs",
        0x794c_7630 => {
            let remedy = "put the state directory on ext4, xfs or btrfs: overlay on overlay is not possible";
            return fail(NAME, &format!("{} is on overlayfs", path.display()), remedy);
        }
        0x6969 => {
            let remedy = "put the state directory on a local disk with ext4, xfs or btrfs";
            return fail(NAME, &format!("{} is on nfs", path.display()), remedy);
        }
        other => {
            let remedy = "if services do not start, put the state directory on ext4, xfs or btrfs";
            return warn(
                NAME,
                &format!("{} is on an unknown file system ({other:#x})", path.display()),
                remedy,
            );
        }
    };
    ok(NAME, &format!("{} is on {name}", path.display()))
}

fn seccomp(host: &Host) -> Finding {
    let actions = host
        .read("proc/sys/kernel/seccomp/actions_avail")
        .unwrap_or_default();
    match actions.split_whitespace().any(|action| action == "errno") {
        true => ok("seccomp", "filters are available"),
        false => fail("seccomp", "no filters", "use a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

fn forwarding(host: &Host) -> Finding {
    const NAME: &str = "forwarding";
    match host.number("proc/sys/net/ipv4/ip_forward") {
        Some(1) => ok(NAME, "on"),
        Some(_) => ok(
            NAME,
            "off; stead switches it on with the first network, and forwards for its own bridges only",
        ),
        None => fail(
            NAME,
            "net.ipv4.ip_forward cannot be read",
            "mount /proc, and use a kernel with IPv4",
        ),
    }
}

fn disk(layout: &Layout) -> Finding {
    const NAME: &str = "disk";
    let path = existing(&layout.state);
    let stat = match rustix::fs::statvfs(&path) {
        Ok(stat) => stat,
        Err(error) => {
            return warn(
                NAME,
                &format!("{}: {error}", path.display()),
                "make the directory readable",
            );
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize) >> 20;
    let detail = format!("{free} MiB free at {}", path.display());
    // Some file systems count no inodes and say 0 of 0.
    if stat.f_files > 0 && stat.f_favail < 10_000 {
        let detail = format!("{} inodes free at {}", stat.f_favail, path.display());
        return warn(
            NAME,
            &detail,
            "remove small files there, or move the state directory",
        );
    }
    match free {
        0..100 => fail(NAME, &detail, "free some space: records can hardly be written"),
        100..1024 => warn(NAME, &detail, "free some space: images may not fit"),
        _ => ok(NAME, &detail),
    }
}

fn inotify(host: &Host) -> Finding {
    const NAME: &str = "inotify";
    let limit = |name: &str| host.number(&format!("proc/sys/fs/inotify/{name}"));
    match (limit("max_user_instances"), limit("max_user_watches")) {
        (Some(instances), Some(watches)) if instances >= 16 && watches >= 1024 => {
            ok(NAME, &format!("{instances} instances, {watches} watches"))
        }
        (Some(instances), Some(watches)) => warn(
            NAME,
            &format!("{instances} instances, {watches} watches"),
            "raise the sysctls fs.inotify.max_user_instances and max_user_watches: changes are seen late",
        ),
        _ => warn(
            NAME,
            "not in the kernel",
            "use a kernel with CONFIG_INOTIFY_USER: changes are seen late",
        ),
    }
}

/// A clock before this stands for one that was never set.
const YEAR_2025: u64 = 1_735_689_600;

fn time(host: &Host) -> Finding {
    let now = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .map_or(0, |elapsed| elapsed.as_secs());
    if now < YEAR_2025 {
        return warn(
            "time",
            "the clock is not set",
            "start a time service (systemd-timesyncd, chrony)",
        );
    }
    let source = host.read("sys/devices/system/clocksource/clocksource0/current_clocksource");
    ok(
        "time",
        &format!("clock is set, source {}", source.unwrap_or_default().trim()),
    )
}

/// The nearest directory that exists, and the magic number of its file system (statfs(2)).
fn file_system(path: &Path) -> io::Result<(PathBuf, u64)> {
    let path = existing(path);
    let magic = rustix::fs::statfs(&path)?.f_type;
    // Magic numbers are 32 bits wide; the field is signed and wider on some architectures.
    Ok((path, (magic as u64) & 0xffff_ffff))
}

fn existing(path: &Path) -> PathBuf {
    path.ancestors()
        .find(|path| path.exists())
        .unwrap_or(Path::new("/"))
        .to_owned()
}

fn ok(name: &'static str, detail: &str) -> Finding {
    finding(name, Verdict::Ok, detail, "")
}

fn warn(name: &'static str, detail: &str, remedy: &str) -> Finding {
    finding(name, Verdict::Warn, detail, remedy)
}

fn fail(name: &'static str, detail: &str, remedy: &str) -> Finding {
    finding(name, Verdict::Fail, detail, remedy)
}

fn finding(name: &'static str, verdict: Verdict, detail: &str, remedy: &str) -> Finding {
    Finding {
        name,
        verdict,
        detail: detail.to_owned(),
        remedy: remedy.to_owned(),
    }
}

#[cfg(test)]
mod tests;
