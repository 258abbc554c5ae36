//! Devices of vendors (CDI): what their files say is so inside, and a changed file restarts who has asked.

mod hooks;

use crate::host::{Host, PATIENCE};

/// Kinds of nodes that every machine has, under names that none has.
fn vendor(host: &Host, who: &str) -> String {
    let library = host.root.join("library");
    format!(
        "cdiVersion: 0.7.0
kind: vendor.com/accelerator
containerEdits:
  env: [VENDOR=1]
devices:
  - name: '0:1'
    containerEdits:
      env: [WHO={who}]
      additionalGids: [77]
      deviceNodes:
        - {{ path: /dev/accel/full, type: c, major: 1, minor: 7, fileMode: 0o640, uid: 5, gid: 77, permissions: rw }}
        - {{ path: /dev/accel/control, hostPath: /dev/loop-control }}
        - {{ path: /dev/accel/disk, hostPath: /dev/loop0, permissions: r }}
      mounts:
        - {{ hostPath: {}, containerPath: /opt/vendor, options: [ro, nosuid, nodev, rbind, rprivate] }}
  - name: moved
    containerEdits:
      netDevices: [{{ hostInterfaceName: ib0, name: ib0 }}]
",
        library.display()
    )
}

const GPU: &str = r#"{ "cdiVersion": "0.5.0", "kind": "nvidia.com/gpu", "devices": [
    { "name": "0", "containerEdits": { "deviceNodes": [{ "path": "/dev/nvidia0", "hostPath": "/dev/loop-control" }] } },
    { "name": "1", "containerEdits": { "deviceNodes": [{ "path": "/dev/nvidia1", "hostPath": "/dev/loop-control" }] } } ] }"#;

#[test]
fn devices_of_vendors_are_there_and_follow_their_files() {
    let Some(mut host) = Host::new("cdi") else {
        return;
    };
    std::fs::create_dir_all(host.root.join("library")).expect("a directory");
    std::fs::write(host.root.join("library/file"), "vendor\n").expect("a file");
    let cdi = host.root.join("cdi");
    std::fs::create_dir(&cdi).expect("a directory");
    std::fs::write(cdi.join("accelerator.yaml"), vendor(&host, "first")).expect("a specification");
    host.start_agent();
    let image = host.busybox();
    let service = |more: &str| {
        format!("{{ image: \"{image}\", command: [sleep, '1000000'], stop_signal: KILL{more} }}")
    };
    let file = |gpu: &str| {
        format!(
            "services:\n  one: {}\n  other: {}\n  gpu: {}\n",
            service(
                ", devices: ['vendor.com/accelerator=0:1', /dev/loop0:/dev/accel/full], environment: { WHO: me }"
            ),
            service(""),
            service(gpu),
        )
    };
    host.change("case", &file(""));
    let inside = |service: &str, command: &str| {
        let reply = host.stead(&["exec", &format!("case/{service}"), "--", "sh", "-c", command]);
        let words: Vec<&str> = reply.stdout.split_whitespace().collect();
        words.join(" ")
    };
    for (command, expected) in [
        (
            "echo $VENDOR; tr '\\0' '\\n' </proc/1/environ | grep WHO; id -G",
            "1 WHO=first 0 77",
        ),
        ("stat -c '%u:%g %a %t:%T' /dev/accel/full", "5:77 640 1:7"),
        ("echo x 2>&1 >/dev/accel/full | grep -o 'No space'", "No space"),
        ("(exec 3<>/dev/accel/control) && echo opens", "opens"),
        (
            "(exec 3>/dev/accel/disk) 2>&1 | grep -o 'not permitted'",
            "not permitted",
        ),
        (
            "cat /opt/vendor/file; touch /opt/vendor/x 2>&1 | grep -o Read-only",
            "vendor Read-only",
        ),
    ] {
        assert_eq!(inside("one", command), expected, "{command}");
    }

    // Another file of a later version: who has asked is restarted, and nobody else.
    let (one, other) = (
        host.running("case", "one"),
        host.running("case", "other").identity(),
    );
    std::fs::write(cdi.join("accelerator.yaml"), vendor(&host, "second")).expect("a specification");
    host.wait("the new file counts", PATIENCE, || {
        let now = host.instance("case", "one")?;
        (now.pid.is_some() && now.pid != one.pid).then_some(())
    });
    host.converged("case");
    let found = inside("one", "tr '\\0' '\\n' </proc/1/environ | grep WHO");
    assert_eq!(found, "WHO=second");
    assert_eq!(host.running("case", "other").identity(), other);

    // No file has a GPU: it is said where one was looked for, and what runs stays.
    host.write_manifest("case", &file(", gpus: all"));
    let said = host.wait("what is missing is told", PATIENCE, || {
        let said = host.complaint("case");
        said.contains("nvidia.com/gpu").then_some(said)
    });
    assert!(said.contains(&cdi.display().to_string()), "{said}");
    assert_eq!(host.running("case", "other").identity(), other);
    // One appears.
    std::fs::write(cdi.join("nvidia.json"), GPU).expect("a specification");
    host.wait("the device is there", PATIENCE, || {
        (inside("gpu", "ls /dev/nvidia0 /dev/nvidia1") == "/dev/nvidia0 /dev/nvidia1").then_some(())
    });
    host.converged("case");
    // What cannot be had is refused by its name.
    host.write_manifest("case", &file(", devices: ['vendor.com/accelerator=moved']"));
    host.wait("the interface is told", PATIENCE, || {
        let told = host
            .complaint("case")
            .contains("interfaces of the host (netDevices)");
        told.then_some(())
    });
    host.write_manifest("case", &file(""));
    host.converged("case");
    host.finish();
}
