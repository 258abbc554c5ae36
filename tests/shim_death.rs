//! A shim may die in any phase of its service, with an agent or without: the service is back, once.

use std::{fs, path::PathBuf};

use nix::sys::signal::Signal;

use crate::host::{Host, PATIENCE, census::Census, process, signal, views::Instance};

/// One service, whose process is known by the argument `marker`.
struct Stage {
    host: Host,
    marker: String,
    census: Option<Census>,
}

impl Stage {
    fn new(name: &str, number: u32) -> Option<Stage> {
        let mut host = Host::new(name)?;
        host.start_agent();
        Some(Stage {
            host,
            marker: format!("{number}{:07}", std::process::id()),
            census: None,
        })
    }

    /// `command`: of a flow sequence.
    fn write(&self, restart: &str, command: &str) {
        let image = self.host.busybox();
        self.host.write_manifest(
            "drop",
            &format!(
                "services:\n  drop:\n    image: {image}\n    restart: \"{restart}\"\n    command: [{command}]\n    \
                 volumes: [\"data:/out\"]\nvolumes: {{ data: {{}} }}\n"
            ),
        );
    }

    /// As gosu and su-exec do: the kernel forgets PDEATHSIG when ids change, so only the cgroup knows.
    fn sleeper(&self) -> String {
        format!("su, -s, /bin/sh, app, -c, \"exec sleep {}\"", self.marker)
    }

    /// From now on it is watched that there are never two.
    fn watch(&mut self) {
        self.census = Some(Census::of(format!("sleep {}", self.marker)));
    }

    fn sleeping(&self, not: Option<u32>) -> Instance {
        self.host.wait("the service runs as another user", PATIENCE, || {
            let found = self
                .host
                .instance("drop", "drop")
                .filter(|drop| drop.state == "running" && drop.pid != not)?;
            process::arguments(found.pid())
                .starts_with("sleep ")
                .then_some(found)
        })
    }

    /// Every shim of this root, those without a sandbox included.
    fn shims(&self) -> Vec<u32> {
        process::all()
            .into_iter()
            .filter(|&pid| {
                process::alive(pid)
                    && process::arguments(pid).starts_with("stead-shim ")
                    && process::cgroups(pid).contains(self.host.mark())
            })
            .collect()
    }

    fn kill(&self, pids: &[u32]) {
        assert!(!pids.is_empty(), "there is a shim");
        for &pid in pids {
            // Some end with another that was killed before.
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
    }

    /// It runs once, nothing is left to do, and there were never two.
    fn back(&mut self, before: Option<u32>) -> Instance {
        let now = self.sleeping(before);
        if let Some(before) = before {
            assert!(!process::alive(before), "the old one is gone");
        }
        self.host.nothing_to_do(PATIENCE);
        let census = self.census.take().expect("a census");
        assert_eq!(census.finish(), 1, "never two at one moment");
        now
    }
}

#[test]
fn a_shim_that_dies_idle_is_replaced() {
    let Some(mut stage) = Stage::new("shim-idle", 91) else {
        return;
    };
    stage.host.wait("shims are ready", PATIENCE, || {
        (!stage.shims().is_empty()).then_some(())
    });
    stage.watch();
    stage.kill(&stage.shims());
    stage.write("always", &stage.sleeper());
    stage.back(None);
    stage.host.finish();
}

#[test]
fn a_shim_that_dies_before_its_first_start_is_replaced() {
    let Some(mut stage) = Stage::new("shim-assigned", 92) else {
        return;
    };
    for agent_alive in [true, false] {
        stage.write("always", "/no/such/command");
        stage.host.wait("the start has failed", PATIENCE, || {
            stage
                .host
                .complaint("drop")
                .contains("/no/such/command")
                .then_some(())
        });
        stage.watch();
        if !agent_alive {
            stage.host.kill_agent();
        }
        stage.kill(&stage.shims());
        if !agent_alive {
            stage.host.start_agent();
            stage.host.wait("the start has failed again", PATIENCE, || {
                stage
                    .host
                    .complaint("drop")
                    .contains("/no/such/command")
                    .then_some(())
            });
        }
        stage.write("always", &stage.sleeper());
        stage.back(None);
    }
    stage.host.finish();
}

/// The directory of the volume is locked while it is filled, and each start waits for that.
#[test]
fn a_shim_that_dies_during_a_start_is_replaced() {
    let Some(mut stage) = Stage::new("shim-starting", 93) else {
        return;
    };
    stage.write("always", &stage.sleeper());
    let mut current = stage.sleeping(None);
    for agent_alive in [true, false] {
        stage.watch();
        let volumes: PathBuf = stage.host.root.join("state/volumes");
        let volume = fs::read_dir(&volumes).expect("volumes").flatten().next();
        let volume = fs::File::open(volume.expect("the volume").path()).expect("its directory");
        volume.lock().expect("its lock");
        let shim = process::parent(current.pid()).expect("its shim");
        signal(current.pid(), Signal::SIGKILL);
        stage.host.wait("a start is under way", PATIENCE, || {
            process::all()
                .into_iter()
                .any(|pid| {
                    process::parent(pid) == Some(shim)
                        && pid != current.pid()
                        && process::cgroups(pid).contains("/payload")
                })
                .then_some(())
        });
        if !agent_alive {
            stage.host.kill_agent();
        }
        stage.kill(&[shim]);
        if !agent_alive {
            stage.host.start_agent();
        }
        drop(volume);
        current = stage.back(current.pid);
    }
    stage.host.finish();
}

#[test]
fn a_shim_that_dies_while_its_service_runs_is_replaced() {
    let Some(mut stage) = Stage::new("shim-running", 94) else {
        return;
    };
    stage.write("always", &stage.sleeper());
    let mut current = stage.sleeping(None);
    for agent_alive in [true, false, true, false] {
        stage.watch();
        let shim = process::parent(current.pid()).expect("its shim");
        assert!(stage.shims().contains(&shim), "the parent is a shim");
        if !agent_alive {
            stage.host.kill_agent();
        }
        signal(shim, Signal::SIGKILL);
        if !agent_alive {
            stage.host.start_agent();
        }
        let next = stage.back(current.pid);
        assert_eq!(next.addresses, current.addresses);
        current = next;
    }
    stage.host.finish();
}

#[test]
fn a_shim_that_dies_after_its_service_ended_is_replaced() {
    let Some(mut stage) = Stage::new("shim-exited", 95) else {
        return;
    };
    stage.write("no", "sh, -c, \"exit 3\"");
    stage.host.in_state("drop", "drop", "exited");
    for agent_alive in [true, false] {
        let shims = stage.shims();
        if !agent_alive {
            stage.host.kill_agent();
        }
        stage.kill(&shims);
        if !agent_alive {
            stage.host.start_agent();
        }
        stage.host.wait("the dead shim was noticed", PATIENCE, || {
            let now = stage.shims();
            (!now.is_empty() && now.iter().all(|pid| !shims.contains(pid))).then_some(())
        });
        stage.host.nothing_to_do(PATIENCE);
        assert_eq!(stage.host.in_state("drop", "drop", "exited").exit_code, Some(3));
    }
    stage.host.finish();
}
