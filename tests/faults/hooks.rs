//! Hooks that fail: named at once, though the service has not ended yet.

use std::time::Instant;

use super::{condition, go, named, service};
use crate::host::{Host, PATIENCE};

/// A service that resists is stopped for its hook, and that is said while it does.
#[test]
fn a_failed_hook_is_named_while_its_service_still_runs() {
    let Some(mut host) = Host::new("faults-hook") else {
        return;
    };
    host.start_agent();
    let hook = format!(
        "post_start: [{{ command: [sh, -c, 'until [ -e /out/up ]; do usleep 10000; done; exit 3'] }}], \
         volumes: [\"{}:/out\"], stop_grace_period: 4s",
        host.directory("out").display()
    );
    let deaf = service(&host, "trap '' TERM; while :; do sleep 0.1; done", &hook);
    host.write_manifest("bad", &format!("services:\n  up: {deaf}\n"));
    let pid = host.running("bad", "up").pid();
    let message = named(&host, "up", "post-start-failed", go(&host, "up"));
    assert_eq!(
        message,
        "it is being stopped: post_start hook 1 failed with status 3"
    );
    assert_eq!(host.running("bad", "up").pid(), pid, "it has not ended yet");
    host.wait("it is told as the past once it has ended", PATIENCE, || {
        let said = condition(&host, "Fault", "container bad/up/1a")?;
        (said == "stopped: post_start hook 1 failed with status 3").then_some(())
    });
    host.finish();
}

/// What it does wrong while it is being stopped is named, though its stop is not over.
#[test]
fn a_failed_pre_stop_hook_is_named_while_the_stop_goes_on() {
    let Some(mut host) = Host::new("faults-pre-stop") else {
        return;
    };
    host.start_agent();
    let hook = "pre_stop: [{ command: [sh, -c, 'exit 3'] }], stop_grace_period: 4s";
    let deaf = service(&host, "trap '' TERM; while :; do sleep 0.1; done", hook);
    host.write_manifest("bad", &format!("services:\n  down: {deaf}\n"));
    host.running("bad", "down");
    let since = Instant::now();
    host.stead_ok(&["stop", "--no-wait", "bad/down"]);
    let message = named(&host, "down", "pre-stop-failed", since);
    assert_eq!(message, "pre_stop hook 1 failed with status 3");
    let state = host.instance("bad", "down").expect("it is there").state;
    assert_eq!(state, "stopping");
    host.finish();
}
