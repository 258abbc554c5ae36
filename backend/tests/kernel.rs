//! Containers on the real kernel: needs root, user namespaces and /bin/busybox (busybox-static).
//!
//! Its own `main`, because a shim is this very program executed again. `--list` names the tests, any
//! other argument filters them; STEAD_REQUIRE_KERNEL=1 turns "skipped" into a failure.

#[path = "kernel/clients.rs"]
mod clients;
#[path = "kernel/confinement.rs"]
mod confinement;
#[path = "kernel/copy.rs"]
mod copy;
#[path = "kernel/devices.rs"]
mod devices;
#[path = "kernel/escape.rs"]
mod escape;
#[path = "kernel/files.rs"]
mod files;
#[path = "kernel/flip.rs"]
mod flip;
#[path = "kernel/ground.rs"]
mod ground;
#[path = "kernel/host.rs"]
mod host;
#[path = "kernel/inside.rs"]
mod inside;
#[path = "kernel/life.rs"]
mod life;
#[path = "kernel/logs.rs"]
mod logs;
#[path = "kernel/mounts.rs"]
mod mounts;
#[path = "kernel/repair.rs"]
mod repair;
#[path = "network/rig.rs"]
#[allow(dead_code, reason = "the network tests use the rest of it")]
mod rig;
#[path = "kernel/run.rs"]
mod run;
#[path = "kernel/seed.rs"]
mod seed;
#[path = "kernel/stub.rs"]
mod stub;
#[path = "kernel/terminal.rs"]
mod terminal;
#[path = "kernel/volumes.rs"]
mod volumes;

use std::process::ExitCode;

type Test = (&'static str, fn());

fn tests() -> Vec<Test> {
    let mut all = Vec::new();
    all.extend(life::TESTS);
    all.extend(inside::TESTS);
    all.extend(escape::TESTS);
    all.extend(volumes::TESTS);
    all.extend(logs::TESTS);
    all.extend(clients::TESTS);
    all.extend(confinement::TESTS);
    all.extend(flip::TESTS);
    all.extend(repair::TESTS);
    all.extend(ground::TESTS);
    all.extend(files::TESTS);
    all.extend(devices::TESTS);
    all.extend(terminal::TESTS);
    all.extend(copy::TESTS);
    all.extend(mounts::TESTS);
    all.extend(stub::TESTS);
    all.extend(seed::TESTS);
    all
}

fn main() -> ExitCode {
    backend::shim::dispatch();
    backend::copy::dispatch();
    if std::env::args().next().is_some_and(|name| name == "confined") {
        confinement::confined();
        return ExitCode::SUCCESS;
    }
    run::run(tests())
}
