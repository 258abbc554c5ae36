//! Commands in containers of their own before the start of a service.

use nix::sys::signal::Signal;

use super::{Diary, begun, write};
use crate::host::{Host, PATIENCE, signal};

/// A service that waits for a hook, with a diary of both.
fn prepared(host: &Host, diary: &Diary, hooks: &str, more: &str) -> String {
    let web = r#"[sh, -c, "echo up >> /out/log; trap 'exit 0' TERM; while :; do sleep 0.05; done"]"#;
    format!(
        "services:\n  web:\n    image: {}\n    command: {web}\n    restart: always\n    volumes: [\"{}:/out\", /own]\n    pre_start: [{hooks}]\n{more}",
        host.busybox(),
        diary.0.display()
    )
}

#[test]
fn what_runs_before_the_start_runs_once_for_each_version_of_the_service() {
    let Some((host, diary)) = begun("hooks-before") else {
        return;
    };
    let hooks = format!(
        r#"{{ command: [sh, -c, "sleep 0.3; echo $$A$$B one >> /out/log; echo left > /own/file"], environment: {{ B: 2 }} }}, {}"#,
        write("two")
    );
    // What has no name is each container's own.
    let own = r#"    post_start: [{ command: [sh, -c, "[ ! -e /own/file ] || cat /own/file >> /out/log"] }]"#;
    let text = |more: &str| format!("    environment: {{ A: 1 }}\n{own}\n{more}");
    let plain = prepared(&host, &diary, &hooks, &text(""));
    let done = host.change("shop", &plain);
    let keys: Vec<&str> = done.iter().map(|(key, _, _)| key.as_str()).collect();
    for key in ["web.pre_start-1", "web.pre_start-2", "web/1"] {
        assert!(keys.iter().any(|known| known.contains(key)), "{key}: {keys:?}");
    }
    let all = ["12 one", "two", "up", "left"];
    assert_eq!(diary.until("left"), all);
    let shown = host.stead_ok(&["ps", "-a"]);
    assert!(shown.contains("shop/web.pre_start-1/1"), "{shown}");

    // A restart, an end of its own and another label are the same version; so is a second container.
    host.stead_ok(&["restart", "shop/web"]);
    assert_eq!(diary.until("left"), ["up", "left"]);
    signal(host.running("shop", "web").pid(), Signal::SIGKILL);
    assert_eq!(diary.until("left"), ["up", "left"]);
    host.converged("shop");
    let labelled = prepared(&host, &diary, &hooks, &text("    labels: { a: b }\n"));
    host.change("shop", &labelled);
    let second = prepared(
        &host,
        &diary,
        &hooks,
        &text("    labels: { a: b }\n    scale: 2\n"),
    );
    let done = host.change("shop", &second);
    assert!(
        done.iter().all(|(key, _, _)| !key.contains("pre_start")),
        "{done:?}"
    );
    host.wait("the second one runs", PATIENCE, || {
        diary.lines().contains(&"up".to_owned()).then_some(())
    });
    diary.until("up");

    // Another version: the hooks first, while the old one runs on.
    let edited = prepared(
        &host,
        &diary,
        &hooks.replace("sleep 0.3", "sleep 0.4"),
        &text("    tty: true\n"),
    );
    let before = host.running("shop", "web");
    host.write_manifest("shop", &edited);
    host.wait("the first hook runs", PATIENCE, || {
        let hook = host.instance("shop", "web.pre_start-1")?;
        (hook.state == "running").then_some(())
    });
    assert_eq!(host.instance("shop", "web").and_then(|web| web.pid), before.pid);
    host.converged("shop");
    assert_eq!(diary.until("left"), all);
    assert_ne!(host.running("shop", "web").pid, before.pid);

    // What is not asked for any more is gone.
    let without = edited.replace(&hooks.replace("sleep 0.3", "sleep 0.4"), "");
    host.change("shop", &without);
    let services = host.services();
    assert_eq!(services.len(), 1, "{services:?}");
    host.finish();
}

#[test]
fn a_service_does_not_start_before_what_runs_before_it_has_succeeded() {
    let Some((mut host, diary)) = begun("hooks-before-failing") else {
        return;
    };
    let failing = r#"{ command: [sh, -c, "echo tried >> /out/log; [ -e /out/go ] || exit 5"] }"#;
    let each = r#"{ command: [sh, -c, "echo each >> /out/log"], per_replica: true }"#;
    host.write_manifest(
        "shop",
        &prepared(&host, &diary, &format!("{failing}, {each}"), "    scale: 2\n"),
    );
    host.wait("it is tried again", PATIENCE, || {
        (diary.lines().len() >= 3).then_some(())
    });
    assert!(
        diary.lines().iter().all(|line| line == "tried"),
        "{:?}",
        diary.lines()
    );
    let web = host.instance("shop", "web").expect("it is wanted");
    assert_eq!(web.pid, None, "{web:?}");
    let said = host.complaint("shop");
    assert!(said.contains("after web.pre_start-1 has completed"), "{said}");
    // The next agent goes on where this one was killed.
    host.kill_agent();
    diary.go();
    host.start_agent();
    host.converged("shop");
    let mut lines = diary.lines();
    lines.retain(|line| line != "tried");
    assert_eq!(lines, ["each", "each", "up", "up"]);
    host.finish();
}
