//! Updates of services that must not stop: start-first, batches, pauses and the way back.

use std::{
    collections::BTreeSet,
    io::BufRead,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::host::{HOST, Host, PATIENCE, Place, http, load::Load};

fn start_first(greeting: &str, probe: &str) -> String {
    format!(
        "services:
  web:
    image: builtin:hello
    environment: {{ GREETING: \"{greeting}\" }}
    ports: [\"18700:8080\"]
    stop_grace_period: 3s
    healthcheck: {{ test: [CMD, hello, --probe, \"http://127.0.0.1:8080/{probe}\"], interval: 200ms, retries: 3 }}
    deploy:
      update_config: {{ order: start-first, failure_action: rollback, monitor: 500ms }}
"
    )
}

fn greets(host: &Host, greeting: &str) {
    host.wait(&format!("it says {greeting}"), PATIENCE, || {
        host.get(Place::Lan, HOST, 18700, "/")
            .ok()?
            .contains(greeting)
            .then_some(())
    });
}

fn host(name: &str) -> Option<Host> {
    let mut host = Host::new(name)?;
    host.start_agent();
    Some(host)
}

#[test]
fn a_start_first_update_refuses_no_connection_and_lets_the_old_ones_end() {
    let Some(host) = host("start-first") else { return };
    host.write_manifest("shop", &start_first("one", "healthz"));
    host.converged("shop");
    greets(&host, "one");
    let before = host.running("shop", "web").identity();

    let load = Load::connections(&host, HOST, 18700);
    let mut old = host
        .network
        .on_lan(|| http::stream(SocketAddr::new(HOST, 18700), "/stream"))
        .expect("a connection that stays open");
    let mut line = String::new();
    for greeting in ["two", "three"] {
        host.write_manifest("shop", &start_first(greeting, "healthz"));
        greets(&host, greeting);
        if greeting == "two" {
            line.clear();
            assert!(
                old.read_line(&mut line).expect("a line") > 0,
                "the old one still serves whom it served"
            );
        }
        host.converged("shop");
    }
    let report = load.finish();
    assert!(report.requests > 100, "there was a load: {report:?}");
    assert_eq!(report.failures, Vec::<String>::new());
    let after = host.running("shop", "web").identity();
    assert_ne!(before.pid, after.pid);
    host.nothing_to_do(PATIENCE);
    host.finish();
}

#[test]
fn a_version_that_is_never_healthy_gets_no_request_and_is_taken_back_until_the_manifest_changes() {
    let Some(mut host) = host("rollback") else { return };
    host.write_manifest("shop", &start_first("good", "healthz"));
    host.converged("shop");
    greets(&host, "good");
    let before = host.running("shop", "web").identity();

    let load = Load::connections(&host, HOST, 18700);
    host.write_manifest("shop", &start_first("bad", "no-such-page"));
    let status = host.wait("status says that it was taken back", PATIENCE, || {
        host.project_status("shop")
            .filter(|status| status.to_string().contains("rolled back"))
    });
    assert_ne!(status["revision"]["seen"], status["revision"]["applied"]);
    host.wait("only the good one is there", PATIENCE, || {
        (host.ps().len() == 1).then_some(())
    });
    assert_eq!(
        host.running("shop", "web").identity(),
        before,
        "the good one was never touched"
    );
    let report = load.finish();
    assert_eq!(report.failures, Vec::<String>::new());

    // Another agent knows it too.
    host.stop_agent();
    host.start_agent();
    host.wait("the next agent says so", PATIENCE, || {
        host.complaint("shop").contains("rolled back").then_some(())
    });
    assert_eq!(host.running("shop", "web").identity(), before);

    host.write_manifest("shop", &start_first("better", "healthz"));
    greets(&host, "better");
    host.converged("shop");
    host.finish();
}

fn replicas(greeting: &str, update: &str, extra: &str) -> String {
    format!(
        "services:
  web:
    image: builtin:hello
    environment: {{ GREETING: \"{greeting}\" }}
    stop_grace_period: 1s
    {extra}
    deploy:
      replicas: 3
      update_config: {{ {update} }}
"
    )
}

/// Pids of the running replicas.
fn pids(host: &Host) -> BTreeSet<u32> {
    host.ps()
        .into_iter()
        .filter(|one| one.service == "web" && one.state == "running")
        .filter_map(|one| one.pid)
        .collect()
}

#[test]
fn replicas_are_replaced_one_after_the_other_with_the_delay_between_them() {
    let Some(host) = host("replicas") else { return };
    host.write_manifest("shop", &replicas("one", "delay: 700ms", ""));
    host.converged("shop");
    let before = pids(&host);
    assert_eq!(before.len(), 3);
    let start = Instant::now();
    host.write_manifest("shop", &replicas("two", "delay: 700ms", ""));
    let mut fewest = 3;
    host.wait("all three are new", PATIENCE, || {
        let now = pids(&host);
        fewest = fewest.min(now.len());
        (now.len() == 3 && now.is_disjoint(&before)).then_some(())
    });
    assert!(fewest >= 2, "only {fewest} were running at one moment");
    assert!(start.elapsed() >= Duration::from_millis(1400), "two delays");
    host.converged("shop");
    host.finish();
}

#[test]
fn an_update_that_fails_stops_there_and_the_rest_keeps_serving() {
    let Some(host) = host("pause") else { return };
    host.write_manifest("shop", &replicas("one", "failure_action: pause, monitor: 1s", ""));
    host.converged("shop");
    let before = pids(&host);
    host.write_manifest(
        "shop",
        &replicas(
            "two",
            "failure_action: pause, monitor: 1s",
            "command: [hello, --crash, \"0\"]",
        ),
    );
    host.wait("status says that it is paused", PATIENCE, || {
        host.complaint("shop").contains("paused").then_some(())
    });
    assert_eq!(
        pids(&host).intersection(&before).count(),
        2,
        "two old ones serve on"
    );
    host.write_manifest(
        "shop",
        &replicas("three", "failure_action: pause, monitor: 1s", ""),
    );
    host.wait("a changed manifest goes on", PATIENCE, || {
        let now = pids(&host);
        (now.len() == 3 && now.is_disjoint(&before)).then_some(())
    });
    host.converged("shop");
    host.finish();
}
