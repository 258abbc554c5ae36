//! The histories on the real kernel: what is told of each is what the simulated host tells, to the letter.
//! Needs what the kernel tests need.
//!
//! Its own `main`, because a shim is this very program executed again.

#[path = "conformance/accident.rs"]
mod accident;
#[path = "conformance/linux.rs"]
mod linux;
#[path = "network/rig.rs"]
#[allow(dead_code, reason = "the network tests use the rest of it")]
mod rig;
#[path = "kernel/run.rs"]
mod run;

use std::process::ExitCode;

use reconciler::testing::conformance::{Simulated, histories, tell};

fn main() -> ExitCode {
    backend::shim::dispatch();
    let histories = histories().expect("the histories are readable");
    let tests = histories.into_iter().map(|(name, text)| {
        let test = move || {
            let text = text.clone();
            rig::on_a_host(move || both_tell_the_same(&text));
        };
        (name, test)
    });
    run::run(tests.collect())
}

fn both_tell_the_same(history: &str) {
    let simulated = tell(history, Simulated::default()).unwrap_or_else(|told| told);
    let real = tell(history, linux::Linux::new()).unwrap_or_else(|told| told);
    if simulated != real {
        println!("{}", difference(&simulated, &real));
        panic!("the hosts differ: (s) is what the simulated one tells, (r) the real one");
    }
}

/// Line by line, as a longest common subsequence has it.
fn difference(simulated: &str, real: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (simulated.lines().collect(), real.lines().collect());
    let mut longest = vec![vec![0_u32; right.len() + 1]; left.len() + 1];
    for (row, ours) in left.iter().enumerate().rev() {
        for (column, theirs) in right.iter().enumerate().rev() {
            longest[row][column] = match ours == theirs {
                true => longest[row + 1][column + 1] + 1,
                false => longest[row + 1][column].max(longest[row][column + 1]),
            };
        }
    }
    let (mut row, mut column, mut text) = (0, 0, String::new());
    while row < left.len() || column < right.len() {
        let (mark, line) = if row < left.len() && column < right.len() && left[row] == right[column] {
            (row, column) = (row + 1, column + 1);
            ("   ", left[row - 1])
        } else if column == right.len()
            || (row < left.len() && longest[row + 1][column] >= longest[row][column + 1])
        {
            row += 1;
            ("(s)", left[row - 1])
        } else {
            column += 1;
            ("(r)", right[column - 1])
        };
        text.push_str(&format!("{mark} {line}\n"));
    }
    text
}
