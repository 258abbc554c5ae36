//! A container starts, is seen, ends, starts again; and survives those who watch it.

use std::{
    fs,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::Path,
};

use backend::{
    cgroup,
    shim::{
        client::{Client, ClientError},
        protocol::{Event, Exec, HealthState, Reason, Request, Run},
        spawn::Pool,
    },
};
use reconciler::spec::{HealthSpec, PortBinding, Protocol, Space, Spaces};

use super::host::{Host, until};

pub const TESTS: [(&str, fn()); 14] = [
    ("a_container_starts_is_seen_exits_and_starts_again", starts),
    ("exit_codes_and_signals_are_told_and_recorded", exits),
    ("a_command_that_cannot_run_says_what_to_mend", refusals),
    ("log_lines_are_complete_when_the_agent_dies", log_lines),
    ("a_shim_is_found_by_its_record_after_the_agent", adoption),
    ("kill_9_of_a_shim_leaves_the_payload_killable", shim_killed),
    ("an_upgrade_in_place_keeps_pid_output_and_exit_code", upgrade),
    ("exec_tells_the_exit_status", exec),
    ("exec_with_a_terminal_has_one", terminal),
    ("health_turns_with_the_probes", health),
    ("a_hung_probe_is_killed_at_its_time_limit", hung_probe),
    ("a_taken_port_is_named", taken_port),
    (
        "an_assignment_that_fails_at_once_leaves_no_process",
        failed_assignment,
    ),
    ("a_shim_is_small_and_nothing_is_left", leaves_nothing),
];

fn starts() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("echo up; sleep 1000");
    let pid = container.start().unwrap();
    assert_eq!(container.state().run, Run::Running { pid });
    container.said("up");
    let uid = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        uid.contains("Uid:\t1879048192\t"),
        "uid 0 inside is the first id of the range outside: {uid}"
    );
    let mut open: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    open.sort();
    assert_eq!(open, ["0", "1", "2"]);
    let found = cgroup::pids(&container.assignment.cgroup.join("payload")).unwrap();
    assert!(found.contains(&pid));
    container.client.order(&Request::Kill).unwrap();
    assert_eq!(container.ended(), 137);
    container.fresh = false;
    container.script("exit 3");
    container.start().unwrap();
    assert_eq!(container.ended(), 3);
}

fn exits() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    for (script, expected) in [("exit 0", 0), ("exit 42", 42), ("kill -SEGV $$; sleep 9", 139)] {
        // A first process ignores what it has no handler for, so the signal comes from a child.
        container.script(&format!("sh -c '{script}'; exit $?"));
        container.start().unwrap();
        let code = container.ended();
        assert_eq!(code, expected, "{script}");
        let exit = fs::read_to_string(container.assignment.directory.join("exit")).unwrap();
        let exit: serde_json::Value = serde_json::from_str(&exit).unwrap();
        assert_eq!(
            (exit["code"].as_i64(), exit["boot_id"].as_str()),
            (Some(expected.into()), Some("boot"))
        );
    }
    container.script("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
    container.start().unwrap();
    container.said("ready");
    container.client.order(&Request::Signal { signal: 15 }).unwrap();
    assert_eq!(container.ended(), 7);
}

fn refusals() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    fs::write(host.path("layer/etc/file"), "no program").unwrap();
    for (argv, user, directory, expected) in [
        ("/bin/none", "", "/", "is not in the image"),
        ("none", "", "/", "is not in the image"),
        ("/etc/file", "", "/", "may not be executed"),
        ("true", "nobody", "/", "is not in the image's /etc/passwd"),
        ("true", "", "/proc/self/fd/3", "cannot be entered"),
    ] {
        container.spec.argv = vec![argv.into()];
        container.spec.user = user.into();
        container.spec.working_dir = directory.into();
        match container.start() {
            Err(ClientError::Refused { message, reason, .. }) => {
                assert!(message.contains(expected), "{message}");
                assert_eq!(reason, Reason::Spec, "{message}");
            }
            other => panic!("{argv}: {other:?}"),
        }
    }
    container.spec = super::host::spec();
    container.script("true");
    container.start().unwrap();
    assert_eq!(container.ended(), 0);
}

fn log_lines() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("for i in $(seq 3000); do echo line $i; done; printf end");
    container.start().unwrap();
    // The agent is gone: nobody is connected while the lines come.
    let path = container.assignment.socket.clone();
    let (other, _) = std::os::unix::net::UnixStream::pair().unwrap();
    drop(other);
    let mut expected: Vec<String> = (1..=3000).map(|number| format!("line {number}")).collect();
    expected.push("end".into());
    until("every line is there", || {
        (container.lines().len() == expected.len()).then_some(())
    });
    assert!(container.lines() == expected);
    container.client = Client::connect(&path).unwrap();
    assert_eq!(container.ended(), 0);
}

fn adoption() {
    let mut host = Host::new();
    let path;
    let pid;
    {
        let mut container = host.sandbox("web", Vec::new()).unwrap();
        container.script("sleep 1000");
        pid = container.start().unwrap();
        path = container.assignment.socket.clone();
        std::mem::forget(container);
    }
    host.pool = None;
    let shims = cgroup::find_shims(&host.mark).unwrap();
    assert_eq!(
        shims.len(),
        1,
        "idle shims went with the agent, the assigned one did not"
    );
    let (shim, record) = &shims[0];
    assert_eq!((record.pid, record.key.service.as_str()), (Some(pid), "web"));
    let mut client = Client::connect(&path).unwrap();
    assert_eq!(client.pid, *shim);
    assert!(matches!(
        client.order(&Request::Leave),
        Err(ClientError::Refused { .. })
    ));
    client.order(&Request::Kill).unwrap();
    until("it has left", || client.order(&Request::Leave).ok());
}

fn shim_killed() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    // As gosu does: after a change of ids the kernel forgets who was to die with whom.
    container.script("exec setuidgid www sleep 1000");
    container.start().unwrap();
    let shim = nix::unistd::Pid::from_raw(container.client.pid as i32);
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    let payload = container.assignment.cgroup.join("payload");
    until("its record is gone", || {
        cgroup::find_shims(&host.mark).unwrap().is_empty().then_some(())
    });
    cgroup::kill(&payload).unwrap();
    until("the payload has ended", || {
        (!cgroup::populated(&payload).unwrap()).then_some(())
    });
}

fn upgrade() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("trap 'exit 5' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.002; done");
    let pid = container.start().unwrap();
    let shim = container.client.pid;
    let copy = host.path("other-build");
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    for _ in 0..3 {
        container
            .client
            .upgrade(fs::File::open(&copy).unwrap().as_fd())
            .unwrap();
    }
    let other = host.path("run/web-1a.sock");
    let again = Client::connect(&other).unwrap();
    assert_eq!(again.pid, shim, "the same process");
    assert_eq!(
        fs::metadata(format!("/proc/{shim}/exe")).unwrap().ino(),
        fs::metadata(&copy).unwrap().ino(),
        "another program"
    );
    assert_eq!(container.state().run, Run::Running { pid });
    assert_eq!(cgroup::find_shims(&host.mark).unwrap().len(), 1);
    let seen = container.lines().len();
    until("it still prints", || {
        (container.lines().len() > seen).then_some(())
    });
    container.client.order(&Request::Signal { signal: 15 }).unwrap();
    assert_eq!(container.ended(), 5);
    let lines = container.lines();
    let expected: Vec<String> = (1..=lines.len()).map(|number| number.to_string()).collect();
    assert!(lines == expected, "no line is lost");
}

fn exec() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.environment.insert("COLOUR".into(), "green".into());
    container.script("sleep 1000");
    container.start().unwrap();
    for (argv, user, code, text) in [
        (&["sh", "-c", "exit 9"][..], "", 9, ""),
        (&["sh", "-c", "echo $COLOUR; kill -9 $$"], "", 137, "green\n"),
        (
            &["id"],
            "www",
            0,
            "uid=33(www) gid=34(web) groups=29(audio),34(web)\n",
        ),
        (&["sh", "-c", "ls /proc/self/fd | wc -l"], "", 0, "4\n"),
    ] {
        assert_eq!(
            container.exec(argv, user).unwrap(),
            (code, text.to_owned()),
            "{argv:?}"
        );
    }
    assert!(matches!(
        container.exec(&["none"], ""),
        Err(ClientError::Refused {
            reason: Reason::Spec,
            ..
        })
    ));
    // As confined as the first process.
    let interesting = |text: &str| -> Vec<String> {
        ["Cap", "Seccomp", "NoNewPrivs", "Uid", "Gid", "Groups"]
            .iter()
            .flat_map(|name| text.lines().filter(move |line| line.starts_with(name)))
            .map(String::from)
            .collect()
    };
    let (_, first) = container.exec(&["cat", "/proc/1/status"], "").unwrap();
    let (_, own) = container.exec(&["cat", "/proc/self/status"], "").unwrap();
    assert_eq!(interesting(&first), interesting(&own));
}

fn terminal() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("sleep 1000");
    container.start().unwrap();
    let exec = Exec {
        argv: ["sh", "-c", "tty; exit 4"].map(String::from).to_vec(),
        environment: Default::default(),
        user: String::new(),
        working_dir: None,
        terminal: true,
    };
    let (_, master) = container.client.exec(exec, &[]).unwrap();
    let master = master.unwrap();
    let mut text = Vec::new();
    let mut chunk = [0; 256];
    while let Ok(count @ 1..) = nix::unistd::read(&master, &mut chunk) {
        text.extend_from_slice(&chunk[..count]);
    }
    assert_eq!(String::from_utf8_lossy(&text), "/dev/pts/0\r\n");
    assert_eq!(container.client.wait().unwrap(), 4);
}

fn health() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("sleep 1000");
    container.spec.health = Some(HealthSpec {
        argv: ["sh", "-c", "test -e /tmp/well"].map(String::from).to_vec(),
        interval: 150,
        timeout: 5000,
        retries: 2,
        ..HealthSpec::default()
    });
    let mut events = Client::connect(&container.assignment.socket)
        .unwrap()
        .subscribe()
        .unwrap();
    container.start().unwrap();
    assert_eq!(container.state().health, HealthState::Starting);
    for (act, expected) in [("touch", HealthState::Healthy), ("rm", HealthState::Unhealthy)] {
        container.exec(&[act, "/tmp/well"], "").unwrap();
        match events.next_event().unwrap() {
            Event::Health { health } => assert_eq!(health, expected),
            other => panic!("{other:?}"),
        }
    }
}

fn hung_probe() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("sleep 1000");
    container.spec.health = Some(HealthSpec {
        argv: ["sh", "-c", "trap '' TERM; sleep 1000 & sleep 1000"]
            .map(String::from)
            .to_vec(),
        interval: 100,
        timeout: 150,
        retries: 1,
        ..HealthSpec::default()
    });
    container.start().unwrap();
    until("it is unhealthy", || {
        (container.state().health == HealthState::Unhealthy).then_some(())
    });
    container.spec.health = None;
    let container_spec = Box::new(container.spec.clone());
    container
        .client
        .order(&Request::Amend {
            container: container_spec,
        })
        .unwrap();
    let payload = container.assignment.cgroup.join("payload");
    until("its processes are gone", || {
        (cgroup::pids(&payload).unwrap().len() == 1).then_some(())
    });
}

fn taken_port() {
    let host = Host::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = |published| PortBinding {
        host_ip: std::net::Ipv4Addr::LOCALHOST,
        published,
        target: 80,
        protocol: Protocol::Tcp,
    };
    let number = taken.local_addr().unwrap().port();
    match host.sandbox("web", vec![port(number)]).map(drop) {
        Err(ClientError::Refused {
            message,
            reason: Reason::PortTaken,
            ..
        }) => {
            assert!(message.contains(&number.to_string()), "{message}");
        }
        other => panic!("{other:?}"),
    }
    drop(taken);
    let holder = host.sandbox("web", vec![port(number)]).unwrap();
    assert!(
        std::net::TcpListener::bind(("127.0.0.1", number)).is_err(),
        "held for the sandbox"
    );
    assert!(
        std::net::TcpStream::connect(("127.0.0.1", number)).is_err(),
        "and nobody listens"
    );
    drop(holder);
    until("the port is free again", || {
        std::net::TcpListener::bind(("127.0.0.1", number)).ok()
    });
}

/// What it is to join was not lent, so it fails before the namespaces that are ready are used.
fn failed_assignment() {
    let host = Host::new();
    let mut assignment = host.assignment("web", Vec::new());
    assignment.sandbox.spaces = Spaces {
        network: Space::Joined,
        of: Some(host.assignment("lender", Vec::new()).sandbox.key),
        ..Spaces::default()
    };
    let mut client = host.pool.as_ref().unwrap().take().unwrap();
    let shim = client.pid;
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).unwrap();
    let holders: Vec<&str> = children.split_whitespace().collect();
    assert_eq!(holders.len(), 1, "one that holds what is ready");
    let refused = client.request(&Request::Assign(Box::new(assignment.clone())), &[]);
    let Err(ClientError::Refused { message, reason, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(reason, Reason::System);
    assert!(message.contains("was not handed over"), "{message}");
    until("both are gone, though nobody has hung up", || {
        let there = |pid: &str| Path::new("/proc").join(pid).exists();
        (!there(&shim.to_string()) && !there(holders[0])).then_some(())
    });
    assert!(!assignment.socket.exists());
    // Another one is taken, for the same place.
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("exit 4");
    container.start().unwrap();
    assert_eq!(container.ended(), 4);
}

fn leaves_nothing() {
    let mounts = || {
        fs::read_to_string("/proc/self/mountinfo")
            .unwrap()
            .lines()
            .count()
    };
    let before = mounts();
    let (mark, net, _held);
    {
        let host = Host::new();
        mark = host.mark.clone();
        let mut container = host.sandbox("web", Vec::new()).unwrap();
        container.script("sleep 1000");
        let pid = container.start().unwrap();
        net = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        // While it is held nobody else's namespace can get its number.
        _held = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", container.client.pid)).unwrap();
        let dirty = rollup
            .lines()
            .find(|line| line.starts_with("Private_Dirty"))
            .unwrap();
        println!(
            "  shim: {}",
            dirty.split_whitespace().collect::<Vec<_>>().join(" ")
        );
        // An answer without descriptors: the move to the own cgroup is over, nothing is on its way.
        container.client.order(&Request::Subscribe).unwrap();
        let fds = fs::read_dir(format!("/proc/{}/fd", container.client.pid))
            .unwrap()
            .count();
        for _ in 0..5 {
            container.client.order(&Request::Kill).unwrap();
            container.ended();
            container.start().unwrap();
        }
        container.client.order(&Request::Subscribe).unwrap();
        let after = fs::read_dir(format!("/proc/{}/fd", container.client.pid))
            .unwrap()
            .count();
        assert_eq!(fds, after, "a start leaves no descriptor behind");
    }
    assert_eq!(before, mounts());
    let lives = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .any(|entry| fs::read_link(entry.path().join("ns/net")).is_ok_and(|link| link == net));
    assert!(!lives, "nobody is in the sandbox's network namespace");
    assert!(!cgroup::root().unwrap().join(format!("stead-{mark}")).exists());
    assert!(cgroup::find_shims(&mark).unwrap().is_empty());
    let pool = Pool::new(&mark, 2, None, None).unwrap();
    pool.take().map(drop).unwrap();
    drop(pool);
    let own = cgroup::root().unwrap().join(format!("stead-{mark}"));
    until("idle shims remove their leaves", || (!own.exists()).then_some(()));
}
