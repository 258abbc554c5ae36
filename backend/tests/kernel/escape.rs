//! Hostile images: whatever they hold, the host is not touched.

use std::{
    fs,
    mem::MaybeUninit,
    os::{
        fd::OwnedFd,
        unix::fs::{MetadataExt, symlink},
    },
    path::Path,
};

use backend::shim::{client::ClientError, protocol::Reason};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::host::{Host, bind_mount, volume_mount};

pub const TESTS: [(&str, fn()); 5] = [
    (
        "symbolic_links_of_an_image_never_lead_to_the_host",
        symbolic_links,
    ),
    ("mount_targets_in_proc_and_sys_are_refused", kernel_targets),
    ("a_read_only_bind_is_read_only_below", read_only_bind),
    ("strange_passwd_files_do_not_hang", passwd),
    ("a_missing_bind_source_is_made_only_when_asked", bind_source),
];

/// Every name below `path`, to see that nothing was made or changed.
fn tree(path: &Path) -> Vec<String> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        all.push(format!(
            "{} {:?}",
            entry.path().display(),
            entry.metadata().unwrap().modified().unwrap()
        ));
        if entry.file_type().unwrap().is_dir() {
            all.extend(tree(&entry.path()));
        }
    }
    all.sort();
    all
}

/// Whatever is done to files, whoever does it and by whatever path: also what leaves no trace.
struct Watch(OwnedFd);

impl Watch {
    fn on(path: &Path) -> Watch {
        let watch = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).unwrap();
        let mut places = vec![path.to_owned()];
        while let Some(place) = places.pop() {
            inotify::add_watch(&watch, &place, WatchFlags::ALL_EVENTS).unwrap();
            if place.is_dir() {
                places.extend(fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()));
            }
        }
        let mut watch = Watch(watch);
        // Our own look.
        watch.seen();
        watch
    }

    fn seen(&mut self) -> Vec<String> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let events = std::iter::from_fn(|| {
            let event = reader.next().ok()?;
            Some(format!("{:?} {:?}", event.events(), event.file_name()))
        });
        events.collect()
    }
}

/// What a container stands on, whatever its image has there.
const REAL: [&str; 5] = [
    " /proc proc",
    " /sys sysfs",
    " /dev tmpfs",
    " /dev/pts devpts",
    " /dev/shm tmpfs",
];

/// Where and what each mount is.
fn mounts(lines: &[String]) -> Vec<String> {
    let mount = |line: &String| {
        let (left, right) = line.split_once(" - ")?;
        Some(format!(
            " {} {}",
            left.split(' ').nth(4)?,
            right.split(' ').next()?
        ))
    };
    lines.iter().filter_map(mount).collect()
}

/// SEC-07
fn symbolic_links() {
    let host = Host::new();
    let outside = host.path("outside");
    fs::create_dir_all(outside.join("dir")).unwrap();
    fs::write(outside.join("hosts"), "host").unwrap();
    let before = tree(&outside);
    let shadow = || {
        let found = fs::metadata("/etc/shadow").ok()?;
        Some((found.ino(), found.mtime_nsec(), found.ctime_nsec()))
    };
    let shadow_before = shadow();
    let mut watch = Watch::on(&outside);
    let mut started = 0;
    let data = host.volume("data");
    let text = outside.to_str().unwrap();
    for (name, to) in [
        ("dev", text),
        ("dev", "../../../../../../.."),
        ("proc", text),
        ("sys", text),
        ("etc", text),
        ("etc", "/"),
        ("run", text),
        ("etc/hosts", "/etc/shadow"),
        ("etc/resolv.conf", &format!("{text}/new")),
        ("etc/hostname", "/proc/sys/kernel/hostname"),
        ("dev/pts", text),
        ("dev/shm", text),
        ("dev/null", &format!("{text}/hosts")),
        ("srv", text),
        ("srv", "/proc/1/root"),
        ("srv", "/proc/self/fd"),
    ] {
        let layer = host.path("hostile");
        let _ = fs::remove_dir_all(&layer);
        fs::create_dir_all(layer.join("etc")).unwrap();
        fs::create_dir_all(layer.join("dev")).unwrap();
        if !name.contains('/') {
            let _ = fs::remove_dir(layer.join(name));
        }
        symlink(to, layer.join(name)).unwrap();
        let mut container = host.sandbox("evil", Vec::new()).unwrap();
        container.layers.insert(0, layer);
        container.volumes.insert("data".into(), data.clone());
        container.spec.mounts.push(volume_mount("data", "/srv", false));
        container.script("echo inside > /srv/inside; cat /proc/self/mountinfo");
        let said = container.lines().len();
        match container.start() {
            Ok(_) => {
                container.ended();
                started += 1;
                let mounts = mounts(&container.lines().split_off(said));
                for real in REAL {
                    assert!(
                        mounts.iter().any(|mount| mount == real),
                        "{name} -> {to}: {mounts:#?}"
                    );
                }
            }
            Err(ClientError::Refused { message, reason, .. }) => {
                assert_eq!(reason, Reason::Spec, "{name} -> {to}: {message}");
                assert!(message.contains("image"), "{name} -> {to}: {message}");
            }
            Err(other) => panic!("{other}"),
        }
        assert_eq!(watch.seen(), Vec::<String>::new(), "{name} -> {to}");
        assert_eq!(tree(&outside), before, "{name} -> {to}");
        watch.seen();
    }
    assert!(started >= 5, "{started} of them ran");
    assert_eq!(shadow(), shadow_before);
    // It is seen if there is anything to see.
    let _ = fs::read(outside.join("hosts"));
    assert!(!watch.seen().is_empty());
}

/// SEC-06
fn kernel_targets() {
    let host = Host::new();
    let data = host.volume("data");
    for target in ["/proc", "/proc/self", "/sys/fs", "/etc/../proc/sys", "/"] {
        let mut container = host.sandbox("evil", Vec::new()).unwrap();
        container.volumes.insert("data".into(), data.clone());
        container.spec.mounts.push(volume_mount("data", target, false));
        container.script("true");
        match container.start() {
            Err(ClientError::Refused {
                message,
                reason: Reason::Spec,
                ..
            }) => assert!(message.contains("choose"), "{target}: {message}"),
            other => panic!("{target}: {other:?}"),
        }
    }
}

/// SEC-14
fn read_only_bind() {
    let host = Host::new();
    let source = host.path("source");
    fs::create_dir_all(source.join("below")).unwrap();
    // Of the same file system: older kernels cannot shift the ids of a tmpfs.
    let other = host.path("other");
    fs::create_dir(&other).unwrap();
    let none = None::<&str>;
    let kinds: &[(Option<&Path>, Option<&str>, MsFlags)] = &[
        (Some(&other), none, MsFlags::MS_BIND),
        (None, Some("tmpfs"), MsFlags::empty()),
    ];
    let shifts_tmpfs = kernel() >= (6, 3);
    for (from, kind, flags) in &kinds[..if shifts_tmpfs { 2 } else { 1 }] {
        mount(*from, &source.join("below"), *kind, *flags, none).unwrap();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (_, lines) = host.run("touch /b/x; touch /b/below/x; true", |container| {
                container.spec.mounts.push(bind_mount(&source, "/b", true));
            });
            assert_eq!(lines.len(), 2, "{kind:?}");
            assert!(
                lines.iter().all(|line| line.contains("Read-only file system")),
                "{kind:?}: {lines:?}"
            );
        }));
        umount2(&source.join("below"), MntFlags::MNT_DETACH).unwrap();
        result.unwrap();
    }
}

fn kernel() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// By a process and its children that have ended: proc_pid_io(5).
fn bytes_read(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.unwrap().parse().unwrap()
}

/// SEC-08
fn passwd() {
    let host = Host::new();
    let layer = host.path("hostile");
    fs::create_dir_all(layer.join("etc")).unwrap();
    let file = layer.join("etc/passwd");
    let device = || {
        use nix::sys::stat::{Mode, SFlag, makedev, mknod};
        mknod(
            &file,
            SFlag::S_IFCHR,
            Mode::from_bits_truncate(0o644),
            makedev(1, 5),
        )
        .unwrap();
    };
    // Not every kernel has it.
    let memory = ["/proc/kcore", "/proc/kmsg"]
        .into_iter()
        .find(|path| Path::new(path).exists());
    let memory = memory.unwrap();
    let makers: [&dyn Fn(); 9] = [
        &device,
        &|| symlink("/proc/kmsg", &file).unwrap(),
        &|| symlink(memory, &file).unwrap(),
        &|| symlink("/proc/self/fd/0", &file).unwrap(),
        &|| fs::create_dir(&file).unwrap(),
        &|| nix::unistd::mkfifo(&file, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap(),
        &|| symlink("/dev/zero", &file).unwrap(),
        &|| symlink("passwd", &file).unwrap(),
        &|| fs::File::create(&file).unwrap().set_len(10 << 30).unwrap(),
    ];
    for make in makers {
        make();
        let mut container = host.sandbox("evil", Vec::new()).unwrap();
        container.layers.insert(0, layer.clone());
        container.script("true");
        let shim = container.client.pid;
        let before = bytes_read(shim);
        let begun = std::time::Instant::now();
        let answer = container.start();
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(1),
            "{:?}",
            begun.elapsed()
        );
        match answer {
            Err(ClientError::Refused {
                message,
                reason: Reason::Spec,
                ..
            }) => assert!(
                message.contains("/etc/passwd of the image cannot be read"),
                "{message}"
            ),
            other => panic!("{:?}: {other:?}", fs::read_link(&file)),
        }
        // Everything that was read for this start.
        let read = bytes_read(shim) - before;
        assert!(read < 3 << 19, "{read} bytes");
        let _ = fs::remove_file(&file).or_else(|_| fs::remove_dir(&file));
    }
}

fn bind_source() {
    let host = Host::new();
    let source = host.path("not/yet");
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("true");
    container.spec.mounts.push(bind_mount(&source, "/b", false));
    match container.start() {
        Err(ClientError::Refused {
            message,
            reason: Reason::Spec,
            ..
        }) => {
            assert!(message.contains(source.to_str().unwrap()), "{message}");
        }
        other => panic!("{other:?}"),
    }
    if let reconciler::spec::MountSpec::Bind { create_host_path, .. } = &mut container.spec.mounts[0] {
        *create_host_path = true;
    }
    container.start().unwrap();
    assert_eq!(container.ended(), 0);
    assert!(source.is_dir());
}
