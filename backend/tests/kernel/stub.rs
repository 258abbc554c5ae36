//! The first run of a container, and the next of one that ended by itself, waits in its tree, and is sent away when it
//! would not be the same.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use backend::{
    cgroup,
    shim::protocol::{Request, Run},
};
use model::types::RestartPolicy;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reconciler::spec::{Content, FileSpec};

use super::host::{Container, Host, bind_mount, until};

pub const TESTS: [(&str, fn()); 6] = [
    (
        "the_next_run_of_what_failed_waits_and_becomes_the_program",
        becomes,
    ),
    ("a_run_that_waits_holds_nothing_of_its_supervisor", holds),
    ("a_run_that_would_be_another_is_sent_away", sent_away),
    ("nothing_waits_where_no_start_follows", nothing),
    ("a_first_run_that_was_told_of_waits_too", first),
    ("a_first_run_that_is_not_wanted_any_more_is_sent_away", unwanted),
];

/// One that fails after a line.
fn failing<'a>(host: &'a Host, change: impl FnOnce(&mut Container)) -> Container<'a> {
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("cat /data/which /run/secrets/key 2>/dev/null; exit 3");
    container.spec.restart = RestartPolicy::OnFailure(None);
    let data = host.path("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("which"), "old\n").unwrap();
    container.spec.mounts = vec![bind_mount(&data, "/data", true)];
    change(&mut container);
    container.start().unwrap();
    container.ended();
    container.fresh = false;
    container
}

fn waiting(container: &Container) -> Vec<u32> {
    cgroup::pids(&container.assignment.cgroup.join("payload")).unwrap()
}

/// Whoever makes it is in the same cgroup, for a moment.
fn stub(container: &Container) -> u32 {
    let processes = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = processes("self");
    until("the next run waits", || {
        let [pid] = waiting(container)[..] else {
            return None;
        };
        (processes(&pid.to_string())? != *own.as_ref()?).then_some(pid)
    })
}

fn secret(content: Option<&str>) -> FileSpec {
    FileSpec {
        name: "secrets.key".into(),
        target: "/run/secrets/key".into(),
        uid: 0,
        gid: 0,
        mode: 0o400,
        digest: "1".into(),
        content: content.map_or_else(Content::default, |text| Content::new(text.into())),
    }
}

fn becomes() {
    let host = Host::new();
    for init in [false, true] {
        let mut container = failing(&host, |container| {
            container.spec.init = init;
            container.spec.files = vec![secret(Some("canary\n"))];
        });
        let before = container.lines().len();
        for number in 1..4 {
            let pid = stub(&container);
            // Whoever starts it again may know the content anew, or not.
            container.spec.files = vec![secret((number == 2).then_some("canary\n"))];
            assert_eq!(container.start().unwrap(), pid);
            assert_eq!(container.ended(), 3);
            let lines = container.lines().split_off(before);
            assert_eq!(lines, ["old", "canary"].repeat(number), "init: {init}");
        }
        container.client.order(&Request::Kill).unwrap();
        assert!(
            waiting(&container).is_empty(),
            "the end of the service is its end"
        );
    }
}

fn holds() {
    let host = Host::new();
    let container = failing(&host, |_| {});
    let pid = stub(&container);
    until("it has closed what is the supervisor's", || {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
        let open: Vec<PathBuf> = open
            .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
            .collect();
        // The three of the supervisor, the three of the program, and the two ends between them.
        let errors = host.path("errors");
        let harmless = |target: &Path| {
            target == errors
                || target == Path::new("/dev/null")
                || target.to_string_lossy().starts_with("pipe:")
        };
        (open.len() == 8 && open.iter().all(|target| harmless(target))).then_some(())
    });
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let ids = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
    assert!(ids.contains(&super::host::BASE.to_string()), "{ids}");
    assert_ne!(
        fs::read_link(format!("/proc/{pid}/ns/mnt")).unwrap(),
        fs::read_link("/proc/self/ns/mnt").unwrap()
    );
}

fn sent_away() {
    type Change = fn(&Host, &mut Container, u32);
    let cases: [(&str, Change, &str); 7] = [
        (
            "another specification",
            |_, container, _| {
                container.spec.environment.insert("A".into(), "b".into());
            },
            "old",
        ),
        ("an empty tree", |_, container, _| container.fresh = true, "old"),
        (
            "another directory of the same name",
            |host, _, _| {
                fs::rename(host.path("data"), host.path("data.old")).unwrap();
                fs::create_dir(host.path("data")).unwrap();
                fs::write(host.path("data/which"), "new\n").unwrap();
            },
            "new",
        ),
        (
            "the upper directory is gone",
            |_, container, _| fs::remove_dir_all(container.assignment.directory.join("upper")).unwrap(),
            "old",
        ),
        (
            "a mount on the host",
            |host, container, _| {
                mounted(&host.path("data"));
                until("it goes by itself", || {
                    waiting(container).is_empty().then_some(())
                });
                fs::write(host.path("data/which"), "mounted\n").unwrap();
            },
            "mounted",
        ),
        (
            "it was killed",
            |_, container, pid| {
                kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
                until("it is gone", || waiting(container).is_empty().then_some(()));
            },
            "old",
        ),
        (
            "another build of the supervisor",
            |_, container, _| {
                let program = fs::File::open(std::env::current_exe().unwrap()).unwrap();
                container.client.upgrade(program.as_fd()).unwrap();
            },
            "old",
        ),
    ];
    for (what, change, expected) in cases {
        let host = Host::new();
        let mut container = failing(&host, |_| {});
        let pid = stub(&container);
        change(&host, &mut container, pid);
        let started = container
            .start()
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_ne!(started, pid, "{what}");
        assert_eq!(container.ended(), 3, "{what}");
        assert_eq!(
            container.lines().last().map(String::as_str),
            Some(expected),
            "{what}"
        );
        container.client.order(&Request::Kill).unwrap();
        let _ = umount2(&host.path("data"), MntFlags::MNT_DETACH);
    }
}

fn mounted(place: &Path) {
    mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
}

fn nothing() {
    type Change = fn(&mut Container);
    let cases: [(&str, Change); 3] = [
        ("no restart", |container| {
            container.spec.restart = RestartPolicy::No
        }),
        ("a success", |container| container.script("exit 0")),
        ("a terminal", |container| container.spec.tty = true),
    ];
    for (what, change) in cases {
        let host = Host::new();
        let container = failing(&host, change);
        stays_empty(&container, what);
    }
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.restart = RestartPolicy::Always;
    container.script("trap 'exit 4' TERM; echo ready; while :; do sleep 0.01; done");
    container.start().unwrap();
    container.said("ready");
    container.client.order(&Request::Signal { signal: 15 }).unwrap();
    assert_eq!(container.ended(), 4);
    stays_empty(&container, "it was stopped");
}

/// One that was never started, and is told what it will be.
fn told(host: &Host) -> Container<'_> {
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("echo began >> /began; cat /began; sleep 1000");
    let wish = Request::Prepare(Box::new(container.wish()));
    container.client.order(&wish).unwrap();
    container
}

fn first() {
    let host = Host::new();
    let mut container = told(&host);
    let pid = stub(&container);
    assert!(matches!(container.state().run, Run::Created));
    assert_eq!(container.start().unwrap(), pid);
    container.said("began");
    assert_eq!(container.lines(), ["began"]);
    // It is a start like any other: there is no other before it, and it is told of once.
    let again = Request::Prepare(Box::new(container.wish()));
    container.client.order(&again).unwrap();
    assert!(matches!(container.state().run, Run::Running { pid: is } if is == pid));
    let processes = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert!(
        waiting(&container)
            .into_iter()
            .all(|one| processes(one) == processes(pid))
    );
}

fn unwanted() {
    type Change = fn(&mut Container);
    let cases: [(&str, Change); 3] = [
        ("another specification", |container| {
            container.spec.environment.insert("A".into(), "b".into());
        }),
        ("an order to end", |container| {
            container.client.order(&Request::Kill).unwrap();
            assert!(waiting(container).is_empty());
        }),
        ("another that is told of", |container| {
            container.spec.hostname = "other".into();
            let wish = Request::Prepare(Box::new(container.wish()));
            container.client.order(&wish).unwrap();
        }),
    ];
    for (what, change) in cases {
        let host = Host::new();
        let mut container = told(&host);
        let pid = stub(&container);
        change(&mut container);
        assert_ne!(container.start().unwrap(), pid, "{what}");
        container.said("began");
        assert_eq!(container.lines(), ["began"], "{what}");
    }
    let host = Host::new();
    let mut container = told(&host);
    stub(&container);
    container.client.order(&Request::Leave).unwrap();
    until("it went along", || waiting(&container).is_empty().then_some(()));
}

/// What is to wait does so within some 30 ms.
fn stays_empty(container: &Container, what: &str) {
    let end = Instant::now() + Duration::from_millis(300);
    while Instant::now() < end {
        assert!(waiting(container).is_empty(), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
