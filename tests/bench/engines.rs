//! The same first act through docker and podman, where they are installed and answer.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::{Spread, milliseconds, wait_for_stamps};

const ROUNDS: usize = 6;

pub fn print(image: &Path, out: &Path, ours: Option<&Spread>) {
    let name = format!("stead-bench-{}", std::process::id());
    println!("\n{:<24} {:>22}", "one service, cold", "ms p50 (p95)");
    if let Some(ours) = ours {
        line("stead", ours);
    }
    for engine in ["docker", "podman"] {
        if !quietly(Command::new(engine).arg("info")) {
            println!("{engine:<24} {:>22}", "not here");
            continue;
        }
        let import = format!(
            "tar -C {} -c . | {engine} import - {name}:latest",
            image.display()
        );
        if !quietly(Command::new("sh").args(["-c", &import])) {
            println!("{engine:<24} {:>22}", "cannot import");
            continue;
        }
        // The first warms up.
        let times = (0..=ROUNDS)
            .map(|_| cold_start(engine, &name, out))
            .skip(1)
            .collect();
        line(&format!("{engine} run -d"), &Spread::of(times));
        quietly(Command::new(engine).args(["rmi", "-f", &name]));
    }
}

fn cold_start(engine: &str, name: &str, out: &Path) -> f64 {
    for entry in std::fs::read_dir(out).into_iter().flatten().flatten() {
        let _ = std::fs::remove_file(entry.path());
    }
    let volume = format!("{}:/out", out.display());
    let start = milliseconds();
    quietly(Command::new(engine).args(["run", "-d", "--name", name, "-v", &volume, name, "/stamp"]));
    let stamps = wait_for_stamps(out, 1);
    quietly(Command::new(engine).args(["rm", "-f", name]));
    stamps[0] - start
}

fn quietly(command: &mut Command) -> bool {
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    status.is_ok_and(|status| status.success())
}

fn line(what: &str, spread: &Spread) {
    println!(
        "{what:<24} {:>22}",
        format!("{:.1} ({:.1})", spread.p50, spread.p95)
    );
}
