//! The filter, run by a small interpreter of classic BPF.

use super::*;

fn verdict(arch: u32, number: u32, argument: u32) -> u32 {
    verdict_of(&builtin(&Rights::default()), arch, number, argument)
}

pub(super) fn verdict_of(filter: &[sock_filter], arch: u32, number: u32, argument: u32) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = filter[at];
        let code = u32::from(step.code);
        at += 1;
        match code & 7 {
            libc::BPF_LD => {
                accumulator = match step.k {
                    NUMBER => number,
                    ARCH => arch,
                    _ => argument,
                }
            }
            libc::BPF_RET => return step.k,
            libc::BPF_JMP => {
                let taken = match code & 0xf0 {
                    libc::BPF_JA => {
                        at += step.k as usize;
                        continue;
                    }
                    libc::BPF_JEQ => accumulator == step.k,
                    libc::BPF_JGT => accumulator > step.k,
                    libc::BPF_JGE => accumulator >= step.k,
                    _ => accumulator & step.k != 0,
                };
                at += usize::from(if taken { step.jt } else { step.jf });
            }
            other => panic!("instruction class {other}"),
        }
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_call_gets_the_verdict_that_is_written_down() {
    let written: std::collections::BTreeMap<u32, &str> = include_str!("x86_64.txt")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split(' ');
            let number = words.next().unwrap().parse().unwrap();
            (number, words.nth(1).unwrap())
        })
        .collect();
    assert!(written.len() > 360, "{} calls", written.len());
    // One is allowed to every call that looks at its argument, one is refused by all of them.
    let arguments = [0, 0x7e02_0063];
    for number in 0..1000 {
        let word = match arguments.map(|argument| verdict(ARCHITECTURE, number, argument)) {
            [one, other] if one != other => "argument",
            [one, _] if one == ALLOW.k => "allow",
            [one, _] if one == UNKNOWN.k => "ENOSYS",
            [one, _] if one == REFUSE.k => "EPERM",
            other => panic!("call {number}: {other:?}"),
        };
        let expected = written.get(&number).copied().unwrap_or("EPERM");
        assert_eq!(word, expected, "call {number}");
    }
}

#[test]
fn arguments_and_entries_are_looked_at() {
    let socket = libc::SYS_socket as u32;
    let clone = libc::SYS_clone as u32;
    let personality = libc::SYS_personality as u32;
    let cases = [
        ("AF_INET", ARCHITECTURE, socket, 2, ALLOW.k),
        ("AF_UNIX", ARCHITECTURE, socket, 1, ALLOW.k),
        ("AF_ALG", ARCHITECTURE, socket, 38, REFUSE.k),
        ("AF_VSOCK", ARCHITECTURE, socket, 40, REFUSE.k),
        ("AF_KEY", ARCHITECTURE, socket, 15, REFUSE.k),
        ("AF_RXRPC", ARCHITECTURE, socket, 33, REFUSE.k),
        ("AF_NETLINK", ARCHITECTURE, socket, 16, ALLOW.k),
        ("a family above all", ARCHITECTURE, socket, 99, REFUSE.k),
        ("a thread", ARCHITECTURE, clone, 0x3d_0f00, ALLOW.k),
        ("a user namespace", ARCHITECTURE, clone, 0x1000_0000, REFUSE.k),
        (
            "asking the personality",
            ARCHITECTURE,
            personality,
            u32::MAX,
            ALLOW.k,
        ),
        (
            "READ_IMPLIES_EXEC",
            ARCHITECTURE,
            personality,
            0x40_0000,
            REFUSE.k,
        ),
        ("the i386 entry", 0x4000_0003, 102, 0, UNKNOWN.k),
        ("the x32 entry", ARCHITECTURE, X32 + 1, 0, UNKNOWN.k),
        ("mount", ARCHITECTURE, libc::SYS_mount as u32, 0, REFUSE.k),
    ];
    let refused = [
        ("bpf", libc::SYS_bpf),
        ("keyctl", libc::SYS_keyctl),
        ("add_key", libc::SYS_add_key),
        ("request_key", libc::SYS_request_key),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("io_uring_enter", libc::SYS_io_uring_enter),
        ("userfaultfd", libc::SYS_userfaultfd),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("kexec_load", libc::SYS_kexec_load),
        ("init_module", libc::SYS_init_module),
        ("unshare", libc::SYS_unshare),
        ("setns", libc::SYS_setns),
        ("move_mount", libc::SYS_move_mount),
        ("pivot_root", libc::SYS_pivot_root),
        ("syslog", libc::SYS_syslog),
        ("reboot", libc::SYS_reboot),
    ];
    for (what, number) in refused {
        assert_eq!(verdict(ARCHITECTURE, number as u32, 0), REFUSE.k, "{what}");
    }
    assert_eq!(
        verdict(ARCHITECTURE, libc::SYS_clone3 as u32, 0),
        UNKNOWN.k,
        "a C library falls back to clone, whose flags can be looked at"
    );
    for (what, arch, number, argument, expected) in cases {
        assert_eq!(verdict(arch, number, argument), expected, "{what}");
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn each_capability_adds_the_calls_that_are_written_down_and_none_a_user_namespace() {
    let usual = Rights::default();
    let mut every: Vec<String> = caps::all().iter().map(ToString::to_string).collect();
    every.sort();
    let one = builtin(&usual);
    let mut told = String::new();
    for capability in every.iter().filter_map(|name| name.strip_prefix("CAP_")) {
        let mut rights = usual.clone();
        rights.capabilities.insert(capability.to_owned());
        let other = builtin(&rights);
        let allowed = |filter: &[sock_filter], number, argument| {
            verdict_of(filter, ARCHITECTURE, number, argument) == ALLOW.k
        };
        let more: Vec<String> = (0..1000)
            .filter(|number| allowed(&other, *number, 0) && !allowed(&one, *number, 0))
            .map(|number| number.to_string())
            .collect();
        if !more.is_empty() {
            told.push_str(&format!("{capability} {}\n", more.join(" ")));
        }
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            assert!(
                !allowed(&other, call as u32, NEW_USER),
                "{capability}, call {call}"
            );
        }
        let mount = 0x0002_0000;
        let administrator = capability == "SYS_ADMIN";
        assert_eq!(
            allowed(&other, libc::SYS_clone as u32, mount),
            administrator,
            "{capability}"
        );
    }
    assert_eq!(
        told,
        "\
BPF 321
DAC_READ_SEARCH 304
PERFMON 298
SYSLOG 103
SYS_ADMIN 103 165 166 170 171 179 212 272 298 300 308 321 428 429 430 431 432 433 442 443 459 460 461
SYS_BOOT 169
SYS_MODULE 175 176 313
SYS_NICE 237 238 239 450
SYS_PACCT 163
SYS_PTRACE 312 438 440
SYS_RAWIO 172 173
SYS_TIME 164 227
SYS_TTY_CONFIG 153
"
    );
    let mut unconfined = usual;
    unconfined.seccomp = Seccomp::Unconfined;
    assert!(filter(&unconfined).unwrap().is_none());
}
