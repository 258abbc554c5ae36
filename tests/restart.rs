//! A process that dies runs again: same address, counted, ever slower.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::{Host, LOOPBACK, PATIENCE, Place, compose, signal};

#[test]
fn a_killed_process_runs_again_at_the_same_address() {
    let Some(mut host) = Host::new("restart-killed") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "shop",
        &format!(
            "services: {{ web: {{ {}, restart: always }} }}\n",
            compose::web(18300)
        ),
    );
    let before = host.running("shop", "web");
    host.fetch(Place::Host, LOOPBACK, 18300, "/");
    signal(before.pid(), Signal::SIGKILL);
    let after = host.wait("it runs again", PATIENCE, || {
        host.instance("shop", "web")
            .filter(|web| web.state == "running" && web.pid != before.pid)
    });
    assert_eq!(after.addresses, before.addresses);
    assert_eq!(after.restarts, before.restarts + 1);
    host.fetch(Place::Host, LOOPBACK, 18300, "/");
    host.nothing_to_do(PATIENCE);
    host.finish();
}

#[test]
fn a_process_that_died_while_no_agent_ran_is_started_by_the_next() {
    let Some(mut host) = Host::new("restart-unattended") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "shop",
        &format!(
            "services: {{ web: {{ {}, restart: unless-stopped }} }}\n",
            compose::web(18301)
        ),
    );
    let before = host.running("shop", "web");
    host.kill_agent();
    signal(before.pid(), Signal::SIGKILL);
    host.start_agent();
    let after = host.wait("it runs again", PATIENCE, || {
        host.instance("shop", "web")
            .filter(|web| web.state == "running" && web.pid != before.pid)
    });
    assert_eq!(
        (after.addresses, after.restarts),
        (before.addresses, before.restarts + 1)
    );
    host.finish();
}

#[test]
fn a_crash_loop_backs_off() {
    let Some(mut host) = Host::new("restart-backoff") else {
        return;
    };
    let out = host.directory("out");
    host.start_agent();
    host.write_manifest(
        "crash",
        &format!(
            "services:\n  crash:\n    image: {}\n    restart: always\n    command: [sh, -c, \"cat /proc/uptime >> /out/starts; exit 7\"]\n    volumes: [\"{}:/out\"]\n",
            host.busybox(),
            out.display()
        ),
    );
    let starts = host.wait("it was started seven times", Duration::from_secs(40), || {
        let text = std::fs::read_to_string(out.join("starts")).ok()?;
        let starts: Vec<f64> = text
            .lines()
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect();
        (starts.len() >= 7).then_some(starts)
    });
    let waited: Vec<f64> = starts.windows(2).map(|two| two[1] - two[0]).collect();
    for (attempt, waited) in waited.iter().take(6).enumerate() {
        let drawn = 0.1 * 2_f64.powi(i32::try_from(attempt).expect("small"));
        // ±10 % are drawn; /proc/uptime has 10 ms; a start takes its time on a busy machine.
        assert!(
            (0.9 * drawn - 0.02..1.1 * drawn + 1.0).contains(waited),
            "delay {attempt} was {waited:.2} s, about {drawn} s was due: {starts:?}"
        );
    }
    let crash = host.wait("it waits for its next start", PATIENCE, || {
        host.instance("crash", "crash")
            .filter(|crash| crash.state == "backoff")
    });
    assert!(crash.restarts >= 6, "{crash:?}");
    let status = host.project_status("crash").expect("its status");
    assert!(!status["next_attempt"].is_null(), "{status}");
    assert_ne!(status["state"], "converged", "{status}");
    host.finish();
}

#[test]
fn a_service_that_should_not_be_restarted_is_not() {
    let Some(mut host) = Host::new("restart-no") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "once",
        &format!(
            "services:\n  good: {{ image: \"{0}\", command: [\"true\"], restart: on-failure }}\n  bad: {{ image: \"{0}\", command: [sh, -c, \"exit 3\"] }}\n",
            host.busybox()
        ),
    );
    for (service, code) in [("good", 0), ("bad", 3)] {
        let end = host.in_state("once", service, "exited");
        assert_eq!((end.exit_code, end.restarts), (Some(code), 0), "{service}");
    }
    host.nothing_to_do(PATIENCE);
    host.finish();
}
