//! The speeds that matter, measured on this machine and printed: `cargo bench -p stead --bench speed`.
//!
//! The services run this very program: its first act in a container is to write the time into a
//! directory of the host. Columns for docker and podman appear where they are installed and answer.

mod engines;
#[path = "../host/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;
mod loading;
mod memory;
/// The part of the program that reads manifests: it has no library.
#[path = "../../agent/src"]
#[allow(dead_code, unused_imports, reason = "the program uses the rest of it")]
mod program {
    pub mod environment;
    pub mod intake;
    pub mod source;
    pub mod text;
}

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nix::sys::signal::{SigSet, Signal};

use host::Host;
use program::{environment, intake, source, text};

const ROUNDS: usize = 20;
/// The one instance of the service that is restarted.
const RESTARTED: &str = "bench/s0/1a";

fn main() {
    if std::env::args_os()
        .next()
        .is_some_and(|name| name.as_encoded_bytes().ends_with(b"/stamp"))
    {
        stamp();
        return;
    }
    let Some(mut host) = Host::new("bench") else {
        return;
    };
    let bench = Bench::new();
    host.start_agent();

    println!("{:<44} {:>22} {:>12}", "what", "ms, p50 (p95)", "aim");
    let mut solo = None;
    for (count, aim) in [(1, "30"), (10, "200")] {
        // The first round warms caches and is not counted.
        let times = (0..=ROUNDS)
            .map(|_| bench.cold_start(&host, count))
            .skip(1)
            .collect();
        let line = Spread::of(times);
        row(
            &format!("file in place -> exec'd, {count} service(s)"),
            &line,
            aim,
        );
        if count == 1 {
            solo = Some(line);
        }
    }
    let times: Vec<f64> = (0..ROUNDS).map(|_| bench.restart(&host)).collect();
    let drawn = reconciler::backoff::delay(RESTARTED, 0) as f64;
    row(
        &format!("SIGKILL -> exec'd again, {drawn} ms drawn"),
        &Spread::of(times.clone()),
        &format!("{}", drawn + 10.0),
    );
    let beyond = times.iter().map(|time| time - drawn).collect();
    row("  beyond the delay drawn", &Spread::of(beyond), "10");
    row("load of one file with 500 services", &loading::large(), "20");
    let directory = host.directory("unchanged");
    row(
        "look at 1,000 unchanged projects",
        &loading::unchanged(&directory),
        "100",
    );
    let (name, verdict) = loading::hostile(&host.directory("hostile"));
    row(&format!("verdict on {name}, the slowest"), &verdict, "200");
    memory::print(&host, &bench, 10);
    host.finish();

    engines::print(&bench.image, &bench.out, solo.as_ref());
    println!("\nThe floor of this kernel, one process in new namespaces on an overlay, is about 4 ms.");
}

/// What runs inside: time first, then wait for the end.
fn stamp() {
    let now = milliseconds();
    let name = std::env::var("NAME").unwrap_or_else(|_| "stamp".to_owned());
    if let Ok(mut file) = fs::File::options()
        .create(true)
        .append(true)
        .open(format!("/out/{name}"))
    {
        let _ = writeln!(file, "{now}");
    }
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    // Process 1 of a namespace gets no signal it does not ask for.
    let _ = signals.thread_block();
    let _ = signals.wait();
}

fn milliseconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
        * 1000.0
}

pub struct Bench {
    /// Outlives the host of the test: the engines use it too.
    place: PathBuf,
    image: PathBuf,
    out: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let place = std::env::temp_dir().join(format!("stead-bench-{}", std::process::id()));
        let (image, out) = (place.join("image"), place.join("out"));
        for directory in [&image.join("out"), &image.join("proc"), &out] {
            fs::create_dir_all(directory).expect("a directory");
        }
        let own = std::env::current_exe().expect("this program");
        fs::copy(own, image.join("stamp")).expect("a copy of this program");
        Bench { place, image, out }
    }

    pub fn manifest(&self, count: usize) -> String {
        let mut text = String::from("services:\n");
        for number in 0..count {
            text.push_str(&format!(
                "  s{number}: {{ image: \"rootfs:{}\", command: [/stamp], restart: always, environment: {{ NAME: s{number} }}, volumes: [\"{}:/out\"] }}\n",
                self.image.display(),
                self.out.display()
            ));
        }
        text
    }

    /// Milliseconds from the rename to the last of `count` first acts.
    fn cold_start(&self, host: &Host, count: usize) -> f64 {
        self.forget();
        let text = self.manifest(count);
        let temporary = host.root.join("bench.new");
        fs::write(&temporary, text).expect("a manifest");
        let start = milliseconds();
        fs::rename(&temporary, host.manifest("bench")).expect("in place");
        let stamps = wait_for_stamps(&self.out, count);
        host.remove_manifest("bench");
        host.gone("bench");
        stamps.into_iter().fold(0.0, f64::max) - start
    }

    /// Milliseconds from SIGKILL to the first act of the next process, of a service that just started.
    fn restart(&self, host: &Host) -> f64 {
        self.forget();
        host.write_manifest("bench", &self.manifest(1));
        wait_for_stamps(&self.out, 1);
        let pid = host.running("bench", "s0").pid();
        self.forget();
        let start = milliseconds();
        host::signal(pid, Signal::SIGKILL);
        let stamps = wait_for_stamps(&self.out, 1);
        host.remove_manifest("bench");
        host.gone("bench");
        stamps[0] - start
    }

    pub fn forget(&self) {
        for entry in fs::read_dir(&self.out).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.place);
    }
}

/// The first stamp of each of `count` processes.
pub fn wait_for_stamps(out: &Path, count: usize) -> Vec<f64> {
    host::wait(
        &format!("{count} processes have run"),
        Duration::from_secs(60),
        || {
            let mut stamps = Vec::new();
            for entry in fs::read_dir(out).ok()?.flatten() {
                let text = fs::read_to_string(entry.path()).ok()?;
                stamps.push(text.lines().next()?.parse().ok()?);
            }
            (stamps.len() >= count).then_some(stamps)
        },
    )
}

/// Median and 95th percentile.
#[derive(Debug)]
pub struct Spread {
    pub p50: f64,
    pub p95: f64,
}

impl Spread {
    pub fn of(mut times: Vec<f64>) -> Spread {
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            times
                .get((times.len() - 1) * percent / 100)
                .copied()
                .unwrap_or(f64::NAN)
        };
        Spread {
            p50: at(50),
            p95: at(95),
        }
    }
}

pub fn row(what: &str, spread: &Spread, aim: &str) {
    println!(
        "{what:<44} {:>22} {aim:>12}",
        format!("{:.1} ({:.1})", spread.p50, spread.p95)
    );
}
