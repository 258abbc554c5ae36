//! How fast each kind of damage is repaired, and what the bystanders notice: `cargo bench -p stead --bench
//! repair`. `ROUNDS=n` for another number of rounds than 20, any argument filters by name. Ends with 1 where
//! a promise is broken.
//!
//! 20 services in five projects answer 1,000 requests a second, each on a connection of its own. A kind is
//! repaired when the host looks as before and a request passes the host port, the name of a neighbour and
//! the bridge; a look takes some 40 milliseconds itself.

#[path = "../host/mod.rs"]
#[allow(dead_code, reason = "the tests use the rest of it")]
mod host;
#[path = "repair/load.rs"]
mod load;
#[path = "repair/table.rs"]
mod table;

use std::{
    fs,
    process::ExitCode,
    time::{Duration, Instant},
};

use host::{
    Host,
    bystander::Bystanders,
    compose::furnished,
    damage::{Damage, Reach, ground::GROUND, network::NETWORK},
    target::Target,
};
use load::Load;
use table::{Row, Window};

const PROJECTS: u16 = 5;
const SERVICES: u16 = 4;
const FIRST_PORT: u16 = 18700;
/// How long a repair is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two damages.
const PAUSE: Duration = Duration::from_millis(150);
/// So often is an object hurt in so long a time: an agent whose repair is undone more often takes its time.
const PATIENT: (usize, Duration) = (5, Duration::from_secs(11));

fn main() -> ExitCode {
    let rounds = std::env::var("ROUNDS").map_or(20, |text| text.parse().expect("a number"));
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let damages: Vec<&Damage> = NETWORK
        .iter()
        .chain(GROUND)
        .filter(|damage| wanted.is_empty() || wanted.iter().any(|word| damage.name.contains(word.as_str())))
        .collect();
    let Some(mut host) = Host::new("bench-repair") else {
        return ExitCode::SUCCESS;
    };
    // What wakes the loop is the answer to how a damage was noticed.
    host.log = Some("info,reconciler::converge=debug");
    host.start_agent();
    let mut targets = targets(&host);
    let load = Load::start(&targets, &host.network);
    let idle = cpu(host.agent_pid());
    std::thread::sleep(Duration::from_secs(5));
    let idle = cpu(host.agent_pid()) - idle;
    let mut rows: Vec<Row> = damages.iter().map(|_| Row::default()).collect();
    let mut windows: Vec<Window> = Vec::new();
    let (start, before) = (Instant::now(), cpu(host.agent_pid()));
    for round in 0..rounds {
        for (number, damage) in damages.iter().enumerate() {
            let victim = victim(round * 7 + number * 3, damage.reach, &targets, &windows, &damages);
            let neighbour = format!("s{}", (round + number) % usize::from(SERVICES));
            let bystanders = Bystanders::look(&host, &targets);
            let picture = targets[victim].picture(&host);
            let said = log(&host).len();
            let begun = Instant::now();
            let row = &mut rows[number];
            let refused = !targets[victim].damage(&host, damage);
            row.refused += usize::from(refused);
            let done = Instant::now();
            let fatal = damage.fatal && !refused;
            let whole = targets[victim].whole_again(&host, &picture, &neighbour, fatal, PATIENCE);
            let whole = whole.unwrap_or_else(|trouble| {
                eprintln!("{}: {trouble}", damage.name);
                row.failed += 1;
                Instant::now()
            });
            row.times.push((whole - done).as_secs_f64() * 1000.0);
            row.noticed(&log(&host)[said..]);
            row.hurt += targets.iter().filter(|target| !target.unhurt()).count();
            let after = Bystanders::look(&host, &targets);
            for touched in after.touched(&bystanders, &targets, victim, damage) {
                eprintln!("{}: touched: {touched}", damage.name);
                row.touched += 1;
            }
            windows.push(Window {
                damage: number,
                begun,
                whole,
                victim,
            });
            std::thread::sleep(PAUSE);
        }
    }
    let (elapsed, used) = (start.elapsed(), cpu(host.agent_pid()) - before);
    let (requests, rate, losses) = load.finish();
    let strange = table::attribute(losses, &windows, &damages, &targets, &mut rows);
    table::print(&damages, &mut rows);
    println!(
        "\n{requests} requests sent, {rate:.0} a second; {} lost with nothing broken; the agent used {:.2} % of a processor \
         at rest, {:.1} % under repair ({rounds} rounds of {} kinds in {:.0} s).",
        strange.len(),
        idle / 5.0 * 100.0,
        used / elapsed.as_secs_f64() * 100.0,
        damages.len(),
        elapsed.as_secs_f64(),
    );
    for loss in strange.iter().take(5) {
        println!("  {}", loss.error);
    }
    let broken = table::broken(&damages, &rows);
    for promise in &broken {
        println!("broken: {promise}");
    }
    // A script that loads rules of its own leaves them.
    host.tool_reply("nft", &["delete", "table", "ip", "foreign"]);
    host.finish();
    ExitCode::from(u8::from(!broken.is_empty()))
}

/// The first that bears another damage of that reach, from `first` on; waits until there is one.
fn victim(first: usize, reach: Reach, targets: &[Target], windows: &[Window], damages: &[&Damage]) -> usize {
    let (most, within) = PATIENT;
    let bears = |victim: &usize| {
        let same = |window: &&Window| {
            let hurt = &targets[window.victim];
            damages[window.damage].reach == reach && targets[*victim].within(reach, hurt)
        };
        let recent = windows
            .iter()
            .rev()
            .take_while(|window| window.begun.elapsed() < within);
        recent.filter(same).count() < most
    };
    let all = (first..first + targets.len()).map(|victim| victim % targets.len());
    loop {
        if let Some(victim) = all.clone().find(bears) {
            return victim;
        }
        std::thread::sleep(PAUSE);
    }
}

fn targets(host: &Host) -> Vec<Target> {
    let port = |project: u16, service: u16| FIRST_PORT + project * SERVICES + service;
    fs::create_dir(host.root.join("manifests/given")).expect("what is bound");
    for project in 0..PROJECTS {
        let services =
            (0..SERVICES).map(|number| format!("  s{number}: {{ {} }}\n", furnished(port(project, number))));
        let text = format!(
            "services:\n{}volumes: {{ data: {{}} }}\n",
            services.collect::<String>()
        );
        host.write_manifest(&format!("p{project}"), &text);
    }
    let mut targets = Vec::new();
    for project in 0..PROJECTS {
        let name = format!("p{project}");
        host.converged(&name);
        for service in 0..SERVICES {
            let number = port(project, service);
            targets.push(Target::of(host, &name, &format!("s{service}"), number));
        }
    }
    targets
}

fn log(host: &Host) -> String {
    fs::read_to_string(host.root.join("agent.log")).unwrap_or_default()
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
