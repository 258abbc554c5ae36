//! What a process in a container sees and has.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown, symlink},
};

use super::host::{BASE, Host, bind_mount, volume_mount};

pub const TESTS: [(&str, fn()); 7] = [
    ("capabilities_groups_and_filter_are_exact", confinement),
    ("devices_are_our_own_and_null_is_null", descriptors),
    ("masked_paths_are_empty_and_proc_sys_is_read_only", masked),
    ("files_of_a_volume_belong_to_root_on_disk", volume_owner),
    ("a_new_volume_is_filled_from_the_image_once", volume_fill),
    ("layers_stack_and_the_root_is_writable", layers),
    ("names_files_and_environment_are_as_asked", environment),
];

fn confinement() {
    let host = Host::new();
    let script = "grep -E '^(Cap|Seccomp:|NoNewPrivs|Groups|Uid|Gid)' /proc/self/status | tr '\\t' ' '";
    let all = "00000000a80425fb";
    let none = "0000000000000000";
    for (user, effective, uid, gid, groups) in [
        ("", all, "0", "0", "0"),
        ("www", none, "33", "34", "29 34"),
        ("1000:1001", none, "1000", "1001", "1001"),
    ] {
        let (code, lines) = host.run(script, |container| container.spec.user = user.into());
        assert_eq!(code, 0);
        let lines: Vec<_> = lines.iter().map(|line| line.trim_end().to_owned()).collect();
        assert_eq!(
            lines,
            [
                format!("Uid: {uid} {uid} {uid} {uid}"),
                format!("Gid: {gid} {gid} {gid} {gid}"),
                format!("Groups: {groups}"),
                format!("CapInh: {none}"),
                format!("CapPrm: {effective}"),
                format!("CapEff: {effective}"),
                format!("CapBnd: {all}"),
                format!("CapAmb: {none}"),
                "NoNewPrivs: 0".into(),
                "Seccomp: 2".into(),
            ],
            "user {user:?}"
        );
    }
    let (_, lines) = host.run("unshare -U true 2>&1; mount -t tmpfs x /tmp 2>&1; true", |_| {});
    assert!(
        lines.len() == 2
            && lines
                .iter()
                .all(|line| line.contains("not permitted") || line.contains("permission denied")),
        "{lines:?}"
    );
}

fn descriptors() {
    let host = Host::new();
    let (_, lines) = host.run(
        "stat -c '%t:%T' /dev/null /dev/zero /dev/tty; readlink /dev/fd; \
         readlink /proc/self/fd/0; stat -c %a /dev/shm; echo x > /dev/null && echo written; echo hi > /dev/stdout",
        |_| {},
    );
    assert_eq!(
        lines,
        [
            "1:3",
            "1:5",
            "5:0",
            "/proc/self/fd",
            "/dev/null",
            "1777",
            "written",
            "hi"
        ]
    );
}

fn masked() {
    let host = Host::new();
    let (_, lines) = host.run(
        "cat /proc/kcore /proc/keys /proc/timer_list /proc/interrupts 2>/dev/null | wc -c; ls /sys/firmware | wc -l; \
         echo 1 > /proc/sys/kernel/core_pattern; echo b > /proc/sysrq-trigger; touch /sys/x; mkdir /sys/fs/cgroup/x; true",
        |_| {},
    );
    assert_eq!(lines[..2], ["0", "0"]);
    // Not every kernel has sysrq-trigger.
    let refused =
        |line: &&String| line.contains("Read-only file system") || line.contains("nonexistent directory");
    assert_eq!(lines[2..].iter().filter(refused).count(), 4, "{lines:?}");
}

fn volume_owner() {
    let host = Host::new();
    let data = host.volume("data");
    let (code, _) = host.run(
        "touch /data/a && chown 5:6 /data/a && touch /data/b; touch /own",
        |container| {
            container.volumes.insert("data".into(), data.clone());
            container.spec.mounts.push(volume_mount("data", "/data", false));
        },
    );
    assert_eq!(code, 0);
    let owner = |path: &str| {
        let found = fs::metadata(host.path(path)).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(owner("volumes/data/data/a"), (5, 6));
    assert_eq!(owner("volumes/data/data/b"), (0, 0));
    assert_eq!(
        owner("containers/job-1a/upper/own"),
        (BASE, BASE),
        "the upper directory has the shifted ids"
    );
}

fn volume_fill() {
    let host = Host::new();
    let layer = host.path("layer");
    fs::create_dir_all(layer.join("srv/below")).unwrap();
    fs::write(layer.join("srv/below/file"), "content").unwrap();
    chown(layer.join("srv/below/file"), Some(7), Some(8)).unwrap();
    symlink("/etc/passwd", layer.join("srv/link")).unwrap();
    chown(layer.join("srv"), Some(9), Some(9)).unwrap();
    let data = host.volume("data");
    let go = |script: &str| {
        host.run(script, |container| {
            container.volumes.insert("data".into(), data.clone());
            container.spec.mounts.push(volume_mount("data", "/srv", false));
        })
    };
    let (_, lines) =
        go("cat /srv/below/file; stat -c '%u:%g' /srv /srv/below/file; readlink /srv/link; rm -r /srv/*");
    assert_eq!(lines, ["content9:9", "7:8", "/etc/passwd"]);
    let (_, lines) = go("ls /srv | wc -l");
    assert_eq!(lines.last().unwrap(), "0", "not filled again");
    // Somebody's data without our mark stays as it is.
    let foreign = host.volume("foreign");
    fs::write(foreign.join("mine"), "mine").unwrap();
    let (_, lines) = host.run("ls /srv", |container| {
        container.volumes.insert("foreign".into(), foreign.clone());
        container.spec.mounts.push(volume_mount("foreign", "/srv", true));
    });
    assert_eq!(lines.last().unwrap(), "mine");
}

fn layers() {
    let host = Host::new();
    let mut all = Vec::new();
    for number in 0..100 {
        let layer = host.path(&format!("layers/{number}"));
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join("top"), format!("{number}")).unwrap();
        fs::write(layer.join(format!("own{number}")), "").unwrap();
        all.insert(0, layer);
    }
    let (_, lines) = host.run(
        "cat /top; echo; ls / | grep -c own; echo new > /top && cat /top",
        |container| {
            all.append(&mut container.layers);
            container.layers = all;
        },
    );
    assert_eq!(lines, ["99", "100", "new"]);
}

fn environment() {
    let host = Host::new();
    fs::create_dir(host.path("bound")).unwrap();
    let script = "hostname; cat /etc/hostname /etc/resolv.conf; pwd; echo $A $HOME; stat -c %u:%g .; \
                  echo more >> /etc/hosts && echo writable; cat /proc/1/comm; id -u; umask";
    let (_, lines) = host.run(script, |container| {
        container.spec.hostname = "shop-web".into();
        container.spec.user = "www".into();
        container.spec.user = String::new();
        container.spec.working_dir = "/deep/er".into();
        container.spec.environment.insert("A".into(), "b c".into());
        container
            .spec
            .mounts
            .push(bind_mount(&host.path("bound"), "/new/place", false));
    });
    assert_eq!(
        lines,
        [
            "shop-web",
            "shop-web",
            "nameserver 127.0.0.11",
            "options ndots:0",
            "/deep/er",
            "b c /root",
            "0:0",
            "writable",
            "sh",
            "0",
            "0022"
        ]
    );
}
