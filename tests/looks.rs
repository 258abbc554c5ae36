//! `top`, `stats` and `port`: what a running service does and uses, and where it is reached.

use std::process::Stdio;

use serde_json::Value;

use crate::host::{Host, PATIENCE};

fn prepared(name: &str) -> Option<Host> {
    let mut host = Host::new(name)?;
    host.start_agent();
    let image = host.busybox();
    let text = format!(
        "services:\n  \
         busy: {{ image: \"{image}\", user: app, stop_signal: KILL, command: [sh, -c, 'sleep 1000 & while :; do :; done'] }}\n  \
         limited: {{ image: \"{image}\", stop_signal: KILL, mem_limit: 64m, command: [sh, -c, 'head -c 20000000 /dev/zero > /dev/shm/x; sleep 1000'] }}\n  \
         web: {{ image: builtin:hello, ports: [\"8081:8080\", \"127.0.0.1:8082:9090/udp\"] }}\n"
    );
    std::fs::copy(
        host.root.join("busybox/bin/busybox"),
        host.root.join("busybox/bin/head"),
    )
    .expect("an applet");
    host.write_manifest("case", &text);
    for service in ["busy", "limited", "web"] {
        host.running("case", service);
    }
    Some(host)
}

fn json(host: &Host, arguments: &[&str]) -> Value {
    serde_json::from_str(&host.stead_ok(arguments)).expect("one document")
}

#[test]
fn top_shows_the_processes_as_host_and_container_know_them() {
    let Some(host) = prepared("top") else {
        return;
    };
    let pid = host.running("case", "busy").pid.expect("its process");
    let found = host.wait("both processes", PATIENCE, || {
        let found = json(&host, &["--json", "top", "busy"]);
        let ready = found.as_array().is_some_and(|all| all.len() == 2)
            && found[0]["cpu_ms"].as_u64() > Some(50)
            && found[1]["command"] == "sleep 1000";
        ready.then_some(found)
    });
    assert_eq!(found[0]["pid"], pid);
    assert_eq!(found[0]["user"], "app");
    assert_eq!(found[0]["state"], "R");
    assert!(found[0]["memory"].as_u64() > Some(4096), "{found}");
    let text = host.stead_ok(&["top", "case/busy"]);
    assert!(text.starts_with("PID") && text.contains("sleep 1000"), "{text}");
    let none = host.stead(&["top", "case/nobody"]);
    assert!(none.code == 1 && none.stderr.contains("no instance"), "{none:?}");
    host.finish();
}

#[test]
fn stats_count_what_is_used() {
    let Some(host) = prepared("stats") else {
        return;
    };
    let of = |target: &str| json(&host, &["--json", "stats", "--no-stream", target])[0].clone();
    let busy = of("busy");
    assert!(busy["cpu_percent"].as_f64() > Some(5.0), "{busy}");
    assert_eq!(busy["usage"]["pids"], 2);
    assert_eq!(busy["usage"]["memory_limit"], Value::Null);
    // Whatever counts it here: it is never nothing.
    assert!(busy["usage"]["memory"].as_u64() > Some(4096), "{busy}");
    let limited = host.wait("what is in memory counts", PATIENCE, || {
        let limited = of("limited");
        (limited["usage"]["memory"].as_u64() > Some(19_000_000)).then_some(limited)
    });
    assert_eq!(limited["usage"]["memory_limit"], 64 << 20, "{limited}");
    assert_eq!(limited["usage"]["memory_source"], "cgroup", "{limited}");
    let before = of("web")["usage"]["sent"].as_u64().expect("known");
    for _ in 0..20 {
        host.stead_ok(&[
            "exec",
            "limited",
            "--",
            "wget",
            "-q",
            "-O",
            "/dev/null",
            "http://web:8080/",
        ]);
    }
    let after = of("web")["usage"]["sent"].as_u64().expect("known");
    assert!(after > before + 2000, "{before} {after}");
    let text = host.stead_ok(&["stats", "--no-stream"]);
    assert!(
        text.contains("case/busy/1") && text.contains("case/web/1"),
        "{text}"
    );

    let mut stream = host.command(&["--json", "stats", "busy"]);
    stream.stdout(Stdio::piped());
    let mut stream = host.network.on_host(|| stream.spawn().expect("it starts"));
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(stream.stdout.take().expect("its output")));
    for _ in 0..2 {
        let line = lines.next().expect("another line").expect("text");
        let seen: Value = serde_json::from_str(&line).expect("an object");
        assert_eq!(seen["instance"], "case/busy/1");
    }
    stream.kill().expect("it runs on");
    stream.wait().expect("its end");
    host.finish();
}

#[test]
fn port_tells_where_a_port_is() {
    let Some(host) = prepared("port") else {
        return;
    };
    assert_eq!(
        host.stead_ok(&["port", "web"]),
        "8080/tcp -> 0.0.0.0:8081\n9090/udp -> 127.0.0.1:8082\n"
    );
    assert_eq!(host.stead_ok(&["port", "case/web", "8080"]), "0.0.0.0:8081\n");
    assert_eq!(host.stead_ok(&["port", "web", "9090/udp"]), "127.0.0.1:8082\n");
    let none = host.stead(&["port", "web", "9090"]);
    assert!(
        none.code == 1 && none.stderr.contains("add it to `ports`"),
        "{none:?}"
    );
    assert_eq!(host.stead(&["port", "web", "x"]).code, 64);
    assert_eq!(host.stead_ok(&["port", "busy"]), "");
    host.finish();
}
