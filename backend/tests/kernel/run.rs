//! Runs tests that need a `main` of their own: `--list` names them, any other argument filters them.

use std::{
    fmt::Display,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
};

/// Without what the kernel tests need, each test is told to be skipped, and STEAD_REQUIRE_KERNEL=1 turns
/// that into a failure.
pub fn run<N: Display, T: Fn()>(tests: Vec<(N, T)>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        for (name, _) in tests {
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
    for (name, test) in tests {
        let name = name.to_string();
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
