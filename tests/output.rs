//! What services print, under every strain: a flood, other builds of stead under it, a million lines. No line
//! is lost or doubled, nobody else notices, and the supervisor stays small.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use crate::host::{Host, LOOPBACK, PATIENCE, Place, compose, process, promised};

/// Three files of 10 MiB, and what is written at once.
const BOUND: u64 = (30 << 20) + (64 << 10);

/// The texts in the log files of a service, the oldest first.
fn lines(host: &Host, service: &str) -> Vec<String> {
    let directory = logs(host, service);
    let files = ["current.log.2", "current.log.1", "current.log"];
    let texts = files.map(|file| fs::read(directory.join(file)).unwrap_or_default());
    let texts = texts.iter().flat_map(|text| text.split(|byte| *byte == b'\n'));
    texts
        .filter_map(|line| {
            let line = String::from_utf8_lossy(line);
            Some(line.split_once(" stdout F ")?.1.to_owned())
        })
        .collect()
}

fn logs(host: &Host, service: &str) -> PathBuf {
    host.root.join(format!("state/logs/out/{service}-1a"))
}

/// One that prints 10,000 numbers each second, as near as a shell can.
fn counter() -> &'static str {
    "i=0; while :; do /bin/busybox seq $$i $$((i+499)); i=$$((i+500)); usleep 48000; done"
}

/// Numbers that follow each other, from one that was seen before; the last of them. Files that are rotated
/// while they are read are read again.
fn gapless(host: &Host, seen: u64) -> u64 {
    let mut wrong = String::new();
    for _ in 0..5 {
        let numbers: Vec<u64> = lines(host, "counter")
            .iter()
            .filter_map(|line| line.parse().ok())
            .collect();
        let gap = numbers.windows(2).find(|two| two[1] != two[0] + 1);
        let from = numbers.first().copied().unwrap_or(0);
        match gap {
            None if from <= seen => return numbers.last().copied().unwrap_or(seen),
            None => wrong = format!("{seen} was the last, and {from} the next"),
            Some(gap) => wrong = format!("{gap:?}"),
        }
    }
    panic!("a line was lost or doubled: {wrong}");
}

/// A build of its own: another file, whose bytes differ.
fn build(directory: &Path, number: usize) -> PathBuf {
    let path = directory.join(format!("stead-{number}"));
    fs::copy(Host::binary(), &path).expect("a copy of stead");
    let mut bytes = fs::OpenOptions::new().append(true).open(&path).expect("the copy");
    std::io::Write::write_all(&mut bytes, format!("build {number}").as_bytes()).expect("other bytes");
    path
}

#[test]
fn other_builds_of_stead_come_and_go_and_no_line_is_lost() {
    let Some(mut host) = Host::new("output-upgrades") else {
        return;
    };
    // `tests/full/upgrades` takes two minutes.
    let (rounds, each) = match std::env::var("STEAD_UPGRADES").as_deref() {
        Ok("whole") => (24, Duration::from_secs(5)),
        _ => (6, Duration::from_secs(2)),
    };
    let builds: Vec<PathBuf> = (0..2).map(|number| build(&host.root, number)).collect();
    let out = host.directory("out");
    host.start_agent();
    host.write_manifest(
        "out",
        &format!(
            "services:\n  counter:\n    image: {}\n    command: [sh, -c, \"{}\"]\n    stop_signal: KILL\n    \
             volumes: [\"{}:/out\"]\n    healthcheck: {{ test: [CMD, sleep, '0.2'], interval: 300ms, retries: 1 }}\n",
            host.busybox(),
            counter(),
            out.display()
        ),
    );
    host.converged("out");
    let before = host.wait("it is healthy", PATIENCE, || {
        host.instance("out", "counter")
            .filter(|counter| counter.health == "healthy")
    });
    let identity = before.identity();
    let shim = process::parent(before.pid()).expect("its supervisor");
    // Somebody works in it all the while.
    let script = "touch /out/began; i=0; while [ ! -e /out/enough ]; do echo $i; i=$((i+1)); usleep 20000; done; exit 7";
    let mut session = host.command(&["exec", "out/counter", "--", "sh", "-c", script]);
    session.stdout(Stdio::piped());
    let session = host.network.on_host(|| session.spawn().expect("the session"));
    host.wait("the session has begun", PATIENCE, || {
        out.join("began").exists().then_some(())
    });

    let mut seen = 0;
    for round in 0..rounds {
        let end = Instant::now() + each;
        host.kill_agent();
        // The other build, the own one again (a downgrade), and each again under its own supervisor.
        let binary = match round % 4 {
            0 => &builds[0],
            1 => &builds[1],
            _ => Host::binary(),
        };
        host.start_agent_from(binary);
        // By its number: a supervisor executes the program on a mount of its own, which has no path.
        let number = |path: &Path| fs::metadata(path).map(|it| (it.dev(), it.ino())).ok();
        let wanted = number(binary);
        let exe = PathBuf::from(format!("/proc/{shim}/exe"));
        host.wait("the supervisor runs that build", PATIENCE, || {
            (number(&exe) == wanted).then_some(())
        });
        assert_eq!(
            host.running("out", "counter").identity(),
            identity,
            "round {round}"
        );
        let first = seen;
        host.wait("lines are printed on", PATIENCE, || {
            seen = gapless(&host, seen);
            (seen > first && Instant::now() > end).then_some(())
        });
    }
    fs::write(out.join("enough"), "").expect("the word to the session");
    let output = session.wait_with_output().expect("the session ends");
    assert_eq!(
        output.status.code(),
        Some(7),
        "the status of the session comes through"
    );
    let text = String::from_utf8_lossy(&output.stdout);
    for (expected, number) in (0..).zip(text.lines()) {
        assert_eq!(number, format!("{expected}"), "a line of the session was lost");
    }
    let journal = fs::read_to_string(host.root.join("state/journal.jsonl")).expect("the journal");
    assert!(!journal.contains("unhealthy"), "a probe was lost");
    assert_eq!(
        host.instance("out", "counter").expect("it is there").health,
        "healthy"
    );
    let rate = seen as f64 / (f64::from(rounds) * each.as_secs_f64());
    println!("{seen} lines, {rate:.0} a second at least, {rounds} builds");
    host.finish();
}

/// Jiffies that a process has used.
fn processor_time(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("its stat");
    let rest = &text[text.rfind(')').expect("its name") + 2..];
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks: u64 = [11, 12]
        .iter()
        .map(|at| fields[*at].parse::<u64>().expect("a number"))
        .sum();
    Duration::from_millis(ticks * 10)
}

/// A line of a file of /proc/PID in KiB.
fn kilobytes(pid: u32, file: &str, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/{file}")).expect("what it holds");
    text.lines()
        .find_map(|line| line.strip_prefix(field)?.split_whitespace().next()?.parse().ok())
        .expect("the field")
}

#[test]
fn a_flood_of_output_stays_within_its_bounds_and_troubles_nobody() {
    let Some(mut host) = Host::new("output-flood") else {
        return;
    };
    host.start_agent();
    let word = "x".repeat(400);
    let yes = format!("/bin/busybox yes {word}");
    host.write_manifest(
        "out",
        &format!(
            "services:\n  flood:\n    image: {}\n    stop_signal: KILL\n    command: [sh, -c, \"{yes} & {yes} & {yes} >&2 & wait\"]\n  \
             web: {{ {} }}\n",
            host.busybox(),
            compose::web(18620)
        ),
    );
    host.converged("out");
    let web = host.running("out", "web").identity();
    let flood = host.running("out", "flood");
    let shim = process::parent(flood.pid()).expect("its supervisor");
    let web_log = logs(&host, "web").join("current.log");
    let (start, used) = (Instant::now(), processor_time(shim));
    let mut slowest = (Duration::ZERO, Duration::ZERO);
    let mut asked = 0;
    while start.elapsed() < Duration::from_secs(6) {
        let path = format!("/question-{asked}");
        let sent = Instant::now();
        // It knows no such page, and says so.
        let answer = host.get(Place::Host, LOOPBACK, 18620, &path);
        assert!(
            answer.as_ref().is_err_and(|answer| answer.contains("404")),
            "{answer:?}"
        );
        slowest.0 = slowest.0.max(sent.elapsed());
        let mark = format!("GET {path} ");
        host.wait("the question is in the log", PATIENCE, || {
            fs::read_to_string(&web_log).ok()?.contains(&mark).then_some(())
        });
        slowest.1 = slowest.1.max(sent.elapsed());
        asked += 1;
        let disk: u64 = fs::read_dir(logs(&host, "flood"))
            .expect("its logs")
            .map(|file| {
                file.expect("a file")
                    .metadata()
                    .map_or(0, |metadata| metadata.len())
            })
            .sum();
        assert!(disk <= BOUND, "{disk} bytes of log");
    }
    let (took, used) = (start.elapsed(), processor_time(shim) - used);
    let anonymous = kilobytes(shim, "status", "RssAnon:");
    println!(
        "{asked} questions: answered in {:?}, in the log in {:?}, at most; supervisor {:.2} of a processor, {anonymous} KiB",
        slowest.0,
        slowest.1,
        used.as_secs_f64() / took.as_secs_f64()
    );
    assert!(
        slowest.0.max(slowest.1) < promised(Duration::from_secs(1)),
        "{slowest:?}"
    );
    assert!(
        used.as_secs_f64() <= took.as_secs_f64() * 1.02,
        "{used:?} of {took:?}"
    );
    assert!(anonymous <= 16 << 10, "{anonymous} KiB");
    assert!(host.project_status("out").is_some(), "the agent answers");
    assert_eq!(host.running("out", "web").identity(), web);
    host.finish();
}

#[test]
fn a_million_lines_cost_a_supervisor_no_memory() {
    let Some(mut host) = Host::new("output-memory") else {
        return;
    };
    let out = host.directory("out");
    host.start_agent();
    // Lines of 0 to 300 bytes, and now and then one that is longer than what is taken at once.
    let awk = "function say(n, i) { for (i = 0; i < n; i++) print (i % 5000 ? substr(line, 1, i * 7919 % 300) : long) }";
    let script = "BEGIN { line = sprintf(\\\"%300s\\\", \\\"\\\"); long = sprintf(\\\"%40000s\\\", \\\"\\\"); say($1); print \\\"end of $1\\\" }";
    let round = |number: &str, file: &str| {
        format!(
            "while [ ! -e /out/{file} ]; do usleep 20000; done; /bin/busybox awk '{awk} {}'",
            script.replace("$1", number)
        )
    };
    let command = format!(
        "{}; {}; {}; sleep 1000000",
        round("100000", "warm"),
        round("100001", "again"),
        round("1000000", "go")
    );
    host.write_manifest(
        "out",
        &format!(
            "services:\n  talker:\n    image: {}\n    stop_signal: KILL\n    volumes: [\"{}:/out\"]\n    command: [sh, -c, \"{command}\"]\n",
            host.busybox(),
            out.display()
        ),
    );
    let talker = host.running("out", "talker");
    let shim = process::parent(talker.pid()).expect("its supervisor");
    let after = |file: &str, count: &str| {
        fs::write(out.join(file), "").expect("the word");
        let end = format!("end of {count}");
        host.wait("all of it is in the log", Duration::from_secs(60), || {
            lines(&host, "talker")
                .last()
                .is_some_and(|line| *line == end)
                .then_some(())
        });
        kilobytes(shim, "smaps_rollup", "Private_Dirty:")
    };
    after("warm", "100000");
    let before = after("again", "100001");
    let now = after("go", "1000000");
    println!("private and dirty: {before} KiB before a million lines, {now} KiB after");
    assert!(now <= before + 8, "{before} KiB before, {now} KiB after");
    host.finish();
}
