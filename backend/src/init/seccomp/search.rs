//! Rules about numbers as a binary search.
//!
//! Each container has a copy of its filter, which the kernel checks, translates and compiles while that
//! container starts: the fewer instructions, the better.

use libc::sock_filter;

use super::{Rule, jump, statement};

/// Conditional jumps reach that many instructions, the plain one any distance.
const REACH: usize = u8::MAX as usize;

/// What sorted, disjoint rules say about the number in the accumulator. `other`: about one that none is for.
pub(super) fn search(rules: &[Rule], other: sock_filter) -> Vec<sock_filter> {
    let mut code = Backwards::default();
    let mut programs: Vec<(&[sock_filter], usize)> = Vec::new();
    // What most numbers lead to is next to the tree.
    let mut longest_first: Vec<&[sock_filter]> = rules.iter().map(|rule| &rule.program[..]).collect();
    longest_first.push(std::slice::from_ref(&other));
    longest_first.sort_by_key(|program| std::cmp::Reverse(program.len()));
    for program in longest_first {
        if !programs.iter().any(|(known, _)| same(known, program)) {
            programs.push((program, code.program(program)));
        }
    }
    let of = |program: &[sock_filter]| {
        let known = programs.iter().find(|(known, _)| same(known, program));
        known.expect("all of them were written").1
    };
    // From which number on which program counts.
    let mut parts = vec![(0, of(&[other]))];
    let mut part = |from: u32, program: usize| {
        parts.pop_if(|(begins, _)| *begins == from);
        if parts.last().is_none_or(|(_, before)| *before != program) {
            parts.push((from, program));
        }
    };
    for rule in rules {
        part(rule.low, of(&rule.program));
        if let Some(above) = rule.high.checked_add(1) {
            part(above, of(&[other]));
        }
    }
    let first = code.tree(&parts);
    code.lead_to(first);
    code.0.reverse();
    code.0
}

pub(super) fn same(one: &[sock_filter], other: &[sock_filter]) -> bool {
    let plain = |step: &sock_filter| (step.code, step.jt, step.jf, step.k);
    one.iter().map(plain).eq(other.iter().map(plain))
}

/// A program from its end to its beginning: jumps go forward only, so what they lead to is there already. A
/// place is the number of instructions from there to the end.
#[derive(Default)]
struct Backwards(Vec<sock_filter>);

impl Backwards {
    fn program(&mut self, program: &[sock_filter]) -> usize {
        self.0.extend(program.iter().rev());
        self.0.len()
    }

    /// Finds the part that a number is in.
    fn tree(&mut self, parts: &[(u32, usize)]) -> usize {
        if let [(_, program)] = parts {
            return *program;
        }
        let (below, above) = parts.split_at(parts.len() / 2);
        let from = above[0].0;
        let above = self.tree(above);
        let below = self.tree(below);
        // The second may push the first out of reach, by one instruction.
        let above = self.within(REACH - 1, above);
        let below = self.within(REACH, below);
        let (above, below) = (self.0.len() - above, self.0.len() - below);
        self.program(&[jump(libc::BPF_JGE, from, above as u8, below as u8)])
    }

    fn within(&mut self, reach: usize, place: usize) -> usize {
        match self.0.len() - place > reach {
            true => self.lead_to(place),
            false => place,
        }
    }

    /// A place right here that is, or leads to, the one given.
    fn lead_to(&mut self, place: usize) -> usize {
        match self.0.len() - place {
            0 => place,
            far => self.program(&[statement(libc::BPF_JMP | libc::BPF_JA, far as u32)]),
        }
    }
}

#[cfg(test)]
mod tests;
