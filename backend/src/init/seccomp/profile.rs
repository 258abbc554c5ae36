//! A profile of the manifest as classic BPF. System calls that this kernel or machine does not have are left out.

use libc::sock_filter;
use reconciler::spec::{Answer, Argument, CallCondition, CallRule, Comparison, Profile, Rights};

use super::{
    FIRST_ARGUMENT, Rule, frame, give, jump, load,
    search::{same, search},
    statement,
};
use crate::rootfs::StepError;

/// Each system call of this machine, `NAME NUMBER`.
#[cfg(target_arch = "x86_64")]
const CALLS: &str = include_str!("x86_64.calls");
#[cfg(target_arch = "aarch64")]
const CALLS: &str = include_str!("aarch64.calls");

#[cfg(target_arch = "x86_64")]
const MACHINE: &str = "amd64";
#[cfg(target_arch = "aarch64")]
const MACHINE: &str = "arm64";

/// BPF_MAXINSNS of linux/bpf_common.h.
const MOST: usize = 4096;

/// The filter of a profile for a container with these rights, on a kernel of this version.
///
/// # Errors
/// It is longer than the kernel takes.
pub fn compile(
    profile: &Profile,
    rights: &Rights,
    kernel: (u32, u32),
) -> Result<Vec<sock_filter>, StepError> {
    let default = give(value(profile.default));
    let holds = |rule: &&CallRule| counts(rule, rights, kernel);
    let counting: Vec<&CallRule> = profile.rules.iter().filter(holds).collect();
    let mut rules: Vec<Rule> = Vec::new();
    let mut calls: Vec<(u32, &str)> = CALLS
        .lines()
        .filter_map(|line| {
            let (name, number) = line.split_once(' ')?;
            Some((number.parse().ok()?, name))
        })
        .collect();
    calls.sort_unstable();
    for (number, name) in calls {
        let named = |rule: &&&CallRule| rule.names.iter().any(|one| one == name);
        let about: Vec<&CallRule> = counting.iter().filter(named).copied().collect();
        if about.is_empty() {
            continue;
        }
        let program = call(&about, default);
        match rules.last_mut() {
            Some(last) if last.high + 1 == number && same(&last.program, &program) => last.high = number,
            _ => rules.push(Rule {
                low: number,
                high: number,
                program,
            }),
        }
    }
    let mut filter = frame();
    filter.extend(search(&rules, default));
    if filter.len() > MOST {
        return Err(StepError::spec(format!(
            "the seccomp profile takes {} instructions, and the kernel takes {MOST}; write fewer rules",
            filter.len()
        )));
    }
    Ok(filter)
}

fn counts(rule: &CallRule, rights: &Rights, kernel: (u32, u32)) -> bool {
    let has = |name: &String| rights.capabilities.contains(name);
    let new = |condition: &CallCondition| condition.min_kernel.map(|least| kernel >= least);
    let here = |condition: &CallCondition| condition.architectures.iter().any(|name| name == MACHINE);
    let (includes, excludes) = (&rule.includes, &rule.excludes);
    includes.capabilities.iter().all(has)
        && (includes.architectures.is_empty() || here(includes))
        && new(includes) != Some(false)
        && !excludes.capabilities.iter().any(has)
        && !here(excludes)
        && new(excludes) != Some(true)
}

/// The rules for one call: one without arguments is about all of its calls.
fn call(rules: &[&CallRule], default: sock_filter) -> Vec<sock_filter> {
    if let Some(always) = rules.iter().find(|rule| rule.arguments.is_empty()) {
        return vec![give(value(always.answer))];
    }
    let mut program = Vec::new();
    for rule in rules {
        let twice = |argument: &Argument| {
            let same = rule.arguments.iter().filter(|one| one.index == argument.index);
            same.count() > 1
        };
        if rule.arguments.iter().any(twice) {
            for argument in &rule.arguments {
                program.extend(all_of(&[*argument], rule.answer));
            }
        } else {
            program.extend(all_of(&rule.arguments, rule.answer));
        }
    }
    program.push(default);
    program
}

/// Answers where all arguments are as asked, and goes on behind itself where not.
fn all_of(arguments: &[Argument], answer: Answer) -> Vec<sock_filter> {
    let mut program = vec![give(value(answer))];
    for argument in arguments.iter().rev() {
        let mut test = compare(*argument);
        let length = test.len();
        let rest = program.len();
        for (place, (step, yes, no)) in test.iter_mut().enumerate() {
            let offset = |goal: &Goal| match goal {
                Goal::On => 0,
                Goal::Holds => length - place - 1,
                Goal::Fails => length - place - 1 + rest,
            };
            // At most six tests of five instructions each.
            step.jt = offset(yes) as u8;
            step.jf = offset(no) as u8;
        }
        program.splice(0..0, test.into_iter().map(|(step, _, _)| step));
    }
    program
}

/// Where a test leads.
#[derive(Clone, Copy)]
enum Goal {
    On,
    Holds,
    Fails,
}

/// A comparison of 64 bits, the high half first.
fn compare(argument: Argument) -> Vec<(sock_filter, Goal, Goal)> {
    use Goal::{Fails, Holds, On};
    let place = FIRST_ARGUMENT + 8 * u32::from(argument.index);
    let (high, low) = ((argument.value >> 32) as u32, argument.value as u32);
    let plain = |step| (step, On, On);
    let test = |code, value, yes, no| (jump(code, value, 0, 0), yes, no);
    let equal = libc::BPF_JEQ;
    let (above, at_least) = (libc::BPF_JGT, libc::BPF_JGE);
    let by_order = |last, yes, no| {
        vec![
            plain(load(place + 4)),
            test(above, high, yes, On),
            test(equal, high, On, no),
            plain(load(place)),
            test(last, low, yes, no),
        ]
    };
    match argument.comparison {
        Comparison::Equal => vec![
            plain(load(place + 4)),
            test(equal, high, On, Fails),
            plain(load(place)),
            test(equal, low, On, Fails),
        ],
        Comparison::NotEqual => vec![
            plain(load(place + 4)),
            test(equal, high, On, Holds),
            plain(load(place)),
            test(equal, low, Fails, On),
        ],
        Comparison::Greater => by_order(above, Holds, Fails),
        Comparison::GreaterOrEqual => by_order(at_least, Holds, Fails),
        Comparison::Less => by_order(at_least, Fails, Holds),
        Comparison::LessOrEqual => by_order(above, Fails, Holds),
        Comparison::Masked(mask) => {
            let and = |bits| statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, bits);
            vec![
                plain(load(place + 4)),
                plain(and((mask >> 32) as u32)),
                test(equal, high, On, Fails),
                plain(load(place)),
                plain(and(mask as u32)),
                test(equal, low, On, Fails),
            ]
        }
    }
}

/// SECCOMP_RET_… of linux/seccomp.h.
fn value(answer: Answer) -> u32 {
    match answer {
        Answer::Allow => libc::SECCOMP_RET_ALLOW,
        Answer::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
        Answer::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Answer::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Answer::Trap => libc::SECCOMP_RET_TRAP,
        Answer::Log => libc::SECCOMP_RET_LOG,
    }
}

/// Major and minor version of this kernel.
pub fn kernel() -> (u32, u32) {
    let name = rustix::system::uname();
    let text = name.release().to_string_lossy();
    let mut parts = text.split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0);
    (next(), next())
}

#[cfg(test)]
mod tests;
