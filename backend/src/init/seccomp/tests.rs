//! The filter, run by a small interpreter of classic BPF.

use super::*;

fn verdict(arch: u32, number: u32, argument: u32) -> u32 {
    let filter = default_filter();
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
