//! Hooks of devices: programs of the host that see the container as an OCI runtime would show it.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use nix::sys::signal::Signal;

use crate::host::{Host, PATIENCE, process, signal};

/// The program of a vendor: reads the state on its standard input, as real ones do, and then the bundle.
const PROGRAM: &str = r#"#!/bin/sh
state=$(cat)
of() { printf %s "$state" | sed -n "s/.*\"$1\":\"\{0,1\}\([^\",}]*\).*/\1/p"; }
case $1 in
note) echo "$2 $(of status) $(of pid) $(readlink /proc/self/ns/net)" >> "$3" ;;
links)
    root=$(sed 's/.*"root":{"path":"\([^"]*\)".*/\1/' "$(of bundle)/config.json")
    ln -s /opt/vendor/library "$root/out/link" || exit 1
    echo "$(of status) $(id -u) $(readlink /proc/self/ns/net)" > "$root/out/told"
    printenv > "$root/out/environment"
    cd / && ls -l /proc/self/fd | sed -n 's/.*[0-9]* -> //p' > "$root/out/descriptors"
    ;;
fail) echo "no such card" >&2; echo "look for it" >&2; exit 3 ;;
hang) sleep 1000 & wait ;;
esac
"#;

struct Vendor {
    host: Host,
    program: PathBuf,
    notes: PathBuf,
}

/// A host with the program, and a specification with `devices`: name and hooks.
fn vendor(name: &str, devices: impl FnOnce(&Vendor) -> Vec<(&'static str, String)>) -> Option<Vendor> {
    let host = Host::new(name)?;
    let (program, notes) = (host.root.join("vendor-hook"), host.root.join("notes"));
    fs::write(&program, PROGRAM).expect("a program");
    fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("its mode");
    let mut vendor = Vendor { host, program, notes };
    let devices: String = devices(&vendor)
        .into_iter()
        .map(|(name, hooks)| format!("  - {{ name: '{name}', containerEdits: {{ hooks: [{hooks}] }} }}\n"))
        .collect();
    let text = format!("cdiVersion: 0.6.0\nkind: vendor.com/card\ndevices:\n{devices}");
    fs::create_dir(vendor.host.root.join("cdi")).expect("a directory");
    fs::write(vendor.host.root.join("cdi/card.yaml"), text).expect("a specification");
    vendor.host.start_agent();
    Some(vendor)
}

impl Vendor {
    fn hook(&self, moment: &str, arguments: &str) -> String {
        format!(
            "{{ hookName: {moment}, path: {}, args: [vendor-hook, {arguments}], env: ['PATH=/usr/bin:/bin', A=1] }}",
            self.program.display()
        )
    }

    fn note(&self, moment: &str) -> String {
        self.hook(moment, &format!("note, {moment}, {}", self.notes.display()))
    }

    /// A service that has the device.
    fn service(&self, device: &str, more: &str) -> String {
        format!(
            "services:\n  one:\n    image: {}\n    command: [sleep, '1000000']\n    stop_signal: KILL\n    \
             devices: ['vendor.com/card={device}']\n{more}",
            self.host.busybox()
        )
    }

    fn inside(&self, command: &str) -> String {
        let reply = self.host.stead(&["exec", "case/one", "--", "sh", "-c", command]);
        reply.stdout.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// What the hooks of the host have noted since they were asked last, each as its words.
    fn notes(&self, count: usize) -> Vec<Vec<String>> {
        let read = || fs::read_to_string(&self.notes).unwrap_or_default();
        let text = self.host.wait("the hooks have run", PATIENCE, || {
            Some(read()).filter(|text| text.lines().count() >= count)
        });
        fs::remove_file(&self.notes).expect("the notes go");
        let words = |line: &str| line.split(' ').map(str::to_owned).collect();
        text.lines().map(words).collect()
    }
}

/// Into the image and out of it, as root of the container, and with nothing of stead in hand.
#[test]
fn a_hook_in_the_container_finds_its_root_by_the_bundle_and_writes_as_its_root() {
    let Some(vendor) = vendor("cdi-links", |vendor| {
        vec![("0", vendor.hook("createContainer", "links"))]
    }) else {
        return;
    };
    let host = &vendor.host;
    for (more, uid) in [
        ("", "0"),
        ("    userns_mode: host\n", "0"),
        ("    read_only: true\n", "0"),
    ] {
        host.change("case", &vendor.service("0", more));
        host.converged("case");
        assert_eq!(
            vendor.inside("readlink /out/link"),
            "/opt/vendor/library",
            "{more}"
        );
        assert_eq!(vendor.inside("stat -c '%u:%g' /out"), "0:0", "{more}");
        let net = fs::read_link(format!("/proc/{}/ns/net", host.running("case", "one").pid()));
        let net = net.expect("its network").display().to_string();
        assert_eq!(
            vendor.inside("cat /out/told"),
            format!("creating {uid} {net}"),
            "{more}"
        );
        // A shell adds what it wants to; nothing is the supervisor's.
        assert_eq!(
            vendor.inside("sort /out/environment | grep -v -e ^PWD -e ^OLDPWD -e ^_ -e SHLVL"),
            "A=1 PATH=/usr/bin:/bin",
            "{more}"
        );
        let descriptors = vendor.inside("cat /out/descriptors");
        let strange = descriptors
            .split(' ')
            .filter(|one| !one.starts_with("pipe:") && !one.starts_with("/proc/") && !one.starts_with("/out"))
            .filter(|one| !one.ends_with("/out/descriptors"));
        assert_eq!(strange.collect::<Vec<_>>(), [""; 0], "{more}: {descriptors}");
        // The tree of the host is left with all that was laid over it.
        let pid = host.running("case", "one").pid();
        let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("its mounts");
        let left = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let left: Vec<&str> = left.filter(|point| point.starts_with("/tmp")).collect();
        assert_eq!(left, [""; 0], "{more}");
    }
    vendor.host.finish();
}

#[test]
fn hooks_of_the_host_run_once_for_each_run_each_at_its_moment() {
    let Some(vendor) = vendor("cdi-moments", |vendor| {
        let moments = ["poststop", "poststart", "createRuntime", "prestart"];
        let notes: Vec<String> = moments.map(|moment| vendor.note(moment)).into();
        let inside = "{ hookName: startContainer, path: /bin/sh, args: [sh, -c, \
                      'read state; echo \"$state\" > /tmp/state; id -u > /tmp/id; echo $A >> /tmp/id'], env: [A=5] }";
        vec![("0", format!("{}, {inside}", notes.join(", ")))]
    }) else {
        return;
    };
    let host = &vendor.host;
    let own = fs::read_link(format!("/proc/{}/ns/net", host_of(host))).expect("the host's network");
    let own = own.display().to_string();
    let more = "    restart: always\n    user: '5:6'\n    tmpfs: ['/tmp:mode=1777']\n";
    host.write_manifest("case", &vendor.service("0", more));
    let one = host.running("case", "one");
    let pid = one.pid().to_string();
    let before = |pid: &str| {
        vec![
            vec!["prestart".into(), "creating".into(), pid.to_owned(), own.clone()],
            vec![
                "createRuntime".into(),
                "creating".into(),
                pid.to_owned(),
                own.clone(),
            ],
            vec!["poststart".into(), "running".into(), pid.to_owned(), own.clone()],
        ]
    };
    assert_eq!(vendor.notes(3), before(&pid));
    assert_eq!(vendor.inside("cat /tmp/id"), "5 5");
    assert_eq!(vendor.inside("grep -c created.*$PID /tmp/state"), "1");

    // It dies: what was before the next run has its end first, and nothing was made ahead.
    signal(one.pid(), Signal::SIGKILL);
    let notes = vendor.notes(4);
    let stopped = ["poststop", "stopped", "", &own];
    assert_eq!(notes[0], stopped);
    host.converged("case");
    let next = host.running("case", "one").pid().to_string();
    assert_ne!(next, pid);
    assert_eq!(notes[1..], before(&next));

    host.remove_manifest("case");
    host.gone("case");
    assert_eq!(vendor.notes(1), [stopped]);
    vendor.host.finish();
}

/// A process of the host's own network.
fn host_of(host: &Host) -> u32 {
    host.agent_pid()
}

#[test]
fn a_hook_that_fails_or_hangs_fails_the_start_with_its_name_and_last_words() {
    let Some(vendor) = vendor("cdi-failing", |vendor| {
        let hang = vendor
            .hook("createContainer", "hang")
            .replace(" }", ", timeout: 1 }");
        vec![
            ("failing", vendor.hook("createContainer", "fail")),
            ("hanging", hang),
            ("early", vendor.hook("createRuntime", "fail")),
            ("late", vendor.hook("poststart", "fail")),
            (
                "missing",
                "{ hookName: createContainer, path: /nowhere/hook }".to_owned(),
            ),
            (
                "inside",
                "{ hookName: startContainer, path: /bin/sh, args: [sh, -c, exit 1] }".to_owned(),
            ),
            (
                "over",
                format!(
                    "{}, {}",
                    vendor.note("createRuntime"),
                    vendor.hook("poststop", "fail")
                ),
            ),
        ]
    }) else {
        return;
    };
    let host = &vendor.host;
    let program = vendor.program.display().to_string();
    for (device, expected) in [
        (
            "failing",
            format!("the createContainer hook `{program} fail` failed with status 3: look for it"),
        ),
        (
            "hanging",
            format!("the createContainer hook `{program} hang` did not end within 1 s, and was killed"),
        ),
        (
            "early",
            format!("the createRuntime hook `{program} fail` failed with status 3: look for it"),
        ),
        (
            "late",
            format!("the poststart hook `{program} fail` failed with status 3: look for it"),
        ),
        (
            "missing",
            "the createContainer hook `/nowhere/hook` failed with status 127: it cannot be executed: No such file \
             or directory"
                .to_owned(),
        ),
        (
            "inside",
            "the startContainer hook `/bin/sh -c exit 1` failed with status 1; see the CDI file".to_owned(),
        ),
    ] {
        host.write_manifest("case", &vendor.service(device, ""));
        host.wait(&format!("{device} is told"), PATIENCE, || {
            host.complaint("case").contains(&expected).then_some(())
        });
        assert!(host.instance("case", "one").is_none_or(|one| one.state != "running"), "{device}");
        let left = process::with_argument(&program);
        assert!(left.is_empty(), "{device}: a hook is left: {left:?}");
    }
    // The end of a run is its end, whatever its hooks think of it.
    host.write_manifest("case", &vendor.service("over", ""));
    host.converged("case");
    vendor.notes(1);
    host.stead_ok(&["stop", "case/one"]);
    host.wait("its log tells of the hook", PATIENCE, || {
        let log = host.stead(&["logs", "case", "one"]).stdout;
        log.contains("the poststop hook").then_some(())
    });
    vendor.host.finish();
}
