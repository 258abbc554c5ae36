//! Lives of an agent on the simulated host, one for each seed: faults, then peace, in which everything must
//! come to rest.
//!
//! The long run, 30 million steps of the host in 5 minutes of two processors, in which every named way of
//! recovery must be gone:
//!
//! ```text
//! SEEDS=20000 STEPS=30000000 cargo test --profile dist -p stead-reconciler --test simulation -- --nocapture
//! ```
//!
//! `SEEDS=n`, `STEPS=n` (run until there were at least as many) and `SECONDS=n` bound a run, `FIRST=n` is its first seed; `SEED=n` runs one again and prints
//! what happens (`TRACE=0`: only what became of it). The seeds of `regressions.txt` are run each time; what
//! a seed does changes with the generator, so what was once broken also has a test of its own.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use reconciler::testing::{
    generate::Repertoire,
    simulate::{self, Options, Outcome, branches::Counts, trace::Lines},
};

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 300;
/// From so many seeds on, every branch must have been gone.
const ENOUGH: u64 = 2_000;
/// One in so many seeds is run twice.
const TWICE: u64 = 50;
const REGRESSIONS: &str = include_str!("regressions.txt");

const REPERTOIRE: Repertoire = Repertoire {
    scale: true,
    rollout: true,
    intents: true,
};

fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
}

fn run(seed: u64, lines: Lines) -> Outcome {
    let options = Options {
        repertoire: REPERTOIRE,
        lines,
    };
    simulate::run(seed, options)
}

/// What a person needs to find the mistake.
fn told(outcome: &Outcome) -> String {
    let again = run(outcome.seed, Lines::Last(40));
    format!(
        "seed {}: {}\nrun it again with SEED={} cargo test -p stead-reconciler --test simulation\n{}",
        outcome.seed,
        outcome.failure.as_deref().unwrap_or("no failure"),
        outcome.seed,
        again.lines.join("\n"),
    )
}

#[derive(Default)]
struct Sum {
    seeds: u64,
    steps: u64,
    rounds: u64,
    span: u64,
    branches: Counts,
    failures: Vec<Outcome>,
}

/// At least `seeds` lives and `steps` of the host, unless time is up before.
fn sweep(first: u64, seeds: u64, steps: u64, limit: Option<Duration>) -> Sum {
    let started = Instant::now();
    let next = AtomicU64::new(first);
    let stop = AtomicBool::new(false);
    let done = AtomicU64::new(0);
    let sum = Mutex::new(Sum::default());
    let tolerated = variable("FAILURES").unwrap_or(1) as usize;
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) && limit.is_none_or(|limit| started.elapsed() < limit) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first.saturating_add(seeds) && done.load(Ordering::Relaxed) >= steps {
                        break;
                    }
                    let mut outcome = run(seed, Lines::None);
                    if seed.is_multiple_of(TWICE) && run(seed, Lines::None).hash != outcome.hash {
                        outcome.failure = Some("two runs of this seed differ".to_owned());
                    }
                    done.fetch_add(outcome.steps, Ordering::Relaxed);
                    let mut sum = sum.lock().unwrap();
                    sum.seeds += 1;
                    sum.steps += outcome.steps;
                    sum.rounds += outcome.rounds;
                    sum.span += outcome.span;
                    sum.branches.add(outcome.branches);
                    if outcome.failure.is_some() {
                        sum.failures.push(outcome);
                        if sum.failures.len() >= tolerated {
                            stop.store(true, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    let sum = sum.into_inner().unwrap();
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} seeds, {} host steps in {seconds:.1} s ({:.0} a second), {} rounds, {} simulated hours, {} branches",
        sum.seeds,
        sum.steps,
        sum.steps as f64 / seconds,
        sum.rounds,
        sum.span / 3_600_000,
        sum.branches.all().filter(|(_, count)| *count > 0).count(),
    );
    if sum.seeds >= ENOUGH {
        for (name, count) in sum.branches.all() {
            println!("{count:>9}  {name}");
        }
    }
    sum
}

#[test]
fn whatever_happens_it_comes_to_rest_as_the_files_ask() {
    if let Some(seed) = variable("SEED") {
        let lines = match variable("TRACE") {
            Some(0) => Lines::None,
            _ => Lines::Print,
        };
        let outcome = run(seed, lines);
        println!(
            "{} host steps, {} rounds, hash {:016x}",
            outcome.steps, outcome.rounds, outcome.hash
        );
        assert_eq!(outcome.failure, None, "seed {seed}");
        return;
    }
    for line in REGRESSIONS.lines().filter(|line| !line.starts_with('#')) {
        let number = line
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok());
        let outcome = run(number.expect("a seed, then what it was"), Lines::None);
        assert!(outcome.failure.is_none(), "{line}\n{}", told(&outcome));
    }
    let limit = variable("SECONDS").map(Duration::from_secs);
    let seeds = variable("SEEDS").unwrap_or(if limit.is_some() { u64::MAX } else { SEEDS });
    let steps = variable("STEPS").unwrap_or(0);
    let sum = sweep(variable("FIRST").unwrap_or(0), seeds, steps, limit);
    let failures: Vec<String> = sum.failures.iter().map(told).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    if sum.seeds >= ENOUGH {
        assert_eq!(sum.branches.missing(REPERTOIRE), Vec::<&str>::new(), "never gone");
    }
}

#[test]
fn a_seed_is_the_same_life_every_time() {
    for seed in 0..5 {
        let (first, second) = (run(seed, Lines::None), run(seed, Lines::Last(10)));
        assert_eq!(
            (first.hash, first.steps),
            (second.hash, second.steps),
            "seed {seed}"
        );
    }
}
