//! How fast a container starts, and what it costs besides its workload: `cargo bench -p stead --bench start`.
//! `ROUNDS=n` for another number of rounds than 60, `ONLY=text` for the rows with it in their names,
//! `STEAD_TEST_DIR=path` for another place than /tmp: an ext4 without a journal looks at every inode that was freed in
//! the last minutes before it gives one out, and a hundred services take half as long again.
//!
//! The first part speaks to the backend as the loop does: from the order to the first act of a program in a
//! sandbox of its own, with an overlay, all mounts, seccomp and cgroup. The second part is the whole of
//! stead with 100 services. The floor is a process in new namespaces on an overlay and nothing else.

#[path = "start/floor.rs"]
mod floor;
#[path = "../host/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;
#[path = "start/rig.rs"]
mod rig;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reconciler::spec::Limits;

use host::Host;
use rig::{End, Net, Rig};

/// Services of the second part.
const MANY: usize = 100;

fn main() {
    // The shims of the first part are this program.
    backend::shim::dispatch();
    let name = std::env::args_os().next().unwrap_or_default();
    if name == floor::NAME {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        let [image, work, out] = arguments.as_slice() else {
            return;
        };
        let done = floor::become_it(image.as_ref(), work.as_ref(), out.as_ref());
        return done.expect("the floor");
    }
    let rounds = std::env::var("ROUNDS").map_or(60, |text| text.parse().expect("a number"));
    let Some(mut host) = Host::new("bench-start") else {
        return;
    };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load.trim());
    println!("{:<52} {:>20} {:>10}", "what", "ms, p50 (p95)", "aim");
    row("floor: namespaces, overlay, exec", "-", || {
        floor::times(&host, rounds)
    });
    let limits = Limits {
        memory: Some(256 << 20),
        cpu: Some(1500),
        pids: Some(200),
        ..Limits::default()
    };
    host.network.on_host(|| {
        let mut rig = Rig::new(&host);
        let none = Limits::default();
        let first = [
            ("start, no network", Net::None, &none, "5"),
            ("start, network", Net::Bridge, &none, "5"),
            ("start, network and limits", Net::Bridge, &limits, "20"),
        ];
        for (what, net, limits, aim) in first {
            row(what, aim, || rig.starts(rounds, net, limits));
        }
        let again = [
            ("restart after its end", End::OfItself, &none, "2"),
            ("restart after its end, limits", End::OfItself, &limits, "2"),
            ("start again after a stop", End::Stopped, &none, "-"),
            ("start again after a stop, limits", End::Stopped, &limits, "-"),
        ];
        for (what, end, limits, aim) in again {
            row(what, aim, || rig.restarts(rounds, end, limits));
        }
    });
    if wanted("services") {
        many(&mut host);
    }
    host.finish();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load after: {}", load.trim());
}

/// The whole of stead: a file with many services comes and goes.
fn many(host: &mut Host) {
    let place = host.root.join("many");
    let (image, out) = (rig::image(&place), place.join("out"));
    let mut text = String::from("services:\n");
    for number in 0..MANY {
        text.push_str(&format!(
            "  s{number}: {{ image: \"rootfs:{}\", command: [/stamp], stop_signal: SIGKILL, environment: {{ NAME: s{number} }}, volumes: [\"{}:/out\"] }}\n",
            image.display(),
            out.display()
        ));
    }
    host.start_agent();
    let (mut up, mut down, mut each) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms caches and is not counted.
    for round in 0..4 {
        // The state of the host before: what was removed is still being freed.
        std::thread::sleep(Duration::from_secs(6));
        let before = available();
        let start = milliseconds();
        host.write_manifest("many", &text);
        let stamps = rig::stamps(&out, MANY);
        let last = stamps.into_iter().fold(0.0, f64::max);
        host.converged("many");
        let own: u64 = host.ps().iter().filter_map(|one| private(one.pid?)).sum();
        let used = before.saturating_sub(available()).saturating_sub(own);
        let begin = Instant::now();
        host.remove_manifest("many");
        host.gone("many");
        if round > 0 {
            up.push(last - start);
            down.push(begin.elapsed().as_secs_f64() * 1000.0);
            each.push(used as f64 / MANY as f64);
        }
        rig::forget(&out);
    }
    print(
        &format!("{MANY} services, file in place -> last first act"),
        "1000",
        up,
    );
    print(
        &format!("{MANY} services, file removed -> nothing left"),
        "1000",
        down,
    );
    each.sort_by(f64::total_cmp);
    let text = format!("{:.0} KiB", each[each.len() / 2]);
    println!(
        "{:<52} {text:>20} {:>10}",
        "memory of each, kernel's included, without its own", "1024"
    );
}

/// KiB.
fn available() -> u64 {
    field("/proc/meminfo", "MemAvailable:").unwrap_or(0)
}

/// Memory of the workload itself, in KiB.
fn private(pid: u32) -> Option<u64> {
    let file = format!("/proc/{pid}/smaps_rollup");
    Some(field(&file, "Private_Clean:")? + field(&file, "Private_Dirty:")?)
}

fn field(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
}

fn milliseconds() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs_f64() * 1000.0
}

/// Whether `ONLY` leaves it.
fn wanted(what: &str) -> bool {
    std::env::var("ONLY").is_ok_and(|only| what.contains(&only)) || std::env::var_os("ONLY").is_none()
}

fn row(what: &str, aim: &str, measure: impl FnOnce() -> Vec<f64>) {
    if wanted(what) {
        print(what, aim, measure());
    }
}

/// Median and 95th percentile.
fn print(what: &str, aim: &str, mut times: Vec<f64>) {
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() - 1) * percent / 100];
    let text = format!("{:.2} ({:.2})", at(50), at(95));
    println!("{what:<52} {text:>20} {aim:>10}");
}

/// Waits until the file is there, and reads it.
fn read_stamp(path: &Path) -> f64 {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(time) = fs::read_to_string(path)
            .ok()
            .and_then(|text| text.trim().parse().ok())
        {
            return time;
        }
        assert!(Instant::now() < end, "{} has not run", path.display());
        std::thread::sleep(Duration::from_micros(500));
    }
}
