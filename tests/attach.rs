//! `attach`: the terminal and the input of a running service, from here.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::host::{Host, PATIENCE, signal};

fn prepared(name: &str) -> Option<Host> {
    let mut host = Host::new(name)?;
    host.start_agent();
    let image = host.busybox();
    let text = format!(
        "services:\n  \
         shell: {{ image: \"{image}\", command: [sh], tty: true, stdin_open: true, stop_signal: KILL }}\n  \
         reader: {{ image: \"{image}\", stdin_open: true, command: [sh, -c, 'echo ready; while read a; do \
         echo \"<$$a>\"; test $$a = end && exit 5; done'], stop_signal: KILL }}\n  \
         trap: {{ image: \"{image}\", command: [sh, -c, 'trap \"exit 9\" INT; while :; do echo tick; usleep 20000; done'], stop_signal: KILL }}\n"
    );
    host.write_manifest("case", &text);
    for service in ["shell", "reader", "trap"] {
        host.running("case", service);
    }
    Some(host)
}

/// Something that is attached, and its lines as they come.
struct Attached {
    child: Child,
    input: ChildStdin,
    lines: Receiver<String>,
}

impl Attached {
    fn start(host: &Host, arguments: &[&str]) -> Self {
        let mut command = host.command(&["attach"]);
        command.args(arguments);
        Self::of(host, command)
    }

    /// On a terminal of its own: script(1) is in every Debian.
    fn on_terminal(host: &Host, line: &str) -> Self {
        let mut command = std::process::Command::new("script");
        command.args(["-qec", line, "/dev/null"]);
        Self::of(host, command)
    }

    fn of(host: &Host, mut command: std::process::Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = host.network.on_host(|| command.spawn().expect("it starts"));
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            while output.read_line(&mut line).is_ok_and(|count| count > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        Attached {
            input: child.stdin.take().expect("its input"),
            lines,
            child,
        }
    }

    fn type_in(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).expect("it reads");
        self.input.flush().expect("it reads");
    }

    /// Whether a line holds `text`, of those that come within `patience` of one another.
    fn sees(&mut self, text: &str, patience: Duration) -> Result<(), String> {
        let mut all = String::new();
        while !all.contains(text) {
            let line = self.lines.recv_timeout(patience);
            all.push_str(&line.map_err(|error| format!("no {text:?} in {all:?}: {error}"))?);
        }
        Ok(())
    }

    fn until(&mut self, text: &str) {
        self.sees(text, PATIENCE).expect("what is waited for");
    }

    fn code(mut self) -> Option<i32> {
        drop(self.input);
        while self.lines.recv_timeout(PATIENCE).is_ok() {}
        self.child.wait().expect("its end").code()
    }
}

#[test]
fn a_terminal_is_attached_left_and_attached_again_while_the_agent_is_dead() {
    let Some(mut host) = prepared("attach-terminal") else {
        return;
    };
    let line = format!(
        "stty rows 33 cols 77; {} --root {} attach case/shell",
        Host::binary().display(),
        host.root.display()
    );
    let pid = host.running("case", "shell").pid;
    let mut first = Attached::on_terminal(&host, &line);
    first.type_in("echo $((6*7)); busybox stty size; busybox tty\n");
    first.until("42");
    first.until("33 77");
    first.until("/dev/pts/0");
    let mut second = Attached::on_terminal(&host, &line);
    second.type_in("echo $((3*5))x\n");
    second.until("15x");
    first.until("15x");
    host.kill_agent();
    first.type_in("echo $((2*4))y\n");
    first.until("8y");
    second.until("8y");
    first.type_in("\x10\x11");
    first.until("detached");
    assert_eq!(first.code(), Some(0));
    second.type_in("echo $((2*5))z\n");
    second.until("10z");
    host.start_agent();
    assert_eq!(host.running("case", "shell").pid, pid, "the same shell");
    second.type_in("exit 6\n");
    assert_eq!(second.code(), Some(6));
    let logs = host.stead_ok(&["logs", "case", "shell"]);
    // What a terminal adds to the end of a line is not kept; what a program prints is.
    assert!(logs.contains("42\n") && logs.contains("10z\n"), "{logs:?}");
    host.finish();
}

#[test]
fn what_is_piped_in_is_read_and_the_end_is_that_of_the_process() {
    let Some(host) = prepared("attach-pipe") else {
        return;
    };
    let mut watcher = Attached::start(&host, &["--no-stdin", "case/reader"]);
    watcher.type_in("not for it\n");
    let mut writer = Attached::start(&host, &["reader"]);
    // Each sees what comes once it is attached, and only that.
    host.wait("both see the answer", PATIENCE, || {
        writer.type_in("one\n");
        writer.until("<one>");
        watcher.sees("<one>", Duration::from_millis(300)).ok()
    });
    // The end of this input is not that of the service's.
    drop(std::mem::replace(&mut writer.input, {
        let mut next = Attached::start(&host, &["reader"]);
        next.type_in("end\n");
        next.until("<end>");
        next.input
    }));
    writer.until("<end>");
    assert_eq!(writer.child.wait().expect("its end").code(), Some(5));
    assert_eq!(watcher.code(), Some(5));
    host.wait("it has ended", PATIENCE, || {
        (host.stead(&["attach", "case/no-such"]).code == 1).then_some(())
    });
    let reply = host.stead(&["attach", "--detach-keys", "meta-x", "shell"]);
    assert!(reply.code == 64 && reply.stderr.contains("ctrl-p"), "{reply:?}");
    host.finish();
}

#[test]
fn an_interrupt_is_for_the_service_unless_it_is_kept_from_it() {
    let Some(host) = prepared("attach-signal") else {
        return;
    };
    let pid = host.running("case", "trap").pid;
    let mut kept = Attached::start(&host, &["--sig-proxy=false", "trap"]);
    kept.until("tick");
    signal(kept.child.id(), Signal::SIGINT);
    assert_eq!(kept.code(), Some(130));
    assert_eq!(host.running("case", "trap").pid, pid);
    let mut proxied = Attached::start(&host, &["trap"]);
    proxied.until("tick");
    signal(proxied.child.id(), Signal::SIGINT);
    assert_eq!(proxied.code(), Some(9));
    host.finish();
}
