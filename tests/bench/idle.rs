//! What stead costs while nothing happens: `cargo bench -p stead --bench idle`. `SERVICES=n` for another
//! number than 50, `MINUTES=n` for another time than 10: looks at everything become ever rarer while nothing
//! changes.
//!
//! A wake-up is a voluntary context switch (proc_pid_status(5)): a thread that waited, was woken, and waits
//! again. They are summed over all threads, those that ended meanwhile included. The services have no health
//! check: how often one runs is the manifest's choice.

#[path = "../host/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use host::{Host, compose::web, process};

const FIRST_PORT: u16 = 18700;
const PER_PROJECT: u16 = 10;
/// Threads that end between two looks are missed for so long at most.
const LOOK: Duration = Duration::from_secs(1);
/// What a start leaves to be done is done by then.
const CALM: Duration = Duration::from_secs(15);

fn main() {
    let number = |name: &str, default: u16| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (services, minutes) = (number("SERVICES", 50), number("MINUTES", 10));
    let Some(mut host) = Host::new("bench-idle") else {
        return;
    };
    host.start_agent();
    start(&host, services);
    let shims: Vec<u32> = host
        .ps()
        .iter()
        .filter_map(|instance| process::parent(instance.pid?))
        .collect();
    std::thread::sleep(CALM);
    let agent = Meter::start(vec![host.agent_pid()]);
    let supervisors = Meter::start(shims);
    let (mut agent, mut supervisors) = (agent, supervisors);
    let (start, time) = (Instant::now(), Duration::from_secs(60 * u64::from(minutes)));
    while start.elapsed() < time {
        std::thread::sleep(LOOK);
        agent.look();
        supervisors.look();
    }
    let elapsed = start.elapsed().as_secs_f64();
    println!("{services} services, {elapsed:.0} s without any event");
    println!("{:<28} {:>12} {:>16}", "who", "processor %", "wake-ups a minute");
    let row = |who: &str, used: &Used| {
        let percent = used.nanoseconds as f64 / 1e9 / elapsed * 100.0;
        let wakes = used.switches as f64 / elapsed * 60.0;
        println!("{who:<28} {percent:>12.4} {wakes:>16.2}");
    };
    row("the agent", &agent.total());
    for (name, used) in agent.by_name() {
        row(&format!("  {name}"), &used);
    }
    row("its supervisors together", &supervisors.total());
    println!(
        "the agent woke in {} of {elapsed:.0} seconds: {}",
        agent.busy.len(),
        agent
            .busy
            .iter()
            .map(|(second, count)| format!("{count} at {second} s"))
            .collect::<Vec<_>>()
            .join(", "),
    );
    host.finish();
}

fn start(host: &Host, services: u16) {
    let ports: Vec<u16> = (FIRST_PORT..FIRST_PORT + services).collect();
    let projects = ports.chunks(usize::from(PER_PROJECT)).enumerate();
    let mut names = Vec::new();
    for (number, ports) in projects {
        let name = format!("p{number}");
        let service = |port: &u16| {
            format!(
                "  s{port}: {{ {}, healthcheck: {{ disable: true }} }}\n",
                web(*port)
            )
        };
        let services = ports.iter().map(service);
        host.write_manifest(&name, &format!("services:\n{}", services.collect::<String>()));
        names.push(name);
    }
    names.iter().for_each(|name| host.converged(name));
}

#[derive(Debug, Clone, Default)]
struct Used {
    nanoseconds: u64,
    switches: u64,
}

/// What the threads of some processes have used since it was started.
struct Meter {
    pids: Vec<u32>,
    /// By thread: its name, what it had used at the start, and by now.
    threads: BTreeMap<u32, (String, Used, Used)>,
    start: Instant,
    /// Seconds since the start that had any wake-up, and how many.
    busy: Vec<(u64, u64)>,
}

impl Meter {
    fn start(pids: Vec<u32>) -> Meter {
        let mut meter = Meter {
            pids,
            threads: BTreeMap::new(),
            start: Instant::now(),
            busy: Vec::new(),
        };
        for (thread, name, used) in meter.read() {
            meter.threads.insert(thread, (name, used.clone(), used));
        }
        meter
    }

    fn look(&mut self) {
        let before = self.total().switches;
        for (thread, name, used) in self.read() {
            // A thread that was not there yet began with nothing.
            let entry = self.threads.entry(thread);
            entry.or_insert((name, Used::default(), Used::default())).2 = used;
        }
        let now = self.total().switches - before;
        self.busy
            .extend((now > 0).then(|| (self.start.elapsed().as_secs(), now)));
    }

    fn read(&self) -> Vec<(u32, String, Used)> {
        let mut found = Vec::new();
        for pid in &self.pids {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten();
            for task in tasks.flatten() {
                let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
                let thread = task.file_name().to_string_lossy().parse();
                let status = read("status");
                let switches = status
                    .lines()
                    .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse().ok());
                let ran = read("schedstat")
                    .split_whitespace()
                    .next()
                    .and_then(|ran| ran.parse().ok());
                if let (Ok(thread), Some(switches), Some(nanoseconds)) = (thread, switches, ran) {
                    let used = Used {
                        nanoseconds,
                        switches,
                    };
                    found.push((thread, read("comm").trim().to_owned(), used));
                }
            }
        }
        found
    }

    fn total(&self) -> Used {
        self.threads.values().fold(Used::default(), add)
    }

    fn by_name(&self) -> BTreeMap<String, Used> {
        let mut names: BTreeMap<String, Used> = BTreeMap::new();
        for thread in self.threads.values() {
            let used = names.entry(thread.0.clone()).or_default();
            *used = add(std::mem::take(used), thread);
        }
        names
    }
}

fn add(sum: Used, (_, start, now): &(String, Used, Used)) -> Used {
    Used {
        nanoseconds: sum.nanoseconds + now.nanoseconds - start.nanoseconds,
        switches: sum.switches + now.switches - start.switches,
    }
}
