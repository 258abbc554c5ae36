//! How fast each kind of damage is repaired, and what the bystanders notice: `cargo bench -p stead --bench
//! repair`. `ROUNDS=n` for another number of rounds than 20, any argument filters by name.
//!
//! 20 services in five projects answer 1,000 requests a second, each on a connection of its own. A kind is
//! repaired when the host looks as before and a request passes the host port, the name of a neighbour and
//! the bridge; a look takes some milliseconds itself.

#[path = "../host/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use host::{
    HOST, Host,
    compose::web,
    damage::{DAMAGES, Damage, Target, Where},
    http,
};

const PROJECTS: u16 = 5;
const SERVICES: u16 = 4;
const FIRST_PORT: u16 = 18700;
/// Requests a second to each service.
const PACE: Duration = Duration::from_millis(20);
/// How long a repair is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same object is not hurt again at once: an agent that sees its repair undone five times in ten
/// seconds takes its time.
const PAUSE: Duration = Duration::from_millis(300);
/// Number of the damage, from when to when it was felt, and whose it was.
type Window<'t> = (usize, Instant, Instant, &'t Target);
/// A request that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(1);

fn main() {
    let rounds = std::env::var("ROUNDS").map_or(20, |text| text.parse().expect("a number"));
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let damages: Vec<&Damage> = DAMAGES
        .iter()
        .filter(|damage| wanted.is_empty() || wanted.iter().any(|word| damage.name.contains(word.as_str())))
        .collect();
    let Some(mut host) = Host::new("bench-repair") else {
        return;
    };
    host.start_agent();
    let targets = targets(&host);
    let load = Load::start(&host, &targets);
    let idle = cpu(host.agent_pid());
    std::thread::sleep(Duration::from_secs(5));
    let idle = cpu(host.agent_pid()) - idle;
    let mut results: Vec<Row> = damages.iter().map(|_| Row::default()).collect();
    let mut windows: Vec<Window> = Vec::new();
    let (start, before) = (Instant::now(), cpu(host.agent_pid()));
    for round in 0..rounds {
        for (number, damage) in damages.iter().enumerate() {
            let target = &targets[(round * 7 + number * 3) % targets.len()];
            let neighbour = format!("s{}", (round + number) % usize::from(SERVICES));
            let row = &mut results[number];
            let picture = target.picture(&host);
            let begun = Instant::now();
            row.refused += usize::from(!target.damage(&host, damage));
            let done = Instant::now();
            let whole = match target.whole_again(&host, &picture, &neighbour, PATIENCE) {
                Ok(whole) => whole,
                Err(trouble) => {
                    eprintln!("{}: {trouble}", damage.name);
                    row.failed += 1;
                    Instant::now()
                }
            };
            row.times.push((whole - done).as_secs_f64() * 1000.0);
            row.hurt += targets.iter().filter(|target| !target.unhurt()).count();
            windows.push((number, begun, whole, target));
            std::thread::sleep(PAUSE);
        }
    }
    let (elapsed, used) = (start.elapsed(), cpu(host.agent_pid()) - before);
    let (requests, rate, losses) = load.finish();
    let mut strange = Vec::new();
    for loss in losses {
        // While something was broken, or in the tenth of a second after: a look may be that late.
        let touching: Vec<_> = windows
            .iter()
            .filter(|(_, begun, whole, _)| loss.start <= *whole + PAUSE && loss.end >= *begun)
            .collect();
        // A packet lost to one damage is missed for a second, in which others follow: it is theirs only
        // where no damage that reaches the service explains it.
        let (own, others) = touching
            .into_iter()
            .partition::<Vec<&Window>, _>(|(number, _, _, target)| {
                target.within(damages[*number].reach, &targets[loss.service])
            });
        for (number, ..) in &own {
            results[*number].lost += 1;
        }
        if !own.is_empty() {
            continue;
        }
        for (number, ..) in &others {
            eprintln!("{}: bystander: {}", damages[*number].name, loss.error);
            results[*number].bystanders += 1;
        }
        if others.is_empty() {
            strange.push(loss);
        }
    }
    println!(
        "{:<34} {:>9} {:>9} {:>7} {:>7} {:>11} {:>7}",
        "damage", "p50 ms", "p99 ms", "failed", "pids", "bystanders", "own"
    );
    for (damage, row) in damages.iter().zip(&mut results) {
        row.print(damage);
    }
    println!(
        "\n{requests} requests, {rate:.0} a second; {} lost with nothing broken; the agent used {:.2} % of a processor \
         at rest, {:.1} % under repair ({rounds} rounds in {:.0} s).",
        strange.len(),
        idle / 5.0 * 100.0,
        used / elapsed.as_secs_f64() * 100.0,
        elapsed.as_secs_f64(),
    );
    for loss in strange.iter().take(5) {
        println!("  {}", loss.error);
    }
    host.finish();
}

#[derive(Default)]
struct Row {
    times: Vec<f64>,
    /// Not repaired in time.
    failed: usize,
    /// The kernel did not allow it.
    refused: usize,
    /// Processes that are not the same any more.
    hurt: usize,
    /// Requests lost by services out of reach of the damage, and by those in its reach.
    bystanders: usize,
    lost: usize,
}

impl Row {
    fn print(&mut self, damage: &Damage) {
        self.times.sort_by(f64::total_cmp);
        let at = |percent: usize| {
            let last = self.times.len().saturating_sub(1);
            self.times
                .get((last * percent).div_ceil(100))
                .copied()
                .unwrap_or(f64::NAN)
        };
        let refused = match (damage.place, self.refused) {
            (Where::Guarded, count) if count > 0 => "  refused by the kernel",
            _ => "",
        };
        println!(
            "{:<34} {:>9.1} {:>9.1} {:>7} {:>7} {:>11} {:>7}{refused}",
            damage.name,
            at(50),
            at(99),
            self.failed,
            self.hurt,
            self.bystanders,
            self.lost,
        );
    }
}

fn targets(host: &Host) -> Vec<Target> {
    let port = |project: u16, service: u16| FIRST_PORT + project * SERVICES + service;
    for project in 0..PROJECTS {
        let services =
            (0..SERVICES).map(|service| format!("  s{service}: {{ {} }}\n", web(port(project, service))));
        let text = format!("services:\n{}", services.collect::<String>());
        host.write_manifest(&format!("p{project}"), &text);
    }
    let mut targets = Vec::new();
    for project in 0..PROJECTS {
        let name = format!("p{project}");
        host.converged(&name);
        for service in 0..SERVICES {
            targets.push(Target::of(
                host,
                &name,
                &format!("s{service}"),
                port(project, service),
            ));
        }
    }
    targets
}

/// Seconds of processor time a process has used (proc_pid_stat(5); a tick is 10 ms).
fn cpu(pid: u32) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ticks = text
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(11)
        .take(2);
    ticks.filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// A request that was not answered.
struct Loss {
    /// Which of the targets.
    service: usize,
    start: Instant,
    end: Instant,
    error: String,
}

struct Load {
    threads: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    requests: Arc<AtomicU64>,
    losses: Arc<Mutex<Vec<Loss>>>,
    start: Instant,
}

impl Load {
    /// One thread a service, so that one that is broken keeps no other waiting.
    fn start(host: &Host, targets: &[Target]) -> Load {
        let mut load = Load {
            threads: Vec::new(),
            over: Arc::default(),
            requests: Arc::default(),
            losses: Arc::default(),
            start: Instant::now(),
        };
        host.network.on_lan(|| {
            for (service, target) in targets.iter().enumerate() {
                let address = SocketAddr::new(HOST, target.port);
                let (over, requests) = (Arc::clone(&load.over), Arc::clone(&load.requests));
                let losses = Arc::clone(&load.losses);
                load.threads.push(std::thread::spawn(move || {
                    let mut next = Instant::now();
                    while !over.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        match http::get_within(address, "/healthz", LIMIT) {
                            Ok(_) => drop(requests.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => losses.lock().expect("no panic").push(Loss {
                                service,
                                start,
                                end: Instant::now(),
                                error,
                            }),
                        }
                        next = (next + PACE).max(Instant::now() - 10 * PACE);
                        std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                }));
            }
        });
        load
    }

    /// Requests answered, how many a second, and those that were not.
    fn finish(self) -> (u64, f64, Vec<Loss>) {
        let elapsed = self.start.elapsed().as_secs_f64();
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no panic in the load");
        }
        let requests = self.requests.load(Ordering::Relaxed);
        let losses = std::mem::take(&mut *self.losses.lock().expect("no panic"));
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        (requests, requests as f64 / elapsed, losses)
    }
}
