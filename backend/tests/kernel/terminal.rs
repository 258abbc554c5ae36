//! Terminals and open standard inputs of containers, and those who are attached.

use std::{
    fs,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::symlink,
    },
    time::{Duration, Instant},
};

use backend::shim::{
    client::Client,
    protocol::{Reply, Request},
};
use rustix::io::{read, write};

use super::host::{Container, Host, until};

pub const TESTS: [(&str, fn()); 7] = [
    ("a_terminal_is_the_containers_own_and_its_console", own),
    ("an_image_leads_the_console_nowhere_else", hostile_console),
    ("standard_input_is_open_only_where_asked_for", input),
    ("a_terminal_and_those_attached_survive_an_upgrade", upgraded),
    ("a_reader_that_stands_still_is_cut_off_alone", slow),
    ("all_of_a_terminals_output_is_kept_to_its_end", to_the_end),
    ("a_terminal_that_is_closed_and_opened_again_goes_on", reopened),
];

/// One who is attached.
struct Reader {
    client: Client,
    output: OwnedFd,
    input: Option<OwnedFd>,
    text: String,
}

fn attach(container: &Container) -> Reader {
    let mut client = Client::connect(&container.assignment.socket).unwrap();
    let (reply, along) = client.request(&Request::Attach, &[]).unwrap();
    assert!(matches!(reply, Reply::Attached { .. }), "{reply:?}");
    let mut along = along.into_iter();
    Reader {
        client,
        output: along.next().unwrap(),
        input: along.next(),
        text: String::new(),
    }
}

impl Reader {
    /// Reads until `what` has come, or to the end.
    fn until(&mut self, what: &str) {
        let end = Instant::now() + Duration::from_secs(10);
        let mut packet = vec![0; 64 << 10];
        while !self.text.contains(what) {
            assert!(Instant::now() < end, "no {what:?} in {:?}", self.text);
            let mut fds = [rustix::event::PollFd::new(
                &self.output,
                rustix::event::PollFlags::IN,
            )];
            let wait = rustix::event::Timespec {
                tv_sec: 0,
                tv_nsec: 100_000_000,
            };
            if rustix::event::poll(&mut fds, Some(&wait)).unwrap() == 0 {
                continue;
            }
            match read(&self.output, &mut packet).unwrap() {
                0 => break,
                count => self.text.push_str(&String::from_utf8_lossy(&packet[1..count])),
            }
        }
    }

    fn ended(mut self) -> (String, Option<i32>) {
        self.until("\0never");
        (self.text, self.client.attach_ended().unwrap())
    }

    fn type_in(&self, text: &str) {
        write(self.input.as_ref().unwrap(), text.as_bytes()).unwrap();
    }
}

fn own() {
    let host = Host::new();
    let (code, lines) = host.run(
        "tty; stat -c '%F %t:%T' /dev/console /dev/pts/0; ls -1 /dev/pts; \
         test -t 0 && test -t 1 && test -t 2 && echo all; echo mine >/dev/tty; echo error >&2; \
         echo console >/dev/console; grep -c ' /dev/console ' /proc/self/mountinfo",
        |container| container.spec.tty = true,
    );
    assert_eq!(code, 0, "{lines:?}");
    assert_eq!(
        lines,
        [
            "/dev/pts/0",
            "character special file 88:0",
            "character special file 88:0",
            "0",
            "ptmx",
            "all",
            "mine",
            "error",
            "console",
            "1",
        ],
        "no carriage return, and nothing of the host's terminals"
    );
    let (_, lines) = host.run(
        "ls -1 /dev/console /dev/pts; id -u; stat -c %u /dev/pts/0",
        |container| {
            container.spec.tty = true;
            container.spec.user = "www".into();
        },
    );
    assert_eq!(lines, ["/dev/console", "", "/dev/pts:", "0", "ptmx", "33", "33"]);
}

fn hostile_console() {
    let host = Host::new();
    let outside = host.path("outside");
    fs::create_dir(&outside).unwrap();
    for (name, to) in [
        ("dev/pts", "/proc"),
        ("dev/console", "/proc/sysrq-trigger"),
        ("dev/console", "/etc/shadow"),
        ("dev/ptmx", outside.to_str().unwrap()),
        ("dev/pts", outside.to_str().unwrap()),
    ] {
        let layer = host.path("hostile");
        let _ = fs::remove_dir_all(&layer);
        fs::create_dir_all(layer.join("dev")).unwrap();
        symlink(to, layer.join(name)).unwrap();
        let (code, lines) = host.run("stat -c '%F %t:%T' /dev/console; tty", |container| {
            container.spec.tty = true;
            container.layers.insert(0, layer.clone());
        });
        assert_eq!(
            (code, lines),
            (
                0,
                vec!["character special file 88:0".to_owned(), "/dev/pts/0".to_owned()]
            ),
            "{name} -> {to}"
        );
        assert!(fs::read_dir(&outside).unwrap().next().is_none());
    }
    // One that is no directory is refused, with a terminal as without.
    let layer = host.path("no-dev");
    fs::create_dir(&layer).unwrap();
    symlink(&outside, layer.join("dev")).unwrap();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("true");
    container.spec.tty = true;
    container.layers.insert(0, layer);
    let error = container.start().unwrap_err().to_string();
    assert!(error.contains("/dev in the image is no directory"), "{error}");
    assert!(fs::read_dir(&outside).unwrap().next().is_none());
}

fn input() {
    let host = Host::new();
    let (_, lines) = host.run("read line; echo $?; readlink /proc/self/fd/0", |_| {});
    assert_eq!(lines, ["1", "/dev/null"]);
    for tty in [false, true] {
        let mut container = host.sandbox("web", Vec::new()).unwrap();
        container.spec.stdin_open = true;
        container.spec.tty = tty;
        container.script("echo ready; read a; echo \"<$a>\"; read b; echo \"<$b>\" >&2; exit 3");
        container.start().unwrap();
        container.said("ready");
        let mut first = attach(&container);
        let second = attach(&container);
        first.type_in("one\n");
        first.until("<one>");
        drop(first);
        // Its end was not that of the input.
        second.type_in("two\n");
        let (text, code) = second.ended();
        assert_eq!(code, Some(3), "{text:?}");
        assert!(text.contains("<one>") && text.contains("<two>"), "{text:?}");
        assert_eq!(container.ended(), 3);
        container.said("<two>");
    }
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("sleep 100");
    container.start().unwrap();
    assert!(attach(&container).input.is_none(), "nothing to type into");
}

fn upgraded() {
    let host = Host::new();
    for tty in [true, false] {
        let mut container = host.sandbox("web", Vec::new()).unwrap();
        container.spec.tty = tty;
        container.spec.stdin_open = true;
        container.script("while read a; do echo \"<$a>\"; test \"$a\" = end && exit 7; done");
        let pid = container.start().unwrap();
        let mut before = attach(&container);
        let program = fs::File::open(std::env::current_exe().unwrap()).unwrap();
        for number in 0..3 {
            container.client.upgrade(program.as_fd()).unwrap();
            before.type_in(&format!("before{number}\n"));
            before.until(&format!("<before{number}>"));
        }
        assert_eq!(container.state().record.pid, Some(pid));
        let after = attach(&container);
        after.type_in("end\n");
        assert_eq!(before.ended().1, Some(7));
        let (text, code) = after.ended();
        assert!(text.contains("<end>") && code == Some(7), "{text:?} {code:?}");
        container.said("<before0>");
        container.said("<end>");
        assert_eq!(container.ended(), 7);
    }
}

fn slow() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.stdin_open = true;
    // More than a socket holds; the one who reads is never further behind than it holds.
    container.script(
        "for j in $(seq 6); do read a; for i in $(seq 10000); do echo line $i and a little more; done; echo part $j; done",
    );
    container.start().unwrap();
    let stands = attach(&container);
    let mut reads = attach(&container);
    for part in 1..=6 {
        reads.type_in("\n");
        reads.until(&format!("part {part}\n"));
    }
    assert_eq!(container.ended(), 0);
    let (_, code) = stands.ended();
    assert_eq!(code, None, "told that it was cut off");
    let (text, code) = reads.ended();
    assert_eq!(code, Some(0));
    assert_eq!(text.lines().count(), 60_006);
    let lines = container.lines();
    assert_eq!(lines.len(), 60_006, "the log has everything");
    assert_eq!(lines[60_004], "line 10000 and a little more");
}

fn to_the_end() {
    let host = Host::new();
    for _ in 0..5 {
        let (code, lines) = host.run("seq 3000; exit 4", |container| container.spec.tty = true);
        assert_eq!(code, 4);
        let expected: Vec<String> = (1..=3000).map(|number| number.to_string()).collect();
        assert!(
            lines == expected,
            "{} lines, the last {:?}",
            lines.len(),
            lines.last()
        );
    }
}

fn reopened() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.tty = true;
    container.script(
        "echo one; exec <&- >&- 2>&-; sleep 0.2; exec </dev/console >/dev/console 2>&1; echo two; sleep 100",
    );
    container.start().unwrap();
    container.said("two");
    let shim = container.client.pid;
    let ticks = || {
        let stat = fs::read_to_string(format!("/proc/{shim}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    assert!(
        ticks() < 50,
        "the shim did not spin on a terminal that was hung up"
    );
    until("it sleeps", || (container.lines().len() == 2).then_some(()));
}
