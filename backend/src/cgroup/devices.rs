//! Which devices the processes of a container may open: rules as a small program on its cgroup.
//!
//! The program is an eBPF one on the v2 tree, where every payload lives, also on a host that has the v1
//! controller. Only services that ask for devices have one, those without a user namespace, and those that see
//! what the host mounts later: others have no nodes but those of /dev, can make none (mknod(2) of a device is
//! refused in a user namespace), and everything else that is mounted in them is `nodev`.

use std::{fs::File, io, os::fd::AsFd, path::Path, str::FromStr};

use reconciler::spec::{ContainerSpec, MountSpec};
use rustix::fs::{FileType, major, minor};

use crate::{
    rootfs::{StepError, devices},
    sys::bpf::{self, Instruction},
};

const MKNOD: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const BLOCK: u32 = 1;
const CHAR: u32 = 2;

/// What may be done with some devices. `None`: with any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// The nodes that every container has, and its terminals. That all nodes may be made, as other engines have
/// it, is not among them.
const USUAL: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

impl FromStr for Rule {
    type Err = StepError;

    /// `TYPE MAJOR:MINOR ACCESS`, as in the devices cgroup of Linux.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            StepError::spec(format!(
                "`{text}` is no rule for devices; write it like `c 1:3 rwm`"
            ))
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let [kind, device, access] = words.as_slice() else {
            return Err(wrong());
        };
        let number = |text: &str| match text {
            "*" => Ok(None),
            text => text.parse().map(Some).map_err(|_| wrong()),
        };
        let (major, minor) = device.split_once(':').ok_or_else(wrong)?;
        Ok(Rule {
            kind: match *kind {
                "a" => None,
                "b" => Some(BLOCK),
                "c" => Some(CHAR),
                _ => return Err(wrong()),
            },
            major: number(major)?,
            minor: number(minor)?,
            access: bits(access),
        })
    }
}

fn bits(access: &str) -> u32 {
    let known = [('r', READ), ('w', WRITE), ('m', MKNOD)];
    let named = known.iter().filter(|(letter, _)| access.contains(*letter));
    named.map(|(_, bit)| bit).sum()
}

/// Whether a container has a filter. `host_ids`: there is no user namespace.
fn is_filtered(container: &ContainerSpec, host_ids: bool) -> bool {
    let asks = !container.devices.is_empty() || !container.device_rules.is_empty();
    // What the host mounts later is not `nodev` in the container.
    let told =
        |mount: &MountSpec| matches!(mount, MountSpec::Bind { propagation, .. } if !propagation.is_private());
    (asks || host_ids || container.mounts.iter().any(told)) && !container.rights.privileged
}

/// What a container may open.
///
/// # Errors
/// A device is not there, or a rule is none.
fn rules(container: &ContainerSpec) -> Result<Vec<Rule>, StepError> {
    let mut rules: Vec<Rule> = USUAL
        .into_iter()
        .map(|(major, minor)| Rule {
            kind: Some(CHAR),
            major: Some(major),
            minor,
            access: READ | WRITE | MKNOD,
        })
        .collect();
    for found in devices::nodes(&container.devices)? {
        let kind = match found.node.kind {
            FileType::BlockDevice => BLOCK,
            _ => CHAR,
        };
        rules.push(Rule {
            kind: Some(kind),
            major: Some(major(found.node.number)),
            minor: Some(minor(found.node.number)),
            access: bits(&found.access),
        });
    }
    for rule in &container.device_rules {
        rules.push(rule.parse()?);
    }
    Ok(rules)
}

/// Puts the filter of a container on its payload cgroup.
///
/// # Errors
/// A device is not there, or the kernel has no such filters.
pub fn limit(payload: &Path, container: &ContainerSpec, host_ids: bool) -> Result<(), StepError> {
    if !is_filtered(container, host_ids) {
        return Ok(());
    }
    let rules = rules(container)?;
    let put = || -> io::Result<()> {
        let program = bpf::load_device_filter(&program(&rules))?;
        bpf::attach_device_filter(File::open(payload)?.as_fd(), &program)
    };
    put().map_err(|error| {
        let mut failed = StepError::system("limit the devices of", payload.display(), error);
        let advice = "it takes a kernel with CONFIG_CGROUP_BPF; `stead doctor` looks for it";
        failed.message = format!("{}; {advice}", failed.message);
        failed
    })
}

/// Whether the filter that a container shall have is missing.
pub fn is_missing(payload: &Path, container: &ContainerSpec, host_ids: bool) -> bool {
    let none = |cgroup: File| bpf::device_filters(cgroup.as_fd()).is_ok_and(|count| count == 0);
    is_filtered(container, host_ids) && File::open(payload).is_ok_and(none)
}

/// Whether this kernel has such filters.
///
/// # Errors
/// As the kernel refuses one.
pub fn probe() -> io::Result<()> {
    bpf::load_device_filter(&program(&[])).map(drop)
}

/// Allows what one of the rules allows in full, and nothing else. The input is `struct bpf_cgroup_dev_ctx`: the
/// type in the low half of the first word, what is to be done in its high half, then the two numbers.
fn program(rules: &[Rule]) -> Vec<Instruction> {
    const LOAD: u8 = 0x61;
    const MOVE: u8 = 0xbf;
    const SET: u8 = 0xb7;
    const AND: u8 = 0x57;
    const SHIFT: u8 = 0x77;
    const JUMP_UNLESS: u8 = 0x55;
    const JUMP_UNLESS_SAME: u8 = 0x5d;
    const EXIT: u8 = 0x95;
    // What is asked: the type, what is to be done, the numbers; and one to compute with.
    let (result, input, kind, access, first, second, scratch) = (0, 1, 2, 3, 4, 5, 6);
    let instruction = |code, destination: u8, source: u8, offset, value| Instruction {
        code,
        registers: destination | source << 4,
        offset,
        value,
    };
    let mut program = vec![
        instruction(LOAD, kind, input, 0, 0),
        instruction(MOVE, access, kind, 0, 0),
        instruction(AND, kind, 0, 0, 0xffff),
        instruction(SHIFT, access, 0, 0, 16),
        instruction(LOAD, first, input, 4, 0),
        instruction(LOAD, second, input, 8, 0),
    ];
    for rule in rules {
        let asked = [(kind, rule.kind), (first, rule.major), (second, rule.minor)];
        let mut tests: Vec<Instruction> = asked
            .into_iter()
            .filter_map(|(register, wanted)| Some(instruction(JUMP_UNLESS, register, 0, 0, wanted? as i32)))
            .collect();
        tests.push(instruction(MOVE, scratch, access, 0, 0));
        tests.push(instruction(AND, scratch, 0, 0, rule.access as i32));
        tests.push(instruction(JUMP_UNLESS_SAME, scratch, access, 0, 0));
        // To the next rule, over the rest of this one and its two last instructions.
        let length = tests.len();
        for (place, test) in tests.iter_mut().enumerate() {
            if test.code == JUMP_UNLESS || test.code == JUMP_UNLESS_SAME {
                test.offset = (length - place + 1) as i16;
            }
        }
        program.extend(tests);
        program.push(instruction(SET, result, 0, 0, 1));
        program.push(instruction(EXIT, 0, 0, 0, 0));
    }
    program.push(instruction(SET, result, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would.
    fn allows(rules: &[&str], kind: u32, access: u32, numbers: (u32, u32)) -> bool {
        let rules: Vec<Rule> = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        let program = program(&rules);
        let context = [kind | access << 16, numbers.0, numbers.1];
        let mut registers = [0_u64; 16];
        let mut at = 0;
        loop {
            let Instruction {
                code,
                registers: both,
                offset,
                value,
            } = program[at];
            let (to, from) = (usize::from(both & 15), usize::from(both >> 4));
            at += 1;
            match code {
                0x61 => registers[to] = u64::from(context[offset as usize / 4]),
                0xbf => registers[to] = registers[from],
                0xb7 => registers[to] = value as u64,
                0x57 => registers[to] &= value as u64,
                0x77 => registers[to] >>= value,
                0x55 if registers[to] != value as u64 => at += offset as usize,
                0x5d if registers[to] != registers[from] => at += offset as usize,
                0x55 | 0x5d => {}
                0x95 => return registers[0] == 1,
                other => panic!("{other:#x}"),
            }
        }
    }

    #[test]
    fn a_rule_must_allow_all_that_is_asked() {
        let rules = ["c 1:3 rw", "b 8:* r", "a *:9 m", "c 10:200 rwm"];
        for (kind, access, numbers, expected) in [
            (CHAR, READ, (1, 3), true),
            (CHAR, READ | WRITE, (1, 3), true),
            (CHAR, READ | MKNOD, (1, 3), false),
            (BLOCK, READ, (1, 3), false),
            (CHAR, READ, (1, 4), false),
            (CHAR, READ, (2, 3), false),
            (BLOCK, READ, (8, 77), true),
            (BLOCK, WRITE, (8, 77), false),
            (BLOCK, MKNOD, (4, 9), true),
            (CHAR, MKNOD, (4, 9), true),
            (CHAR, READ, (4, 9), false),
            (CHAR, READ | WRITE | MKNOD, (10, 200), true),
        ] {
            assert_eq!(
                allows(&rules, kind, access, numbers),
                expected,
                "{kind} {access} {numbers:?}"
            );
        }
        assert!(!allows(&[], CHAR, READ, (1, 3)));
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for text in ["", "c", "c 1:3", "x 1:3 r", "c 1 r", "c 1:x r", "c 1:3 r w"] {
            assert!(text.parse::<Rule>().is_err(), "{text}");
        }
    }
}
