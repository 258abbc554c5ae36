//! Whoever connects to a shim: it serves on, whatever they say or do not say.

use std::{
    fs,
    io::{Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use backend::shim::{
    client::{Client, ClientError},
    protocol::{Exec, HealthState, Request, Run},
};
use reconciler::spec::HealthSpec;

use super::host::{Container, Host, until};

pub const TESTS: [(&str, fn()); 6] = [
    ("a_client_that_says_nothing_or_rubbish_holds_nobody_up", rubbish),
    ("a_client_that_never_reads_holds_nobody_up", deaf),
    ("many_clients_do_not_keep_the_agent_out", many),
    ("only_root_may_speak_to_a_shim", only_root),
    ("an_exec_that_never_ends_holds_nobody_up", endless_exec),
    ("a_probe_that_floods_or_is_stopped_holds_nobody_up", probes),
];

/// A new client gets an answer soon.
fn answers(container: &Container) {
    let start = Instant::now();
    let mut client = Client::connect(&container.assignment.socket).unwrap();
    client.request(&Request::State, &[]).unwrap();
    let took = start.elapsed();
    assert!(took < Duration::from_secs(3), "an answer after {took:?}");
}

/// As [`Client::connect`] does: the path may be too long for a socket's address.
fn connect(path: &Path) -> UnixStream {
    let parent = fs::File::open(path.parent().unwrap()).unwrap();
    let name = path.file_name().unwrap();
    UnixStream::connect(
        Path::new("/proc/self/fd")
            .join(parent.as_raw_fd().to_string())
            .join(name),
    )
    .unwrap()
}

fn running(host: &Host) -> Container<'_> {
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.script("sleep 1000");
    container.start().unwrap();
    container
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut message = (body.len() as u32).to_le_bytes().to_vec();
    message.extend_from_slice(body);
    message
}

fn rubbish() {
    let host = Host::new();
    let mut container = running(&host);
    let mut half = framed(br#"{"request":"state"}"#);
    half.truncate(9);
    let cases: [(&str, Vec<u8>, bool); 7] = [
        ("nothing", Vec::new(), false),
        ("half a length", vec![7, 0], false),
        ("half a message", half, false),
        ("four gigabytes", vec![0xff; 64], true),
        ("junk", framed(b"\x00\xffnot json"), true),
        ("an unknown request", framed(br#"{"request":"dance"}"#), true),
        ("an empty message", framed(b""), true),
    ];
    let mut open = Vec::new();
    for (what, bytes, answered) in cases {
        let mut socket = connect(&container.assignment.socket);
        socket.write_all(&bytes).unwrap();
        if answered {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut length = [0; 4];
            socket.read_exact(&mut length).unwrap();
            let mut body = vec![0; u32::from_le_bytes(length) as usize];
            socket.read_exact(&mut body).unwrap();
            let body = String::from_utf8(body).unwrap();
            assert!(body.contains("not understood"), "{what}: {body}");
        }
        open.push(socket);
        answers(&container);
    }
    assert!(matches!(container.state().run, Run::Running { .. }));
}

fn deaf() {
    let host = Host::new();
    let mut container = running(&host);
    // Answers worth much more than a socket holds.
    container
        .spec
        .environment
        .insert("LONG".into(), "x".repeat(100_000));
    let spec = Box::new(container.spec.clone());
    container
        .client
        .order(&Request::Amend { container: spec })
        .unwrap();
    let mut socket = connect(&container.assignment.socket);
    socket.set_nonblocking(true).unwrap();
    for _ in 0..60 {
        if socket.write_all(&framed(br#"{"request":"state"}"#)).is_err() {
            break;
        }
    }
    answers(&container);
    until("the deaf client is let go", || {
        let mut fds = [nix::poll::PollFd::new(
            socket.as_fd(),
            nix::poll::PollFlags::POLLHUP,
        )];
        (nix::poll::poll(&mut fds, 0_u16).unwrap() > 0).then_some(())
    });
}

fn many() {
    let host = Host::new();
    let container = running(&host);
    let sockets: Vec<_> = (0..600).map(|_| connect(&container.assignment.socket)).collect();
    answers(&container);
    let shim = container.client.pid;
    let open = fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count();
    assert!(open < 200, "{open} descriptors");
    drop(sockets);
    until("their descriptors are closed", || {
        (fs::read_dir(format!("/proc/{shim}/fd")).unwrap().count() < 40).then_some(())
    });
}

fn only_root() {
    let host = Host::new();
    let container = running(&host);
    let path = &container.assignment.socket;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(path), mode(path.parent().unwrap())), (0o600, 0o711));
    // Were the mode ever lost, the peer is asked who it is.
    fs::set_permissions(path, PermissionsExt::from_mode(0o666)).unwrap();
    fs::set_permissions(host.directory.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let path = path.clone();
    // The ids of a thread, by the raw call: those of the process stay.
    let read = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(65_534);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        let mut socket = UnixStream::connect(&path).unwrap();
        let _ = socket.write_all(&framed(br#"{"request":"state"}"#));
        socket.read(&mut [0; 16])
    })
    .join()
    .unwrap();
    assert!(!matches!(read, Ok(1..)), "{read:?}");
    answers(&container);
}

fn command(argv: &[&str]) -> Exec {
    Exec {
        argv: argv.iter().map(ToString::to_string).collect(),
        environment: Default::default(),
        user: String::new(),
        working_dir: None,
        terminal: false,
    }
}

fn endless_exec() {
    let host = Host::new();
    let container = running(&host);
    let null = fs::File::open("/dev/null").unwrap();
    let mut clients = Vec::new();
    // One that prints into a pipe nobody reads, one that sleeps, both on connections that go away.
    for argv in [
        &["sh", "-c", "while :; do seq 100000; done"][..],
        &["sleep", "1000"],
    ] {
        let mut client = Client::connect(&container.assignment.socket).unwrap();
        let (read_end, write_end) = std::io::pipe().unwrap();
        client
            .exec(
                command(argv),
                &[null.as_fd(), write_end.as_fd(), write_end.as_fd()],
            )
            .unwrap();
        answers(&container);
        clients.push((client, read_end));
    }
    // A terminal whose master nobody reads.
    let mut client = Client::connect(&container.assignment.socket).unwrap();
    let exec = Exec {
        terminal: true,
        ..command(&["sh", "-c", "while :; do seq 100000; done"])
    };
    let (_, master) = client.exec(exec, &[]).unwrap();
    answers(&container);
    drop((clients, client, master));
    answers(&container);
}

fn probes() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let probe = |script: &str| {
        Some(HealthSpec {
            argv: ["sh", "-c", script].map(String::from).to_vec(),
            interval: 100,
            timeout: 20_000,
            retries: 1,
            ..HealthSpec::default()
        })
    };
    container.script("sleep 1000");
    container.spec.health = probe("dd if=/dev/zero bs=1M count=1000; dd if=/dev/zero bs=1M count=100 >&2");
    container.start().unwrap();
    until("it is healthy after a gigabyte", || {
        (container.state().health == HealthState::Healthy).then_some(())
    });
    container.client.order(&Request::Kill).unwrap();
    container.ended();
    // The container stops whatever joins it, before it can execute anything.
    container.script("while :; do kill -STOP -1; done");
    container.spec.health = probe("true");
    container.fresh = false;
    container.start().unwrap();
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        match container.client.exec(command(&["true"]), &[]) {
            Ok(_) | Err(ClientError::Refused { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    container.client.order(&Request::Kill).unwrap();
    assert_eq!(container.ended(), 137);
}
