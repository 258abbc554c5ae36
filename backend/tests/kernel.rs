//! Containers on the real kernel: needs root, user namespaces and /bin/busybox (busybox-static).
//!
//! Its own `main`, because a shim is this very program executed again. `--list` names the tests, any
//! other argument filters them; STEAD_REQUIRE_KERNEL=1 turns "skipped" into a failure.

#[path = "kernel/clients.rs"]
mod clients;
#[path = "kernel/confinement.rs"]
mod confinement;
#[path = "kernel/escape.rs"]
mod escape;
#[path = "kernel/flip.rs"]
mod flip;
#[path = "kernel/host.rs"]
mod host;
#[path = "kernel/inside.rs"]
mod inside;
#[path = "kernel/life.rs"]
mod life;
#[path = "kernel/logs.rs"]
mod logs;
#[path = "kernel/repair.rs"]
mod repair;
#[path = "network/rig.rs"]
#[allow(dead_code, reason = "the network tests use the rest of it")]
mod rig;
#[path = "kernel/volumes.rs"]
mod volumes;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

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
    all
}

fn main() -> ExitCode {
    backend::shim::dispatch();
    if std::env::args().next().is_some_and(|name| name == "confined") {
        confinement::confined();
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in tests() {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = arguments
        .iter()
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let (mut passed, mut failed, mut skipped) = (0, Vec::new(), 0);
    let missing = missing();
    for (name, test) in tests() {
        if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
            continue;
        }
        if let Some(reason) = &missing {
            println!("test {name} ... skipped: {reason}");
            skipped += 1;
            continue;
        }
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(()) => {
                println!("test {name} ... ok");
                passed += 1;
            }
            Err(_) => {
                println!("test {name} ... FAILED");
                failed.push(name);
            }
        }
    }
    let required = std::env::var_os("STEAD_REQUIRE_KERNEL").is_some_and(|value| value == "1");
    let good = failed.is_empty() && !(required && skipped > 0);
    println!(
        "\ntest result: {}. {passed} passed; {} failed; {skipped} skipped {failed:?}",
        if good { "ok" } else { "FAILED" },
        failed.len()
    );
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root; run as root".into());
    }
    if !Path::new("/bin/busybox").exists() {
        return Some("no /bin/busybox; install busybox-static".into());
    }
    if let Err(error) = backend::cgroup::root() {
        return Some(error.to_string());
    }
    let probe = std::process::Command::new("unshare")
        .args(["--user", "--net", "true"])
        .status();
    (!probe.is_ok_and(|status| status.success()))
        .then(|| "no user namespaces here; see user.max_user_namespaces".into())
}
