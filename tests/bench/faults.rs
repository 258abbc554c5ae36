//! How long until what goes wrong is named: `cargo bench -p stead --bench faults`. `ROUNDS=n` for another number of
//! rounds than 10.
//!
//! Each fault begins at a moment that is known. *Watched*: `stead status` is asked again and again, from then on.
//! *Asked once*: nobody has asked before, and one `stead status` a while later must say it; the time is that of its
//! answer. Then the service is stopped, with a grace of one second that it uses up.

#[path = "../host/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;

use std::{
    fs,
    os::unix::net::UnixListener,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use host::{Host, PATIENCE, fuse::Silent};

/// How long after its beginning a fault is asked for once.
const LATER: Duration = Duration::from_millis(1_200);

/// After which nothing is left of the attention that a question brought.
const FORGOTTEN: Duration = Duration::from_millis(4_500);

struct Kind {
    fault: &'static str,
    /// What the first process does once it is told to.
    does: &'static str,
    more: &'static str,
    /// What `status` says.
    said: &'static str,
    begins: Begins,
}

#[derive(Clone, Copy, PartialEq)]
enum Begins {
    Told,
    Stopped,
}

const DEAF: &str = "trap '' TERM; while :; do usleep 100000; done";

const KINDS: [Kind; 9] = [
    Kind {
        fault: "process-limit",
        // Who is refused a fork ends, and begins again.
        does: "while :; do (while :; do sleep 1000 & done) 2>/dev/null; done",
        more: "pids_limit: 48",
        said: "its limit of 48 processes is reached",
        begins: Begins::Told,
    },
    Kind {
        fault: "out-of-memory",
        does: "exec /bin/busybox tail /dev/zero",
        more: "mem_limit: 32m, memswap_limit: 32m",
        said: "killed: out of memory",
        begins: Begins::Told,
    },
    Kind {
        fault: "throttled",
        does: "while :; do :; done",
        more: "cpus: 0.2",
        said: "it is throttled",
        begins: Begins::Told,
    },
    Kind {
        fault: "zombies",
        does: "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do (sleep 0.2 &); done; exec sleep 1000000",
        more: "init: false",
        said: "nobody waits for them",
        begins: Begins::Told,
    },
    Kind {
        fault: "stuck",
        does: "cat /data/x & sleep 0.2; kill $!; exec sleep 1000000",
        more: "init: false",
        said: "is stuck in the kernel",
        begins: Begins::Told,
    },
    Kind {
        fault: "ignored-stop",
        does: DEAF,
        more: "stop_grace_period: 3s",
        said: "not ended on SIGTERM",
        begins: Begins::Stopped,
    },
    Kind {
        fault: "post-start-failed",
        does: DEAF,
        more: "stop_grace_period: 3s, post_start: [{ command: [sh, -c, 'until [ -e /out/go ]; do usleep 10000; done; exit 3'] }]",
        said: "post_start hook 1 failed",
        begins: Begins::Told,
    },
    Kind {
        fault: "pre-stop-failed",
        does: DEAF,
        more: "stop_grace_period: 3s, pre_stop: [{ command: [sh, -c, 'exit 3'] }]",
        said: "pre_stop hook 1 failed",
        begins: Begins::Stopped,
    },
    Kind {
        fault: "output-lost",
        does: "/bin/busybox seq 100000; exec sleep 1000000",
        more: "logging: { driver: syslog, options: { syslog-address: 'unix://SYSLOG' } }",
        said: "lines of its output were not taken",
        begins: Begins::Told,
    },
];

fn main() {
    let rounds: usize = std::env::var("ROUNDS").map_or(10, |text| text.parse().expect("a number"));
    let only = std::env::var("KIND").ok();
    let Some(mut host) = Host::new("bench-faults") else {
        return;
    };
    host.start_agent();
    let _server = UnixListener::bind(host.root.join("syslog")).expect("a server");
    println!("seconds: least, median, most of {rounds}");
    println!(
        "{:<20} {:>18} {:>18} {:>7} {:>18}",
        "fault", "watched", "asked once", "missed", "stop"
    );
    for kind in KINDS
        .iter()
        .filter(|kind| only.as_ref().is_none_or(|only| only == kind.fault))
    {
        let (mut watched, mut once, mut missed, mut stops) = (Vec::new(), Vec::new(), 0, Vec::new());
        for _ in 0..rounds {
            round(&host, kind, Duration::ZERO, |since| {
                watched.push(host.wait(kind.fault, PATIENCE, || {
                    is_said(&host, kind).then(|| since.elapsed())
                }));
                if kind.begins == Begins::Told
                    && !matches!(kind.fault, "stuck" | "out-of-memory" | "post-start-failed")
                {
                    let since = Instant::now();
                    host.stead_ok(&["stop", "bad/one"]);
                    stops.push(since.elapsed());
                }
            });
            round(&host, kind, FORGOTTEN, |since| {
                thread::sleep(LATER.saturating_sub(since.elapsed()));
                match is_said(&host, kind) {
                    true => once.push(since.elapsed()),
                    false => missed += 1,
                }
            });
        }
        println!(
            "{:<20} {:>18} {:>18} {missed:>7} {:>18}",
            kind.fault,
            spread(watched),
            spread(once),
            spread(stops)
        );
    }
    host.finish();
}

fn is_said(host: &Host, kind: &Kind) -> bool {
    host.stead_ok(&["status", "bad"]).contains(kind.said)
}

fn round(host: &Host, kind: &Kind, pause: Duration, look: impl FnOnce(Instant)) {
    let out = host.directory("out");
    let go = out.join("go");
    let _ = fs::remove_file(&go);
    let data = host.root.join("silent");
    let silent = (kind.fault == "stuck").then(|| Silent::mount(&data));
    let waits = match kind.begins {
        Begins::Told => "until [ -e /out/go ]; do usleep 10000; done; ",
        Begins::Stopped => "",
    };
    let grace = if kind.more.contains("grace") {
        ""
    } else {
        "stop_grace_period: 1s, "
    };
    let mount = if silent.is_some() {
        format!(", \"{}:/data\"", data.display())
    } else {
        String::new()
    };
    let more = kind
        .more
        .replace("SYSLOG", &host.root.join("syslog").display().to_string());
    host.write_manifest(
        "bad",
        &format!(
            "services: {{ one: {{ image: \"{}\", command: [sh, -c, \"{waits}{}\"], volumes: [\"{}:/out\"{mount}], {grace}{more} }} }}\n",
            host.busybox(),
            kind.does,
            out.display(),
        ),
    );
    host.running("bad", "one");
    thread::sleep(pause);
    let since = Instant::now();
    let stop = match kind.begins {
        Begins::Told => {
            fs::write(&go, "").expect("the word");
            None
        }
        Begins::Stopped => {
            let mut stop = host.command(&["stop", "bad/one"]);
            stop.stdout(Stdio::null()).stderr(Stdio::null());
            Some(host.network.on_host(|| stop.spawn().expect("the stop")))
        }
    };
    look(since);
    drop(silent);
    host.remove_manifest("bad");
    if let Some(mut stop) = stop {
        let _ = stop.wait();
    }
    host.gone("bad");
    // The order to stop it goes with it, or the next would not start.
    host.wait("no order is left", PATIENCE, || {
        let orders = host.root.join("state/intents");
        fs::read_dir(orders).map_or(Some(()), |mut files| files.next().is_none().then_some(()))
    });
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let (Some(first), Some(last)) = (times.first(), times.last()) else {
        return "-".to_owned();
    };
    let median = times[times.len() / 2];
    let seconds = |time: &Duration| time.as_secs_f64();
    format!(
        "{:.2} {:.2} {:.2}",
        seconds(first),
        seconds(&median),
        seconds(last)
    )
}
