//! What somebody breaks under a running container is seen, and put right without the process noticing.

use std::{fs, os::fd::AsFd, path::PathBuf, process::Command};

use backend::{
    cgroup::{self, limits::Controllers},
    shim::{
        client::Client,
        ground::{self, Missing},
        protocol::{Request, Run},
        record,
    },
};
use reconciler::{observed::Ended, spec::Limits};

use super::host::{Container, Host, bind_mount, until, volume_mount};

pub const TESTS: [(&str, fn()); 10] = [
    ("a_shim_without_its_socket_file_is_reached_all_the_same", door),
    ("the_door_stays_through_an_upgrade", door_upgraded),
    ("how_a_container_ended_is_read_back_whole", ended),
    ("limits_hold_for_everything_and_are_put_back", limits),
    ("a_limit_that_comes_later_holds_what_runs", limited_later),
    ("a_limit_that_cannot_be_kept_is_an_error_of_the_start", unkept),
    ("a_process_moved_away_is_named_and_killed_with_the_rest", moved),
    (
        "what_is_unmounted_is_hung_again_under_the_same_process",
        remounted,
    ),
    ("what_is_hung_again_is_as_private_as_it_was", private_again),
    ("a_root_whose_directories_are_gone_is_told", grounded),
];

const FOREVER: &str = "echo up; while :; do sleep 0.05; done";

fn running(container: &mut Container) -> u32 {
    container.script(FOREVER);
    let pid = container.start().unwrap();
    container.said("up");
    pid
}

/// A command in the mount namespace of a process.
pub fn inside(pid: u32, command: &[&str]) {
    let status = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-m"])
        .args(command)
        .status()
        .unwrap();
    assert!(status.success(), "{command:?}");
}

pub fn missing(container: &mut Container) -> Missing {
    let state = container.state();
    let Run::Running { pid } = state.run else {
        panic!("{state:?}");
    };
    ground::missing(pid, &state.record.ground).unwrap()
}

fn door() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let socket = container.assignment.socket.clone();
    let pid = running(&mut container);
    fs::remove_file(&socket).unwrap();
    // Many times over: nothing piles up in the shim.
    let shim = container.client.pid;
    let open = || fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    let before = open();
    for _ in 0..200 {
        let mut again = Client::connect(&socket).unwrap();
        assert_eq!(again.pid, shim);
        let (reply, _) = again.request(&Request::State, &[]).unwrap();
        drop(reply);
    }
    until("the shim has closed what is closed", || {
        (open() <= before).then_some(())
    });
    container.client = Client::connect(&socket).unwrap();
    assert_eq!(container.state().run, Run::Running { pid });
    assert_eq!(
        container.exec(&["/bin/echo", "here"], "").unwrap(),
        (0, "here\n".into())
    );
    let subscription = Client::connect(&socket).unwrap().subscribe().unwrap();
    container.client.order(&Request::Kill).unwrap();
    assert_eq!(container.ended(), 137);
    drop(subscription);
    assert!(!socket.exists());
}

fn door_upgraded() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let socket = container.assignment.socket.clone();
    let pid = running(&mut container);
    fs::remove_file(&socket).unwrap();
    for _ in 0..3 {
        let program = fs::File::open("/proc/self/exe").unwrap();
        container.client = Client::connect(&socket).unwrap();
        container.client.upgrade(program.as_fd()).unwrap();
    }
    container.client = Client::connect(&socket).unwrap();
    assert_eq!(container.state().run, Run::Running { pid });
}

fn ended() {
    let host = Host::new();
    let mut container = host.sandbox("job", Vec::new()).unwrap();
    let directory = container.assignment.directory.clone();
    assert_eq!(record::read_exit(&directory).unwrap(), None);
    container.script("exit 7");
    container.spec.fields.insert("command".into(), "exit 7".into());
    container.start().unwrap();
    assert_eq!(container.ended(), 7);
    let found = until("the record is there", || record::read_exit(&directory).unwrap());
    assert_eq!(found.key, container.assignment.sandbox.key);
    assert_eq!(found.boot_id, "boot");
    let expected = Ended {
        container: container.spec.clone(),
        code: 7,
        restarts: 0,
        died: None,
    };
    assert_eq!(Ended::from(found), expected);
    // Damaged, or of a stead that wrote less: as if there were none.
    for text in ["", "{", r#"{"code":7,"at":1,"boot_id":"boot"}"#] {
        fs::write(directory.join(record::EXIT), text).unwrap();
        assert_eq!(record::read_exit(&directory).unwrap(), None, "{text:?}");
    }
    container.script("exit 8");
    fs::remove_file(directory.join(record::EXIT)).unwrap();
    fs::create_dir(directory.join(record::EXIT)).unwrap();
    assert!(record::read_exit(&directory).is_err(), "unreadable is not absent");
    fs::remove_dir(directory.join(record::EXIT)).unwrap();
}

/// The file of a limit, in whatever hierarchy it is.
fn file(container: &Container, names: [&str; 2]) -> PathBuf {
    Controllers::find()
        .unwrap()
        .directories(&container.assignment.cgroup)
        .iter()
        .flat_map(|directory| names.map(|name| directory.join(name)))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no {names:?}"))
}

fn limits() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let cgroup = container.assignment.cgroup.clone();
    let controllers = Controllers::find().unwrap();
    let limits = Limits {
        memory: Some(48 << 20),
        cpu: Some(500),
        pids: Some(12),
        memory_reservation: Some(24 << 20),
        cpu_shares: Some(512),
        cpuset: Some("0".into()),
        ..Limits::default()
    };
    container.spec.limits = limits.clone();
    let pid = running(&mut container);
    let none: Vec<String> = Vec::new();
    assert_eq!(controllers.drift(&cgroup, &limits, pid), none);
    let cases = [
        (["memory.max", "memory.limit_in_bytes"], "67108864", "memory"),
        (["cpu.max", "cpu.cfs_quota_us"], "25000", "cpu"),
        (["pids.max", "pids.max"], "100", "pids"),
        (
            ["memory.low", "memory.soft_limit_in_bytes"],
            "8388608",
            "reserved memory",
        ),
        (
            ["memory.swap.max", "memory.memsw.limit_in_bytes"],
            "134217728",
            "swap",
        ),
        (["cpu.weight", "cpu.shares"], "700", "weight"),
    ];
    for (names, value, what) in cases {
        let path = file(&container, names);
        let before = fs::read_to_string(&path).unwrap();
        // Whatever joins later is held by it, too.
        let procs = path.with_file_name("cgroup.procs");
        assert!(
            fs::read_to_string(procs)
                .unwrap()
                .lines()
                .any(|line| line == pid.to_string()),
            "{what}"
        );
        fs::write(&path, value).unwrap();
        let drift = controllers.drift(&cgroup, &limits, pid);
        assert_eq!(drift.len(), 1, "{what}: {drift:?}");
        assert!(drift[0].contains(value), "{drift:?}");
        controllers.apply(&cgroup, &limits).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
    }
    let (code, text) = container
        .exec(
            &[
                "/bin/sh",
                "-c",
                "for i in $(seq 30); do sleep 5 & done; echo survived",
            ],
            "",
        )
        .unwrap();
    assert!(
        code != 0 || !text.contains("survived"),
        "30 processes within 12: {code} {text}"
    );
    // Without the limit there is none, and the process is the same.
    controllers.apply(&cgroup, &Limits::default()).unwrap();
    assert_eq!(controllers.drift(&cgroup, &Limits::default(), pid), none);
    assert_eq!(container.state().run, Run::Running { pid });
    container.client.order(&Request::Kill).unwrap();
    container.ended();
    // A start gives them again, to the new process.
    let again = running(&mut container);
    assert_eq!(controllers.drift(&cgroup, &limits, again), none);
    assert_ne!(again, pid);
    // Somebody lifts a v1 limit by moving the process out of it.
    for directory in controllers.directories(&cgroup).iter().skip(1) {
        let top = directory.ancestors().nth(3).unwrap();
        cgroup::enter(top, again).unwrap();
        let drift = controllers.drift(&cgroup, &limits, again);
        assert_eq!(drift.len(), 1, "{drift:?}");
        assert!(drift[0].contains("outside the limit"), "{drift:?}");
        controllers.gather(&cgroup).unwrap();
        assert_eq!(controllers.drift(&cgroup, &limits, again), none);
    }
    drop(container);
    controllers.remove(&cgroup).unwrap();
    for directory in controllers.directories(&cgroup) {
        assert!(!directory.exists(), "{}", directory.display());
    }
}

fn limited_later() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let cgroup = container.assignment.cgroup.clone();
    let controllers = Controllers::find().unwrap();
    container.script("sleep 1000 & echo up; while :; do sleep 0.05; done");
    let pid = container.start().unwrap();
    container.said("up");
    let limits = Limits {
        pids: Some(9),
        ..Limits::default()
    };
    assert_eq!(controllers.drift(&cgroup, &limits, pid).len(), 1);
    controllers.apply(&cgroup, &limits).unwrap();
    controllers.gather(&cgroup).unwrap();
    assert!(controllers.drift(&cgroup, &limits, pid).is_empty());
    let (code, text) = container
        .exec(
            &[
                "/bin/sh",
                "-c",
                "for i in $(seq 30); do sleep 5 & done; echo survived",
            ],
            "",
        )
        .unwrap();
    assert!(
        code != 0 || !text.contains("survived"),
        "30 processes within 9: {code} {text}"
    );
    assert_eq!(container.state().run, Run::Running { pid });
    drop(container);
    controllers.remove(&cgroup).unwrap();
}

fn unkept() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("echo up");
    container.spec.limits.pids = Some(1 << 40);
    let error = container.start().unwrap_err().to_string();
    assert!(
        error.contains("processes") && error.contains("another limit"),
        "{error}"
    );
    container.spec.limits.pids = None;
    container.start().unwrap();
    assert_eq!(container.ended(), 0);
    let cgroup = container.assignment.cgroup.clone();
    drop(container);
    Controllers::find().unwrap().remove(&cgroup).unwrap();
}

fn moved() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let payload = container.assignment.cgroup.join("payload");
    container.script("sleep 1000 & echo up; while :; do sleep 0.05; done");
    let pid = container.start().unwrap();
    container.said("up");
    let children = || {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        text.split_whitespace()
            .map(|pid| pid.parse::<u32>().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(cgroup::strays(&payload, pid).unwrap(), [0_u32; 0]);
    let elsewhere = host.cgroup().join("elsewhere");
    cgroup::create(&elsewhere).unwrap();
    let child = *children().iter().min().unwrap();
    for stray in [child, pid] {
        cgroup::enter(&elsewhere, stray).unwrap();
        assert!(cgroup::strays(&payload, pid).unwrap().contains(&stray));
    }
    // A leaf that was removed has nobody in it, and what is made in its place is joined.
    until("the leaf goes", || fs::remove_dir(&payload).ok());
    assert!(cgroup::strays(&payload, pid).unwrap().contains(&pid));
    cgroup::create(&payload).unwrap();
    cgroup::enter(&payload, pid).unwrap();
    let joined = container.exec(&["/bin/echo", "joined"], "").unwrap();
    assert_eq!(joined, (0, "joined\n".into()));
    cgroup::enter(&elsewhere, pid).unwrap();
    container.client.order(&Request::Kill).unwrap();
    assert_eq!(container.ended(), 137);
    until("the one that was moved is gone, too", || {
        (!PathBuf::from(format!("/proc/{child}")).exists()).then_some(())
    });
    cgroup::remove(&elsewhere).unwrap();
}

fn remounted() {
    let host = Host::new();
    let (data, bind) = (host.volume("data"), host.path("bind"));
    fs::create_dir(&bind).unwrap();
    fs::write(bind.join("word"), "bound").unwrap();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.volumes.insert("data".into(), data.clone());
    container.spec.mounts = vec![
        volume_mount("data", "/data", false),
        bind_mount(&bind, "/bound", true),
    ];
    let pid = running(&mut container);
    fs::write(data.join("word"), "kept").unwrap();
    assert_eq!(missing(&mut container), Missing::default());
    let remount = Request::Remount {
        volumes: container.volumes.clone(),
    };
    for (round, points) in [&["/data"][..], &["/bound"], &["/data", "/bound"]]
        .iter()
        .enumerate()
    {
        for point in *points {
            inside(pid, &["umount", point]);
        }
        let found = missing(&mut container);
        let expected: Vec<PathBuf> = points.iter().map(PathBuf::from).collect();
        assert_eq!(
            (found.broken, found.mounts.len()),
            (None, expected.len()),
            "round {round}"
        );
        container.client.order(&remount).unwrap();
        assert_eq!(missing(&mut container), Missing::default(), "round {round}");
        for (path, text) in [("/data/word", "kept"), ("/bound/word", "bound")] {
            assert_eq!(
                container.exec(&["/bin/cat", path], "").unwrap(),
                (0, text.to_owned())
            );
        }
        let (code, _) = container.exec(&["/bin/touch", "/bound/other"], "").unwrap();
        assert_ne!(code, 0, "read-only as it was");
        let owner = container
            .exec(&["/bin/stat", "-c", "%u", "/data/word"], "")
            .unwrap();
        assert_eq!(owner, (0, "0\n".into()), "ids are shifted as they were");
    }
    // What stead wrote itself is written and hung in again; what somebody put there is hung in.
    let hosts = container.assignment.directory.join("hosts");
    let written = fs::read_to_string(&hosts).unwrap();
    inside(pid, &["umount", "/etc/hosts"]);
    container.client.order(&remount).unwrap();
    fs::remove_file(&hosts).unwrap();
    assert_eq!(missing(&mut container).mounts, [PathBuf::from("/etc/hosts")]);
    container.client.order(&remount).unwrap();
    assert_eq!(missing(&mut container), Missing::default());
    let seen = container.exec(&["/bin/cat", "/etc/hosts"], "").unwrap();
    assert_eq!(seen, (0, written));
    // Deleted and brought back from elsewhere: another directory of the same name.
    fs::rename(&data, host.path("backup")).unwrap();
    fs::create_dir(&data).unwrap();
    fs::remove_dir_all(host.path("backup")).unwrap();
    fs::write(data.join("word"), "restored").unwrap();
    assert_eq!(missing(&mut container).mounts, [PathBuf::from("/data")]);
    container.client.order(&remount).unwrap();
    let word = container.exec(&["/bin/cat", "/data/word"], "").unwrap();
    assert_eq!(word, (0, "restored".into()));
    // What is gone at its source is not made up.
    fs::remove_dir_all(&bind).unwrap();
    inside(pid, &["umount", "/bound"]);
    let error = container.client.order(&remount).unwrap_err().to_string();
    assert!(error.contains("bind"), "{error}");
    assert!(!bind.exists());
    assert_eq!(container.state().run, Run::Running { pid });
}

/// Neither side sees what the other mounts later, though the source of the bind shares what is mounted below it.
fn private_again() {
    let host = Host::new();
    let bind = host.path("bind");
    fs::create_dir_all(bind.join("below")).unwrap();
    let source = bind.to_str().unwrap();
    let below = format!("{source}/below");
    let mount =
        |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
    mount(&["--bind", "--make-shared", source, source]);
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.mounts = vec![bind_mount(&bind, "/bound", false)];
    let pid = running(&mut container);
    // proc_pid_mountinfo(5): what stands between the options and the dash.
    let shared_with = || {
        let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
        let line = text.lines().find(|line| line.contains(" /bound ")).unwrap();
        let (before, _) = line.split_once(" - ").unwrap();
        before.split(' ').skip(6).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(shared_with(), [""; 0]);
    inside(pid, &["umount", "/bound"]);
    let volumes = container.volumes.clone();
    container.client.order(&Request::Remount { volumes }).unwrap();
    assert_eq!(missing(&mut container), Missing::default());
    assert_eq!(shared_with(), [""; 0], "hung in again");
    mount(&["-t", "tmpfs", "outside", &below]);
    inside(pid, &["mount", "-t", "tmpfs", "inside", "/bound/below"]);
    let mounts = |pid: &str| fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    assert!(!mounts(&pid.to_string()).contains("outside /bound/below"));
    assert!(!mounts("self").contains(&format!("inside {below}")));
    for place in [below.as_str(), source] {
        assert!(Command::new("umount").arg(place).status().unwrap().success());
    }
}

fn grounded() {
    let host = Host::new();
    type Damage = fn(&Host, &Container);
    let cases: [(&str, Damage); 3] = [
        ("upper was deleted", |_, container| {
            fs::remove_dir_all(container.assignment.directory.join("upper")).unwrap();
        }),
        ("upper is another directory", |host, container| {
            let upper = container.assignment.directory.join("upper");
            fs::rename(&upper, host.path("aside")).unwrap();
            fs::create_dir(&upper).unwrap();
        }),
        ("extra was deleted", |host, _| {
            fs::remove_dir_all(host.path("extra")).unwrap();
        }),
    ];
    fs::create_dir(host.path("extra")).unwrap();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.layers.insert(0, host.path("extra"));
    for (expected, damage) in cases {
        running(&mut container);
        assert_eq!(missing(&mut container), Missing::default(), "{expected}");
        damage(&host, &container);
        let told = missing(&mut container).broken.unwrap_or_default();
        assert!(told.contains(expected), "{told:?} is not {expected:?}");
        container.client.order(&Request::Kill).unwrap();
        container.ended();
    }
}
