//! A service that prints as fast as it can: `cargo bench -p stead --bench flood`. `ROUNDS=n` for another number of
//! seconds than 20.
//!
//! Three writers without pause: what is taken of them, what that costs the supervisor, and what a neighbour
//! notices. The floor is the same writers into a pipe whose reader does nothing else.

#[path = "../host/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;

use std::{
    fs,
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use host::{Host, LOOPBACK, Place, compose, process};

fn main() {
    let seconds = std::env::var("ROUNDS").map_or(20, |text| text.parse().expect("a number"));
    let Some(mut host) = Host::new("bench-flood") else {
        return;
    };
    let word = "x".repeat(400);
    let yes = format!("/bin/busybox yes {word}");
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load before: {}", load.trim());
    println!("{:<52} {:>20} {:>10}", "what", "measured", "bound");
    row(
        "floor: writers into a pipe",
        format!("{:.0} MB/s", floor(&word)),
        "-",
    );
    host.start_agent();
    let quiet = format!("services: {{ web: {{ {} }} }}\n", compose::web(18630));
    host.write_manifest("quiet", &quiet);
    host.converged("quiet");
    let alone = answers(&host, Duration::from_secs(3));
    row("a neighbour's answer before, p50 (most)", alone, "-");
    host.write_manifest(
        "out",
        &format!(
            "services:\n  flood:\n    image: {}\n    stop_signal: KILL\n    command: [sh, -c, \"{yes} & {yes} & {yes} >&2 & wait\"]\n",
            host.busybox(),
        ),
    );
    host.converged("out");
    let shim = process::parent(host.running("out", "flood").pid()).expect("its supervisor");
    let (start, read, used) = (Instant::now(), taken(shim), processor(shim));
    let beside = answers(&host, Duration::from_secs(seconds));
    let took = start.elapsed().as_secs_f64();
    let rate = (taken(shim) - read) as f64 / took / 1e6;
    row("taken of three writers", format!("{rate:.0} MB/s"), "-");
    let share = (processor(shim) - used) / took;
    row("supervisor, of a processor", format!("{share:.2}"), "1");
    let private =
        field(shim, "smaps_rollup", "Private_Clean:") + field(shim, "smaps_rollup", "Private_Dirty:");
    row("supervisor, private memory", format!("{private} KiB"), "16384");
    let logs = host.root.join("state/logs/out/flood-1a");
    let files = fs::read_dir(logs).expect("its logs").flatten();
    let disk: u64 = files.filter_map(|file| Some(file.metadata().ok()?.len())).sum();
    row(
        "logs on disk",
        format!("{:.1} MiB", disk as f64 / 1048576.0),
        "30 MiB",
    );
    row("a neighbour's answer during it, p50 (most)", beside, "-");
    host.finish();
}

/// MB a second that three writers get rid of when nobody does anything with it.
fn floor(word: &str) -> f64 {
    let writers = format!("busybox yes {word} & busybox yes {word} & busybox yes {word} & wait");
    let mut shell = Command::new("busybox");
    shell.args(["timeout", "-s", "KILL", "3", "sh", "-c", &writers]);
    let mut child = shell.stdout(Stdio::piped()).spawn().expect("writers");
    let mut pipe = child.stdout.take().expect("their output");
    let (start, mut bytes, mut chunk) = (Instant::now(), 0_u64, vec![0; 16 << 10]);
    while start.elapsed() < Duration::from_secs(2) {
        bytes += pipe.read(&mut chunk).expect("their output") as u64;
    }
    let rate = bytes as f64 / start.elapsed().as_secs_f64() / 1e6;
    // Without a reader they end by themselves.
    drop(pipe);
    let _ = child.wait();
    rate
}

/// Milliseconds of a request to the neighbour: median, and most.
fn answers(host: &Host, time: Duration) -> String {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < time {
        let sent = Instant::now();
        host.get(Place::Host, LOOPBACK, 18630, "/").expect("an answer");
        times.push(sent.elapsed().as_secs_f64() * 1000.0);
    }
    times.sort_by(f64::total_cmp);
    format!("{:.2} ({:.1}) ms", times[times.len() / 2], times[times.len() - 1])
}

/// Bytes that a process has read so far.
fn taken(pid: u32) -> u64 {
    field(pid, "io", "rchar:")
}

/// Seconds of processor time.
fn processor(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its stat");
    let rest = &text[text.rfind(')').expect("its name") + 2..];
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = [11, 12]
        .iter()
        .map(|at| fields[*at].parse::<f64>().expect("a number"));
    ticks.sum::<f64>() / 100.0
}

fn field(pid: u32, file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("what it holds");
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok())
        .expect("the field")
}

fn row(what: &str, measured: String, bound: &str) {
    println!("{what:<52} {measured:>20} {bound:>10}");
}
