//! Searches, run by a small interpreter of classic BPF.

use super::super::tests::verdict_of;
use super::super::{ARCHITECTURE, frame, give, load};
use super::*;

fn rule(low: u32, high: u32, program: Vec<sock_filter>) -> Rule {
    Rule { low, high, program }
}

fn whole(rules: &[Rule]) -> Vec<sock_filter> {
    let mut filter = frame();
    filter.extend(search(rules, give(0)));
    filter
}

#[test]
fn each_number_finds_its_rule_whatever_lies_between() {
    // Each rule has a program of its own, of that many instructions: some are out of a jump's reach.
    for length in [1, 7, 100, 300] {
        let program = |verdict: u32| {
            let mut program = vec![load(0); length - 1];
            program.push(give(verdict));
            program
        };
        for count in [0, 1, 2, 3, 10, 63] {
            let rules: Vec<Rule> = (0..count)
                .map(|at| rule(at * 5, at * 5 + at % 4, program(at + 1)))
                .collect();
            let filter = whole(&rules);
            for number in 0..count * 5 + 10 {
                let at = rules
                    .iter()
                    .position(|rule| (rule.low..=rule.high).contains(&number));
                let verdict = verdict_of(&filter, ARCHITECTURE, number, 0);
                let expected = at.map_or(0, |at| at as u32 + 1);
                assert_eq!(verdict, expected, "{count} rules of {length}: {number}");
            }
        }
    }
}

#[test]
fn neighbours_that_say_the_same_are_one_and_the_last_number_is_a_number() {
    let rules = [
        rule(3, 5, vec![give(1)]),
        rule(6, 6, vec![give(1)]),
        rule(7, 9, vec![give(0)]),
        rule(0xffff, u32::MAX, vec![give(2)]),
    ];
    for (number, verdict) in [(2, 0), (3, 1), (6, 1), (7, 0), (9, 0), (10, 0), (0xffff, 2)] {
        assert_eq!(
            verdict_of(&whole(&rules), ARCHITECTURE, number, 0),
            verdict,
            "{number}"
        );
    }
    // Three verdicts, and three boundaries between four parts.
    assert_eq!(search(&rules, give(0)).len(), 6);
}
