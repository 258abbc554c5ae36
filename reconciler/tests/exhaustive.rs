//! Every way a small world can go, and that all of them end where they should.
//!
//! `cargo test -p stead-reconciler --test exhaustive -- --nocapture` prints how much that is; `FULL=1` tries
//! an accident, a death of the agent and an edit on the same way.

use reconciler::testing::exhaustive::{Budget, search};

/// Looks at everything, and prints how much that was.
fn all(budget: Budget) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let started = std::time::Instant::now();
    match search::search(budget, threads, usize::MAX) {
        Ok(extent) => eprintln!("{budget:?}: {extent:?} in {:?}", started.elapsed()),
        Err(broken) => panic!("{budget:?}: {broken}"),
    }
}

const NOTHING: Budget = Budget {
    faults: 0,
    crashes: 0,
    edits: 0,
    edits_midway: false,
    width: 2,
};

#[test]
fn every_order_of_steps_ends_where_the_manifest_says() {
    all(NOTHING);
}

#[test]
fn every_edit_at_every_moment() {
    all(Budget {
        edits: 1,
        edits_midway: true,
        width: 1,
        ..NOTHING
    });
}

#[test]
fn every_edit_there_and_back() {
    all(Budget { edits: 2, ..NOTHING });
}

#[test]
fn every_death_of_the_agent() {
    all(Budget {
        crashes: 1,
        ..NOTHING
    });
    all(Budget {
        crashes: 1,
        edits: 1,
        width: 1,
        ..NOTHING
    });
}

#[test]
fn every_accident_before_and_after_every_edit() {
    all(Budget {
        faults: 1,
        edits: 1,
        width: 1,
        ..NOTHING
    });
}

#[test]
fn every_accident_and_every_death_of_the_agent() {
    all(Budget {
        faults: 1,
        crashes: 1,
        width: 1,
        ..NOTHING
    });
}

#[test]
fn an_accident_a_death_and_an_edit() {
    if std::env::var_os("FULL").is_some() {
        all(Budget { faults: 1, ..NOTHING });
        all(Budget {
            faults: 1,
            crashes: 1,
            edits: 1,
            width: 1,
            ..NOTHING
        });
    }
}
