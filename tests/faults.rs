//! Services that go wrong in every way they can: each is named with its cause, and its neighbours do not
//! notice.

mod hooks;

use std::{
    fs,
    os::unix::net::UnixListener,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::host::{Host, LOOPBACK, PATIENCE, Place, compose, fuse::Silent, process, promised};

/// From the beginning of a fault to its name.
const NAMED: Duration = Duration::from_secs(2);
/// From the end of its grace to that of a stop.
const BEYOND: Duration = Duration::from_secs(1);

/// From a change of a manifest to what it brings about: it is left to settle first.
const READ: Duration = Duration::from_millis(500);

/// Waits until `status` and `ps` name `fault` of `service`, which is to be before [`NAMED`] is over; and `why` does,
/// too. Gives what is said.
fn named(host: &Host, service: &str, fault: &str, since: Instant) -> String {
    let key = format!("container bad/{service}/1a");
    let left = || promised(NAMED).saturating_sub(since.elapsed());
    let message = host.wait(&format!("{service} is named {fault}"), left(), || {
        let rows = host.stead(&["--json", "ps", "-a", "bad"]).json();
        let own = rows.as_array()?.iter().find(|row| row["service"] == service)?;
        let faults = own["faults"].as_array()?;
        let own = faults.iter().find(|one| one["fault"] == fault)?;
        Some(own["message"].as_str()?.to_owned())
    });
    eprintln!("{service} was named {fault} after {:?}", since.elapsed());
    host.wait(&format!("status tells that {service} is {fault}"), left(), || {
        let status = host.stead_ok(&["status", "bad"]);
        (status.contains(&format!("fault    {key}: ")) && status.contains(&message)).then_some(())
    });
    // What is only so now and then may be over in one look and back in the next.
    let row = format!("bad/{service}/1 ");
    host.wait(&format!("ps shows that {service} is {fault}"), PATIENCE, || {
        let table = host.stead_ok(&["ps", "-a", "bad"]);
        let line = table.lines().find(|line| line.contains(&row))?;
        line.contains(fault).then_some(())
    });
    let why = host.stead_ok(&["why", &format!("bad/{service}")]);
    assert!(why.contains(&message), "{message}: {why}");
    message
}

/// A stop of these, whose grace is so many seconds, takes no longer than it may.
fn stopped(host: &Host, services: &[&str], grace: u64) {
    let since = Instant::now();
    host.stead_ok(&[&["stop"], services].concat());
    let took = since.elapsed();
    eprintln!("the stop of {services:?} took {took:?} of {grace} s");
    assert!(
        took < Duration::from_secs(grace) + promised(BEYOND),
        "{services:?}: {took:?}"
    );
}

/// A neighbour that answers, and whose process stays the one it is.
struct Neighbour {
    port: u16,
    identity: crate::host::views::Identity,
}

impl Neighbour {
    fn new(host: &Host, port: u16) -> Neighbour {
        host.write_manifest(
            "good",
            &format!("services: {{ web: {{ {} }} }}\n", compose::web(port)),
        );
        host.converged("good");
        Neighbour {
            port,
            identity: host.running("good", "web").identity(),
        }
    }

    fn is_well(&self, host: &Host) {
        assert_eq!(host.running("good", "web").identity(), self.identity);
        host.get(Place::Host, LOOPBACK, self.port, "/")
            .expect("its answer");
    }
}

fn service(host: &Host, command: &str, more: &str) -> String {
    format!(
        "{{ image: \"{}\", command: [sh, -c, \"{command}\"], {more} }}",
        host.busybox()
    )
}

/// One that goes wrong as soon as it is told to, by [`go`].
fn waiting(host: &Host, name: &str, does: &str, more: &str) -> String {
    let does = format!("until [ -e /out/{name} ]; do usleep 10000; done; {does}");
    let out = format!("volumes: [\"{}:/out\"], {more}", host.directory("out").display());
    format!("  {name}: {}\n", service(host, &does, &out))
}

/// The moment it begins.
fn go(host: &Host, name: &str) -> Instant {
    let since = Instant::now();
    fs::write(host.directory("out").join(name), "").expect("the word");
    since
}

#[test]
fn a_service_without_memory_is_killed_whole_and_that_is_said() {
    let Some(mut host) = Host::new("faults-memory") else {
        return;
    };
    host.start_agent();
    let neighbour = Neighbour::new(&host, 18610);
    let eat = "exec /bin/busybox tail /dev/zero";
    // In the first process, and in another one, while the first would live on.
    let child = "(exec /bin/busybox tail /dev/zero) & while :; do sleep 1; done";
    let limit = "mem_limit: 32m, memswap_limit: 32m";
    host.write_manifest(
        "bad",
        &format!(
            "services:\n{}{}  loop: {}\n",
            waiting(&host, "first", eat, limit),
            waiting(&host, "child", child, limit),
            service(&host, eat, &format!("{limit}, restart: always")),
        ),
    );
    for one in ["first", "child"] {
        host.running("bad", one);
        let message = named(&host, one, "out-of-memory", go(&host, one));
        let end = host.in_state("bad", one, "exited");
        assert_eq!(end.exit_code, Some(137), "{end:?}");
        let words = "killed: out of memory, limit 32 MiB, peak 3";
        assert!(message.starts_with(words), "{message}");
    }
    let failed = host.wait("the loop is told with its cause", PATIENCE, || {
        let status = host.complaint("bad");
        status
            .contains("loop keeps ending: killed: out of memory")
            .then_some(status)
    });
    assert!(failed.contains("limit 32 MiB"), "{failed}");
    // It outlives the agent, and the sandbox of what is not to run again.
    host.kill_agent();
    host.start_agent();
    let since = Instant::now();
    named(&host, "first", "out-of-memory", since);
    neighbour.is_well(&host);
    host.finish();
}

#[test]
fn a_service_at_its_limits_is_named_while_it_is() {
    let Some(mut host) = Host::new("faults-limits") else {
        return;
    };
    host.start_agent();
    let neighbour = Neighbour::new(&host, 18611);
    let wait = "exec sleep 1000000";
    let orphans = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do (sleep 0.2 &); done; exec sleep 1000000";
    let quick = "stop_grace_period: 1s, stop_signal: KILL";
    let text = format!(
        "services:\n  bomb: {}\n{}{}",
        service(&host, wait, &format!("pids_limit: 48, {quick}")),
        waiting(
            &host,
            "busy",
            "while :; do :; done",
            &format!("cpus: 0.2, {quick}")
        ),
        waiting(&host, "zombies", orphans, quick),
    );
    host.write_manifest("bad", &text);
    let bomb = host.running("bad", "bomb");
    host.converged("bad");
    let message = named(&host, "zombies", "zombies", go(&host, "zombies"));
    assert!(message.starts_with("10 or more"), "{message}");
    let message = named(&host, "busy", "throttled", go(&host, "busy"));
    assert!(message.contains("limit of 0.2 processors"), "{message}");

    let mut fork = host.command(&[
        "exec",
        "bad/bomb",
        "--",
        "sh",
        "-c",
        // An interactive shell goes on where another one gives up, so that this lasts.
        "/bin/busybox yes 'sleep 1000 &' | /bin/busybox sh -i",
    ]);
    let since = Instant::now();
    let mut fork = host.network.on_host(|| {
        fork.stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the bomb")
    });
    let message = named(&host, "bomb", "process-limit", since);
    assert!(message.contains("limit of 48 processes"), "{message}");
    neighbour.is_well(&host);
    assert_eq!(
        host.running("bad", "bomb").pid,
        bomb.pid,
        "its first process is well"
    );

    // All of the bomb ends with its service, at once.
    stopped(&host, &["bad/bomb"], 1);
    fork.wait().expect("its end");
    // More processor time: it is over, without a restart.
    let busy = host.running("bad", "busy").identity();
    host.write_manifest("bad", &text.replace("cpus: 0.2", "cpus: 16"));
    host.wait("busy is throttled no more", PATIENCE, || {
        let rows = host.stead(&["--json", "ps", "bad"]).json();
        let row = rows
            .as_array()?
            .iter()
            .find(|row| row["service"] == "busy")?
            .clone();
        row["faults"].as_array()?.is_empty().then_some(())
    });
    assert_eq!(host.running("bad", "busy").identity(), busy);
    neighbour.is_well(&host);
    host.finish();
}

#[test]
fn who_does_not_end_is_killed_when_its_grace_is_over_and_all_of_it_goes() {
    let Some(mut host) = Host::new("faults-stop") else {
        return;
    };
    host.start_agent();
    let neighbour = Neighbour::new(&host, 18612);
    let deaf = "trap '' TERM; while :; do sleep 1; done";
    let marker = format!("9{:07}", std::process::id());
    // The middle process ends at once, and its child leaves the session and the process group.
    let doubly = format!(
        "(/bin/busybox setsid sh -c 'sleep {marker}' &); trap 'exit 0' TERM; while :; do sleep 0.1; done"
    );
    let services = (0..4)
        .map(|number| {
            let grace = "stop_grace_period: 3s";
            format!("  deaf{number}: {}\n", service(&host, deaf, grace))
        })
        .collect::<String>();
    host.write_manifest(
        "bad",
        &format!(
            "services:\n{services}  doubly: {}\n",
            service(&host, &doubly, "stop_grace_period: 3s")
        ),
    );
    host.converged("bad");
    host.wait("the double fork is there", PATIENCE, || {
        (!process::with_argument(&marker).is_empty()).then_some(())
    });
    stopped(&host, &["bad/doubly"], 0);
    assert!(
        process::with_argument(&marker).is_empty(),
        "it went with its service"
    );
    // All at once, and none waits for another.
    let since = Instant::now();
    let mut stop = host.command(&["stop", "bad/deaf0", "bad/deaf1", "bad/deaf2", "bad/deaf3"]);
    let mut stop = host.network.on_host(|| {
        stop.stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the stop")
    });
    let key = "container bad/deaf0/1a";
    let message = host.wait("it is named while it resists", promised(NAMED), || {
        condition(&host, "Fault", key)
    });
    eprintln!("one that resists was named after {:?}", since.elapsed());
    assert!(message.contains("not ended on SIGTERM"), "{message}");
    assert!(stop.wait().expect("its end").success());
    let took = since.elapsed();
    eprintln!("the stop of four that resist took {took:?} of 3 s");
    let grace = Duration::from_secs(3);
    assert!((grace..grace + promised(BEYOND)).contains(&took), "{took:?}");
    let message = named(&host, "deaf3", "ignored-stop", Instant::now());
    let words = "killed: it did not end within 3";
    assert!(message.starts_with(words), "{message}");
    neighbour.is_well(&host);
    host.finish();
}

/// A server that takes connections and never reads: what it does not take is counted, wherever one looks.
#[test]
fn what_a_log_server_does_not_take_is_counted_where_one_looks() {
    let Some(mut host) = Host::new("faults-syslog") else {
        return;
    };
    host.start_agent();
    let neighbour = Neighbour::new(&host, 18614);
    let key = "container bad/chatty/1a";
    let path = host.root.join("syslog");
    let server = UnixListener::bind(&path).expect("a server");
    let driver = format!(
        "logging: {{ driver: syslog, options: {{ syslog-address: 'unix://{}' }} }}, stop_signal: KILL",
        path.display()
    );
    // More than a supervisor keeps for a server, and it has taken nearly all of it.
    let script =
        "/bin/busybox seq 60000; touch /out/written; /bin/busybox seq 40000; read x; exec sleep 1000000";
    let [with, without] = [driver.as_str(), "stop_signal: KILL"].map(|logging| {
        let chatty = waiting(&host, "chatty", script, &format!("stdin_open: true, {logging}"));
        format!("services:\n{chatty}")
    });
    host.write_manifest("bad", &with);
    host.running("bad", "chatty");
    go(&host, "chatty");
    let written = host.directory("out").join("written");
    let since = host.wait("more was written than is kept", PATIENCE, || {
        written.exists().then(Instant::now)
    });
    host.wait("what is lost is named", promised(NAMED), || {
        condition(&host, "Fault", key)
    });
    eprintln!("lost output was named after {:?}", since.elapsed());
    host.wait("what is lost is counted", PATIENCE, || {
        let rows = host.stead(&["--json", "ps", "bad"]).json();
        let fault = rows[0]["faults"][0].clone();
        (fault["fault"] == "output-lost" && fault["least"] == 50_000).then_some(())
    });
    // The number stands, so that all say the same.
    let message = named(&host, "chatty", "output-lost", Instant::now());
    let expected = format!(
        "50000 or more lines of its output were not taken by syslog unix://{}: it does not take them fast enough",
        path.display()
    );
    assert!(message.starts_with(&expected), "{message}");
    neighbour.is_well(&host);
    // A new agent finds the count, and another driver ends it. The service does not notice.
    let before = host.running("bad", "chatty").identity();
    host.kill_agent();
    host.start_agent();
    assert_eq!(named(&host, "chatty", "output-lost", Instant::now()), message);
    host.write_manifest("bad", &without);
    host.wait("it is over", PATIENCE, || {
        let rows = host.stead(&["--json", "ps", "bad"]).json();
        rows[0]["faults"].as_array()?.is_empty().then_some(())
    });
    assert_eq!(host.running("bad", "chatty").identity(), before);
    drop(server);
    host.finish();
}

/// Of the first condition of `kind` about `key`.
fn condition(host: &Host, kind: &str, key: &str) -> Option<String> {
    let status = host.project_status("bad")?;
    let all = status["conditions"].as_array()?.clone();
    let own = |one: &&Value| one["type"] == kind && one["reason"] == key;
    Some(all.iter().find(own)?["message"].as_str()?.to_owned())
}

#[test]
fn a_process_that_hangs_in_the_kernel_is_named_and_holds_up_nobody_else() {
    let Some(mut host) = Host::new("faults-stuck") else {
        return;
    };
    host.start_agent();
    let neighbour = Neighbour::new(&host, 18613);
    let place = host.root.join("silent");
    let silent = Silent::mount(&place);
    let file = |greeting: &str, more: &str| {
        let mount = format!("volumes: [\"{}:/data\"]", place.display());
        let options = format!("{mount}, environment: {{ GREETING: {greeting} }}, stop_grace_period: 1s");
        let stuck = service(&host, "cat /data/x; sleep 1000000", &options);
        format!("services:\n  stuck: {stuck}\n{more}")
    };
    host.write_manifest("bad", &file("one", ""));
    host.converged("bad");
    let before = host.running("bad", "stuck").identity();
    host.wait("it reads what nobody answers", PATIENCE, || {
        let waits = |pid: &u32| process::cgroups(*pid).contains("/bad/stuck-1a/payload");
        let cat = process::with_argument("cat /data/x").into_iter();
        cat.filter(waits).find(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/wchan"))
                .is_ok_and(|wchan| wchan.contains("fuse") || wchan.contains("request_wait"))
        })
    });
    // A change that must stop it, and one beside it that has nothing to do with it.
    let since = Instant::now();
    let other = service(&host, "exec sleep 1000000", "stop_signal: KILL");
    host.write_manifest("bad", &file("two", &format!("  other: {other}\n")));
    host.running("bad", "other");
    eprintln!("the other one runs after {:?}", since.elapsed());
    assert!(
        since.elapsed() < promised(NAMED),
        "other after {:?}",
        since.elapsed()
    );
    let key = "container bad/stuck/1a";
    // Even before its grace of one second is over.
    let message = named(&host, "stuck", "stuck", since);
    assert!(message.contains("it waits for /data (fuse)"), "{message}");
    let failed = host.wait("the stop has failed with its cause", PATIENCE, || {
        condition(&host, "Failed", key)
    });
    eprintln!("the stop has failed after {:?} of 1 s", since.elapsed());
    assert!(
        since.elapsed() < READ + Duration::from_secs(1) + promised(BEYOND),
        "failed after {:?}",
        since.elapsed()
    );
    assert!(failed.contains("(cat) is stuck in the kernel (D"), "{failed}");
    assert!(failed.contains("/data (fuse)"), "{failed}");
    // Nothing took its place, on the same mount least of all.
    assert_eq!(host.running("bad", "stuck").identity(), before);
    let started = host.instance("bad", "stuck").expect("it is there");
    assert_eq!(started.restarts, before.restarts);
    neighbour.is_well(&host);
    // A stop of everything else is not held up either.
    stopped(&host, &["bad/other"], 0);
    // A new agent finds it as it is, and waits for nothing.
    host.kill_agent();
    let since = Instant::now();
    host.start_agent();
    assert!(since.elapsed() < promised(NAMED), "{:?}", since.elapsed());
    host.wait("it is named by the next agent", PATIENCE, || {
        condition(&host, "Failed", key).filter(|failed| failed.contains("stuck in the kernel"))
    });
    // The place is an ordinary directory again.
    drop(silent);
    let after = host.wait("the change is made", PATIENCE, || {
        host.instance("bad", "stuck")
            .filter(|stuck| stuck.state == "running" && stuck.pid != Some(before.pid))
    });
    assert_eq!(after.addresses, before.addresses);
    neighbour.is_well(&host);
    host.remove_manifest("bad");
    host.gone("bad");
    host.finish();
}

/// Nobody has asked before, so nobody has looked: one question is enough all the same.
#[test]
fn who_asks_once_is_told_what_only_time_makes_certain() {
    let Some(mut host) = Host::new("faults-once") else {
        return;
    };
    host.start_agent();
    let place = host.root.join("silent");
    let silent = Silent::mount(&place);
    let (zombies, cat) = (format!("7{:07}", std::process::id()), "cat /data/x");
    // A signal turns the wait for an answer into one that no signal ends.
    let hangs = format!("{cat} & sleep 0.2; kill $!; exec sleep 1000000");
    let orphans =
        format!("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do (sleep 0.2 &); done; exec sleep {zombies}");
    let data = format!("volumes: [\"{}:/data\"], stop_signal: KILL", place.display());
    host.write_manifest(
        "bad",
        &format!(
            "services:\n  stuck: {}\n  zombies: {}\n",
            service(&host, &hangs, &data),
            service(&host, &orphans, "stop_signal: KILL"),
        ),
    );
    let state = |pid: u32, wanted: char| process::state(pid) == Some(wanted);
    let since = host.wait("both have gone wrong", PATIENCE, || {
        let first = process::with_argument(&zombies);
        let children = first.iter().flat_map(|pid| process::children(*pid));
        let dead = children.filter(|pid| state(*pid, 'Z')).count();
        let hangs = process::with_argument(cat).into_iter().any(|pid| state(pid, 'D'));
        (dead >= 10 && hangs).then(Instant::now)
    });
    let status = host.stead_ok(&["status", "bad"]);
    eprintln!("one question was answered after {:?}", since.elapsed());
    for part in [
        "(cat) is stuck in the kernel (D",
        "10 or more of its processes have ended",
    ] {
        assert!(status.contains(part), "{part}: {status}");
    }
    assert!(since.elapsed() < promised(NAMED), "{:?}", since.elapsed());
    drop(silent);
    host.finish();
}
