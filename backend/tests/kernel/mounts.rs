//! What a bind shares with the host, what is below it, and directories of volumes.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use backend::{
    cgroup::devices,
    shim::{client::ClientError, protocol::Reason},
};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::stat::{Mode, SFlag, makedev, mknod},
};
use reconciler::spec::{MountSpec, Propagation, Recursive, Space};

use super::host::{Container, Host, bind_mount, volume_mount};

pub const TESTS: [(&str, fn()); 6] = [
    ("what_the_host_mounts_later_comes_along_and_not_back", told),
    (
        "mounts_of_a_container_reach_the_host_without_a_user_namespace_alone",
        shared,
    ),
    (
        "what_a_container_mounts_over_shared_memory_of_the_host_stays_in_it",
        shared_memory,
    ),
    ("propagation_from_where_there_is_none_is_refused", nobody),
    ("mounts_below_a_bind_are_as_it_says", below),
    ("a_subpath_stays_in_its_volume", subpath),
];

/// A file system in memory that is gone with this.
struct Memory(PathBuf);

impl Memory {
    fn new(place: &Path, propagation: MsFlags) -> Self {
        fs::create_dir_all(place).unwrap();
        mount(
            Some("tmpfs"),
            place,
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        let none = None::<&str>;
        mount(none, place, none, propagation, none).unwrap();
        Memory(place.to_owned())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn bind(
    container: &mut Container,
    source: &Path,
    change: impl FnOnce(&mut Propagation, &mut Recursive, &mut bool),
) {
    let mut spec = bind_mount(source, "/data", false);
    if let MountSpec::Bind {
        propagation,
        recursive,
        read_only,
        ..
    } = &mut spec
    {
        change(propagation, recursive, read_only);
    }
    container.spec.mounts.push(spec);
}

fn refused(result: Result<u32, ClientError>, expected: &str) {
    match result {
        Err(ClientError::Refused { message, reason, .. }) => {
            assert_eq!(reason, Reason::Spec, "{message}");
            assert!(message.contains(expected), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

fn told() {
    let host = Host::new();
    let source = Memory::new(&host.path("source"), MsFlags::MS_SHARED);
    let later = source.0.join("later");
    fs::create_dir_all(&later).unwrap();
    fs::create_dir_all(source.0.join("own")).unwrap();
    for (propagation, sees) in [
        (Propagation::RSlave, true),
        (Propagation::Slave, true),
        (Propagation::RPrivate, false),
        (Propagation::Private, false),
    ] {
        let mut container = host.sandbox(&format!("{propagation:?}"), Vec::new()).unwrap();
        container.script(
            "mount -t tmpfs none /data/own && touch /data/own/x && echo ready; \
             until [ -e /data/go ]; do sleep 0.01; done; cat /data/later/f 2>/dev/null; \
             (exec 3</data/later/node) 2>&1 | grep -o 'not permitted'; echo end",
        );
        container.spec.rights.capabilities.insert("SYS_ADMIN".into());
        bind(&mut container, &source.0, |one, _, _| *one = propagation);
        container.start().unwrap();
        container.said("ready");
        assert!(
            !source.0.join("own/x").exists(),
            "{propagation:?}: it stays in the container"
        );
        let mounted = Memory::new(&later, MsFlags::MS_SHARED);
        fs::write(later.join("f"), "later\n").unwrap();
        // What anybody may open, on a file system that the host lets have nodes.
        mknod(
            &later.join("node"),
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o666),
            makedev(10, 237),
        )
        .unwrap();
        nix::unistd::chown(&later.join("node"), Some(0.into()), None).unwrap();
        std::process::Command::new("chmod")
            .arg("666")
            .arg(later.join("node"))
            .status()
            .unwrap();
        fs::write(source.0.join("go"), "").unwrap();
        container.ended();
        let expected: &[&str] = match sees {
            true => &["ready", "later", "not permitted", "end"],
            false => &["ready", "end"],
        };
        assert_eq!(container.lines(), expected, "{propagation:?}");
        let payload = container.assignment.cgroup.clone();
        assert_eq!(devices::is_missing(&payload, &container.spec, false), sees);
        drop(container);
        drop(mounted);
        fs::remove_file(source.0.join("go")).unwrap();
    }
}

fn shared() {
    let host = Host::new();
    let source = Memory::new(&host.path("source"), MsFlags::MS_SHARED);
    let place = source.0.join("theirs");
    fs::create_dir_all(&place).unwrap();
    let mut container = host.sandbox("job", Vec::new()).unwrap();
    container.script("true");
    bind(&mut container, &source.0, |one, _, _| *one = Propagation::RShared);
    refused(container.start(), "would appear on the host");
    drop(container);

    let mut assignment = host.assignment("open", Vec::new());
    assignment.sandbox.spaces.host_ids = true;
    assignment.sandbox.id_base = 0;
    let mut container = host.assigned(assignment).unwrap();
    container.script(
        "mount -t tmpfs none /data/theirs && echo hello >/data/theirs/f && echo ready; exec sleep 1000",
    );
    container.spec.rights.capabilities.insert("SYS_ADMIN".into());
    bind(&mut container, &source.0, |one, _, _| *one = Propagation::RShared);
    container.start().unwrap();
    container.said("ready");
    assert_eq!(fs::read_to_string(place.join("f")).unwrap(), "hello\n");
    umount2(&place, MntFlags::MNT_DETACH).unwrap();
}

fn shared_memory() {
    let host = Host::new();
    let _memory = Memory::new(Path::new("/dev/shm"), MsFlags::MS_SHARED);
    fs::write("/dev/shm/known", "").unwrap();
    let mut assignment = host.assignment("job", Vec::new());
    assignment.sandbox.spaces.ipc = Space::Host;
    assignment.sandbox.spaces.host_ids = true;
    let mut container = host.assigned(assignment).unwrap();
    container.script("ls /dev/shm; mount -t tmpfs none /dev/shm && touch /dev/shm/own && ls /dev/shm");
    container.spec.rights.capabilities.insert("SYS_ADMIN".into());
    container.start().unwrap();
    container.ended();
    assert_eq!(container.lines(), ["known", "own"]);
    assert!(!Path::new("/dev/shm/own").exists(), "it reached the host");
}

fn nobody() {
    let host = Host::new();
    let source = Memory::new(&host.path("source"), MsFlags::MS_PRIVATE);
    let mut container = host.sandbox("job", Vec::new()).unwrap();
    container.script("true");
    bind(&mut container, &source.0, |one, _, _| *one = Propagation::RSlave);
    refused(container.start(), "mount --make-shared");
}

fn below() {
    let host = Host::new();
    let source = Memory::new(&host.path("source"), MsFlags::MS_PRIVATE);
    let below = Memory::new(&source.0.join("below"), MsFlags::MS_PRIVATE);
    fs::write(below.0.join("there"), "").unwrap();
    let script = "ls /data/below; touch /data/x 2>/dev/null && echo top; touch /data/below/x 2>/dev/null && echo below; rm -f /data/below/x";
    for (recursive, read_only, expected) in [
        (Recursive::Enabled, false, &["there", "top", "below"][..]),
        (Recursive::Enabled, true, &["there"]),
        (Recursive::Readonly, true, &["there"]),
        (Recursive::Writable, true, &["there", "below"]),
        (Recursive::Disabled, true, &[]),
        // The empty directory of the file system above.
        (Recursive::Disabled, false, &["top", "below"]),
    ] {
        let (_, lines) = host.run(script, |container| {
            bind(container, &source.0, |_, one, only| {
                *one = recursive;
                *only = read_only;
            });
        });
        assert_eq!(lines, expected, "{recursive:?} {read_only}");
    }
    drop(below);
}

fn subpath() {
    let host = Host::new();
    let data = host.volume("data");
    fs::create_dir_all(data.join("a/b")).unwrap();
    fs::write(data.join("a/b/file"), "inside\n").unwrap();
    fs::create_dir_all(host.path("volumes/data/outside")).unwrap();
    symlink("a/b", data.join("near")).unwrap();
    symlink("../outside", data.join("far")).unwrap();
    symlink("/etc", data.join("root")).unwrap();
    let with = |container: &mut Container, name: &str, target: &str| {
        let mut spec = volume_mount("data", target, false);
        if let MountSpec::Volume { subpath, .. } = &mut spec {
            *subpath = Some(name.to_owned());
        }
        container.volumes.insert("data".into(), data.clone());
        container.spec.mounts.push(spec);
    };
    let script = "cat /data/file /near/file /one; ls /data/..| grep -c outside; touch /data/mine && stat -c %u /data/mine";
    let (_, lines) = host.run(script, |container| {
        with(container, "a/b", "/data");
        with(container, "near", "/near");
        with(container, "a/b/file", "/one");
    });
    assert_eq!(lines, ["inside", "inside", "inside", "0", "0"]);
    assert!(data.join("a/b/mine").exists());
    for (name, why) in [
        ("far", "leads out of the volume"),
        ("root", "leads out of the volume"),
        ("../outside", "leads out of the volume"),
        ("missing/b", "is not there; make it first"),
        ("a/b/file/x", "is not there; make it first"),
    ] {
        let mut container = host.sandbox("job", Vec::new()).unwrap();
        container.script("true");
        with(&mut container, name, "/data");
        refused(container.start(), why);
    }
    assert!(!data.join("missing").exists());
}
