//! The tests under test: each mistake that can be planted is found by the simulation or in the small world.
//!
//! `cargo test --release -p stead-reconciler --features planted --test planted -- --nocapture` prints which
//! rule finds which mistake, and at which seed; `ONLY=name,name` tries these only.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use reconciler::{
    planted::{self, MISTAKES},
    testing::{
        exhaustive::{Budget, search},
        generate::Repertoire,
        simulate::{self, Options, trace::Lines},
    },
};

/// In so many lives each mistake must show.
const SEEDS: u64 = 1_000;

const REPERTOIRE: Repertoire = Repertoire {
    scale: true,
    rollout: true,
    intents: true,
};

/// The first of so many seeds that fails, and how.
fn simulated() -> Option<(u64, String)> {
    let next = AtomicU64::new(0);
    let first = AtomicU64::new(u64::MAX);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS.min(first.load(Ordering::Relaxed)) {
                        break;
                    }
                    if life(seed).is_some() {
                        first.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let seed = first.into_inner();
    life(seed.min(SEEDS)).map(|why| (seed, why))
}

/// How the life of this seed fails. A panic is found too.
fn life(seed: u64) -> Option<String> {
    let options = Options {
        repertoire: REPERTOIRE,
        lines: Lines::None,
    };
    match std::panic::catch_unwind(|| simulate::run(seed, options).failure) {
        Ok(failure) => failure,
        Err(_) => Some("panic: a rule of the simulated host".to_owned()),
    }
}

/// How the small world fails.
fn exhaustive() -> Option<String> {
    let worlds = [(1, 0, 0), (0, 1, 1), (1, 0, 1)];
    worlds.into_iter().find_map(|(faults, crashes, edits)| {
        let budget = Budget {
            faults,
            crashes,
            edits,
            edits_midway: false,
            width: 1,
        };
        search::search(budget, 2, usize::MAX)
            .err()
            .map(|broken| broken.rule)
    })
}

fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(70).collect()
}

#[test]
fn each_mistake_is_found_and_without_one_nothing_is() {
    let only = std::env::var("ONLY").ok();
    if only.is_none() {
        planted::choose(None);
        assert_eq!(simulated(), None, "without a mistake");
        assert_eq!(exhaustive(), None, "without a mistake");
    }
    let mut missed = Vec::new();
    for (name, what) in MISTAKES {
        if only
            .as_ref()
            .is_some_and(|only| !only.split(',').any(|one| one == *name))
        {
            continue;
        }
        planted::choose(Some(name));
        let life = simulated();
        // What no life shows, every way of a small world may.
        let world = match life {
            None => exhaustive(),
            Some(_) => None,
        };
        planted::choose(None);
        let found = match &life {
            Some((seed, why)) => format!("seed {seed:4}: {}", short(why)),
            None => "not in the simulation".to_owned(),
        };
        let world = world.map_or_else(|| "-".to_owned(), |rule| short(&rule));
        match (&life, world.as_str()) {
            (Some(_), _) => println!("{name:26} | {what}\n{:26} | {found}", ""),
            (None, "-") => missed.push(*name),
            (None, world) => println!("{name:26} | {what}\n{:26} | small world: {world}", ""),
        }
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

#[test]
fn every_mistake_of_the_list_is_planted_somewhere() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut text = String::new();
    let mut open = vec![source];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
    for (name, _) in MISTAKES {
        assert!(text.contains(&format!("planted!(\"{name}\")")), "{name}");
    }
    assert!(MISTAKES.len() >= 30);
}
