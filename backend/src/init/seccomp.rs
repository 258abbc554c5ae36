//! Docker's default seccomp profile for the native architecture, as classic BPF (seccomp(2), bpf(4)).
//!
//! Calls through a foreign entry (i386, x32) get ENOSYS: allowing them would let a program around the
//! rules for `socket`. The set is that of moby/profiles `default.json` (June 2026) without some families of
//! sockets; what it does not name gets EPERM, `clone3` gets ENOSYS so that a C library falls back to `clone`,
//! whose flags can be looked at. A new user namespace is refused whatever the capabilities.

mod profile;
mod search;

use std::{borrow::Cow, collections::BTreeSet, sync::OnceLock};

use libc::sock_filter;
use reconciler::spec::{Rights, Seccomp};

use crate::rootfs::StepError;
use search::search;

/// Allowed whatever the arguments: ranges of system call numbers, both ends included.
#[cfg(target_arch = "x86_64")]
const ALLOWED: &[(u32, u32)] = &[
    (0, 40),
    (42, 55),
    (57, 102),
    (104, 133),
    (137, 138),
    (140, 152),
    (154, 154),
    (157, 162),
    (186, 211),
    (213, 226),
    (228, 235),
    (240, 245),
    (247, 247),
    (251, 255),
    (257, 271),
    (273, 278),
    (280, 297),
    (299, 299),
    (301, 303),
    (305, 307),
    (309, 311),
    (314, 319),
    (322, 322),
    (324, 335),
    (424, 424),
    (434, 434),
    (436, 437),
    (439, 439),
    (441, 441),
    (444, 449),
    (451, 458),
    (462, 466),
];
#[cfg(target_arch = "aarch64")]
const ALLOWED: &[(u32, u32)] = &[
    (0, 17),
    (19, 38),
    (43, 57),
    (59, 59),
    (61, 88),
    (90, 91),
    (93, 96),
    (98, 103),
    (107, 111),
    (113, 115),
    (117, 141),
    (143, 160),
    (163, 169),
    (171, 197),
    (199, 216),
    (221, 223),
    (226, 234),
    (240, 240),
    (242, 243),
    (260, 261),
    (263, 263),
    (266, 267),
    (269, 271),
    (274, 279),
    (281, 281),
    (283, 293),
    (424, 424),
    (434, 434),
    (436, 437),
    (439, 439),
    (441, 441),
    (444, 449),
    (451, 458),
    (462, 466),
];

/// Allowed, too, to who has the capability. What makes a user namespace is looked at: [`NEW_USER`].
const ADDED: &[(&str, &[i64])] = &[
    ("BPF", &[libc::SYS_bpf]),
    ("DAC_READ_SEARCH", &[libc::SYS_open_by_handle_at]),
    ("PERFMON", &[libc::SYS_perf_event_open]),
    (
        "SYS_ADMIN",
        &[
            libc::SYS_bpf,
            libc::SYS_fanotify_init,
            libc::SYS_fsconfig,
            libc::SYS_fsmount,
            libc::SYS_fsopen,
            libc::SYS_fspick,
            libc::SYS_lookup_dcookie,
            libc::SYS_mount,
            libc::SYS_mount_setattr,
            libc::SYS_move_mount,
            libc::SYS_open_tree,
            libc::SYS_perf_event_open,
            libc::SYS_quotactl,
            libc::SYS_quotactl_fd,
            libc::SYS_setdomainname,
            libc::SYS_sethostname,
            libc::SYS_setns,
            libc::SYS_syslog,
            libc::SYS_umount2,
            LSM_GET_SELF_ATTR,
            LSM_SET_SELF_ATTR,
            LSM_LIST_MODULES,
        ],
    ),
    ("SYS_BOOT", &[libc::SYS_reboot]),
    (
        "SYS_MODULE",
        &[
            libc::SYS_delete_module,
            libc::SYS_init_module,
            libc::SYS_finit_module,
        ],
    ),
    (
        "SYS_NICE",
        &[
            libc::SYS_get_mempolicy,
            libc::SYS_mbind,
            libc::SYS_set_mempolicy,
            libc::SYS_set_mempolicy_home_node,
        ],
    ),
    ("SYS_PACCT", &[libc::SYS_acct]),
    (
        "SYS_PTRACE",
        &[
            libc::SYS_kcmp,
            libc::SYS_pidfd_getfd,
            libc::SYS_process_madvise,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_ptrace,
        ],
    ),
    #[cfg(target_arch = "x86_64")]
    ("SYS_RAWIO", &[libc::SYS_iopl, libc::SYS_ioperm]),
    ("SYS_TIME", &[libc::SYS_settimeofday, libc::SYS_clock_settime]),
    ("SYS_TTY_CONFIG", &[libc::SYS_vhangup]),
    ("SYSLOG", &[libc::SYS_syslog]),
];

/// Of the table that all architectures share, syscalls(2).
const LSM_GET_SELF_ATTR: i64 = 459;
const LSM_SET_SELF_ATTR: i64 = 460;
const LSM_LIST_MODULES: i64 = 461;

/// CLONE_NEWUSER.
const NEW_USER: u32 = 0x1000_0000;

/// AUDIT_ARCH_… of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from here on are the x32 entry.
const X32: u32 = 0x4000_0000;

/// CLONE_NEW…: cgroup, uts, ipc, user, pid, net, mount.
const NAMESPACES: u32 = 0x7e02_0000;

/// Address families `socket` may have: those of moby's list, where AF_ALG (38) and AF_VSOCK (40) are not.
/// Nor are AF_KEY (15), which asks for NET_ADMIN anyway, AF_RXRPC (33), and those of networks that are gone:
/// old code that few look at and no service needs.
const FAMILIES: &[(u32, u32)] = &[
    (0, 11),
    (13, 14),
    (16, 18),
    (21, 22),
    (24, 24),
    (26, 32),
    (35, 36),
    (39, 39),
    (41, 45),
];

/// Linux, UNAME26, ADDR_NO_RANDOMIZE-less variants, and "ask".
const PERSONALITIES: &[(u32, u32)] = &[
    (0, 0),
    (8, 8),
    (0x2_0000, 0x2_0000),
    (0x2_0008, 0x2_0008),
    (u32::MAX, u32::MAX),
];

const ALLOW: sock_filter = give(libc::SECCOMP_RET_ALLOW);
const REFUSE: sock_filter = give(libc::SECCOMP_RET_ERRNO | libc::EPERM as u32);
const UNKNOWN: sock_filter = give(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);

/// Offsets in struct seccomp_data.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const FIRST_ARGUMENT: u32 = 16;

const fn give(value: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, value)
}

const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: (libc::BPF_JMP | code | libc::BPF_K) as u16,
        jt,
        jf,
        k,
    }
}

const fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// A range of numbers and what to do with it.
#[derive(Debug, Clone)]
struct Rule {
    low: u32,
    high: u32,
    program: Vec<sock_filter>,
}

pub type Filter = Cow<'static, [sock_filter]>;

/// The whole filter; `None`: everything is allowed.
///
/// # Errors
/// A profile is longer than the kernel takes.
pub fn filter(rights: &Rights) -> Result<Option<Filter>, StepError> {
    let filter = match &rights.seccomp {
        Seccomp::Builtin => match COMMON.get() {
            Some((filter, capabilities)) if *capabilities == rights.capabilities => {
                Cow::Borrowed(&filter[..])
            }
            _ => builtin(rights).into(),
        },
        Seccomp::Unconfined => return Ok(None),
        Seccomp::Profile(profile) => profile::compile(profile, rights, profile::kernel())?.into(),
    };
    Ok(Some(filter))
}

/// That of a container whose capabilities nobody has asked about, and what those are.
static COMMON: OnceLock<(Vec<sock_filter>, BTreeSet<String>)> = OnceLock::new();

/// Makes the filter that most have, for this process and all that it forks.
pub fn warm() {
    COMMON.get_or_init(|| {
        let rights = Rights::default();
        (builtin(&rights), rights.capabilities)
    });
}

/// How every filter begins: another entry than the native one, which no rule is about, is not there.
fn frame() -> Vec<sock_filter> {
    vec![
        load(ARCH),
        jump(libc::BPF_JEQ, ARCHITECTURE, 1, 0),
        UNKNOWN,
        load(NUMBER),
        jump(libc::BPF_JGE, X32, 0, 1),
        UNKNOWN,
    ]
}

fn builtin(rights: &Rights) -> Vec<sock_filter> {
    let mut rules: Vec<Rule> = ALLOWED
        .iter()
        .map(|&(low, high)| Rule {
            low,
            high,
            program: vec![ALLOW],
        })
        .collect();
    let single = |number: i64, program: Vec<sock_filter>| Rule {
        low: number as u32,
        high: number as u32,
        program,
    };
    rules.push(single(libc::SYS_socket, first_argument_in(FAMILIES)));
    rules.push(single(libc::SYS_personality, first_argument_in(PERSONALITIES)));
    let without = |flags: u32| {
        vec![
            load(FIRST_ARGUMENT),
            jump(libc::BPF_JSET, flags, 1, 0),
            ALLOW,
            REFUSE,
        ]
    };
    let administrator = rights.capabilities.contains("SYS_ADMIN");
    let namespaces = if administrator { NEW_USER } else { NAMESPACES };
    rules.push(single(libc::SYS_clone, without(namespaces)));
    if administrator {
        rules.push(single(libc::SYS_unshare, without(NEW_USER)));
    }
    let mut added: Vec<i64> = ADDED
        .iter()
        .filter(|(capability, _)| rights.capabilities.contains(*capability))
        .flat_map(|(_, calls)| calls.iter().copied())
        .filter(|call| {
            !ALLOWED
                .iter()
                .any(|(low, high)| (*low..=*high).contains(&(*call as u32)))
        })
        .collect();
    added.sort_unstable();
    added.dedup();
    rules.extend(added.into_iter().map(|call| single(call, vec![ALLOW])));
    rules.push(single(libc::SYS_clone3, vec![UNKNOWN]));
    rules.sort_by_key(|rule| rule.low);
    let mut filter = frame();
    filter.extend(search(&rules, REFUSE));
    filter
}

/// `ranges` of the low half of the first argument are allowed; the kernel, too, takes it as an int.
fn first_argument_in(ranges: &[(u32, u32)]) -> Vec<sock_filter> {
    let rules: Vec<Rule> = ranges
        .iter()
        .map(|&(low, high)| Rule {
            low,
            high,
            program: vec![ALLOW],
        })
        .collect();
    let mut program = vec![load(FIRST_ARGUMENT)];
    program.extend(search(&rules, REFUSE));
    program
}

#[cfg(test)]
mod tests;
