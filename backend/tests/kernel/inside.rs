//! What a process in a container sees and has.

use std::{
    fs,
    os::unix::fs::{MetadataExt, chown, symlink},
};

use backend::shim::protocol::Request;
use reconciler::spec::{HostName, MountSpec, Rights, Rlimit, Seccomp};

use super::host::{BASE, Host, bind_mount, until, volume_mount};

pub const TESTS: [(&str, fn()); 12] = [
    ("capabilities_groups_and_filter_are_exact", confinement),
    ("devices_are_our_own_and_null_is_null", descriptors),
    ("masked_paths_are_empty_and_proc_sys_is_read_only", masked),
    ("files_of_a_volume_belong_to_root_on_disk", volume_owner),
    ("a_new_volume_is_filled_from_the_image_once", volume_fill),
    ("layers_stack_and_the_root_is_writable", layers),
    ("names_files_and_environment_are_as_asked", environment),
    (
        "capabilities_are_what_was_added_and_dropped_also_for_exec",
        capabilities,
    ),
    ("limits_and_the_score_of_the_oom_killer_are_as_asked", limits),
    (
        "a_read_only_root_is_written_nowhere_but_where_something_is_mounted",
        read_only,
    ),
    (
        "with_init_orphans_are_reaped_and_signals_and_status_are_the_programs",
        reaped,
    ),
    ("a_domain_a_size_of_shm_and_lines_of_hosts_are_there", names),
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

const STATUS: &str = "grep -E '^(CapPrm|CapBnd|Seccomp:|NoNewPrivs|Groups)' /proc/self/status | tr '\\t' ' '; unshare -m true 2>&1";

fn capabilities() {
    let host = Host::new();
    let refused = "unshare: unshare(0x20000): Operation not permitted";
    type Change = fn(&mut Rights);
    // What is set; the bounding set, no_new_privs, the mode of seccomp, the groups, the answer to a mount namespace.
    let cases: [(Change, &str, u8, u8, &str, &str); 6] = [
        (
            |rights| rights.capabilities.clear(),
            "0000000000000000",
            0,
            2,
            "0",
            refused,
        ),
        (
            |rights| rights.capabilities = [String::from("NET_ADMIN")].into(),
            "0000000000001000",
            0,
            2,
            "0",
            refused,
        ),
        (
            |rights| rights.capabilities.extend([String::from("SYS_ADMIN")]),
            "00000000a82425fb",
            0,
            2,
            "0",
            "",
        ),
        (
            |rights| rights.no_new_privileges = true,
            "00000000a80425fb",
            1,
            2,
            "0",
            refused,
        ),
        (
            |rights| rights.seccomp = Seccomp::Unconfined,
            "00000000a80425fb",
            0,
            0,
            "0",
            refused,
        ),
        (
            |rights| rights.groups = vec!["audio".into(), "7".into()],
            "00000000a80425fb",
            0,
            2,
            "0 7 29",
            refused,
        ),
    ];
    for (number, (change, set, no_new_privileges, seccomp, groups, answer)) in cases.into_iter().enumerate() {
        let mut expected = vec![
            format!("Groups: {groups}"),
            format!("CapPrm: {set}"),
            format!("CapBnd: {set}"),
            format!("NoNewPrivs: {no_new_privileges}"),
            format!("Seccomp: {seccomp}"),
        ];
        expected.extend((!answer.is_empty()).then(|| answer.to_owned()));
        let trimmed = |lines: Vec<String>| -> Vec<String> {
            lines.iter().map(|line| line.trim_end().to_owned()).collect()
        };
        let (_, lines) = host.run(STATUS, |container| change(&mut container.spec.rights));
        assert_eq!(trimmed(lines), expected, "the first process");
        let mut container = host.sandbox(&format!("other{number}"), Vec::new()).unwrap();
        container.script("sleep 60");
        change(&mut container.spec.rights);
        container.start().unwrap();
        let (_, output) = container.exec(&["sh", "-c", STATUS], "").unwrap();
        assert_eq!(
            trimmed(output.lines().map(str::to_owned).collect()),
            expected,
            "exec"
        );
    }
    let mut container = host.sandbox("job", Vec::new()).unwrap();
    container.script("true");
    container.spec.rights.groups = vec!["nobody".into()];
    let refusal = container.start().unwrap_err().to_string();
    assert!(
        refusal.contains("the group `nobody` is not in the image's /etc/group"),
        "{refusal}"
    );
}

fn limits() {
    let host = Host::new();
    let script = "ulimit -S -n; ulimit -H -n; ulimit -S -c; ulimit -H -u; cat /proc/self/oom_score_adj";
    let (_, lines) = host.run(script, |container| {
        let rights = &mut container.spec.rights;
        for (name, soft, hard) in [("nofile", 100, 200), ("core", 0, -1), ("nproc", 50, 60)] {
            rights.rlimits.insert(name.into(), Rlimit { soft, hard });
        }
        rights.oom_score_adj = Some(300);
    });
    assert_eq!(lines, ["100", "200", "0", "60", "300"]);
    // More than the supervisor has is its to give only with CAP_SYS_RESOURCE.
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile)
        .maximum
        .unwrap();
    let mut container = host.sandbox("job", Vec::new()).unwrap();
    container.script("ulimit -H -n");
    let more = i64::try_from(most).unwrap() + 1;
    let nofile = Rlimit { soft: 10, hard: more };
    container.spec.rights.rlimits.insert("nofile".into(), nofile);
    match container.start() {
        Ok(_) => {
            container.ended();
            assert_eq!(container.lines(), [more.to_string()]);
        }
        Err(error) => {
            let text = error.to_string();
            assert!(
                text.contains("the limit `nofile`") && text.contains("CAP_SYS_RESOURCE"),
                "{text}"
            );
        }
    }
}

fn read_only() {
    let host = Host::new();
    let data = host.volume("data");
    let script = "pwd; touch /own; touch /etc/own; mkdir /tmp/x; touch /data/here /dev/shm/here /scratch/here; \
                  mount -o remount,rw / 2>&1; touch /bin/own";
    let (_, lines) = host.run(script, |container| {
        let spec = &mut container.spec;
        spec.read_only = true;
        spec.working_dir = "/made/for/it".into();
        spec.mounts.push(volume_mount("data", "/data", false));
        spec.mounts.push(MountSpec::Tmpfs {
            target: "/scratch".into(),
            size: None,
            mode: None,
            uid: None,
            gid: None,
            exec: false,
        });
        // Not even who may mount.
        spec.rights.capabilities.insert("SYS_ADMIN".into());
        container.volumes.insert("data".into(), data.clone());
    });
    assert_eq!(lines[0], "/made/for/it");
    let refused = lines.iter().filter(|line| line.contains("Read-only file system"));
    assert_eq!(refused.count(), 4, "{lines:?}");
    assert!(data.join("here").exists());
}

fn names() {
    let host = Host::new();
    let script = "cat /proc/sys/kernel/domainname; cat /etc/hosts; grep ' /dev/shm ' /proc/mounts";
    let (_, lines) = host.run(script, |container| {
        container.spec.domainname = "example.org".into();
        container.spec.shm_size = 1 << 20;
        container.spec.extra_hosts = vec![HostName {
            name: "db.example.org".into(),
            address: Some([10, 0, 0, 7].into()),
        }];
    });
    assert_eq!(lines[0], "example.org");
    assert_eq!(lines[3], "10.0.0.7\tdb.example.org");
    assert!(lines[4].contains("size=1024k"), "{lines:?}");
    let mut container = host.sandbox("job", Vec::new()).unwrap();
    container.script("true");
    container.spec.extra_hosts = vec![HostName {
        name: "host".into(),
        address: None,
    }];
    let refusal = container.start().unwrap_err().to_string();
    assert!(refusal.contains("no network that leads to the host"), "{refusal}");
}

fn reaped() {
    let host = Host::new();
    let below = |script: &str| host.run(script, |container| container.spec.init = true);
    let (code, lines) = below("echo $$; cat /proc/1/cmdline; ls /proc/1/fd 2>&1; exit 7");
    assert_eq!(code, 7);
    assert!(lines[0] != "1" && lines[1].starts_with("init"), "{lines:?}");
    assert!(
        lines[1].contains("Permission denied") || lines[2].contains("Permission denied"),
        "{lines:?}"
    );
    assert_eq!(below("kill -USR1 $$").0, 138);
    for (init, zombies) in [(true, "0"), (false, "1")] {
        let mut container = host.sandbox(&format!("init-{init}"), Vec::new()).unwrap();
        // The program waits for nobody.
        container.script("(sleep 0.01 &); echo up; exec sleep 1000");
        container.spec.init = init;
        container.start().unwrap();
        container.said("up");
        until("the orphan has ended", || {
            let script = "for d in /proc/[0-9]*; do grep -E '^(State|Name)' $d/status; done 2>/dev/null > /tmp/all; \
                          grep -c 'State:.*Z' /tmp/all; grep -c 'Name:.sleep' /tmp/all";
            let (_, text) = container.exec(&["sh", "-c", script], "").ok()?;
            let expected = if init {
                format!("{zombies}\n1\n")
            } else {
                format!("{zombies}\n2\n")
            };
            (text == expected).then_some(())
        });
    }
    let mut container = host.sandbox("init-signals", Vec::new()).unwrap();
    container.script("trap 'exit 3' TERM; trap 'echo hung up' HUP; echo up; while :; do sleep 0.02; done");
    container.spec.init = true;
    container.start().unwrap();
    container.said("up");
    for signal in [1, 15] {
        container.client.order(&Request::Signal { signal }).unwrap();
        if signal == 1 {
            container.said("hung up");
        }
    }
    assert_eq!(container.ended(), 3);
    let mut container = host.sandbox("init-missing", Vec::new()).unwrap();
    container.spec.argv = vec!["no-such-program".into()];
    container.spec.init = true;
    let refusal = container.start().unwrap_err().to_string();
    assert!(refusal.contains("no-such-program"), "{refusal}");
}
