//! Symbolic links of an image and names that are swapped while a container is put together.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use super::{lasting, once, quoted, rounds, said};
use crate::host::{Host, PATIENCE};

/// Puts something where /dev/null is to be.
type Maker = fn(&Path);

/// A file at the top of the host's tree that no container may ever see.
struct Marker(PathBuf);

impl Marker {
    fn new(name: &str) -> Marker {
        let path = Path::new("/").join(format!("stead-test-{name}-{}", std::process::id()));
        fs::create_dir(&path).expect("a directory at the top");
        fs::write(path.join("file"), "the host's").expect("a marker");
        Marker(path)
    }

    fn untouched(&self) {
        let names: Vec<_> = fs::read_dir(&self.0)
            .expect("the marker")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(names, ["file"], "something was made on the host");
        assert_eq!(
            fs::read_to_string(self.0.join("file")).expect("the file"),
            "the host's"
        );
    }
}

impl Drop for Marker {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is mounted on the host, without what tests have in their own directories.
fn mounted_outside(host: &Host) -> BTreeSet<String> {
    let tests = host.root.parent().expect("where tests are").display().to_string();
    let text = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let outside = |line: &&str| {
        let point = line.split(' ').nth(4).unwrap_or_default();
        !point.starts_with(&format!("{tests}/"))
    };
    text.lines().filter(outside).map(str::to_owned).collect()
}

/// SEC-03 and SEC-08: the place of a mount is swapped for a link to the top, and back, without end; the place is
/// there already, or is to be made.
#[test]
fn a_mount_lands_inside_however_its_place_is_swapped() {
    let Some(mut host) = Host::new("swap") else {
        return;
    };
    let marker = Marker::new("swap");
    let before = mounted_outside(&host);
    host.start_agent();
    let image = host.probed("image", |_| ());
    let name = marker
        .0
        .file_name()
        .expect("a name")
        .to_str()
        .expect("text")
        .to_owned();
    // Of the volume, both swap: a directory, and a link to the marker's place; by `..` and straight.
    let prepare = "mkdir -p /v/a/below /v/c; ln -s / /v/b; ln -s ../../../../../../../.. /v/d; \
                   probe exchange /v/a /v/b 0 & exec probe exchange /v/c /v/d 0";
    let prepare = quoted(prepare);
    let racer = format!(
        "  racer: {{ image: \"{image}\", command: [sh, -c, {prepare}], stop_signal: KILL, volumes: [\"vol:/v\"] }}\n"
    );
    let more = format!(
        ", volumes: [\"vol:/v\", \"mid:/v/a/below\", \"new:/v/c/{name}/deep\", \"./given:/v/c/{name}/file\"]"
    );
    fs::create_dir_all(host.root.join("manifests/given")).expect("a directory");
    host.write_manifest("race", &format!("services:\n{racer}volumes: {{ vol: {{}} }}\n"));
    host.running("race", "racer");
    host.wait("the names are swapped", PATIENCE, || {
        let volume = host.root.join("state/volumes");
        let data = fs::read_dir(volume).ok()?.flatten().next()?.path().join("data");
        (fs::symlink_metadata(data.join("a")).ok()?.is_symlink()).then_some(())
    });
    let victim = once(
        "victim",
        &image,
        &more,
        "ls -a / /v /v/a/ /v/b/ /v/c/ /v/d/; cat /v/*/file; mount",
    );
    let volumes = "volumes: { vol: {}, mid: {}, new: {} }\n";
    host.write_manifest("race", &format!("services:\n{racer}{victim}{volumes}"));
    let settled = || {
        host.wait("the victim was tried", PATIENCE, || {
            let instance = host.instance("race", "victim")?;
            (instance.state == "exited" || host.complaint("race").contains("victim"))
                .then_some(instance.state)
        })
    };
    let mut ran = 0;
    for _ in 0..rounds(15) {
        if settled() == "exited" {
            ran += 1;
        }
        marker.untouched();
        host.stead(&["restart", "--timeout", "3s", "race/victim"]);
    }
    assert!(ran > 0, "it never ran: {}", host.complaint("race"));
    let seen = host.stead_ok(&["logs", "race", "victim"]);
    assert!(!seen.contains("the host's"), "{seen}");
    assert_eq!(mounted_outside(&host), before, "the mounts of the host");
    let _ = fs::remove_dir_all(host.root.join("manifests/given"));
    host.finish();
}

/// SEC-04: files are hidden by stead's own device, whatever the image or a volume has as /dev/null.
#[test]
fn what_is_hidden_is_hidden_by_a_device_of_the_host() {
    let Some(mut host) = Host::new("null") else {
        return;
    };
    host.start_agent();
    let makers: [(&str, Maker); 3] = [
        ("link", |null| {
            symlink("/proc/sys/kernel/core_pattern", null).expect("a link")
        }),
        ("file", |null| fs::write(null, "x").expect("a file")),
        ("pipe", |null| {
            nix::unistd::mkfifo(null, nix::sys::stat::Mode::from_bits_truncate(0o666)).expect("a pipe")
        }),
    ];
    let look = "for p in interrupts kcore keys timer_list sched_debug latency_stats; do \
                [ -e /proc/$p ] && echo $p $(stat -f -c %T /proc/$p) $(stat -c '%F %t:%T' /proc/$p) \
                $(head -c 9 /proc/$p | wc -c); done; \
                (echo x > /proc/sys/kernel/core_pattern) 2>&1; cat /proc/sys/kernel/core_pattern; true";
    let mut text = "services:\n".to_owned();
    let mut names = Vec::new();
    for (name, make) in makers {
        let image = host.probed(name, |root| make(&root.join("dev/null")));
        text.push_str(&once(name, &image, "", look));
        names.push(name.to_owned());
        // As a volume over all of /dev, and swapped in it all the while.
        let directory = host.directory(&format!("dev-{name}"));
        make(&directory.join("null"));
        symlink("/etc/passwd", directory.join("other")).expect("a link");
        for number in 0..rounds(4).min(40) {
            let own = format!("{name}{number}");
            text.push_str(&once(
                &own,
                &image,
                &format!(", volumes: [\"{}:/dev\"]", directory.display()),
                look,
            ));
            names.push(own);
        }
        let swap = format!(", volumes: [\"{}:/swap\"]", directory.display());
        let command = "command: [probe, exchange, /swap/null, /swap/other, '0'], stop_signal: KILL";
        text.push_str(&format!(
            "  swap-{name}: {{ image: \"{image}\", {command}{swap} }}\n"
        ));
    }
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("the host's");
    host.write_manifest("null", &text);
    for name in names {
        let found = said(&host, "null", &name);
        let (hidden, rest) = found.split_at(
            found
                .iter()
                .position(|line| line.contains("core_pattern"))
                .expect("a refusal"),
        );
        assert!(!hidden.is_empty(), "{found:?}");
        for line in hidden {
            // On a file system that the host alone makes nodes on.
            assert!(
                line.ends_with(" tmpfs character special file 1:3 0"),
                "{name}: {line}"
            );
        }
        assert!(rest[0].contains("Read-only file system"), "{name}: {rest:?}");
        assert_eq!(rest[1], pattern.trim_end(), "{name}");
    }
    host.finish();
}

/// SEC-06: what the kernel tells and takes is not covered by files of a service, nor by a way around.
#[test]
fn nothing_is_mounted_over_proc_and_sys() {
    let Some(mut host) = Host::new("covers") else {
        return;
    };
    host.start_agent();
    let image = host.probed("image", |root| {
        symlink("/proc", root.join("way")).expect("a link");
        symlink("../sys/fs", root.join("out/way")).expect("a link");
    });
    let targets = [
        "/proc",
        "/proc/self",
        "/proc/self/attr",
        "/proc/sys/kernel",
        "/sys",
        "/sys/fs/cgroup",
        "/tmp/../proc/1",
        "/way",
        "/way/self/attr",
        "/out/way/cgroup",
    ];
    for (number, target) in targets.iter().enumerate() {
        let project = format!("cover{number}");
        let service = lasting("box", &image, &format!(", volumes: [\"vol:{target}\"]"));
        host.write_manifest(
            &project,
            &format!("services:\n{service}volumes: {{ vol: {{}} }}\n"),
        );
    }
    for (number, target) in targets.iter().enumerate() {
        let complaint = super::refused(&host, &format!("cover{number}"), "box");
        assert!(
            complaint.contains("choose another target") || complaint.contains("choose a target"),
            "{target}: {complaint}"
        );
    }
    // Swapped between a directory and the way to /proc: it lands beside it, or not at all.
    let racer = "mkdir -p /v/place/self; ln -s /proc /v/link; exec probe exchange /v/place /v/link 0";
    let racer = quoted(racer);
    let racer = format!(
        "  racer: {{ image: \"{image}\", command: [sh, -c, {racer}], stop_signal: KILL, volumes: [\"vol:/v\"] }}\n"
    );
    let victim = lasting("victim", &image, ", volumes: [\"vol:/v\", \"way:/v/place/self\"]");
    host.write_manifest(
        "race",
        &format!("services:\n{racer}volumes: {{ vol: {{}}, way: {{}} }}\n"),
    );
    host.running("race", "racer");
    host.write_manifest(
        "race",
        &format!("services:\n{racer}{victim}volumes: {{ vol: {{}}, way: {{}} }}\n"),
    );
    let (mut ran, mut tried) = (0, 0);
    // Who wins is a matter of luck: until it has run at least once.
    while tried < rounds(5) || (ran == 0 && tried < 100) {
        tried += 1;
        // A start that saw /proc in its way is refused, and is not tried again before somebody asks.
        host.stead(&["restart", "--timeout", "3s", "race/victim"]);
        let reply = host.stead(&["exec", "race/victim", "--", "cat", "/proc/self/mountinfo"]);
        if reply.code == 0 {
            ran += 1;
            let covered = |line: &str| line.contains(" /proc/self ") || line.contains(" /proc/1 ");
            assert!(!reply.stdout.lines().any(covered), "{}", reply.stdout);
        }
    }
    assert!(ran > 0, "it never ran: {}", host.complaint("race"));
    // The end is in peace: what is being tried then is not what this is about.
    host.stead_ok(&["stop", "race/racer"]);
    host.stead(&["restart", "--timeout", "3s", "race/victim"]);
    host.finish();
}
