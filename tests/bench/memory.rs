//! Some services running: what the agent and its shims hold, and how long `stead plan` takes.

use std::{fs, time::Instant};

use crate::{
    Bench, ROUNDS, Spread,
    host::{Host, process},
    row,
};

pub fn print(host: &Host, bench: &Bench, count: usize) {
    bench.forget();
    host.write_manifest("bench", &bench.manifest(count));
    host.converged("bench");
    let plan = || {
        let start = Instant::now();
        host.stead_ok(&["plan"]);
        start.elapsed().as_secs_f64() * 1000.0
    };
    let times = (0..ROUNDS).map(|_| plan()).collect();
    let what = format!("`stead plan` of {count} unchanged, with an agent");
    row(&what, &Spread::of(times), "-");
    let agent = kilobytes(host.agent_pid(), "status", "VmRSS:");
    let shims: Vec<u64> = host
        .ps()
        .iter()
        .filter_map(|instance| process::parent(instance.pid?))
        .map(|shim| {
            ["Private_Clean:", "Private_Dirty:"]
                .iter()
                .map(|field| kilobytes(shim, "smaps_rollup", field))
                .sum()
        })
        .collect();
    let most = shims.iter().max().copied().unwrap_or(0);
    let what = format!("agent, resident, {count} services running");
    println!(
        "{what:<44} {:>22} {:>12}",
        format!("{:.1} MiB", agent as f64 / 1024.0),
        "20 MiB"
    );
    println!(
        "{:<44} {:>22} {:>12}",
        "largest shim, private",
        format!("{most} KiB"),
        "300 KiB"
    );
    host.remove_manifest("bench");
    host.gone("bench");
}

/// A line `Field:   123 kB` of /proc/PID/`file`.
fn kilobytes(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}
