//! Rights, groups, processes, keys, control groups and sockets: what one container has of others and of the host.

use std::{fs, os::unix::fs::MetadataExt, os::unix::process::CommandExt, process::Command};

use super::{inside, lasting, once, said};
use crate::host::{Host, PATIENCE, probe, process};

/// SEC-12 and SEC-13: the five capability sets and the groups, for the first process and for `exec`.
#[test]
fn nothing_is_inherited_and_groups_are_exact() {
    let Some(mut host) = Host::new("rights") else {
        return;
    };
    host.start_agent();
    let image = host.probed("image", |_| ());
    // Attributes; bounding set; permitted and effective set; groups.
    let usual = "00000000a80425fb";
    let none = "0000000000000000";
    let cases = [
        ("", usual, usual, "0"),
        (
            ", cap_add: [NET_ADMIN]",
            "00000000a80435fb",
            "00000000a80435fb",
            "0",
        ),
        (", cap_drop: [ALL]", none, none, "0"),
        (", user: '1000'", usual, none, "1000"),
        (", user: '1000:1000'", usual, none, "1000"),
        (
            ", user: '1000:1000', cap_add: [SYS_TIME]",
            "00000000aa0425fb",
            none,
            "1000",
        ),
        (", user: '5:6', group_add: [app, '7']", usual, none, "6 7 1000"),
        (", init: true, user: app", usual, none, "1000"),
    ];
    let mut text = "services:\n".to_owned();
    for (number, (attributes, ..)) in cases.iter().enumerate() {
        text.push_str(&lasting(&format!("s{number}"), &image, attributes));
    }
    host.change("rights", &text);
    let read = |status: &str, name: &str| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("{name} in {status}"))
            .trim()
            .to_owned()
    };
    for (number, (attributes, bounding, held, groups)) in cases.iter().enumerate() {
        let service = format!("s{number}");
        let pid = host.running("rights", &service).pid();
        let joined = inside(&host, &format!("rights/{service}"), &["cat", "/proc/self/status"]);
        let mut statuses = vec![("exec", joined)];
        // Below `init: true` the program is the second.
        if !attributes.contains("init") {
            statuses.push((
                "first",
                fs::read_to_string(format!("/proc/{pid}/status")).expect("a status"),
            ));
        }
        for (who, status) in statuses {
            let fact = |name| read(&status, name);
            assert_eq!(fact("CapInh"), none, "{who}, {attributes}");
            assert_eq!(fact("CapAmb"), none, "{who}, {attributes}");
            assert_eq!(fact("CapBnd"), *bounding, "{who}, {attributes}");
            assert_eq!(fact("CapPrm"), *held, "{who}, {attributes}");
            assert_eq!(fact("CapEff"), *held, "{who}, {attributes}");
            if who == "exec" {
                assert_eq!(fact("Groups"), *groups, "{who}, {attributes}");
            }
        }
    }
    host.finish();
}

/// SEC-16 and SEC-17: signals, traces, handles and control groups end at the walls.
#[test]
fn what_a_container_does_to_all_it_does_to_itself() {
    let Some(mut host) = Host::new("beyond") else {
        return;
    };
    host.start_agent();
    let image = host.probed("image", |_| ());
    // With every capability, and without a filter: what is left is the namespaces.
    let every = ", cap_add: [ALL], security_opt: ['seccomp:unconfined']";
    host.write_manifest(
        "beyond",
        &format!(
            "services:\n{}{}{}",
            once("usual", &image, "", "probe beyond"),
            once("every", &image, every, "probe beyond"),
            lasting("calm", &image, ""),
        ),
    );
    let calm = host.running("beyond", "calm").identity();
    for service in ["usual", "every"] {
        let found = said(&host, "beyond", service);
        let has = |line: &str| {
            assert!(
                found.iter().any(|one| one == line),
                "{service}: {line} in {found:#?}"
            )
        };
        has("others 0");
        for line in found
            .iter()
            .filter(|line| line.starts_with("write ") || line.starts_with("handle "))
        {
            let refused = ["EROFS", "EACCES", "EPERM", "ENOENT"];
            assert!(refused.iter().any(|why| line.ends_with(why)), "{service}: {line}");
        }
        // The shell above it is the first process, which its own signals do not reach.
        assert!(
            found.iter().any(|line| line.starts_with("kill.all ")),
            "{service}: {found:#?}"
        );
    }
    assert_eq!(host.running("beyond", "calm").identity(), calm);
    assert!(!host.agent_has_ended());
    assert_eq!(
        inside(&host, "beyond/calm", &["cat", "/proc/self/cgroup"])
            .lines()
            .last(),
        Some("0::/")
    );
    // Where it may mount, it is still not root of what it mounts.
    let release = "for kind in cgroup cgroup2; do mount -t $kind none /tmp && \
                   echo /x > /tmp/release_agent && cat /tmp/release_agent; done; true";
    host.write_manifest(
        "mounts",
        &format!(
            "services:\n{}{}",
            once("usual", &image, "", release),
            once("every", &image, every, release)
        ),
    );
    for service in ["usual", "every"] {
        let found = said(&host, "mounts", service);
        assert!(!found.iter().any(|line| line == "/x"), "{service}: {found:?}");
        let refused = found.iter().filter(|line| line.contains("permission denied"));
        assert!(service == "every" || refused.count() == 2, "{found:?}");
    }
    host.finish();
}

/// SEC-18: keyrings are of no namespace.
#[test]
fn keys_of_the_host_and_of_others_are_not_found() {
    let Some(mut host) = Host::new("keys") else {
        return;
    };
    // The agent's own session has a key: a container would inherit the session.
    let wrapper = host.root.join("wrapper");
    let text = format!(
        "#!/bin/sh\nexec {} key hold stead-host-key {} \"$@\"\n",
        probe::binary().display(),
        Host::binary().display()
    );
    fs::write(&wrapper, text).expect("a script");
    fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("its mode");
    host.start_agent_from(&wrapper);
    let image = host.probed("image", |_| ());
    let open = ", security_opt: ['seccomp:unconfined']";
    let look = "probe key find stead-host-key; probe key find stead-other-key";
    host.change(
        "keys",
        &format!(
            "services:\n{}{}",
            lasting("one", &image, open),
            lasting("other", &image, ""),
        ),
    );
    // The key of one container is there for itself.
    assert_eq!(
        inside(&host, "keys/one", &["probe", "key", "add", "stead-other-key"]),
        "add_key done\n"
    );
    let own = inside(&host, "keys/one", &["probe", "key", "find", "stead-other-key"]);
    assert!(own.starts_with("search done"), "{own}");
    let own = inside(&host, "keys/one", &["probe", "key", "find", "stead-host-key"]);
    assert!(own.starts_with("search ENOKEY\nrequest EN"), "{own}");
    // With the filter there are no keys at all.
    assert_eq!(
        inside(&host, "keys/other", &["probe", "key", "add", "mine"]),
        "add_key EPERM\n"
    );
    // Another one that has no filter either.
    host.write_manifest(
        "others",
        &format!("services:\n{}", once("two", &image, open, look)),
    );
    let found = said(&host, "others", "two");
    assert_eq!(found.len(), 6, "{found:?}");
    for line in &found {
        assert!(!line.ends_with("done") && !line.ends_with("true"), "{found:?}");
    }
    let outside = Command::new(probe::binary())
        .args(["key", "find", "stead-other-key"])
        .output();
    let outside = String::from_utf8(outside.expect("the probe runs").stdout).expect("text");
    assert!(!outside.contains("done"), "the host finds it: {outside}");
    host.finish();
}

/// SEC-11: who is in the host's network could reach an abstract socket. There is none.
#[test]
fn no_abstract_socket_and_a_control_socket_for_root_alone() {
    let Some(mut host) = Host::new("abstract") else {
        return;
    };
    host.start_agent();
    let image = host.busybox();
    let look = "cat /proc/net/unix; cat /proc/self/net/unix";
    host.write_manifest(
        "calm",
        &format!(
            "services:\n{}{}",
            lasting("box", &image, ""),
            once("near", &image, ", network_mode: host", look)
        ),
    );
    let pid = host.running("calm", "box").pid();
    // Who shares the host's network sees what is there, and could reach what has a name without a path.
    let near = said(&host, "calm", "near");
    assert!(near.iter().any(|line| line.ends_with("/stead.sock")), "{near:?}");
    assert!(!near.iter().any(|line| line.contains(" @")), "{near:?}");
    // All sockets of the agent and of its supervisors are in this namespace, which is the test's own.
    let shim = process::parent(pid).expect("its supervisor");
    for who in [host.agent_pid(), shim, pid] {
        let sockets = fs::read_to_string(format!("/proc/{who}/net/unix")).expect("sockets");
        let abstracts: Vec<&str> = sockets.lines().filter(|line| line.contains(" @")).collect();
        assert_eq!(abstracts, Vec::<&str>::new());
    }
    let socket = host.root.join("run/stead.sock");
    let found = fs::metadata(&socket).expect("the control socket");
    assert_eq!((found.mode() & 0o777, found.uid(), found.gid()), (0o600, 0, 0));
    // The way to it is open here, so that it is the socket that refuses.
    let curl = |uid: u32| {
        let mut command = Command::new("curl");
        command
            .args([
                "--silent",
                "--show-error",
                "--unix-socket",
                &socket.display().to_string(),
                "http://stead/",
            ])
            .uid(uid)
            .gid(uid);
        command.output().expect("curl runs")
    };
    for directory in [host.root.clone(), host.root.join("run")] {
        let mode = fs::metadata(&directory).expect("a directory").mode();
        fs::set_permissions(
            &directory,
            std::os::unix::fs::PermissionsExt::from_mode(mode | 0o055),
        )
        .expect("its mode");
    }
    let reply = host.wait("root is answered", PATIENCE, || {
        let reply = curl(0);
        reply.status.success().then_some(reply)
    });
    assert!(reply.status.success(), "{reply:?}");
    let reply = curl(1000);
    assert_eq!(reply.status.code(), Some(7), "connection refused: {reply:?}");
    // Where somebody has opened the file to all, it is asked who is at the other end (SO_PEERCRED).
    fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("its mode");
    let reply = curl(1000);
    assert!(!reply.status.success() && reply.stdout.is_empty(), "{reply:?}");
    host.wait("it was let in by the file and refused by name", PATIENCE, || {
        let log = fs::read_to_string(host.root.join("agent.log")).ok()?;
        let mut lines = log.lines();
        lines
            .any(|line| line.contains("only root may ask") && line.contains("1000"))
            .then_some(())
    });
    assert!(curl(0).status.success());
    host.finish();
}
