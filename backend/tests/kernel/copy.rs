//! Files into a container and out of it: complete, whose they shall be, and never beside the container.

use std::{
    fs,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use backend::copy::{self, Options, Worker};
use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::host::{Container, Host, volume_mount};

pub const TESTS: [(&str, fn()); 4] = [
    ("what_is_copied_in_and_out_again_is_the_same", round),
    (
        "a_copy_belongs_to_the_containers_root_and_brings_no_rights_out",
        owners,
    ),
    ("a_copy_never_leaves_the_container_whoever_exchanges_names", raced),
    ("archives_that_lead_out_are_refused", hostile),
];

const PLAIN: Options = Options {
    follow: false,
    archive: false,
};

fn running<'a>(host: &'a Host, script: &str) -> Container<'a> {
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.mounts = vec![
        volume_mount("data", "/data", false),
        volume_mount("fixed", "/fixed", true),
    ];
    container.volumes = [("shop_data", "data"), ("shop_fixed", "fixed")]
        .map(|(full, name)| (full.to_owned(), host.volume(name)))
        .into();
    for name in ["data", "fixed"] {
        container.volumes.insert(name.to_owned(), host.volume(name));
    }
    container.script(script);
    container.start().unwrap();
    container
}

fn round() {
    let host = Host::new();
    let mut container = running(&host, "sleep 1000");
    let from = host.path("from");
    let deep = from.join("a".repeat(200)).join("b".repeat(200));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("text"), "deep").unwrap();
    fs::write(from.join("empty"), "").unwrap();
    fs::write(from.join("run"), "#!/bin/sh\necho ran\n").unwrap();
    fs::set_permissions(from.join("run"), PermissionsExt::from_mode(0o751)).unwrap();
    fs::set_permissions(from.join("empty"), PermissionsExt::from_mode(0o400)).unwrap();
    symlink("/etc/passwd", from.join("link")).unwrap();
    let mut sparse = fs::File::create(from.join("sparse")).unwrap();
    sparse.write_all(b"begin").unwrap();
    sparse.set_len(256 << 20).unwrap();
    rustix::fs::mknodat(
        CWD,
        from.join("fifo"),
        rustix::fs::FileType::Fifo,
        0o640.into(),
        0,
    )
    .unwrap();
    let attribute = rustix::fs::setxattr(
        from.join("run"),
        "user.note",
        b"kept",
        rustix::fs::XattrFlags::empty(),
    );
    let old = rustix::fs::Timespec {
        tv_sec: 1_000_000_000,
        tv_nsec: 0,
    };
    let times = rustix::fs::Timestamps {
        last_access: old,
        last_modification: old,
    };
    rustix::fs::utimensat(CWD, &from, &times, rustix::fs::AtFlags::empty()).unwrap();

    let mut worker = Worker::start(&container.assignment.socket).unwrap();
    for place in ["/tmp/new", "/data/new", "/dev/shm/new"] {
        let warnings = copy::copy_in(&mut worker, &from, Path::new(place), PLAIN).unwrap();
        assert_eq!(warnings, [""; 0]);
        let (code, text) = container.exec(&["/bin/sh", &format!("{place}/run")], "").unwrap();
        assert_eq!((code, text.as_str()), (0, "ran\n"));
        let back = host.path("back");
        let _ = fs::remove_dir_all(&back);
        copy::copy_out(&mut worker, Path::new(place), &back, PLAIN).unwrap();
        let compared = std::process::Command::new("diff")
            .args(["-r", "--no-dereference", "--exclude=fifo"])
            .args([&from, &back])
            .output()
            .unwrap();
        assert!(compared.status.success(), "{place}: {compared:?}");
        for name in ["run", "empty", "fifo"] {
            let (a, b) = (
                from.join(name).symlink_metadata().unwrap(),
                back.join(name).symlink_metadata().unwrap(),
            );
            assert_eq!((a.mode(), a.mtime()), (b.mode(), b.mtime()), "{place}: {name}");
        }
        assert_eq!(back.metadata().unwrap().mtime(), 1_000_000_000);
        let sparse = back.join("sparse").metadata().unwrap();
        assert_eq!(sparse.len(), 256 << 20);
        assert!(sparse.blocks() * 512 < 1 << 20, "holes stay holes");
        if attribute.is_ok() && place != "/dev/shm/new" {
            let mut value = vec![0; 16];
            let count = rustix::fs::getxattr(back.join("run"), "user.note", &mut value).unwrap();
            assert_eq!(&value[..count], b"kept");
        }
    }
    // Again, over what is there; a program that reads the old file goes on with it.
    copy::copy_in(&mut worker, &from.join("run"), Path::new("/tmp/new/run"), PLAIN).unwrap();
    let error = copy::copy_in(&mut worker, &from.join("run"), Path::new("/fixed"), PLAIN).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    // A file that is a mount of its own is written into.
    copy::copy_in(&mut worker, &from.join("run"), Path::new("/etc/hosts"), PLAIN).unwrap();
    let (_, text) = container.exec(&["cat", "/etc/hosts"], "").unwrap();
    assert!(text.contains("echo ran"), "{text}");
    let out = host.path("hosts");
    copy::copy_out(&mut worker, Path::new("/etc/hosts"), &out, PLAIN).unwrap();
    assert!(fs::read_to_string(out).unwrap().contains("echo ran"));
    // What the kernel shows is not a file to be copied.
    let warnings = copy::copy_out(&mut worker, Path::new("/proc"), &host.path("proc"), PLAIN).unwrap();
    assert!(warnings[0].contains("kernel"), "{warnings:?}");
    assert!(fs::read_dir(host.path("proc")).unwrap().next().is_none());
}

fn owners() {
    let host = Host::new();
    let mut container = running(
        &host,
        "cp /bin/busybox /tmp/set; busybox chmod 6755 /tmp/set; chown 33:34 /tmp/set; echo made; sleep 1000",
    );
    container.said("made");
    let mut worker = Worker::start(&container.assignment.socket).unwrap();
    let archive = Options {
        archive: true,
        ..PLAIN
    };
    let from = host.path("from");
    fs::write(&from, "text").unwrap();
    std::os::unix::fs::chown(&from, Some(1000), Some(1001)).unwrap();
    for place in ["/tmp/f", "/data/f"] {
        let ids = |container: &mut Container| container.exec(&["stat", "-c", "%u:%g", place], "").unwrap().1;
        copy::copy_in(&mut worker, &from, Path::new(place), PLAIN).unwrap();
        assert_eq!(ids(&mut container), "0:0\n", "{place}");
        copy::copy_in(&mut worker, &from, Path::new(place), archive).unwrap();
        assert_eq!(ids(&mut container), "1000:1001\n", "{place}");
    }
    let out = host.path("out");
    for (how, owner) in [(PLAIN, (0, 0)), (archive, (33, 34))] {
        copy::copy_out(&mut worker, Path::new("/tmp/set"), &out, how).unwrap();
        let made = out.metadata().unwrap();
        assert_eq!((made.uid(), made.gid()), owner);
        assert_eq!(
            made.mode() & 0o7777,
            0o755,
            "no set-id program comes out of a container"
        );
    }
    // An id that the container does not have.
    std::os::unix::fs::chown(&from, Some(70_000), None).unwrap();
    let error = copy::copy_in(&mut worker, &from, Path::new("/tmp/g"), archive).unwrap_err();
    assert!(error.to_string().contains("without -a"), "{error}");
    assert_eq!(
        container.exec(&["ls", "-A", "/data"], "").unwrap().1,
        "f\n",
        "nothing half is left"
    );
    drop(container);
    assert!(
        worker.look(Path::new("/")).is_ok(),
        "what was pinned is not another's root"
    );
}

fn raced() {
    let host = Host::new();
    let outside = host.path("outside");
    fs::create_dir_all(outside.join("sub")).unwrap();
    fs::write(outside.join("f"), "of the host").unwrap();
    fs::write(outside.join("sub/f"), "of the host").unwrap();
    let container = running(&host, "sleep 1000");
    let data = host.volume("data");
    for (name, inner) in [("d", "sub"), ("e", "sub")] {
        fs::create_dir_all(data.join(name).join(inner)).unwrap();
        fs::write(data.join(name).join("f"), "inside").unwrap();
        fs::write(data.join(name).join("sub/f"), "inside").unwrap();
    }
    symlink(&outside, data.join("l")).unwrap();
    symlink(
        "../../../../../../../../../../..".to_owned() + outside.to_str().unwrap(),
        data.join("m"),
    )
    .unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let racer = std::thread::spawn({
        let (stop, data) = (Arc::clone(&stop), data.clone());
        move || {
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                for (a, b) in [("d", "l"), ("e", "m")] {
                    renameat_with(CWD, data.join(a), CWD, data.join(b), RenameFlags::EXCHANGE).unwrap();
                    count += 1;
                }
            }
            count
        }
    });
    let text = host.path("text");
    fs::write(&text, "copied in").unwrap();
    let tree = host.path("tree");
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("sub/new"), "copied in").unwrap();
    let back = host.path("back");
    let mut worker = Worker::start(&container.assignment.socket).unwrap();
    let mut came = [0; 2];
    for round in 0..1000 {
        let name = if round % 2 == 0 { "d" } else { "e" };
        let place = Path::new("/data").join(name);
        let _ = copy::copy_in(&mut worker, &text, &place.join("new"), PLAIN);
        let _ = copy::copy_in(&mut worker, &tree, &place.join("."), PLAIN);
        let _ = copy::copy_in(&mut worker, &tree.join("sub"), &place, PLAIN);
        for part in ["f", "sub", "sub/f", "."] {
            let _ = fs::remove_file(&back);
            let _ = fs::remove_dir_all(&back);
            let result = copy::copy_out(&mut worker, &place.join(part), &back, PLAIN);
            came[usize::from(result.is_ok())] += 1;
            for found in [back.clone(), back.join("f"), back.join("sub/f")] {
                let found = fs::read_to_string(found).unwrap_or_default();
                assert!(found != "of the host", "{part}: read outside of the container");
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    assert!(racer.join().unwrap() > 2000);
    assert!(came[0] > 20 && came[1] > 20, "both happened: {came:?}");
    let mut left: Vec<_> = fs::read_dir(&outside)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["f", "sub"], "nothing was written outside");
    assert_eq!(fs::read_dir(outside.join("sub")).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.join("f")).unwrap(), "of the host");
}

fn hostile() {
    let host = Host::new();
    let mut container = running(
        &host,
        "ln -s / /tmp/root; ln -s /data /tmp/data; echo made; sleep 1000",
    );
    container.said("made");
    let mut worker = Worker::start(&container.assignment.socket).unwrap();
    let header = |name: &str, kind: tar::EntryType, link: &str| {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_device_major(0).unwrap();
        header.set_device_minor(0).unwrap();
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    use tar::EntryType::{Char, Link, Regular, Symlink};
    for (entries, part) in [
        (vec![("../out", Regular, "")], "leads out"),
        (vec![("/abs", Regular, "")], "leads out"),
        (vec![("a/../../out", Regular, "")], "leads out"),
        (
            vec![("s", Symlink, "/etc"), ("s/new", Regular, "")],
            "symbolic link",
        ),
        (vec![("root/new", Regular, "")], "symbolic link"),
        (vec![("h", Link, "../../etc/passwd")], "leads out"),
        (vec![("h", Link, "root/etc/passwd")], "symbolic link"),
        (vec![("dev", Char, "")], ""),
    ] {
        let mut bytes = Vec::new();
        for (name, kind, link) in &entries {
            bytes.extend(header(name, *kind, link));
        }
        bytes.extend([0; 1024]);
        let archive = host.path("archive");
        fs::write(&archive, bytes).unwrap();
        let result = copy::stream_in(
            &mut worker,
            fs::File::open(&archive).unwrap().into(),
            Path::new("/tmp"),
            PLAIN,
        );
        match (result, part) {
            (Ok(warnings), "") => assert!(warnings[0].contains("device"), "{warnings:?}"),
            (Err(error), _) if !part.is_empty() => {
                assert!(error.to_string().contains(part), "{entries:?}: {error}");
            }
            (result, _) => panic!("{entries:?}: {result:?}"),
        }
    }
    let (_, names) = container.exec(&["ls", "-A", "/tmp", "/etc"], "").unwrap();
    assert!(
        !names.contains("new") && !names.contains("out") && !names.contains("dev"),
        "{names}"
    );
}
