//! `cp`: files into a running service and out of it.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use crate::host::{Host, PATIENCE};

#[test]
fn files_and_streams_go_in_and_come_out() {
    let Some(mut host) = Host::new("cp") else {
        return;
    };
    host.start_agent();
    let image = host.busybox();
    let text = format!(
        "services:\n  box: {{ image: \"{image}\", user: app, stop_signal: KILL, command: [sleep, '1000000'], volumes: ['data:/data'] }}\n  \
         done: {{ image: \"{image}\", command: ['true'] }}\nvolumes: {{ data: }}\n"
    );
    host.write_manifest("case", &text);
    host.running("case", "box");
    let here = host.root.join("here");
    fs::create_dir_all(here.join("dir/sub")).expect("a directory");
    fs::write(here.join("dir/sub/file"), "text").expect("a file");
    let at = |name: &str| here.join(name).display().to_string();

    host.stead_ok(&["cp", &at("dir"), "case/box:/data"]);
    host.stead_ok(&["cp", &at("dir/."), "box:/data/other"]);
    host.stead_ok(&["cp", &at("dir/sub/file"), "box:/data/renamed"]);
    for path in ["/data/dir/sub/file", "/data/other/sub/file", "/data/renamed"] {
        assert_eq!(host.stead_ok(&["exec", "box", "--", "cat", path]), "text");
        let owner = host.stead_ok(&["exec", "box", "--", "busybox", "stat", "-c", "%u", path]);
        assert_eq!(owner, "0\n");
    }
    host.stead_ok(&["cp", "box:/data/dir/.", &at("back")]);
    assert_eq!(
        fs::read_to_string(here.join("back/sub/file")).expect("it came out"),
        "text"
    );
    host.stead_ok(&["cp", "case/box/1:etc/passwd", &at("")]);
    assert!(
        fs::read_to_string(here.join("passwd"))
            .expect("it came out")
            .contains("app")
    );

    // Streams, as tar(1) writes and reads them.
    let stream = Command::new("tar")
        .args(["-C", &at("dir"), "-cf", "-", "sub"])
        .output()
        .expect("tar");
    let mut command = host.command(&["cp", "-", "box:/tmp"]);
    command.stdin(Stdio::piped());
    let mut child = host.network.on_host(|| command.spawn().expect("cp starts"));
    child
        .stdin
        .take()
        .expect("its input")
        .write_all(&stream.stdout)
        .expect("it reads");
    assert!(child.wait().expect("its end").success());
    assert_eq!(
        host.stead_ok(&["exec", "box", "--", "cat", "/tmp/sub/file"]),
        "text"
    );
    let out = host.command(&["cp", "box:/data/dir", "-"]);
    let mut out = out;
    let out = host.network.on_host(|| out.output().expect("cp runs"));
    fs::write(here.join("out.tar"), out.stdout).expect("a file");
    let listed = host.tool("tar", &["-tf", &at("out.tar")]);
    assert_eq!(
        listed.lines().collect::<Vec<_>>(),
        ["dir/", "dir/sub/", "dir/sub/file"]
    );

    for (source, destination, code, part) in [
        (at("no"), "box:/data".into(), 1, "there is no"),
        (at("dir/sub/file"), "box:/no/".into(), 1, "make it first"),
        (at("dir"), "box:/etc/passwd".into(), 1, "is a directory"),
        ("box:/no".into(), at("x"), 1, "there is no"),
        (
            "box:/a".into(),
            "done:/b".into(),
            1,
            "one side must be of this host",
        ),
        (at("dir"), at("x"), 64, "TARGET:PATH"),
        (at("dir"), "nobody:/x".into(), 1, "no instance"),
    ] {
        let reply = host.stead(&["cp", &source, &destination]);
        assert!(
            reply.code == code && reply.stderr.contains(part),
            "{source} {destination}: {reply:?}"
        );
    }
    host.wait("a service that has ended says so", PATIENCE, || {
        let reply = host.stead(&["cp", "done:/etc/passwd", &at("x")]);
        (reply.code == 1 && reply.stderr.contains("is not running")).then_some(())
    });
    host.finish();
}
