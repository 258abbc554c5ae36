//! Every way a small world can go, and that all of them end where they should.

use reconciler::testing::exhaustive::{Budget, search};

/// Looks at everything, and prints how much that was.
fn all(budget: Budget) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let most = std::env::var("MOST").ok().and_then(|most| most.parse().ok());
    let started = std::time::Instant::now();
    match search::search(budget, threads, most.unwrap_or(usize::MAX)) {
        Ok(extent) => eprintln!("{budget:?}: {extent:?} in {:?}", started.elapsed()),
        Err(broken) => panic!("{budget:?}: {broken}"),
    }
}

const NOTHING: Budget = Budget {
    faults: 0,
    crashes: 0,
    edits: 0,
    edits_midway: true,
    width: 2,
};

#[test]
fn every_order_of_steps_ends_where_the_manifest_says() {
    all(NOTHING);
}
#[test]
fn b1() {
    all(Budget {
        edits: 1,
        width: 1,
        ..NOTHING
    });
}
#[test]
fn b2() {
    all(Budget {
        edits: 1,
        edits_midway: false,
        ..NOTHING
    });
}
#[test]
fn b3() {
    all(Budget {
        edits: 2,
        edits_midway: false,
        ..NOTHING
    });
}
#[test]
fn b4() {
    all(Budget {
        edits: 1,
        faults: 1,
        width: 1,
        edits_midway: false,
        ..NOTHING
    });
}
#[test]
fn b5() {
    all(Budget {
        crashes: 1,
        edits: 1,
        width: 1,
        edits_midway: false,
        ..NOTHING
    });
}
#[test]
fn b6() {
    all(Budget {
        crashes: 1,
        faults: 1,
        width: 1,
        ..NOTHING
    });
}
#[test]
fn b7() {
    all(Budget {
        crashes: 1,
        ..NOTHING
    });
}
