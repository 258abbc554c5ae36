//! Attacks on the walls of a container, and what the probe says of them. `SEC-nn` is the known flaw that a test
//! is about: docs/security.md has the list.

mod entering;
mod hosts;
mod kernel;
mod probe;
mod races;
mod walls;

use crate::host::{Host, PATIENCE};

/// A service in the manifest's short form, that runs `script` once.
fn once(name: &str, image: &str, more: &str, script: &str) -> String {
    let script = quoted(script);
    format!("  {name}: {{ image: \"{image}\", command: [sh, -c, {script}], restart: \"no\"{more} }}\n")
}

/// A script as a manifest has it: its own variables are the shell's.
fn quoted(script: &str) -> String {
    let text = script.replace('$', "$$");
    serde_json::to_string(&text).expect("a string")
}

/// A service that is there to be looked at.
fn lasting(name: &str, image: &str, more: &str) -> String {
    format!("  {name}: {{ image: \"{image}\", command: [sleep, '1000000'], stop_signal: KILL{more} }}\n")
}

/// What a service printed, once it has ended.
fn said(host: &Host, project: &str, service: &str) -> Vec<String> {
    host.in_state(project, service, "exited");
    let text = host.stead_ok(&["logs", project, service]);
    // The name of the instance stands before each line.
    let lines = text
        .lines()
        .map(|line| line.split_once(" | ").map_or(line, |(_, text)| text));
    lines.map(str::to_owned).collect()
}

/// Output of a command in a running service; it must succeed.
fn inside(host: &Host, target: &str, command: &[&str]) -> String {
    let mut words = vec!["exec", target, "--"];
    words.extend(command);
    host.stead_ok(&words)
}

/// Waits until a service could not be started, and gives what is said about it.
fn refused(host: &Host, project: &str, service: &str) -> String {
    host.wait(&format!("{project}/{service} is refused"), PATIENCE, || {
        let instance = host.instance(project, service);
        let never_ran = instance.is_none_or(|instance| instance.pid.is_none());
        let complaint = host.complaint(project);
        let failed =
            complaint.contains("\"type\":\"Failed\"") && complaint.contains(&format!("{project}/{service}"));
        (never_ran && failed).then_some(complaint)
    })
}

/// As many as CI has time for, or as many as `STEAD_ATTACK_ROUNDS` says.
fn rounds(usual: usize) -> usize {
    let asked = std::env::var("STEAD_ATTACK_ROUNDS").ok();
    asked.and_then(|text| text.parse().ok()).unwrap_or(usual)
}
