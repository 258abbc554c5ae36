//! One agent for one root, and only for root.

use std::{os::unix::process::CommandExt, process::Command};

use crate::host::{Host, PATIENCE, compose};

#[test]
fn a_second_agent_says_who_holds_the_root_and_ends() {
    let Some(mut host) = Host::new("second-agent") else {
        return;
    };
    host.start_agent();
    let second = host.stead(&["agent"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(
        second.stderr.contains(&host.agent_pid().to_string()),
        "{second:?}"
    );
    assert!(
        second.stderr.contains(&host.root.display().to_string()),
        "{second:?}"
    );
    host.stead_ok(&["status", "--json"]);
    host.finish();
}

#[test]
fn roots_do_not_see_each_other() {
    let (Some(mut one), Some(mut other)) = (Host::new("root-one"), Host::new("root-other")) else {
        return;
    };
    one.start_agent();
    other.start_agent();
    let text = format!("services: {{ web: {{ {} }} }}\n", compose::web(18700));
    one.write_manifest("shop", &text);
    one.converged("shop");
    assert!(other.ps().is_empty());
    assert_ne!(one.mark(), other.mark());
    other.finish();
    one.running("shop", "web");
    one.finish();
}

#[test]
fn without_an_agent_the_verbs_that_need_one_say_so() {
    let Some(host) = Host::new("no-agent") else { return };
    for arguments in [&["ps"][..], &["status"], &["down", "shop"]] {
        let reply = host.stead(arguments);
        assert_eq!(reply.code, 69, "{arguments:?}: {reply:?}");
        assert!(
            reply.stderr.contains("stead agent"),
            "the remedy is named: {reply:?}"
        );
    }
}

/// Anybody's machine: this one needs nothing of the kernel.
#[test]
fn without_root_up_says_in_one_sentence_what_to_run() {
    let directory = std::env::temp_dir().join(format!("stead-nobody-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    // The target directory may be closed to others.
    let binary = directory.join("stead");
    std::fs::copy(Host::binary(), &binary).expect("a copy");
    let mut command = Command::new(&binary);
    command
        .args(["up", "examples/hello"])
        .current_dir("/")
        .env_remove("STEAD_ROOT");
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    // A child of another test may hold the copy open for writing until its own exec.
    let output = crate::host::wait("it starts", PATIENCE, || match command.output() {
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => None,
        output => Some(output.expect("it starts")),
    });
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    std::fs::remove_dir_all(&directory).expect("it goes");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("root") && said.contains("sudo ") && said.contains(" up examples/hello"),
        "{said}"
    );
    assert_eq!(said.trim().lines().count(), 1, "one sentence: {said}");
}
