//! Commands around the life of a service: after each start, and before each stop.

mod before;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::host::{Host, PATIENCE, process, signal};

/// What a service has written, line by line.
struct Diary(PathBuf);

impl Diary {
    fn of(host: &Host) -> Diary {
        Diary(host.directory("out"))
    }

    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits until `last` is the last line; gives all of them, and begins anew.
    fn until(&self, last: &str) -> Vec<String> {
        let what = format!("`{last}` is the last of {}", self.0.display());
        let lines = crate::host::try_wait(PATIENCE, || {
            Some(self.lines()).filter(|lines| lines.last().is_some_and(|line| line == last))
        });
        let lines = lines.unwrap_or_else(|| panic!("waited in vain until {what}: {:?}", self.lines()));
        fs::remove_file(self.0.join("log")).expect("the diary goes");
        lines
    }

    /// What waits for it goes on.
    fn go(&self) {
        fs::write(self.0.join("go"), "").expect("the word");
    }
}

/// A host whose agent runs, and what its service is to write. `None`: this machine cannot do it.
fn begun(name: &str) -> Option<(Host, Diary)> {
    let mut host = Host::new(name)?;
    let diary = Diary::of(&host);
    host.start_agent();
    Some((host, diary))
}

/// A first process that ends at SIGTERM, and says so.
const OBEDIENT: &str =
    r#"[sh, -c, "trap 'echo term >> /out/log; exit 0' TERM; while :; do sleep 0.05; done"]"#;
/// Begins, and waits for the word.
const WAITING: &str =
    r#"[sh, -c, "echo begin >> /out/log; until [ -e /out/go ]; do sleep 0.05; done; echo end >> /out/log"]"#;

fn service(host: &Host, diary: &Diary, more: &str) -> String {
    format!(
        "services:\n  web:\n    image: {}\n    command: {OBEDIENT}\n    volumes: [\"{}:/out\"]\n{more}",
        host.busybox(),
        diary.0.display()
    )
}

fn write(line: &str) -> String {
    format!(r#"{{ command: [sh, -c, "echo {line} >> /out/log"] }}"#)
}

fn hook_of(host: &Host) -> Option<String> {
    let rows = host.stead(&["--json", "ps", "-a"]).json();
    rows[0]["hook"].as_str().map(str::to_owned)
}

#[test]
fn hooks_run_in_order_around_every_start_and_every_stop() {
    let Some((host, diary)) = begun("hooks-order") else {
        return;
    };
    let slow = r#"{ command: [sh, -c, "sleep 0.2; echo up 1 >> /out/log"] }"#;
    let text = service(
        &host,
        &diary,
        &format!(
            "    restart: always\n    post_start: [{slow}, {}]\n    pre_stop: [{}, {}]\n",
            write("up 2"),
            write("down 1"),
            write("down 2")
        ),
    );
    let both = ["down 1", "down 2", "term", "up 1", "up 2"];
    host.write_manifest("shop", &text);
    host.converged("shop");
    assert_eq!(diary.until("up 2"), ["up 1", "up 2"], "the first start");
    host.stead_ok(&["restart", "shop/web"]);
    assert_eq!(diary.until("up 2"), both, "a restart");
    host.stead_ok(&["stop", "shop/web"]);
    assert_eq!(diary.lines(), both[..3], "a stop");
    diary.until("term");
    host.stead_ok(&["start", "shop/web"]);
    assert_eq!(diary.until("up 2"), ["up 1", "up 2"], "a start");

    // Nothing runs before an end that nobody asked for.
    host.converged("shop");
    signal(host.running("shop", "web").pid(), Signal::SIGKILL);
    assert_eq!(diary.until("up 2"), ["up 1", "up 2"], "an end of its own");
    host.converged("shop");
    for edit in [
        "    environment: { A: 1 }\n",
        "    environment: { A: 1 }\n    pid: host\n",
    ] {
        host.change("shop", &format!("{text}{edit}"));
        assert_eq!(diary.until("up 2"), both, "after {edit}");
    }
    host.remove_manifest("shop");
    host.gone("shop");
    assert_eq!(diary.lines(), both[..3], "the manifest is gone");
    host.finish();
}

#[test]
fn a_hook_runs_as_exec_does_and_prints_to_the_log() {
    let Some((host, diary)) = begun("hooks-log") else {
        return;
    };
    let says = r#"[sh, -c, "echo $$(id -u) $$(pwd) $$A$$B; grep -E 'CapBnd|Seccomp:' /proc/self/status; echo -n aside >&2"]"#;
    let hook = format!("command: {says}, user: app, working_dir: /tmp, environment: {{ B: 2 }}");
    let text = service(
        &host,
        &diary,
        &format!("    environment: {{ A: 1 }}\n    cap_drop: [ALL]\n    post_start: [{{ {hook} }}]\n"),
    );
    host.write_manifest("shop", &text);
    host.converged("shop");
    let said = host.stead_ok(&["logs", "shop", "web"]);
    for part in [
        "1000 /tmp 12",
        "CapBnd:\t0000000000000000",
        "Seccomp:\t2",
        "aside",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Where the ids are the host's, a hook may have every right.
    let caps = r#"[sh, -c, "grep -E 'CapBnd|Seccomp:' /proc/self/status"]"#;
    host.change(
        "shop",
        &service(
            &host,
            &diary,
            &format!(
                "    cap_drop: [ALL]\n    userns_mode: host\n    post_start: [{{ command: {caps}, privileged: true }}]\n"
            ),
        ),
    );
    let said = host.stead_ok(&["logs", "shop", "web"]);
    let own = fs::read_to_string("/proc/self/status").expect("our own rights");
    let own = own
        .lines()
        .find(|line| line.starts_with("CapBnd"))
        .expect("CapBnd");
    assert!(
        said.contains(own) && said.contains("Seccomp:\t0"),
        "{own}: {said}"
    );
    host.finish();
}

#[test]
fn a_start_whose_hook_fails_has_failed() {
    let Some((host, diary)) = begun("hooks-failing") else {
        return;
    };
    let failing = r#"{ command: [sh, -c, "echo up >> /out/log; exit 3"] }"#;
    let after = format!(
        "  after: {{ image: \"{}\", command: [sleep, \"1000\"], depends_on: [web] }}\n",
        host.busybox()
    );
    let text = |rest: &str| {
        let hooks = format!(
            "    post_start: [{failing}, {}]\n    pre_stop: [{}]\n",
            write("never"),
            write("no")
        );
        service(&host, &diary, &format!("{rest}{hooks}{after}"))
    };
    host.write_manifest("shop", &text("    restart: on-failure\n"));
    let web = host.wait("it was started again twice", PATIENCE, || {
        host.instance("shop", "web")
            .filter(|web| web.state == "backoff" && web.restarts >= 2)
    });
    assert_eq!(web.exit_code, Some(3));
    let why = "post_start hook 1 failed with status 3";
    assert!(host.complaint("shop").contains(why), "{}", host.complaint("shop"));
    for said in [
        host.stead_ok(&["logs", "shop", "web"]),
        host.stead_ok(&["why", "shop/web"]),
    ] {
        assert!(said.contains(why), "{said}");
    }
    let shown = host.stead_ok(&["ps", "-a"]);
    assert!(shown.contains("post-start-failed"), "{shown}");
    let waits = host.instance("shop", "after").expect("it is wanted");
    assert_eq!(waits.pid, None, "{waits:?}");

    // Its policy asks for no other try: that is told, and nobody starts after it.
    host.write_manifest("shop", &text("    restart: \"no\"\n"));
    let status = host.wait("it is given up", PATIENCE, || {
        host.project_status("shop")
            .filter(|status| status["state"] == "degraded")
    });
    assert!(status.to_string().contains(why), "{status}");
    assert_eq!(host.instance("shop", "after").and_then(|after| after.pid), None);
    let lines = diary.lines();
    assert!(lines.len() >= 4, "{lines:?}");
    for two in lines.chunks(2) {
        assert_eq!(two, ["up", "term"]);
    }

    // One that is not there.
    let missing = "    post_start: [{ command: [nothing] }]\n";
    host.write_manifest("shop", &service(&host, &diary, missing));
    host.wait("it is named", PATIENCE, || {
        let said = host.complaint("shop");
        said.contains("post_start hook 1 failed: the command `nothing` is not in the image")
            .then_some(())
    });
    host.finish();
}

#[test]
fn nobody_starts_after_a_service_before_its_hooks_are_done() {
    let Some((host, diary)) = begun("hooks-gate") else {
        return;
    };
    let healthy = "healthcheck: { test: [CMD, \"true\"], interval: 100ms }";
    let dependant = |name: &str, on: &str, condition: &str| {
        format!(
            "  {name}: {{ image: \"{}\", command: [sleep, \"1000\"], depends_on: {{ {on}: {{ condition: {condition} }} }} }}\n",
            host.busybox()
        )
    };
    let text = service(
        &host,
        &diary,
        &format!(
            "    {healthy}\n    post_start: [{{ command: {WAITING} }}]\n{}{}",
            dependant("a", "web", "service_started"),
            dependant("b", "web", "service_healthy")
        ),
    );
    host.write_manifest("shop", &text);
    host.wait("it is healthy", PATIENCE, || {
        host.instance("shop", "web").filter(|web| web.health == "healthy")
    });
    assert_eq!(diary.until("begin"), ["begin"]);
    let hook = host.stead(&["--json", "ps", "-a"]).json();
    assert!(hook.to_string().contains("post_start hook 1"), "{hook}");
    let status = host.project_status("shop").expect("its status");
    assert_eq!(status["state"], "waiting", "{status}");
    assert!(status.to_string().contains("post_start hook 1 runs"), "{status}");
    for name in ["a", "b"] {
        let waits = host.instance("shop", name).expect("it is wanted");
        assert_eq!(waits.pid, None, "{waits:?}");
    }
    diary.go();
    host.converged("shop");
    for name in ["a", "b"] {
        host.running("shop", name);
    }
    host.finish();
}

/// `between`: what happens to the agent while the hook runs.
fn once(name: &str, between: impl FnOnce(&mut Host, &Diary)) {
    let Some((mut host, diary)) = begun(name) else {
        return;
    };
    let hooks = format!("    post_start: [{{ command: {WAITING} }}, {}]\n", write("done"));
    host.write_manifest("shop", &service(&host, &diary, &hooks));
    host.wait("the hook runs", PATIENCE, || {
        (diary.lines() == ["begin"]).then_some(())
    });
    let before = host.running("shop", "web").identity();
    between(&mut host, &diary);
    host.converged("shop");
    assert_eq!(diary.lines(), ["begin", "end", "done"]);
    assert_eq!(host.running("shop", "web").identity(), before);
    host.finish();
}

#[test]
fn the_end_of_the_agent_neither_loses_nor_doubles_a_hook() {
    once("hooks-agent-dies", |host, diary| {
        host.kill_agent();
        diary.go();
        host.wait("the hooks are done without an agent", PATIENCE, || {
            (diary.lines().len() == 3).then_some(())
        });
        host.start_agent();
    });
}

#[test]
fn a_hook_goes_on_under_another_build_of_the_supervisor() {
    once("hooks-upgrade", |host, diary| {
        host.kill_agent();
        let other = host.root.join("stead-next");
        another_build(&other);
        host.start_agent_from(&other);
        host.wait("the next agent knows of the hook", PATIENCE, || {
            (hook_of(host)? == "post_start hook 1").then_some(())
        });
        diary.go();
    });
}

/// The same program, another file with other contents: an ELF file may carry anything at its end.
fn another_build(path: &Path) {
    let mut bytes = fs::read(Host::binary()).expect("the program");
    bytes.extend_from_slice(b"another build");
    fs::write(path, bytes).expect("a copy");
    let mode = fs::metadata(Host::binary()).expect("its mode").permissions();
    fs::set_permissions(path, mode).expect("its mode");
}

#[test]
fn a_stop_ends_the_hook_that_runs() {
    let Some((host, diary)) = begun("hooks-cut") else {
        return;
    };
    let hooks = "    post_start: [{ command: [sleep, \"98765\"] }]\n    stop_grace_period: 20s\n";
    host.write_manifest("shop", &service(&host, &diary, hooks));
    host.wait("the hook runs", PATIENCE, || {
        (hook_of(&host)? == "post_start hook 1").then_some(())
    });
    let marker = "sleep 98765";
    let started = Instant::now();
    host.stead_ok(&["stop", "shop/web"]);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(diary.lines(), ["term"]);
    assert_eq!(process::with_argument(marker), [] as [u32; 0]);
    // One that hangs in its start can be restarted, too.
    let begun = || {
        host.instance("shop", "web")
            .filter(|_| hook_of(&host).is_some())?
            .pid
    };
    host.stead_ok(&["start", "shop/web", "--no-wait"]);
    let first = host.wait("the hook runs again", PATIENCE, begun);
    host.stead_ok(&["restart", "shop/web", "--no-wait"]);
    host.wait("it was started anew", PATIENCE, || {
        begun().filter(|pid| *pid != first)
    });
    host.finish();
}

#[test]
fn a_deaf_hook_has_the_grace_of_the_stop_and_no_more() {
    let Some((host, diary)) = begun("hooks-deaf") else {
        return;
    };
    let hooks = format!(
        "    restart: always\n    stop_grace_period: 2s\n    pre_stop: [{{ command: [sleep, \"87654\"] }}, {}]\n",
        write("never")
    );
    host.write_manifest("shop", &service(&host, &diary, &hooks));
    host.converged("shop");
    let started = Instant::now();
    host.stead_ok(&["stop", "shop/web"]);
    let took = started.elapsed();
    eprintln!("a deaf pre_stop hook: the stop took {took:?} of 2 s");
    assert!(
        (Duration::from_millis(1_900)..Duration::from_millis(3_000)).contains(&took),
        "{took:?}"
    );
    assert_eq!(process::with_argument("sleep 87654"), [] as [u32; 0]);
    assert_eq!(
        diary.lines(),
        [] as [&str; 0],
        "neither another hook nor the signal"
    );
    let why = "pre_stop hook 1 failed: it did not end within 2 s";
    for said in [
        host.stead_ok(&["logs", "shop", "web"]),
        host.stead_ok(&["why", "shop/web"]),
    ] {
        assert!(said.contains(why), "{said}");
    }
    host.finish();
}

#[test]
fn the_stop_goes_on_after_a_hook_that_fails() {
    let Some((host, diary)) = begun("hooks-failing-stop") else {
        return;
    };
    let hooks = format!(
        "    pre_stop: [{{ command: [sh, -c, \"exit 4\"] }}, {}]\n",
        write("down")
    );
    host.write_manifest("shop", &service(&host, &diary, &hooks));
    host.converged("shop");
    host.stead_ok(&["stop", "shop/web"]);
    assert_eq!(diary.until("term"), ["down", "term"]);
    let why = "pre_stop hook 1 failed with status 4";
    for said in [
        host.stead_ok(&["logs", "shop", "web"]),
        host.stead_ok(&["why", "shop/web"]),
    ] {
        assert!(said.contains(why), "{said}");
    }
    host.finish();
}

#[test]
fn a_stop_that_has_begun_is_carried_out_once_whoever_asks_for_it() {
    for (name, attended) in [("hooks-stop-next", true), ("hooks-stop-alone", false)] {
        let Some((mut host, diary)) = begun(name) else {
            return;
        };
        let hooks = format!("    stop_grace_period: 30s\n    pre_stop: [{{ command: {WAITING} }}]\n");
        host.write_manifest("shop", &service(&host, &diary, &hooks));
        host.converged("shop");
        let pid = host.running("shop", "web").pid();
        host.remove_manifest("shop");
        host.wait("the hook runs", PATIENCE, || {
            (diary.lines() == ["begin"]).then_some(())
        });
        host.kill_agent();
        if attended {
            host.start_agent();
            host.wait("the next agent asks for the stop, too", PATIENCE, || {
                host.instance("shop", "web").filter(|web| web.state == "stopping")
            });
            diary.go();
        } else {
            diary.go();
            host.wait("it has ended without an agent", PATIENCE, || {
                (!process::alive(pid)).then_some(())
            });
            host.start_agent();
        }
        host.gone("shop");
        assert_eq!(diary.lines(), ["begin", "end", "term"], "{name}");
        host.finish();
    }
}

#[test]
fn a_changed_hook_touches_no_more_than_it_must() {
    let Some((host, diary)) = begun("hooks-edit") else {
        return;
    };
    let text = |up: &str, down: &str| {
        let hooks = format!(
            "    post_start: [{}]\n    pre_stop: [{}]\n",
            write(up),
            write(down)
        );
        service(&host, &diary, &hooks)
    };
    host.write_manifest("shop", &text("up", "down"));
    host.converged("shop");
    assert_eq!(diary.until("up"), ["up"]);
    let before = host.running("shop", "web").identity();
    let done = host.change("shop", &text("up", "other"));
    assert!(done.len() == 1 && done[0].1 == "live", "{done:?}");
    assert_eq!(host.running("shop", "web").identity(), before);
    assert_eq!(diary.lines(), [] as [&str; 0]);
    // What is to be so after a start is so after a start only.
    let done = host.change("shop", &text("next", "other"));
    assert!(done.len() == 1 && done[0].1 == "restart", "{done:?}");
    assert_eq!(diary.until("next"), ["other", "term", "next"]);
    host.finish();
}
