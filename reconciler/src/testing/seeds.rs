//! A test for many seeds: the first that fails is printed, and can be run alone.

use std::{
    env,
    panic::{self, AssertUnwindSafe},
};

/// Runs `test` for `many` seeds, `SEEDS=n` for another number; `SEED=n` runs only that one.
pub fn each_seed(many: u64, mut test: impl FnMut(u64)) {
    if let Some(seed) = env::var("SEED").ok().and_then(|seed| seed.parse().ok()) {
        return test(seed);
    }
    let seeds = env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    for seed in 0..seeds.unwrap_or(many) {
        let caught = panic::catch_unwind(AssertUnwindSafe(|| test(seed)));
        if let Err(panic) = caught {
            eprintln!("run again with SEED={seed}");
            panic::resume_unwind(panic);
        }
    }
}
