//! kill -9 of the agent at a mutating system call of each operation: the next agent completes it, nothing
//! runs twice, nothing is left. `tests/full/kill-sweep` goes through all of them; here a sample is drawn.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use nix::sys::signal::Signal;

use crate::host::{Host, PATIENCE, census::Census, process, signal};

/// Calls that change something outside of the process that makes them.
const MUTATING: [&str; 34] = [
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "unlink",
    "unlinkat",
    "rmdir",
    "linkat",
    "symlinkat",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "fchmod",
    "fchown",
    "mount",
    "umount2",
    "move_mount",
    "fsmount",
    "mount_setattr",
    "clone",
    "clone3",
    "unshare",
    "setns",
    "kill",
    "pidfd_send_signal",
    "sendto",
    "sendmsg",
    "bind",
    "connect",
    "listen",
    "mknodat",
];
/// Points of one operation that CI tries.
const SAMPLE: usize = 5;

/// Of more calls of one name in one thread, which do the like again and again, so many are tried.
const ALIKE: usize = 60;

/// From one manifest to another; `None`: there is none.
struct Operation {
    name: &'static str,
    number: u32,
    before: Option<Version>,
    after: Option<Version>,
    /// Old and new may run side by side.
    both: bool,
}

#[derive(Clone, Copy)]
struct Version {
    number: u32,
    start_first: bool,
}

/// The `count`th call of this name in one thread of the agent, or of a shim that it made meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    call: String,
    count: usize,
}

struct Stage {
    host: Host,
    operation: Operation,
    calm: crate::host::views::Identity,
}

impl Stage {
    fn new(operation: Operation) -> Option<Stage> {
        let mut host = Host::new(operation.name)?;
        host.start_agent();
        let image = host.busybox();
        host.write_manifest(
            "calm",
            &format!("services:\n  calm: {{ image: {image}, command: [sleep, \"100000\"] }}\n"),
        );
        let calm = host.running("calm", "calm").identity();
        host.converged("calm");
        Some(Stage {
            host,
            operation,
            calm,
        })
    }

    /// What the process of a version is known by.
    fn marker(&self, version: Version) -> String {
        format!(
            "{}{}{:07}",
            self.operation.number,
            version.number,
            std::process::id()
        )
    }

    fn put(&self, version: Option<Version>) {
        let Some(version) = version else {
            return self.host.remove_manifest("drop");
        };
        let image = self.host.busybox();
        let marker = self.marker(version);
        let order = match version.start_first {
            true => "    deploy: { update_config: { order: start-first } }\n",
            false => "",
        };
        self.host.write_manifest(
            "drop",
            &format!(
                "services:\n  drop:\n    image: {image}\n    command: [sleep, \"{marker}\"]\n    stop_grace_period: 0s\n    \
                 volumes: [\"data:/out\"]\n    ports: [\"8080:80\"]\n    depends_on: [base]\n{order}  base:\n    image: {image}\n    \
                 command: [sleep, \"90000\"]\n    stop_grace_period: 0s\nvolumes: {{ data: {{}} }}\n"
            ),
        );
    }

    /// As the version says, by an agent that is alive.
    fn reached(&self, version: Option<Version>) {
        match version {
            None => {
                self.host.wait("the project is gone", PATIENCE, || {
                    (self.host.ps().iter().all(|one| one.project != "drop")
                        && self.host.project_status("drop").is_none())
                    .then_some(())
                });
            }
            Some(version) => {
                let sleeping = format!("sleep {}", self.marker(version));
                self.host.wait("the version runs", PATIENCE, || {
                    let drop = self.host.instance("drop", "drop")?;
                    let one = self.host.ps().iter().filter(|one| one.service == "drop").count() == 1;
                    (one && drop.state == "running" && process::arguments(drop.pid?) == sleeping)
                        .then_some(())
                });
                self.host.converged("drop");
            }
        }
        self.host.nothing_to_do(PATIENCE);
        assert_eq!(
            self.host.running("calm", "calm").identity(),
            self.calm,
            "a bystander"
        );
    }

    fn log(&self) -> PathBuf {
        self.host.root.join("strace")
    }

    /// strace follows the agent and what it makes from now on.
    fn trace(&mut self, inject: Option<&Point>) -> Child {
        let calls = match inject {
            Some(point) => format!("trace={}", point.call),
            // Calls that this architecture does not have are left out.
            None => format!("trace=?{}", MUTATING.join(",?")),
        };
        let mut command = Command::new("strace");
        command
            .args(["-f", "-q", "-e", &calls, "-o"])
            .arg(self.log())
            .args(["-p", &self.host.agent_pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        if let Some(Point { call, count }) = inject {
            command.arg(format!("--inject={call}:signal=SIGKILL:when={count}"));
        }
        let child = command.spawn().expect("strace starts");
        let tasks = format!("/proc/{}/task", self.host.agent_pid());
        let host = &mut self.host;
        crate::host::wait("every thread is traced", PATIENCE, || {
            // Its own timers may have led it to the point at once.
            if host.agent_has_ended() {
                return Some(());
            }
            fs::read_dir(&tasks)
                .ok()?
                .flatten()
                .all(|task| {
                    fs::read_to_string(task.path().join("status"))
                        .is_ok_and(|status| !status.contains("TracerPid:\t0"))
                })
                .then_some(())
        });
        child
    }

    /// strace lets everything go on its way that is still there.
    fn untrace(mut child: Child) {
        if child.try_wait().expect("its state").is_none() {
            signal(child.id(), Signal::SIGTERM);
        }
        child.wait().expect("the end of strace");
    }

    /// All calls of one undisturbed run.
    fn points(&mut self) -> Vec<Point> {
        let trace = self.trace(None);
        self.put(self.operation.after);
        self.reached(self.operation.after);
        Self::untrace(trace);
        let log = fs::read_to_string(self.log()).expect("the log of strace");
        let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        for line in log.lines() {
            let mut words = line.split_whitespace();
            if let (Some(thread), Some(call)) = (words.next(), words.next())
                && let Some((call, _)) = call.split_once('(')
            {
                *counts.entry((thread, call)).or_default() += 1;
            }
        }
        let mut most: BTreeMap<String, usize> = BTreeMap::new();
        for ((_, call), count) in counts {
            let most = most.entry(call.to_owned()).or_default();
            *most = count.max(*most);
        }
        let each = |(call, most): (String, usize)| {
            (1..=most).step_by(most.div_ceil(ALIKE)).map(move |count| Point {
                call: call.clone(),
                count,
            })
        };
        most.into_iter().flat_map(each).collect()
    }

    /// The operation with a death at `point`, completed by the next agent. Whether anything died.
    fn dies_at(&mut self, point: &Point) -> bool {
        let versions: Vec<Version> = [self.operation.before, self.operation.after]
            .into_iter()
            .flatten()
            .collect();
        let alone = |version: &Version| Census::of(format!("sleep {}", self.marker(*version)));
        let each: Vec<Census> = versions.iter().map(alone).collect();
        let common = format!("sleep {}", self.operation.number);
        let suffix = format!("{:07}", std::process::id());
        let trace = self.trace(Some(point));
        self.put(self.operation.after);
        let after = self.operation.after;
        // Either the agent has died, or it lives and has done it.
        let host = &mut self.host;
        let died = crate::host::wait("the operation ends, one way or the other", PATIENCE, || {
            if host.agent_has_ended() {
                return Some(true);
            }
            // It may die while it answers.
            let reply = host.stead(&["status", "--json"]);
            reply.done()?;
            let status = reply.json();
            let drop = status
                .as_array()?
                .iter()
                .find(|one| one["project"] == "drop")
                .cloned();
            let done = match (after, drop) {
                (None, drop) => drop.is_none(),
                (Some(_), None) => false,
                (Some(_), Some(drop)) => {
                    drop["state"] == "converged"
                        && drop["revision"]["seen"] == drop["revision"]["applied"]
                        && host.stead(&["plan"]).code == 0
                }
            };
            done.then_some(false)
        });
        Self::untrace(trace);
        let killed = fs::read_to_string(self.log()).is_ok_and(|log| log.contains("killed by SIGKILL"));
        if died {
            self.host.kill_agent();
            self.host.start_agent();
        }
        self.reached(after);
        for census in each {
            assert!(census.finish() <= 1, "{point:?}: it ran twice at one moment");
        }
        if !self.operation.both {
            let running = process::with_argument(&common);
            let ours = running
                .iter()
                .filter(|pid| process::arguments(**pid).ends_with(&suffix));
            assert!(ours.count() <= 1, "{point:?}: old and new at one moment");
        }
        killed
    }
}

/// xorshift64: a seed draws the same sample.
fn draw(seed: &mut u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed
}

fn sample(points: Vec<Point>) -> Vec<Point> {
    if std::env::var_os("STEAD_SWEEP").is_some_and(|sweep| sweep == "whole") {
        return points;
    }
    let mut seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(20_261_121);
    let mut drawn = Vec::new();
    let mut left = points;
    while drawn.len() < SAMPLE && !left.is_empty() {
        let index = draw(&mut seed) as usize % left.len();
        drawn.push(left.swap_remove(index));
    }
    drawn
}

fn sweep(operation: Operation) {
    let Some(mut stage) = Stage::new(operation) else {
        return;
    };
    let name = stage.operation.name;
    if stage.operation.before.is_some() {
        stage.put(stage.operation.before);
        stage.reached(stage.operation.before);
    }
    let points = stage.points();
    let (all, drawn) = (points.len(), sample(points));
    let mut deaths = 0;
    for point in &drawn {
        stage.put_back();
        deaths += usize::from(stage.dies_at(point));
    }
    eprintln!("{name}: {all} points, {} tried, {deaths} deaths", drawn.len());
    assert!(deaths > 0, "nothing was ever killed: {drawn:?}");
    stage.host.finish();
}

impl Stage {
    fn put_back(&self) {
        let there = self.host.manifest("drop").exists();
        if there || self.operation.before.is_some() {
            self.put(self.operation.before);
        }
        self.reached(self.operation.before);
    }
}

const OLD: Version = Version {
    number: 1,
    start_first: false,
};
const NEW: Version = Version {
    number: 2,
    start_first: false,
};

#[test]
fn an_agent_that_dies_while_it_creates_is_followed_by_one_that_completes_it() {
    sweep(Operation {
        name: "sweep-create",
        number: 71,
        before: None,
        after: Some(NEW),
        both: false,
    });
}

#[test]
fn an_agent_that_dies_while_it_updates_is_followed_by_one_that_completes_it() {
    sweep(Operation {
        name: "sweep-update",
        number: 72,
        before: Some(OLD),
        after: Some(NEW),
        both: false,
    });
}

#[test]
fn an_agent_that_dies_while_it_rolls_out_is_followed_by_one_that_completes_it() {
    let start_first = |version| Version {
        start_first: true,
        ..version
    };
    sweep(Operation {
        name: "sweep-rollout",
        number: 73,
        before: Some(start_first(OLD)),
        after: Some(start_first(NEW)),
        both: true,
    });
}

#[test]
fn an_agent_that_dies_while_it_removes_is_followed_by_one_that_completes_it() {
    sweep(Operation {
        name: "sweep-remove",
        number: 74,
        before: Some(OLD),
        after: None,
        both: false,
    });
}
