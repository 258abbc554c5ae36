//! The services outlive the agent: under load no request, look-up or log line is lost.

use std::{
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::host::{HOST, Host, PATIENCE, Place, load::Load, process, signal};

fn shop(host: &Host) -> String {
    format!(
        r#"services:
  web: {{ image: builtin:hello, ports: ["18400:8080"] }}
  asker: {{ image: builtin:hello, ports: ["18401:8080"] }}
  counter:
    image: {}
    command: [sh, -c, "i=0; while :; do echo line $$i; i=$$((i+1)); usleep 10000; done"]
"#,
        host.busybox()
    )
}

/// The numbers the counter has logged.
fn logged(host: &Host) -> Vec<u64> {
    let text = host.stead_ok(&["logs", "shop", "counter"]);
    text.lines()
        .filter_map(|line| line.rsplit_once("line ")?.1.trim().parse().ok())
        .collect()
}

fn gapless(numbers: &[u64]) {
    for (expected, &number) in (0..).zip(numbers) {
        assert_eq!(number, expected, "a log line was lost or doubled");
    }
}

/// `STEAD_TEST_SLACK` multiplies the deadlines that are promises, for machines slower than any host.
fn promised(limit: Duration) -> Duration {
    let slack = std::env::var("STEAD_TEST_SLACK")
        .ok()
        .and_then(|text| text.parse().ok());
    limit * slack.unwrap_or(1)
}

fn deaths(host: &mut Host, count: usize, next: impl Fn(usize) -> std::path::PathBuf) {
    host.start_agent();
    host.write_manifest("shop", &shop(host));
    host.converged("shop");
    host.fetch(Place::Lan, HOST, 18400, "/");
    host.fetch(Place::Lan, HOST, 18401, "/call/web");
    let before = host.identities("shop");
    assert_eq!(before.len(), 3);
    let load = Load::start(host, HOST, 18400, 18401, "web");

    for death in 0..count {
        host.kill_agent();
        let start = Instant::now();
        host.spawn_agent(&next(death));
        host.wait("the plan is empty", promised(Duration::from_secs(1)), || {
            host.stead(&["ps"]).done()?;
            (host.identities("shop") == before).then_some(())?;
            host.stead(&["plan", "shop"]).done()
        });
        let adopted = start.elapsed();
        eprintln!("death {death}: everything adopted {adopted:?} after the start");
    }

    let report = load.finish();
    eprintln!(
        "{:.0} connections/s, {} requests, {} look-ups, {} stream lines",
        report.rate, report.requests, report.lookups, report.stream_lines
    );
    assert!(
        report.failures.is_empty(),
        "{} failed: {:#?}",
        report.failures.len(),
        report.failures
    );
    assert!(
        report.rate >= 500.0,
        "the load was only {:.0} connections a second",
        report.rate
    );
    assert!(
        report.lookups > 5 * count as u64 && report.stream_lines > 5,
        "{report:?}"
    );
    let numbers = logged(host);
    assert!(numbers.len() > 5 * count, "{}", numbers.len());
    gapless(&numbers);
}

#[test]
fn twenty_deaths_of_the_agent_lose_nothing() {
    let Some(mut host) = Host::new("agent-death") else {
        return;
    };
    deaths(&mut host, 20, |_| Host::binary().to_owned());
    host.finish();
}

#[test]
fn another_build_takes_over_without_a_loss() {
    let Some(mut host) = Host::new("agent-upgrade") else {
        return;
    };
    let other = host.root.join("stead-next");
    another_build(&other);
    deaths(&mut host, 4, |death| match death % 2 {
        0 => other.clone(),
        _ => Host::binary().to_owned(),
    });
    host.finish();
}

/// The same program, another file with other contents: an ELF file may carry anything at its end.
fn another_build(path: &Path) {
    std::fs::copy(Host::binary(), path).expect("a copy");
    let mut file = std::fs::File::options()
        .append(true)
        .open(path)
        .expect("the copy");
    file.write_all(b"another build").expect("a few bytes");
}

#[test]
fn an_agent_that_ends_well_stops_nothing() {
    let Some(mut host) = Host::new("agent-stop") else {
        return;
    };
    host.start_agent();
    host.write_manifest("shop", &shop(&host));
    host.converged("shop");
    let before = host.identities("shop");
    host.stop_agent();
    assert!(before.values().all(|service| process::alive(service.pid)));
    host.fetch(Place::Lan, HOST, 18401, "/call/web");
    host.start_agent();
    host.nothing_to_do(PATIENCE);
    assert_eq!(host.identities("shop"), before);
    host.finish();
}

/// Watches /proc for the largest number of processes with an argument at one moment.
struct Census {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
    most: Arc<AtomicUsize>,
}

impl Census {
    fn of(marker: String) -> Census {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = std::thread::spawn({
            let (stop, most) = (Arc::clone(&stop), Arc::clone(&most));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    most.fetch_max(process::with_argument(&marker).len(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Census { stop, thread, most }
    }

    fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic in the census");
        self.most.load(Ordering::Relaxed)
    }
}

/// As gosu and su-exec do: the kernel forgets PDEATHSIG when ids change, so only the cgroup knows.
#[test]
fn a_killed_shim_never_leaves_two_instances() {
    let Some(mut host) = Host::new("shim-death") else {
        return;
    };
    let marker = format!("9{:07}", std::process::id());
    host.start_agent();
    host.write_manifest(
        "drop",
        &format!(
            "services:\n  drop:\n    image: {}\n    restart: always\n    command: [su, -s, /bin/sh, app, -c, \"exec sleep {marker}\"]\n",
            host.busybox()
        ),
    );
    let sleeping = |host: &Host, not: Option<u32>| {
        host.wait("the service runs as another user", PATIENCE, || {
            let found = host
                .instance("drop", "drop")
                .filter(|drop| drop.state == "running" && drop.pid != not)?;
            process::arguments(found.pid())
                .starts_with("sleep ")
                .then_some(found)
        })
    };
    let mut current = sleeping(&host, None);
    for agent_alive in [true, false, true, false] {
        let census = Census::of(format!("sleep {marker}"));
        let shim = process::parent(current.pid()).expect("its shim");
        assert!(
            process::cgroups(shim).contains(host.mark()),
            "the parent is a shim: {}",
            process::arguments(shim)
        );
        if !agent_alive {
            host.kill_agent();
        }
        signal(shim, Signal::SIGKILL);
        if !agent_alive {
            host.start_agent();
        }
        let next = sleeping(&host, current.pid);
        assert!(!process::alive(current.pid()), "the old one is gone");
        assert_eq!(next.addresses, current.addresses);
        assert_eq!(
            census.finish(),
            1,
            "never two at one moment (agent alive: {agent_alive})"
        );
        current = next;
    }
    host.nothing_to_do(PATIENCE);
    host.finish();
}
