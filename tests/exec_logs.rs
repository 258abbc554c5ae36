//! `exec` and `logs` of a running service.

use std::{io::Write, process::Stdio};

use nix::sys::signal::Signal;

use crate::host::{Host, PATIENCE, drain, signal};

fn prepared(name: &str, script: &str) -> Option<Host> {
    let mut host = Host::new(name)?;
    host.start_agent();
    let text = format!(
        "services:\n  box:\n    image: {}\n    hostname: boxed\n    user: app\n    working_dir: /tmp\n    environment: {{ A: b }}\n    command: [sh, -c, '{script}']\n",
        host.busybox()
    );
    host.write_manifest("case", &text);
    host.running("case", "box");
    Some(host)
}

#[test]
fn exec_runs_as_the_service_does_and_its_status_is_the_commands() {
    let Some(host) = prepared("exec", "exec sleep 1000000") else {
        return;
    };
    let run = |options: &[&str], command: &[&str]| {
        let mut arguments = vec!["exec"];
        arguments.extend(options);
        arguments.extend(["case/box", "--"]);
        arguments.extend(command);
        host.stead(&arguments)
    };
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&[], &["id", "-u"], "1000"),
        (&[], &["pwd"], "/tmp"),
        (&[], &["sh", "-c", "echo $A"], "b"),
        (&[], &["cat", "/proc/sys/kernel/hostname"], "boxed"),
        (&["-u", "root"], &["id", "-u"], "0"),
        (&["-u", "0:1000"], &["id", "-g"], "1000"),
        (&["-w", "/etc"], &["pwd"], "/etc"),
        (&["-e", "A=c"], &["sh", "-c", "echo $A"], "c"),
    ];
    for (options, command, expected) in cases {
        let reply = run(options, command);
        assert_eq!(
            (reply.code, reply.stdout.trim()),
            (0, *expected),
            "{options:?} {command:?}: {reply:?}"
        );
    }
    assert_eq!(run(&[], &["sh", "-c", "exit 42"]).code, 42);
    let apart = run(&[], &["sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((apart.stdout.as_str(), apart.stderr.as_str()), ("out\n", "err\n"));
    let missing = run(&[], &["no-such-command"]);
    assert!(
        missing.code == 127 && missing.stderr.contains("no-such-command"),
        "{missing:?}"
    );
    host.finish();
}

#[test]
fn exec_with_a_terminal_gives_one_of_the_size_of_the_callers() {
    let Some(host) = prepared("exec-terminal", "exec sleep 1000000") else {
        return;
    };
    // script(1) is in every Debian, and makes a terminal.
    let line = format!(
        "stty rows 33 cols 77; {} --root {} exec -t box -- sh -c 'busybox stty size; tty; exit 7'",
        Host::binary().display(),
        host.root.display()
    );
    let reply = host.tool_reply("script", &["-qec", &line, "/dev/null"]);
    assert_eq!(reply.code, 7, "{reply:?}");
    assert!(reply.stdout.contains("33 77"), "{reply:?}");
    assert!(reply.stdout.contains("/dev/"), "{reply:?}");
    let without = host.stead(&["exec", "-t", "box", "--", "true"]);
    assert_eq!(without.code, 64, "{without:?}");
    host.finish();
}

#[test]
fn the_terminal_of_exec_follows_the_size_of_the_callers() {
    let Some(host) = prepared("exec-resize", "exec sleep 1000000") else {
        return;
    };
    let inside = "trap \"busybox stty size | grep -q ^40 && exit 8\" WINCH; while :; do usleep 10000; done";
    let line = format!(
        "stty rows 33 cols 77; (while sleep 0.1; do stty -F /dev/tty rows 33; stty -F /dev/tty rows 40; done) & bg=$!; \
         {} --root {} exec -t box -- sh -c '{inside}'; code=$?; kill $bg; exit $code",
        Host::binary().display(),
        host.root.display()
    );
    let reply = host.tool_reply("timeout", &["30", "script", "-qec", &line, "/dev/null"]);
    assert_eq!(reply.code, 8, "{reply:?}");
    host.finish();
}

#[test]
fn exec_tells_of_signals_and_of_an_end() {
    let Some(host) = prepared("exec-end", "while test ! -e /tmp/end; do usleep 20000; done") else {
        return;
    };
    let killed = host.stead(&["exec", "box", "--", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.code, 137, "{killed:?}");
    let ended = host.stead(&[
        "exec",
        "-u",
        "0",
        "box",
        "--",
        "sh",
        "-c",
        "touch /tmp/end; exec sleep 1000",
    ]);
    assert_eq!(ended.code, 137, "it ends with the container: {ended:?}");
    host.wait("exec says so", PATIENCE, || {
        let after = host.stead(&["exec", "case/box", "--", "true"]);
        (after.code == 1 && after.stderr.contains("`case/box` is not running")).then_some(())
    });
    host.finish();
}

#[test]
fn exec_passes_standard_input() {
    let Some(host) = prepared("exec-stdin", "exec sleep 1000000") else {
        return;
    };
    let mut command = host.command(&["exec", "-i", "box", "--", "cat"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = host.network.on_host(|| command.spawn().expect("exec starts"));
    let text = "x".repeat(1 << 20);
    let mut input = child.stdin.take().expect("its input");
    let mut output = child.stdout.take().expect("its output");
    let writer = std::thread::spawn({
        let text = text.clone();
        move || input.write_all(text.as_bytes()).expect("it reads")
    });
    assert!(drain(&mut output) == text, "what comes out is what went in");
    writer.join().expect("no panic");
    assert!(child.wait().expect("its end").success());
    host.finish();
}

#[test]
fn logs_show_follow_and_cut() {
    let Some(host) = prepared(
        "logs",
        "i=0; while :; do echo line $$i; i=$$((i+1)); usleep 50000; done",
    ) else {
        return;
    };
    host.wait("ten lines", PATIENCE, || {
        host.stead_ok(&["logs", "case"]).contains("line 10").then_some(())
    });
    let tail = host.stead_ok(&["logs", "--tail", "3", "case", "box"]);
    assert_eq!(tail.lines().count(), 3, "{tail}");
    let stamped = host.stead_ok(&["logs", "-t", "--tail", "1", "case"]);
    assert!(
        stamped.contains('T') && stamped.contains('Z'),
        "a time stamp: {stamped}"
    );

    let mut follow = host.command(&["logs", "-f", "--tail", "0", "case"]);
    follow.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut follow = host.network.on_host(|| follow.spawn().expect("logs starts"));
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(follow.stdout.take().expect("its output")));
    for _ in 0..5 {
        let line = lines.next().expect("another line").expect("text");
        assert!(line.contains("line "), "{line}");
    }
    signal(follow.id(), Signal::SIGTERM);
    follow.wait().expect("its end");
    host.finish();
}

#[test]
fn where_output_goes_is_changed_while_the_service_runs_and_said() {
    let Some(mut host) = Host::new("logs-driver") else {
        return;
    };
    host.start_agent();
    let image = host.busybox();
    let file = |logging: &str| {
        format!(
            "services:\n  box: {{ image: \"{image}\", stop_signal: KILL, command: [sh, -c, 'while :; do echo tick; usleep \
             20000; done'], logging: {logging} }}\n"
        )
    };
    host.change("case", &file("{ options: { max-size: 100k } }"));
    let pid = host.running("case", "box").pid;
    host.wait("a line", PATIENCE, || {
        host.stead(&["logs", "case"])
            .stdout
            .contains("tick")
            .then_some(())
    });
    host.change("case", &file("{ driver: none }"));
    host.wait("none is kept, and that is said", PATIENCE, || {
        let reply = host.stead(&["logs", "case"]);
        (reply.stdout.is_empty() && reply.stderr.contains("nothing of its output is kept")).then_some(())
    });
    host.change(
        "case",
        &file("{ driver: syslog, options: { syslog-address: 'udp://127.0.0.1:9' } }"),
    );
    host.wait(
        "lines are kept here again, and where they go is said",
        PATIENCE,
        || {
            let reply = host.stead(&["logs", "case"]);
            (reply.stdout.contains("tick") && reply.stderr.contains("syslog server 127.0.0.1:9"))
                .then_some(())
        },
    );
    assert_eq!(
        host.running("case", "box").pid,
        pid,
        "the same process all the while"
    );
    host.write_manifest(
        "bad",
        &file("{ driver: gelf, options: { a: b } }").replace("box", "other"),
    );
    let reply = host.stead(&["plan", "-f", host.manifest("bad").to_str().expect("a path")]);
    assert!(
        reply.stderr.contains("there is no log driver `gelf` here") && reply.stderr.contains("bad.yaml:2:"),
        "{reply:?}"
    );
    host.remove_manifest("bad");
    host.finish();
}
