//! What a container must not be able to do, really tried. Each in a child of its own.

use std::{ffi::CString, fs, path::Path};

use crate::{
    calls::errno_name,
    entries::word,
    files,
    sys::{End, call, forked, pointer},
};

/// In a child: what succeeds must change nothing for the next.
fn tried(name: &str, attempt: impl FnOnce() -> Result<i64, i32>) -> String {
    let end = forked(|| match attempt() {
        Ok(_) => 0,
        Err(errno) => errno,
    });
    let verdict = match end {
        End::Exit(0) => "done".into(),
        End::Exit(errno) => errno_name(errno),
        End::Signal(signal) => format!("signal {signal}"),
    };
    format!("try.{name} {verdict}")
}

fn text(value: &str) -> CString {
    CString::new(value).unwrap_or_default()
}

/// Every kind of namespace by each of the calls that make one.
pub fn namespaces() -> Vec<String> {
    let kinds = [
        ("mount", libc::CLONE_NEWNS),
        ("cgroup", libc::CLONE_NEWCGROUP),
        ("uts", libc::CLONE_NEWUTS),
        ("ipc", libc::CLONE_NEWIPC),
        ("user", libc::CLONE_NEWUSER),
        ("pid", libc::CLONE_NEWPID),
        ("net", libc::CLONE_NEWNET),
    ];
    let mut lines = Vec::new();
    for (name, flag) in kinds {
        let flag = flag as u64;
        lines.push(tried(&format!("unshare.{name}"), || {
            call(libc::SYS_unshare, [flag, 0, 0, 0, 0, 0])
        }));
        lines.push(tried(&format!("clone.{name}"), || {
            cloned(call(
                libc::SYS_clone,
                [flag | libc::SIGCHLD as u64, 0, 0, 0, 0, 0],
            ))
        }));
        lines.push(tried(&format!("clone3.{name}"), || {
            let mut arguments = [0_u64; 8];
            arguments[0] = flag;
            arguments[4] = libc::SIGCHLD as u64;
            cloned(call(
                libc::SYS_clone3,
                [
                    arguments.as_ptr() as u64,
                    size_of_val(&arguments) as u64,
                    0,
                    0,
                    0,
                    0,
                ],
            ))
        }));
    }
    for (name, number) in [
        ("fsopen", libc::SYS_fsopen),
        ("fsmount", libc::SYS_fsmount),
        ("fspick", libc::SYS_fspick),
        ("open_tree", libc::SYS_open_tree),
        ("move_mount", libc::SYS_move_mount),
        ("mount_setattr", libc::SYS_mount_setattr),
        ("pivot_root", libc::SYS_pivot_root),
        ("umount2", libc::SYS_umount2),
    ] {
        let root = text("/");
        lines.push(tried(name, || call(number, [pointer(&root), 0, 0, 0, 0, 0])));
    }
    lines.push(format!(
        "try.setns.net {}",
        match fs::File::open("/proc/self/ns/net") {
            Ok(file) => {
                use std::os::fd::AsRawFd;
                word(call(libc::SYS_setns, [file.as_raw_fd() as u64, 0, 0, 0, 0, 0]))
            }
            Err(_) => "ENOENT".into(),
        }
    ));
    lines
}

/// The child of a clone that succeeds ends at once.
fn cloned(result: Result<i64, i32>) -> Result<i64, i32> {
    if result == Ok(0) {
        std::process::exit(0);
    }
    result
}

fn mount(kind: &str, target: &str) -> Result<i64, i32> {
    let (kind, target) = (text(kind), text(target));
    call(
        libc::SYS_mount,
        [pointer(&kind), pointer(&target), pointer(&kind), 0, 0, 0],
    )
}

fn node(kind: u32, major: u32, minor: u32) -> Result<i64, i32> {
    let path = text("/dev/shm/probe-node");
    let device = libc::makedev(major, minor);
    let at = libc::AT_FDCWD as i64 as u64;
    let made = call(
        libc::SYS_mknodat,
        [at, pointer(&path), u64::from(kind | 0o600), device, 0, 0],
    );
    if made.is_ok() {
        let opened = files::open(Path::new("/dev/shm/probe-node"), true, false);
        let _ = fs::remove_file("/dev/shm/probe-node");
        // Nodes of a mount with nodev are only names.
        return if opened == "EACCES" {
            Err(libc::EACCES)
        } else {
            made
        };
    }
    made
}

pub fn all() -> Vec<String> {
    let mut lines = Vec::new();
    for kind in ["tmpfs", "proc", "sysfs", "cgroup", "cgroup2", "overlay", "bpf"] {
        lines.push(tried(&format!("mount.{kind}"), || mount(kind, "/dev/shm")));
    }
    lines.push(tried("remount", || {
        let root = text("/proc/sys");
        let flags = libc::MS_REMOUNT | libc::MS_BIND;
        call(libc::SYS_mount, [0, pointer(&root), 0, flags, 0, 0])
    }));
    lines.push(tried("mknod.memory", || node(libc::S_IFCHR, 1, 1)));
    lines.push(tried("mknod.fuse", || node(libc::S_IFCHR, 10, 229)));
    lines.push(tried("mknod.tun", || node(libc::S_IFCHR, 10, 200)));
    lines.push(tried("mknod.disk", || node(libc::S_IFBLK, 8, 0)));
    let simple: [(&str, libc::c_long, [u64; 3]); 22] = [
        ("keyctl.session", libc::SYS_keyctl, [1, 0, 0]),
        ("keyctl.describe", libc::SYS_keyctl, [6, -3_i64 as u64, 0]),
        ("keyctl.find", libc::SYS_keyctl, [0, -3_i64 as u64, 0]),
        ("bpf", libc::SYS_bpf, [0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [0, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [0, 0, 0]),
        ("init_module", libc::SYS_init_module, [0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [0, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [0, 0, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0]),
        ("swapon", libc::SYS_swapon, [0, 0, 0]),
        ("acct", libc::SYS_acct, [0, 0, 0]),
        ("sethostname", libc::SYS_sethostname, [0, 0, 0]),
        ("settimeofday", libc::SYS_settimeofday, [0, 0, 0]),
        ("clock_settime", libc::SYS_clock_settime, [0, 0, 0]),
        ("syslog", libc::SYS_syslog, [10, 0, 0]),
        ("quotactl", libc::SYS_quotactl, [0, 0, 0]),
        ("fanotify_init", libc::SYS_fanotify_init, [0, 0, 0]),
        ("vhangup", libc::SYS_vhangup, [0, 0, 0]),
        ("personality.exec", libc::SYS_personality, [0x40_0000, 0, 0]),
    ];
    for (name, number, [a, b, c]) in simple {
        lines.push(tried(name, || call(number, [a, b, c, 0, 0, 0])));
    }
    let (kind, name, value) = (text("user"), text("probe"), text("x"));
    lines.push(tried("add_key", || {
        let ring = -3_i64 as u64;
        call(
            libc::SYS_add_key,
            [pointer(&kind), pointer(&name), pointer(&value), 1, ring, 0],
        )
    }));
    lines.push(tried("request_key", || {
        call(
            libc::SYS_request_key,
            [pointer(&kind), pointer(&name), 0, 0, 0, 0],
        )
    }));
    // Its own parent: as close as another process can be.
    let parent = u64::from(std::process::id());
    lines.push(tried("ptrace.parent", || {
        call(libc::SYS_ptrace, [libc::PTRACE_SEIZE as u64, parent, 0, 0, 0, 0])
    }));
    let pagemap = files::open(Path::new("/proc/1/mem"), false, true);
    lines.push(format!("try.write./proc/1/mem {pagemap}"));
    #[cfg(target_arch = "x86_64")]
    lines.push(tried("iopl", || call(libc::SYS_iopl, [3, 0, 0, 0, 0, 0])));
    lines
}
