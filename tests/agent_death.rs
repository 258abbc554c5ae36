//! The services outlive the agent: under load no request, look-up or log line is lost.

use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use crate::host::{HOST, Host, PATIENCE, Place, load::Load, process, promised};

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
        report.rate >= 500.0 / promised(Duration::from_secs(1)).as_secs_f64(),
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
