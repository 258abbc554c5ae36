//! Hosts that are not as they should be: no user namespaces, file systems whose ids cannot be shifted.

use std::{fs, process::Command};

use super::{entering::wrapper, lasting, refused};
use crate::host::Host;

/// No service runs with less than is written down: it does not run, and what to do is said.
#[test]
fn a_host_without_user_namespaces_is_told_what_to_do() {
    let Some(mut host) = Host::new("forbidden") else {
        return;
    };
    // As it is where user.max_user_namespaces is 0: only for this agent and what it starts.
    let forbidden = wrapper(
        &host,
        "exec strace -D -f -qq -o /dev/null -e signal=none -e trace=unshare -e inject=unshare:error=ENOSPC",
    );
    host.start_agent_from(&forbidden);
    let image = host.busybox();
    host.write_manifest("calm", &format!("services:\n{}", lasting("box", &image, "")));
    let complaint = refused(&host, "calm", "box");
    for part in [
        "does not let stead make a user namespace",
        "user.max_user_namespaces",
        "userns_mode: host",
    ] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
    // As soon as it may, it runs.
    host.stop_agent();
    host.start_agent();
    host.running("calm", "box");
    host.finish();
}

/// A bind of a file system whose ids cannot be shifted is no bind with the ids of the host.
#[test]
fn a_file_system_that_cannot_shift_ids_is_refused_with_the_remedy() {
    let Some(mut host) = Host::new("idmap") else {
        return;
    };
    let (lower, point) = (host.directory("lower"), host.directory("merged"));
    for name in ["upper", "work"] {
        host.directory(name);
    }
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        host.root.join("upper").display(),
        host.root.join("work").display()
    );
    let mounted = Command::new("mount")
        .args(["-t", "overlay", "none", "-o", &options])
        .arg(&point)
        .status();
    assert!(mounted.expect("mount runs").success(), "an overlay");
    host.start_agent();
    let image = host.busybox();
    let sources = [
        point.display().to_string(),
        "/proc/sys".to_owned(),
        "/sys/fs".to_owned(),
    ];
    for (number, source) in sources.iter().enumerate() {
        let service = lasting("box", &image, &format!(", volumes: [\"{source}:/data\"]"));
        host.write_manifest(&format!("bind{number}"), &format!("services:\n{service}"));
    }
    for (number, source) in sources.iter().enumerate() {
        let complaint = refused(&host, &format!("bind{number}"), "box");
        for part in [
            "does not take id-mapped mounts",
            source,
            "userns_mode: host",
            "ext4",
        ] {
            assert!(complaint.contains(part), "{part}: {complaint}");
        }
    }
    for number in 0..sources.len() {
        host.remove_manifest(&format!("bind{number}"));
        host.gone(&format!("bind{number}"));
    }
    nix::mount::umount(&point).expect("the overlay goes");
    assert!(fs::read_dir(&point).expect("a directory").next().is_none());
    host.finish();
}
