//! Every example runs as its first lines say.

use std::{path::PathBuf, process::Stdio};

use nix::sys::signal::Signal;

use crate::host::{Host, LOOPBACK, PATIENCE, Place, signal};

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name)
        .canonicalize()
        .expect("an example")
}

/// Runs `stead up` of the example as the README says, while `look` looks at it.
fn with(name: &str, look: impl FnOnce(&Host)) {
    let Some(host) = Host::new(&format!("example-{name}")) else {
        return;
    };
    let mut up = host.command(&["up", &example(name).display().to_string()]);
    up.stdout(Stdio::null()).stderr(Stdio::null());
    let mut up = host.network.on_host(|| up.spawn().expect("up starts"));
    host.wait("the agent inside answers", PATIENCE, || {
        host.stead(&["status"]).done()
    });
    look(&host);
    signal(up.id(), Signal::SIGINT);
    host.wait("up ends", PATIENCE, || up.try_wait().expect("its state"));
    host.finish();
}

#[test]
fn hello_counts_its_visits_and_its_client_calls_it() {
    with("hello", |host| {
        let first = host.fetch(Place::Host, LOOPBACK, 8080, "/");
        assert!(first.contains("visits: "), "{first}");
        let web = host.wait("web is healthy", PATIENCE, || {
            host.instance("hello", "web")
                .filter(|web| web.health == "healthy")
        });
        let client = host.running("hello", "client");
        assert_ne!(web.pid, client.pid);
        host.wait("the client has called web", PATIENCE, || {
            let logs = host.stead_ok(&["logs", "hello", "client"]);
            logs.contains("visits").then_some(())
        });
    });
}

#[test]
fn two_networks_keep_front_and_back_apart() {
    with("two-networks", |host| {
        host.fetch(Place::Host, LOOPBACK, 8080, "/call/api");
        host.fetch(Place::Host, LOOPBACK, 8081, "/call/db");
        let reached = host.get(Place::Host, LOOPBACK, 8080, "/call/db");
        assert!(reached.is_err(), "{reached:?}");
    });
}

#[test]
fn restart_restarts_what_crashes_and_leaves_the_other_alone() {
    with("restart", |host| {
        let steady = host.running("restart", "steady").identity();
        host.wait("it was restarted twice", PATIENCE, || {
            host.instance("restart", "crashes")
                .filter(|crashes| crashes.restarts >= 2)
        });
        assert_eq!(host.running("restart", "steady").identity(), steady);
    });
}
