//! `why` tells how something came about: what was asked or happened, and what followed, newest first.

use std::net::TcpListener;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::host::{Host, LOOPBACK, PATIENCE, compose, signal};

/// What `why` says to people, for those who read a failed test.
fn why(host: &Host, target: &str) -> String {
    let said = host.stead_ok(&["why", target]);
    eprintln!("$ stead why {target}\n{said}");
    said
}

/// What began each chain, newest first.
fn chain(host: &Host, target: &str) -> Vec<Value> {
    let document: Value = serde_json::from_str(&host.stead_ok(&["--json", "why", target])).expect("JSON");
    document["chain"].as_array().expect("a chain").clone()
}

fn heads(host: &Host, target: &str) -> Vec<String> {
    let heads = chain(host, target);
    heads
        .iter()
        .map(|one| one["text"].as_str().unwrap_or_default().to_owned())
        .collect()
}

/// The lines of `text` in their order, each containing its part.
fn in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("`{part}` is not there, or not in its place, in\n{text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn an_edit_an_end_and_a_first_start_are_told_with_what_followed() {
    let Some(mut host) = Host::new("why-edit") else {
        return;
    };
    host.start_agent();
    let text = |greeting: &str| {
        format!(
            "services:\n  web:\n    image: builtin:hello\n    restart: always\n    environment:\n      GREETING: {greeting}\n  db: {{ image: \"builtin:hello\" }}\n"
        )
    };
    host.change("shop", &text("hello"));
    host.change("shop", &text("servus"));
    let web = host.running("shop", "web");
    signal(web.pid(), Signal::SIGKILL);
    host.wait("it runs again", PATIENCE, || {
        host.instance("shop", "web")
            .filter(|web| web.state == "running" && web.restarts == 1)
    });
    host.converged("shop");
    let said = why(&host, "web");
    in_order(
        &said,
        &[
            "shop/web/1 is running since ",
            "restarted once",
            "web/1: it was ended by signal 9",
            "web/1 was started again",
            "shop.yaml:6  services.web.environment.GREETING changed hello → servus",
            "web/1 was stopped",
            "web/1 was started anew",
            "shop.yaml:2  services.web is new",
            "web/1 was started",
        ],
    );
    assert!(!said.contains("db/1"), "that is another service:\n{said}");
    in_order(
        &why(&host, "shop"),
        &[
            "shop is converged",
            "services.web.environment.GREETING",
            "db/1 was started",
        ],
    );

    // For programs, the same.
    let told = chain(&host, "shop/web/1");
    assert_eq!(told[1]["causes"][0]["field"], "services.web.environment.GREETING");
    assert_eq!(told[1]["causes"][0]["line"], 6);
    assert_eq!(
        (&told[1]["kind"], &told[0]["kind"]),
        (&"wanted".into(), &"event".into())
    );

    // Without an agent the journal alone speaks, and says so.
    host.stop_agent();
    let alone = why(&host, "shop/web");
    in_order(
        &alone,
        &["no agent runs", "it was ended by signal 9", "hello → servus"],
    );
    let unknown = host.stead(&["why", "shop/api"]);
    assert_eq!(unknown.code, 1, "{unknown:?}");
    host.start_agent();
    host.converged("shop");
    assert_eq!(
        heads(&host, "shop/web").len(),
        3,
        "a new agent is no cause of anything"
    );
    host.finish();
}

#[test]
fn a_crash_loop_is_one_cause_with_its_count_and_its_next_attempt() {
    let Some(mut host) = Host::new("why-crash") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "crash",
        &format!(
            "services:\n  worker:\n    image: {}\n    restart: always\n    command: [sh, -c, \"exit 7\"]\n",
            host.busybox()
        ),
    );
    host.wait("it was restarted often", PATIENCE, || {
        host.instance("crash", "worker")
            .filter(|worker| worker.restarts >= 5 && worker.state == "backoff")
    });
    let said = why(&host, "crash/worker");
    in_order(
        &said,
        &[
            "has ended with status 7",
            "next attempt",
            "worker/1: it ended with status 7",
            " times since ",
        ],
    );
    let told = heads(&host, "worker");
    assert_eq!(
        told.iter().filter(|head| head.contains("status 7")).count(),
        1,
        "{told:?}"
    );
    host.finish();
}

#[test]
fn a_gate_a_taken_port_and_a_bad_manifest_say_what_is_waited_for() {
    let Some(mut host) = Host::new("why-waits") else {
        return;
    };
    let holder = host
        .network
        .on_host(|| TcpListener::bind((LOOPBACK, 18930)).expect("a port"));
    host.start_agent();
    let text = format!(
        "services:\n  web: {{ {} }}\n  db:\n    image: builtin:hello\n    healthcheck: {{ test: [\"CMD\", \"/bin/hello\", \"--probe\", \"http://127.0.0.1:1/\"], interval: 200ms, timeout: 1s, retries: 1000 }}\n  api: {{ image: \"builtin:hello\", depends_on: {{ db: {{ condition: service_healthy }} }} }}\n",
        compose::web(18930)
    );
    host.write_manifest("shop", &text);
    host.wait("both are held up", PATIENCE, || {
        let said = host.complaint("shop");
        (said.contains("18930") && said.contains("after db is healthy")).then_some(())
    });
    in_order(
        &why(&host, "api"),
        &[
            "shop/api/1 is ",
            "waiting ",
            "after db is healthy",
            "services.api is new",
        ],
    );
    in_order(
        &why(&host, "web"),
        &[
            "shop/web/1 ",
            "failed",
            "18930",
            "next attempt",
            "services.web is new",
            "failed: ",
        ],
    );
    drop(holder);
    host.running("shop", "web");
    host.write_manifest("shop", &text.replace("interval: 200ms", "intervall: 200ms"));
    host.wait("the mistake is reported", PATIENCE, || {
        host.complaint("shop").contains("intervall").then_some(())
    });
    in_order(
        &why(&host, "db"),
        &[
            "shop.yaml:5:",
            "the last good version stays in force",
            "shop.yaml:5  this manifest is not followed",
        ],
    );
    host.write_manifest(
        "shop",
        &text.replace("http://127.0.0.1:1/", "http://127.0.0.1:8080/healthz"),
    );
    host.running("shop", "api");
    host.converged("shop");
    in_order(
        &why(&host, "api"),
        &[
            "is running",
            "api/1 waits: after db is healthy",
            "api/1 waits no longer",
            "api/1 was started",
        ],
    );
    host.finish();
}

#[test]
fn what_was_broken_by_hand_is_told_with_its_repair() {
    let Some(mut host) = Host::new("why-drift") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "shop",
        &format!("services: {{ web: {{ {} }} }}\n", compose::web(18931)),
    );
    host.converged("shop");
    let bridge = format!("stb{}", host.mark());
    let links = host.links();
    let bridge = links
        .iter()
        .find(|link| link.starts_with(&bridge))
        .expect("a bridge");
    host.tool("ip", &["link", "del", bridge]);
    host.wait("the journal tells of it", PATIENCE, || {
        let told = heads(&host, "shop");
        told.iter().any(|head| head.contains("bridge")).then_some(())
    });
    host.converged("shop");
    in_order(
        &why(&host, "shop"),
        &[
            "shop is converged",
            "network shop_default: ",
            "bridge",
            "was put back as it should be",
        ],
    );
    host.finish();
}
