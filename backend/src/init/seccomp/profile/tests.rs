//! Compiled profiles, run by a small interpreter of classic BPF.

use super::*;
use crate::init::seccomp::ARCHITECTURE;

/// What the kernel would answer to a call.
fn run(filter: &[sock_filter], number: u32, arguments: &[u64]) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = filter[at];
        let code = u32::from(step.code);
        at += 1;
        match code & 7 {
            libc::BPF_LD => {
                accumulator = match step.k {
                    0 => number,
                    4 => ARCHITECTURE,
                    offset => {
                        let argument = arguments
                            .get((offset as usize - 16) / 8)
                            .copied()
                            .unwrap_or_default();
                        (argument >> (8 * (offset % 8))) as u32
                    }
                }
            }
            libc::BPF_ALU => accumulator &= step.k,
            libc::BPF_RET => return step.k,
            _ => {
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
        }
    }
}

fn rule(names: &[&str], answer: Answer) -> CallRule {
    CallRule {
        names: names.iter().map(ToString::to_string).collect(),
        answer,
        arguments: Vec::new(),
        includes: CallCondition::default(),
        excludes: CallCondition::default(),
    }
}

fn compiled(default: Answer, rules: Vec<CallRule>) -> Vec<sock_filter> {
    compile(&Profile { default, rules }, &Rights::default(), (6, 1)).unwrap()
}

const REFUSED: u32 = libc::SECCOMP_RET_ERRNO | 1;
const NEAR: [u64; 13] = [
    0,
    1,
    6,
    7,
    8,
    0xffff_fffe,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0006,
    0x1_0000_0007,
    0x1_0000_0008,
    0x2_0000_0007,
    u64::MAX,
];

#[test]
fn comparisons_are_those_of_64_bits() {
    for value in NEAR {
        for (comparison, holds) in [
            (Comparison::Equal, (|a, b| a == b) as fn(u64, u64) -> bool),
            (Comparison::NotEqual, |a, b| a != b),
            (Comparison::Less, |a, b| a < b),
            (Comparison::LessOrEqual, |a, b| a <= b),
            (Comparison::Greater, |a, b| a > b),
            (Comparison::GreaterOrEqual, |a, b| a >= b),
            (Comparison::Masked(0x1_0000_0003), |a, b| a & 0x1_0000_0003 == b),
        ] {
            let filter = compiled(
                Answer::Errno(1),
                vec![CallRule {
                    arguments: vec![Argument {
                        index: 3,
                        comparison,
                        value,
                    }],
                    ..rule(&["kill"], Answer::Allow)
                }],
            );
            for given in NEAR {
                let expected = match holds(given, value) {
                    true => libc::SECCOMP_RET_ALLOW,
                    false => REFUSED,
                };
                let found = run(&filter, libc::SYS_kill as u32, &[9, 9, 9, given]);
                assert_eq!(found, expected, "{given:#x} {comparison:?} {value:#x}");
            }
        }
    }
}

#[test]
fn all_arguments_must_hold_and_those_of_one_place_are_alternatives() {
    let equal = |index, value| Argument {
        index,
        comparison: Comparison::Equal,
        value,
    };
    let with = |arguments: Vec<Argument>, answer| CallRule {
        arguments,
        ..rule(&["kill"], answer)
    };
    let filter = compiled(
        Answer::Errno(1),
        vec![
            with(vec![equal(0, 1), equal(1, 2)], Answer::Allow),
            with(vec![equal(2, 5), equal(2, 6)], Answer::Errno(7)),
        ],
    );
    let seventh = libc::SECCOMP_RET_ERRNO | 7;
    for (arguments, expected) in [
        ([1, 2, 0], libc::SECCOMP_RET_ALLOW),
        ([1, 3, 0], REFUSED),
        ([0, 2, 0], REFUSED),
        ([0, 2, 5], seventh),
        ([0, 2, 6], seventh),
        ([1, 2, 6], libc::SECCOMP_RET_ALLOW),
    ] {
        let found = run(&filter, libc::SYS_kill as u32, &arguments);
        assert_eq!(found, expected, "{arguments:?}");
    }
    // Without arguments it is about all of them.
    let filter = compiled(
        Answer::Allow,
        vec![
            with(vec![equal(0, 1)], Answer::Allow),
            rule(&["kill"], Answer::KillProcess),
        ],
    );
    assert_eq!(
        run(&filter, libc::SYS_kill as u32, &[1]),
        libc::SECCOMP_RET_KILL_PROCESS
    );
}

#[test]
fn rules_count_where_their_conditions_hold() {
    let condition = |capability: &str, machine: &str, min_kernel| CallCondition {
        capabilities: capability.split_whitespace().map(str::to_owned).collect(),
        architectures: machine.split_whitespace().map(str::to_owned).collect(),
        min_kernel,
    };
    let none = CallCondition::default;
    for (includes, excludes, expected) in [
        (none(), none(), true),
        (condition("CHOWN KILL", "", None), none(), true),
        (condition("CHOWN SYS_ADMIN", "", None), none(), false),
        (none(), condition("SYS_ADMIN", "", None), true),
        (none(), condition("CHOWN SYS_ADMIN", "", None), false),
        (condition("", MACHINE, None), none(), true),
        (condition("", "s390x", None), none(), false),
        (none(), condition("", MACHINE, None), false),
        (condition("", "", Some((6, 1))), none(), true),
        (condition("", "", Some((6, 2))), none(), false),
        (none(), condition("", "", Some((6, 1))), false),
        (none(), condition("", "", Some((6, 2))), true),
    ] {
        let text = format!("{includes:?} {excludes:?}");
        let filter = compiled(
            Answer::Errno(1),
            vec![CallRule {
                includes,
                excludes,
                ..rule(&["kill", "no_such_call"], Answer::Allow)
            }],
        );
        let found = run(&filter, libc::SYS_kill as u32, &[]);
        assert_eq!(found == libc::SECCOMP_RET_ALLOW, expected, "{text}");
        assert_eq!(run(&filter, libc::SYS_getpid as u32, &[]), REFUSED);
    }
}

#[test]
fn the_table_of_calls_agrees_with_the_library() {
    let number = |wanted: &str| {
        let lines = CALLS.lines().filter_map(|line| line.split_once(' '));
        let mut found = lines.filter(|(name, _)| *name == wanted);
        found.next().and_then(|(_, number)| number.parse::<i64>().ok())
    };
    for (name, expected) in [
        ("read", libc::SYS_read),
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        ("socket", libc::SYS_socket),
        ("keyctl", libc::SYS_keyctl),
        ("mount", libc::SYS_mount),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("mseal", libc::SYS_mseal),
    ] {
        assert_eq!(number(name), Some(expected), "{name}");
    }
    let numbers: Vec<u32> = CALLS
        .lines()
        .map(|line| line.split_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(numbers.len() > 300 && numbers.is_sorted());
}

#[test]
fn a_profile_with_a_rule_for_every_call_fits() {
    let names: Vec<&str> = CALLS
        .lines()
        .filter_map(|line| Some(line.split_once(' ')?.0))
        .collect();
    let half = |odd: usize| -> Vec<&str> { names.iter().skip(odd).step_by(2).copied().collect() };
    let filter = compiled(
        Answer::Errno(1),
        vec![rule(&half(0), Answer::Allow), rule(&half(1), Answer::Log)],
    );
    assert!(filter.len() <= MOST, "{}", filter.len());
}
