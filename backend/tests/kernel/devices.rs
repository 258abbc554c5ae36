//! Devices: what is asked for can be opened as it was asked for, and nothing else, whoever left a node where.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use backend::cgroup::devices;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use reconciler::spec::DeviceSpec;

use super::host::{Host, bind_mount, spec};

pub const TESTS: [(&str, fn()); 3] = [
    ("devices_are_opened_as_they_were_asked_for", asked),
    ("a_node_in_an_image_or_a_bind_opens_nothing", left),
    ("a_device_that_is_not_there_is_named", missing),
];

fn device(source: &str, target: &str, access: &str) -> DeviceSpec {
    DeviceSpec {
        source: source.into(),
        target: target.into(),
        access: access.into(),
        like: Default::default(),
    }
}

fn asked() {
    let host = Host::new();
    // Kernel messages: a reader needs no device, and says whether the filter let it through.
    let script = "(exec 3</dev/mine && echo reads); (exec 3>/dev/mine) 2>&1 | grep -o 'not permitted'; \
                  (exec 3<>/dev/loop-control && echo both); echo x >/dev/null && head -c 1 /dev/zero | wc -c; \
                  (exec 3</dev/below/full && echo below); stat -c '%u %t:%T' /dev/mine";
    let (code, lines) = host.run(script, |container| {
        container.spec.devices = vec![
            device("/dev/loop0", "/dev/mine", "r"),
            device("/dev/loop-control", "/dev/loop-control", "rw"),
            device("/dev/full", "/dev/below/full", "rwm"),
        ];
    });
    assert_eq!(lines, ["reads", "not permitted", "both", "1", "below", "0 7:0"]);
    assert_eq!(code, 0);
    // Rules alone are a filter, too.
    let (_, lines) = host.run("(exec 3</dev/mine) 2>&1 | grep -o 'not permitted'", |container| {
        container.spec.devices = vec![device("/dev/loop0", "/dev/mine", "w")];
        container.spec.device_rules = vec!["c 1:* rwm".into()];
    });
    assert_eq!(lines, ["not permitted"]);

    let mut container = host.sandbox("other", Vec::new()).unwrap();
    container.script("sleep 1000");
    container.spec.devices = vec![device("/dev/full", "/dev/mine", "r")];
    container.start().unwrap();
    let payload = container.assignment.cgroup.join("payload");
    assert!(!devices::is_missing(&payload, &container.spec, false));
    assert!(devices::is_missing(
        &container.assignment.cgroup,
        &container.spec,
        false
    ));
    assert!(!devices::is_missing(&container.assignment.cgroup, &spec(), false));
    assert!(devices::is_missing(&container.assignment.cgroup, &spec(), true));
}

fn left() {
    let host = Host::new();
    let outside = host.path("outside");
    fs::create_dir_all(&outside).unwrap();
    let zero = |path: &Path| {
        mknod(
            path,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(1, 5),
        )
        .unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
    };
    zero(&host.path("layer/node"));
    zero(&outside.join("node"));
    let script = "for node in /node /bound/node; do cat $node 2>&1 | grep -o denied; done";
    let (_, lines) = host.run(script, |container| {
        container.spec.mounts = vec![bind_mount(&outside, "/bound", false)];
    });
    assert_eq!(lines, ["denied", "denied"]);
}

fn missing() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("true");
    for (source, expected) in [
        ("/dev/not-there", "this host has no /dev/not-there"),
        ("/etc/passwd", "/etc/passwd is no device of this host"),
    ] {
        container.spec.devices = vec![device(source, "/dev/mine", "r")];
        let error = container.start().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
