//! A volume is filled from the image once, wholly, before the service sees it, and never over its data.

use std::{
    fs,
    path::{Path, PathBuf},
};

use backend::shim::{client::ClientError, protocol::Reason};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use reconciler::spec::MountSpec;

use super::host::{Container, Host, volume_mount};

pub const TESTS: [(&str, fn()); 5] = [
    ("a_volume_a_service_has_changed_is_never_filled", never_again),
    ("a_fill_that_was_cut_short_is_completed", cut_short),
    ("a_fill_that_fails_is_an_error_of_the_start", no_space),
    ("a_mark_that_cannot_be_kept_is_an_error_of_the_start", no_mark),
    ("starts_that_share_a_new_volume_fill_it_once", shared),
];

const FILES: usize = 40;

fn image(host: &Host) {
    let directory = host.path("layer/srv");
    fs::create_dir_all(&directory).unwrap();
    for number in 0..FILES {
        fs::write(directory.join(format!("file{number}")), [b'x'; 30_000]).unwrap();
    }
}

fn mounted(container: &mut Container, data: &Path) {
    container.volumes.insert("data".into(), data.to_owned());
    container.spec.mounts.push(volume_mount("data", "/srv", false));
}

fn mark(data: &Path) -> PathBuf {
    data.with_file_name("filled")
}

fn count(data: &Path) -> usize {
    fs::read_dir(data).unwrap().count()
}

fn refused(result: Result<u32, ClientError>, expected: &[&str]) {
    match result {
        Err(ClientError::Refused { message, reason, .. }) => {
            assert_eq!(reason, Reason::System, "{message}");
            assert!(expected.iter().all(|text| message.contains(text)), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

fn never_again() {
    let host = Host::new();
    image(&host);
    let data = host.volume("data");
    host.run("rm /srv/*; echo mine > /srv/file0", |container| {
        mounted(container, &data)
    });
    let mark = mark(&data);
    assert_eq!(fs::read_to_string(&mark).unwrap(), "filled\n");
    let damages: [(&str, &dyn Fn()); 4] = [
        ("whole", &|| ()),
        ("missing", &|| fs::remove_file(&mark).unwrap()),
        ("emptied", &|| fs::write(&mark, "").unwrap()),
        ("torn", &|| fs::write(&mark, "part").unwrap()),
    ];
    for (what, damage) in damages {
        damage();
        let (_, lines) = host.run("ls /srv; cat /srv/file0", |container| mounted(container, &data));
        assert!(
            lines.ends_with(&["file0".into(), "mine".into()]),
            "{what}: {lines:?}"
        );
        assert_eq!(count(&data), 1, "the mark is {what}");
    }
    // Emptied by the service: that is how it wants it.
    host.run("rm /srv/*", |container| mounted(container, &data));
    fs::write(&mark, "").unwrap();
    host.run("true", |container| mounted(container, &data));
    assert_eq!(count(&data), 0);
}

fn cut_short() {
    let host = Host::new();
    image(&host);
    let data = host.volume("data");
    fs::write(mark(&data), "partly\n").unwrap();
    fs::write(data.join("file0"), "half a fi").unwrap();
    let (_, lines) = host.run("ls /srv | wc -l; cat /srv/file0 | wc -c", |container| {
        mounted(container, &data)
    });
    assert_eq!(lines, [FILES.to_string(), "30000".into()]);
    assert_eq!(fs::read_to_string(mark(&data)).unwrap(), "filled\n");
}

fn no_space() {
    let host = Host::new();
    image(&host);
    let data = host.volume("data");
    let place = data.parent().unwrap();
    let small = |flags| mount(Some("tmpfs"), place, Some("tmpfs"), flags, Some("size=300k")).unwrap();
    small(MsFlags::empty());
    fs::create_dir(&data).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let mut container = host.sandbox("job", Vec::new()).unwrap();
        container.script("ls /srv | wc -l; echo more >> /srv/file0");
        mounted(&mut container, &data);
        for _ in 0..2 {
            refused(
                container.start(),
                &["/srv", "filled from the image", "No space left"],
            );
            assert!(container.lines().is_empty(), "the service has not run");
            assert_eq!(fs::read_to_string(mark(&data)).unwrap(), "partly\n");
        }
        mount(
            None::<&str>,
            place,
            None::<&str>,
            MsFlags::MS_REMOUNT,
            Some("size=16m"),
        )
        .unwrap();
        container.start().unwrap();
        container.ended();
        container.said(&FILES.to_string());
        container.start().unwrap();
        container.ended();
        assert_eq!(fs::metadata(data.join("file0")).unwrap().len(), 30_010);
    }));
    umount2(place, MntFlags::MNT_DETACH).unwrap();
    result.unwrap();
}

fn no_mark() {
    let host = Host::new();
    image(&host);
    let data = host.volume("data");
    let mark = mark(&data);
    fs::create_dir(&mark).unwrap();
    let mut container = host.sandbox("job", Vec::new()).unwrap();
    container.script("echo ran");
    mounted(&mut container, &data);
    refused(
        container.start(),
        &["the mark of the volume", mark.to_str().unwrap()],
    );
    assert_eq!((count(&data), container.lines().len()), (0, 0));
    fs::remove_dir(&mark).unwrap();
    container.start().unwrap();
    assert_eq!(container.ended(), 0);
    assert_eq!(count(&data), FILES);
}

fn shared() {
    let host = Host::new();
    image(&host);
    let data = host.volume("data");
    std::thread::scope(|scope| {
        for service in ["one", "two", "three"] {
            let (host, data) = (&host, &data);
            scope.spawn(move || {
                let mut container = host.sandbox(service, Vec::new()).unwrap();
                container.script(&format!(
                    "ls /srv | grep -c file; echo own > /srv/{service}; ls /twice | grep -c file"
                ));
                mounted(&mut container, data);
                // A second mount of the same volume must not wait for the first.
                container.spec.mounts.push(volume_mount("data", "/twice", true));
                if let MountSpec::Volume { nocopy, .. } = &mut container.spec.mounts[1] {
                    *nocopy = true;
                }
                container.start().unwrap();
                assert_eq!(container.ended(), 0);
                assert_eq!(
                    container.lines(),
                    [FILES.to_string(), FILES.to_string()],
                    "{service}"
                );
            });
        }
    });
    for service in ["one", "two", "three"] {
        assert_eq!(fs::read_to_string(data.join(service)).unwrap(), "own\n");
    }
}
