//! Output and exit status reach the disk, or it is said how much did not.

use std::{
    fs,
    io::Read,
    net::{TcpListener, UdpSocket},
    os::{fd::AsFd, unix::net::UnixDatagram},
    path::Path,
    time::{Duration, Instant},
};

use backend::{
    logs,
    shim::{
        client::Client,
        protocol::{Request, Run},
    },
};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use reconciler::{
    observed::Fault,
    spec::{LogFiles, LogForward, LogSettings, SyslogAddress, SyslogFormat},
};

use super::host::{Host, until};

pub const TESTS: [(&str, fn()); 7] = [
    ("output_while_nobody_is_connected_is_complete", alone),
    (
        "a_full_disk_neither_blocks_a_service_nor_loses_lines_silently",
        full_disk,
    ),
    ("an_exit_record_is_written_once_there_is_space", exit_record),
    ("a_follower_reads_every_line_once_over_many_rotations", rotations),
    ("a_follower_that_is_outrun_says_how_much_it_missed", outrun),
    ("lines_go_to_the_journal_and_to_syslog", forwarded),
    ("a_receiver_that_stands_still_holds_nobody_up", deaf),
];

/// A small file system on `place` for the time of `act`.
fn small(place: &Path, size: &str, act: impl FnOnce()) {
    fs::create_dir_all(place).unwrap();
    let size = format!("size={size}");
    mount(
        Some("tmpfs"),
        place,
        Some("tmpfs"),
        MsFlags::empty(),
        Some(size.as_str()),
    )
    .unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    umount2(place, MntFlags::MNT_DETACH).unwrap();
    result.unwrap();
}

fn grow(place: &Path) {
    let none = None::<&str>;
    mount(none, place, none, MsFlags::MS_REMOUNT, Some("size=64m")).unwrap();
}

fn alone() {
    let mut host = Host::new();
    // No agent: no ready shims, and nobody on the one that is assigned.
    let pool = host.pool.take();
    host.pool = Some(backend::shim::spawn::Pool::new(&host.mark, 0, None, None).unwrap());
    drop(pool);
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let directory = container.assignment.directory.clone();
    container.script("sleep 0.1; for i in $(seq 5000); do echo line $i; done; printf end; exit 6");
    container.start().unwrap();
    rustix::net::shutdown(container.client.as_fd(), rustix::net::Shutdown::Both).unwrap();
    until("its end is on disk", || fs::read(directory.join("exit")).ok());
    let mut expected: Vec<String> = (1..=5000).map(|number| format!("line {number}")).collect();
    expected.push("end".into());
    assert!(container.lines() == expected);
    container.client = Client::connect(&container.assignment.socket).unwrap();
    assert_eq!(container.ended(), 6);
}

/// The numbers of `line N`, and of each note how many lines it says are missing.
fn numbers(lines: &[String]) -> (Vec<u64>, Vec<u64>) {
    let mut printed = Vec::new();
    let mut missing = Vec::new();
    for line in lines {
        match line.strip_prefix("line ") {
            Some(rest) => printed.push(rest.split(' ').next().unwrap().parse().unwrap()),
            None => {
                assert!(line.contains("No space left"), "{line:?}");
                let count = line.strip_prefix("stead: ").unwrap().split(' ').next().unwrap();
                missing.push(count.parse().unwrap());
            }
        }
    }
    (printed, missing)
}

fn full_disk() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let logs = container.assignment.logs.clone();
    small(&logs, "128k", || {
        let filler = "x".repeat(80);
        container.script(&format!(
            "for i in $(seq 8000); do echo line $i {filler}; done; touch /tmp/through; \
             while ! test -e /tmp/on; do sleep 0.01; done; echo line 8001; echo line 8002"
        ));
        container.start().unwrap();
        until("the service prints on though nothing can be written", || {
            let (code, _) = container.exec(&["ls", "/tmp/through"], "").unwrap();
            (code == 0).then_some(())
        });
        let (printed, _) = numbers(&container.lines());
        assert!(
            (100..2000).contains(&printed.len()),
            "{} are written",
            printed.len()
        );
        grow(&logs);
        container.exec(&["touch", "/tmp/on"], "").unwrap();
        assert_eq!(container.ended(), 0);
        let (printed, missing) = numbers(&container.lines());
        assert_eq!(
            printed.len() as u64 + missing.iter().sum::<u64>(),
            8002,
            "every line is there or counted"
        );
        assert_eq!(printed[printed.len() - 2..], [8001, 8002]);
        let gaps = printed.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert_eq!(
            gaps,
            missing.len(),
            "a note stands where lines are missing, and only there"
        );
    });
}

fn exit_record() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    let directory = container.assignment.directory.clone();
    small(&directory, "1m", || {
        container.script("dd if=/dev/zero of=/big bs=64k 2>/dev/null; exit 3");
        container.start().unwrap();
        assert_eq!(container.ended(), 3);
        let exit = directory.join("exit");
        assert!(!exit.exists(), "there was no space for it");
        assert!(matches!(container.state().run, Run::Exited { code: 3, .. }));
        grow(&directory);
        let text = until("the exit record is there", || fs::read_to_string(&exit).ok());
        assert!(text.contains("\"code\":3"), "{text}");
    });
}

fn files(max_size: u64, max_file: u32) -> LogSettings {
    LogSettings {
        files: Some(LogFiles { max_size, max_file }),
        forward: None,
    }
}

/// Prints lines `N` of a steady length, `count` of them, about `rate` a second.
fn printer(count: u32, rate: u32) -> String {
    let burst = rate / 100;
    format!(
        "i=0; while test $i -lt {count}; do busybox seq $((i+1)) $((i+{burst})); i=$((i+{burst})); busybox usleep 9000; done"
    )
}

fn rotations() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.logging = files(200 << 10, 4);
    container.script(&printer(50_000, 10_000));
    container.start().unwrap();
    let begun = Instant::now();
    let mut reader = logs::Reader::open(&container.assignment.logs).unwrap();
    let mut seen = 0;
    let end = Instant::now() + Duration::from_secs(60);
    while seen < 50_000 {
        let line = reader.follow(&mut || Instant::now() > end).unwrap();
        let line = line.unwrap_or_else(|| panic!("only {seen} lines came"));
        seen += 1;
        assert_eq!(String::from_utf8(line.text).unwrap(), seen.to_string());
    }
    assert!(begun.elapsed() > Duration::from_secs(2), "it followed a writer");
    assert_eq!(container.ended(), 0);
    assert!(reader.next_line().unwrap().is_none(), "nothing came twice");
    let mut kept = Vec::new();
    for entry in fs::read_dir(&container.assignment.logs).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_str().unwrap().starts_with("current.log") {
            assert!(entry.metadata().unwrap().len() <= 200 << 10);
            kept.push(entry.file_name());
        }
    }
    assert_eq!(kept.len(), 4, "rotated many times, and bounded: {kept:?}");
    // Fewer from now on.
    container.spec.logging = files(200 << 10, 1);
    container
        .client
        .order(&Request::Amend {
            container: Box::new(container.spec.clone()),
        })
        .unwrap();
}

fn outrun() {
    let host = Host::new();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.logging = files(64 << 10, 2);
    container.spec.stdin_open = true;
    container.script("busybox seq 10; read x; busybox seq 11 50000; echo end; read x; echo after");
    container.start().unwrap();
    container.said("10");
    let mut reader = logs::Reader::open(&container.assignment.logs).unwrap();
    for number in 1..=10 {
        let line = reader.next_line().unwrap().unwrap();
        assert_eq!(String::from_utf8(line.text).unwrap(), number.to_string());
    }
    let (_, along) = container.client.request(&Request::Attach, &[]).unwrap();
    rustix::io::write(&along[1], b"\n").unwrap();
    container.said("end");
    let mut numbers = vec![10];
    let mut missing = None;
    while let Some(line) = reader.next_line().unwrap() {
        let text = String::from_utf8(line.text).unwrap();
        match text.strip_prefix("stead: ") {
            Some(told) => missing = told.split(' ').next().unwrap().parse::<u64>().ok(),
            None => numbers.extend(text.parse::<u64>().ok()),
        }
    }
    // What was still in the file that was open, then the note, then what is left.
    let jump = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1).unwrap();
    assert_eq!(
        numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1).count(),
        1
    );
    assert_eq!(numbers.last(), Some(&50_000));
    let line = |number: u64| format!("2026-11-22T00:00:00.000000000Z stdout F {number}\n").len() as u64;
    let expected: u64 = (jump[0] + 1..jump[1]).map(line).sum();
    assert_eq!(missing, Some(expected));
    rustix::io::write(&along[1], b"\n").unwrap();
    container.said("after");
    assert_eq!(reader.next_line().unwrap().unwrap().text, b"after");
}

fn syslog(address: SyslogAddress, format: SyslogFormat) -> LogSettings {
    LogSettings {
        files: files(1 << 20, 2).files,
        forward: Some(LogForward::Syslog {
            address,
            facility: 16,
            format,
            tag: "shop-web-1".into(),
        }),
    }
}

type Take<'a> = dyn FnMut(&mut [u8]) -> usize + 'a;

fn forwarded() {
    let host = Host::new();
    let path = host.path("receiver");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let script = "echo out; echo err >&2; printf '\\000x'";
    let run = |settings: LogSettings| {
        let (code, lines) = host.run(script, |container| container.spec.logging = settings);
        assert_eq!((code, lines.len()), (0, 3));
    };
    let receive = |mut take: Box<Take<'_>>| {
        let mut all = Vec::new();
        for _ in 0..3 {
            let mut buffer = vec![0; 4096];
            let count = take(&mut buffer);
            all.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        all.sort();
        all
    };
    run(LogSettings {
        files: files(1 << 20, 2).files,
        forward: Some(LogForward::Journal {
            socket: path.clone(),
            tag: "web".into(),
        }),
    });
    let all = receive(Box::new(|buffer| receiver.recv(buffer).unwrap()));
    let common = "SYSLOG_IDENTIFIER=web\nCONTAINER_TAG=web\nCONTAINER_NAME=shop-job-1\nCOM_STEAD_PROJECT=shop\n\
                  COM_STEAD_SERVICE=job\nMESSAGE\n";
    assert_eq!(
        all,
        [
            format!("PRIORITY=3\n{common}\u{3}\0\0\0\0\0\0\0err\n"),
            format!("PRIORITY=6\n{common}\u{2}\0\0\0\0\0\0\0\0x\n"),
            format!("PRIORITY=6\n{common}\u{3}\0\0\0\0\0\0\0out\n"),
        ]
    );
    run(syslog(SyslogAddress::Datagram(path), SyslogFormat::Local));
    let all = receive(Box::new(|buffer| receiver.recv(buffer).unwrap()));
    assert!(
        all[0].starts_with("<131>") && all[0].ends_with(": err"),
        "{all:?}"
    );
    assert!(
        all[2].starts_with("<134>") && all[2].contains(" shop-web-1["),
        "{all:?}"
    );
    run(syslog(
        SyslogAddress::Udp(udp.local_addr().unwrap()),
        SyslogFormat::Rfc5424Micro,
    ));
    let all = receive(Box::new(|buffer| udp.recv(buffer).unwrap()));
    let out = all.iter().find(|line| line.ends_with(" out")).unwrap();
    let fields: Vec<&str> = out.split(' ').collect();
    assert_eq!(
        (fields[0], fields[3], fields[5], fields[7]),
        ("<134>1", "shop-web-1", "shop-web-1", "out")
    );
    assert!(fields[1].ends_with('Z') && fields[1].len() == 27, "{all:?}");
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let taken = std::thread::spawn(move || {
        let mut text = Vec::new();
        tcp.accept().unwrap().0.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    });
    run(syslog(SyslogAddress::Tcp(address), SyslogFormat::Rfc3164));
    let text = taken.join().unwrap();
    assert!(
        text.lines().count() == 3 && text.contains(": out\n") && text.starts_with("<1"),
        "{text}"
    );
}

fn deaf() {
    let host = Host::new();
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let mut container = host.sandbox("web", Vec::new()).unwrap();
    container.spec.logging = syslog(SyslogAddress::Tcp(address), SyslogFormat::Rfc3164);
    container.spec.logging.files = files(64 << 20, 2).files;
    container.spec.stdin_open = true;
    container.script(
        "busybox seq 300000 >/dev/null; i=0; while test $i -lt 40; do busybox seq 5000; i=$((i+1)); done; \
         echo through; read x; echo heard; read x",
    );
    container.start().unwrap();
    let (_, along) = container.client.request(&Request::Attach, &[]).unwrap();
    container.said("through");
    assert!(
        container
            .lines()
            .iter()
            .any(|line| line.contains("are not taken by syslog tcp://127.0.0.1")),
        "it is told here at once, and the log goes on"
    );
    let lost = until("it is among what goes wrong", || {
        container
            .state()
            .faults
            .into_iter()
            .find_map(|fault| match fault {
                Fault::OutputLost { to, least, .. } if least >= 100_000 => Some((to, least)),
                _ => None,
            })
    });
    assert_eq!(lost, (format!("syslog tcp://{address}"), 100_000));
    let (mut stream, _) = tcp.accept().unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    rustix::io::write(&along[1], b"\n").unwrap();
    until("the next line comes, and how many did not", || {
        let _ = stream.read_to_end(&mut text);
        String::from_utf8_lossy(&text).contains(": heard\n").then_some(())
    });
    let text = String::from_utf8_lossy(&text).into_owned();
    let notes = text
        .lines()
        .filter(|line| line.contains("lines are missing here"));
    let missing: Vec<usize> = notes
        .map(|note| {
            note.split("stead: ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    // `through` and `heard` are among the lines, the notes are not.
    let came = text.lines().count() - missing.len() + missing.iter().sum::<usize>();
    assert_eq!(came, 200_002, "each was taken or is counted: {missing:?}");
    assert!(text.lines().all(|line| line.starts_with('<')), "no half line");
    let last = missing.last().unwrap();
    container.said(&format!(
        "stead: {last} lines were not taken by syslog tcp://{address}: it does not take them fast enough"
    ));
}
