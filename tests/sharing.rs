//! Services that live in the namespaces of another: who is untouched when that one is replaced, and who comes back
//! with it when it is made anew.

use nix::sys::signal::Signal;

use crate::host::{Host, PATIENCE, process, signal, views::Identity};

const SLEEP: &str = "command: [sleep, '1000000'], stop_signal: KILL";

/// `web`, and a sharer of its network, of its processes and of its IPC, and of all three.
fn file(host: &Host, web: &str) -> String {
    let image = host.busybox();
    let service = |name: &str, more: &str| format!("  {name}: {{ image: \"{image}\", {SLEEP}, {more} }}\n");
    let sharers = [
        ("net", "network_mode: 'service:web'"),
        ("pid", "pid: 'service:web'"),
        ("ipc", "ipc: 'service:web'"),
        (
            "all",
            "network_mode: 'service:web', pid: 'service:web', ipc: 'service:web'",
        ),
    ];
    let sharers: String = sharers.iter().map(|(name, more)| service(name, more)).collect();
    format!(
        "services:\n{}{sharers}",
        service("web", &format!("restart: always, {web}"))
    )
}

const SHARERS: [&str; 4] = ["net", "pid", "ipc", "all"];

fn inside(host: &Host, service: &str, command: &str) -> String {
    let reply = host.stead(&["exec", &format!("case/{service}"), "--", "sh", "-c", command]);
    reply.stdout.trim().to_owned()
}

/// Everybody is in the namespaces of `web` that it asked for, and in no others.
fn shares(host: &Host) {
    let of = |service: &str, kind: &str| inside(host, service, &format!("readlink /proc/self/ns/{kind}"));
    for (sharer, kinds) in [
        ("net", &["net"][..]),
        ("pid", &["pid"]),
        ("ipc", &["ipc"]),
        ("all", &["net", "pid", "ipc"]),
    ] {
        for kind in ["net", "pid", "ipc", "uts", "mnt"] {
            let same = of("web", kind) == of(sharer, kind);
            assert_eq!(same, kinds.contains(&kind), "{sharer} and the {kind} of web");
        }
        assert_eq!(of(sharer, "user"), of("web", "user"), "{sharer}");
    }
    // By the same names, and with the same files in shared memory.
    let address = host.running("case", "web").addresses;
    assert!(!address.is_empty());
    assert_eq!(
        inside(host, "net", "cat /etc/hosts"),
        inside(host, "web", "cat /etc/hosts")
    );
    assert_eq!(inside(host, "net", "hostname"), "web");
    inside(host, "ipc", "echo $$ > /dev/shm/x");
    let said = inside(host, "all", "cat /dev/shm/x");
    assert!(!said.is_empty());
    assert_eq!(inside(host, "web", "cat /dev/shm/x"), said);
    // Each sees the processes of all who share them.
    let count = "cat /proc/[0-9]*/cmdline | tr '\\0' ' ' | grep -o 'sle[e]p 1000000' | wc -l";
    assert_eq!(inside(host, "pid", count), "3");
    assert_eq!(inside(host, "net", count), "1");
}

fn identities(host: &Host) -> Vec<Identity> {
    SHARERS
        .iter()
        .map(|name| host.running("case", name).identity())
        .collect()
}

#[test]
fn who_shares_namespaces_outlives_the_container_that_lends_them() {
    let Some(mut host) = Host::new("sharing") else {
        return;
    };
    host.start_agent();
    host.change("case", &file(&host, "environment: { A: '1' }"));
    shares(&host);
    let before = identities(&host);
    let web = host.running("case", "web");

    // Replaced by an edit, by its own end, and by an operator.
    host.change("case", &file(&host, "environment: { A: '2' }"));
    let edited = host.running("case", "web");
    assert_ne!(edited.pid, web.pid);
    assert_eq!(edited.addresses, web.addresses);
    assert_eq!(identities(&host), before, "an edit of the lender");
    shares(&host);

    signal(edited.pid(), Signal::SIGKILL);
    host.wait("the lender comes back", PATIENCE, || {
        let now = host.instance("case", "web")?;
        (now.state == "running" && now.pid != edited.pid).then_some(())
    });
    assert_eq!(identities(&host), before, "a crash of the lender");
    shares(&host);

    host.kill_agent();
    host.start_agent();
    host.converged("case");
    assert_eq!(identities(&host), before, "a new agent");
    shares(&host);
    host.finish();
}

#[test]
fn who_shares_namespaces_is_made_anew_with_the_sandbox_that_lends_them() {
    let Some(mut host) = Host::new("sharing-anew") else {
        return;
    };
    host.start_agent();
    let lonely = format!("services:\n  web: {{ image: \"{}\", {SLEEP} }}\n", host.busybox());
    host.change("case", &lonely);
    // To lend its processes, it must be another sandbox: the plan says so, and for whom.
    let done = host.change("case", &file(&host, "init: false"));
    let (_, class, cause) = done
        .iter()
        .find(|(key, _, _)| key.contains("web"))
        .expect("web changes");
    assert_eq!(class, "recreate");
    assert!(
        cause.contains("services.pid.pid") || cause.contains("services.all.pid"),
        "{cause}"
    );
    shares(&host);

    // By an edit that is no matter of the container alone.
    let before = identities(&host);
    let done = host.change("case", &file(&host, "sysctls: { net.core.somaxconn: 99 }"));
    assert_eq!(done.len(), 5, "{done:?}");
    assert!(
        identities(&host)
            .iter()
            .zip(&before)
            .all(|(now, before)| now.pid != before.pid)
    );
    shares(&host);

    // By the end of its supervisor, and of what holds the namespaces.
    for name in ["the supervisor", "pause"] {
        let before = identities(&host);
        let shim = process::parent(host.running("case", "web").pid()).expect("a supervisor");
        let mut all = process::all().into_iter();
        let pause = all.find(|pid| process::parent(*pid) == Some(shim) && process::name(*pid) == "pause");
        let pause = pause.expect("what holds the namespaces");
        signal(if name == "pause" { pause } else { shim }, Signal::SIGKILL);
        host.wait(&format!("all are back after the end of {name}"), PATIENCE, || {
            let anew = SHARERS.iter().zip(&before).all(|(name, before)| {
                let now = host.instance("case", name);
                now.is_some_and(|now| now.state == "running" && now.pid() != before.pid)
            });
            anew.then_some(())
        });
        host.converged("case");
        shares(&host);
    }
    host.finish();
}

#[test]
fn what_cannot_be_shared_is_refused_with_the_remedy() {
    let Some(mut host) = Host::new("sharing-refused") else {
        return;
    };
    host.start_agent();
    let image = host.busybox();
    for (services, said) in [
        (
            "a: { X, network_mode: 'service:b', ports: ['80'] }, b: { X }",
            "publish the ports there, at `b`",
        ),
        (
            "a: { X, network_mode: 'service:b', hostname: c }, b: { X }",
            "name it there, at `b`",
        ),
        ("a: { X, uts: host, hostname: c }", "remove it, or `uts: host`"),
        (
            "a: { X, network_mode: 'service:b', pid: 'service:c' }, b: { X }, c: { X }",
            "name two services; write the same one",
        ),
        (
            "a: { X, pid: 'service:b', ipc: host }, b: { X }",
            "write `userns_mode: host` there, too",
        ),
        (
            "a: { X, network_mode: 'container:none' }",
            "there is no container none",
        ),
        (
            "a: { X, network_mode: 'service:b' }, b: { X, scale: 0 }",
            "give it a `scale` of 1",
        ),
    ] {
        let service = format!("image: \"{image}\", {SLEEP}");
        let text = format!("services: {{ {} }}\n", services.replace('X', &service));
        host.write_manifest("case", &text);
        host.wait(&format!("{services} is refused: {said}"), PATIENCE, || {
            let status = host.stead(&["status"]);
            status.stdout.contains(said).then_some(())
        });
        host.remove_manifest("case");
        host.gone("case");
        host.nothing_to_do(PATIENCE);
    }
    host.finish();
}
