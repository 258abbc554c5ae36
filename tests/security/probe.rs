//! What the probe finds in a service without any attributes, compared with a golden file; the same again where a
//! further process is started.

use std::{collections::BTreeSet, fs, path::Path};

use crate::host::{Host, PATIENCE};

#[cfg(target_arch = "x86_64")]
const GOLDEN: &str = "probe.x86_64.golden";
#[cfg(target_arch = "aarch64")]
const GOLDEN: &str = "probe.aarch64.golden";

/// Binds of what the host has: its mounts have flags of their own.
const OF_HOST: [&str; 9] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
];

/// The facts that no kernel and no host decides.
fn stable(text: &str) -> Vec<String> {
    let fact = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            // Which of those there are depends on the kernel; what they are for is told by `hidden` and
            // `writable`.
            ["mount", point, ..] if below(point) => None,
            ["mount", point, ..] if OF_HOST.contains(&point) => Some(format!("mount {point} of the host")),
            ["writable", path] if path.starts_with("/proc/pressure/") => None,
            [name, ..] if name.starts_with("host.") => None,
            _ => Some(line.to_owned()),
        }
    };
    text.lines().filter_map(fact).collect()
}

fn below(point: &str) -> bool {
    point.starts_with("/proc/") || (point.starts_with("/sys/") && point != "/sys/fs/cgroup")
}

/// The facts as an argument list: the namespaces of the agent are the host's.
fn facts(host: &Host) -> Vec<String> {
    let mut words = vec!["probe".to_owned(), "facts".to_owned()];
    let own = format!("/proc/{}/ns", host.agent_pid());
    for entry in fs::read_dir(own).expect("namespaces").flatten() {
        let to = fs::read_link(entry.path()).expect("a namespace");
        words.push(to.display().to_string());
    }
    words
}

#[test]
fn a_service_can_do_what_is_written_down_and_no_more() {
    let Some(mut host) = Host::new("probe") else {
        return;
    };
    host.start_agent();
    let image = host.probed("image", |_| ());
    let command = serde_json::to_string(&facts(&host)).expect("a list");
    host.change(
        "probe",
        &format!(
            "services:\n  \
             first: {{ image: \"{image}\", command: {command}, restart: \"no\" }}\n  \
             other: {{ image: \"{image}\", command: [sleep, '1000000'], hostname: first, stop_signal: KILL }}\n"
        ),
    );
    host.in_state("probe", "first", "exited");
    let first = host.wait("the probe has said all", PATIENCE, || {
        let said = host.stead_ok(&["logs", "probe", "first"]);
        said.contains("call.470").then_some(said)
    });
    // The name of the instance stands before each line.
    let first: String = first.lines().map(|line| unnamed(line) + "\n").collect();
    let found = stable(&first);
    let golden = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .join("tests/security")
        .join(GOLDEN);
    if std::env::var_os("UPDATE_PROBE").is_some() {
        fs::write(&golden, found.join("\n") + "\n").expect("the golden file");
    }
    let written = fs::read_to_string(&golden).expect("the golden file");
    let differences = differences(&written.lines().map(str::to_owned).collect::<Vec<_>>(), &found);
    assert_eq!(
        differences,
        Vec::<String>::new(),
        "UPDATE_PROBE=1 cargo test -p stead --test end_to_end security writes it anew: look at each line"
    );

    // SEC-19: whoever joins is as confined as who was first.
    let mut command = vec!["exec", "probe/other", "--"];
    let words = facts(&host);
    command.extend(words.iter().map(String::as_str));
    let joined = host.stead_ok(&command);
    let alike = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with("processes ") && !of_moment(line));
        lines.map(str::to_owned).collect()
    };
    assert_eq!(
        self::differences(&alike(&first), &alike(&joined)),
        Vec::<String>::new(),
        "exec is confined otherwise"
    );
    host.finish();
}

/// `shop-web-1  | text` without the name.
fn unnamed(line: &str) -> String {
    line.split_once(" | ").map_or(line, |(_, text)| text).to_owned()
}

/// Descriptors of the probe while it looks.
fn of_moment(line: &str) -> bool {
    line.starts_with("host.writable /proc/PID/fdinfo")
}

fn differences(expected: &[String], found: &[String]) -> Vec<String> {
    let (expected, found): (BTreeSet<_>, BTreeSet<_>) = (expected.iter().collect(), found.iter().collect());
    let missing = expected.difference(&found).map(|line| format!("- {line}"));
    let more = found.difference(&expected).map(|line| format!("+ {line}"));
    missing.chain(more).collect()
}
