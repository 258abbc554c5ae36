//! What deciding costs in processor time: a thousand services in fifty projects, on the simulated host.
//!
//! `cargo bench -p stead-reconciler --bench plan`

use std::{fmt::Write, fs};

use reconciler::{
    plan::{self, step::Plan},
    port::Backend,
    testing::drive::Drive,
};

const PROJECTS: usize = 50;
const SERVICES: usize = 20;
const ROUNDS: usize = 200;

fn manifest(project: usize, env: u32) -> String {
    let mut text = String::new();
    for service in 0..SERVICES {
        let port = 10_000 + project * SERVICES + service;
        let value = if service == 0 { env } else { 0 };
        let _ = write!(
            text,
            "s{service:02}\n  env A {value}\n  env B text\n  label one two\n  restart always\n  port {port}:80\n  volume data{service}:/data\n"
        );
    }
    text
}

fn main() {
    let mut drive = Drive::new(1);
    drive.host.image("app:1", "sha256:aaaa", true);
    for project in 0..PROJECTS {
        drive
            .file(&format!("p{project:02}"), &manifest(project, 0))
            .expect("a manifest");
    }
    drive
        .settle()
        .unwrap_or_else(|plan| panic!("does not end:\n{}", plan::render(&plan)));
    let unchanged = measure(&drive);
    assert_eq!(unchanged.0, Plan::default());
    println!("plan of 1,000 unchanged services     {}", unchanged.1);
    drive.file("p07", &manifest(7, 1)).expect("a manifest");
    let changed = measure(&drive);
    assert_eq!(changed.0.changes.len(), 1);
    println!("plan with one of 1,000 changed       {}", changed.1);
}

fn measure(drive: &Drive) -> (Plan, String) {
    let observed = drive.observe();
    let now = drive.host.now();
    let mut last = Plan::default();
    let before = processor();
    for _ in 0..ROUNDS {
        last = plan::plan(&drive.desired, &observed, &drive.memory, &Vec::new(), now);
    }
    // Of all together: the kernel counts in ticks.
    let each = (processor() - before) / ROUNDS as f64;
    (last, format!("{each:.2} ms"))
}

/// Milliseconds this thread has had a processor: proc(5), schedstat.
fn processor() -> f64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").expect("schedstat");
    let nanoseconds = text.split(' ').next().and_then(|first| first.parse::<f64>().ok());
    nanoseconds.expect("nanoseconds") / 1e6
}
