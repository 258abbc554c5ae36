//! What the controllers count for one container: kills for want of memory, forks refused, throttling.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
};

use rustix::event::{EventfdFlags, eventfd};

use super::Controllers;

/// Files of one container that are read again and again. `None`: nothing of that kind is limited.
#[derive(Debug, Default)]
pub struct Gauges {
    memory: Option<Memory>,
    processes: Option<Processes>,
    cpu: Option<PathBuf>,
}

#[derive(Debug)]
struct Memory {
    directory: PathBuf,
    v2: bool,
    /// Readable when memory was short; the v2 tree needs none, for there the kernel kills all at once.
    short: Option<OwnedFd>,
}

#[derive(Debug)]
struct Processes {
    directory: PathBuf,
    /// Has something to say (POLLPRI) when a fork was refused.
    events: File,
}

/// Of `cpu.stat`: both only ever grow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cpu {
    pub periods: u64,
    pub throttled: u64,
}

impl Gauges {
    /// What there is to be read for an instance, whose directories have been made.
    pub fn find(controllers: &Controllers, instance: &Path) -> Self {
        let memory = controllers
            .counts(instance, "memory")
            .map(|(directory, v2)| Memory {
                short: if v2 { None } else { notice(&directory).ok() },
                directory,
                v2,
            });
        let processes = controllers.counts(instance, "pids").and_then(|(directory, _)| {
            let events = File::open(directory.join("pids.events")).ok()?;
            Some(Processes { directory, events })
        });
        Gauges {
            memory,
            processes,
            cpu: controllers
                .counts(instance, "cpu")
                .map(|(directory, _)| directory),
        }
    }

    /// v1 counts the peak over all runs of a container, unless it is told to begin anew.
    pub fn reset_peak(&self) {
        if let Some(memory) = self.memory.as_ref().filter(|memory| !memory.v2) {
            let _ = fs::write(memory.directory.join("memory.max_usage_in_bytes"), "0");
        }
    }

    /// Processes that were killed for want of memory.
    pub fn killed(&self) -> u64 {
        let Some(memory) = &self.memory else { return 0 };
        let file = if memory.v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        field(&memory.directory.join(file), "oom_kill").unwrap_or(0)
    }

    /// The most memory that was in use, in bytes.
    pub fn peak(&self) -> Option<u64> {
        let memory = self.memory.as_ref()?;
        let file = if memory.v2 {
            "memory.peak"
        } else {
            "memory.max_usage_in_bytes"
        };
        number(&memory.directory.join(file))
    }

    /// Whether the tree has no group that dies as one.
    pub fn kills_one(&self) -> bool {
        self.memory.as_ref().is_some_and(|memory| !memory.v2)
    }

    /// Readable when memory was short.
    pub fn short(&self) -> Option<i32> {
        Some(self.memory.as_ref()?.short.as_ref()?.as_raw_fd())
    }

    /// It is told again.
    pub fn heard_short(&self) {
        if let Some(short) = self.memory.as_ref().and_then(|memory| memory.short.as_ref()) {
            let _ = rustix::io::read(short.as_fd(), &mut [0_u8; 8]);
        }
    }

    /// To wait for (POLLPRI): a fork was refused.
    pub fn refusals(&self) -> Option<i32> {
        Some(self.processes.as_ref()?.events.as_raw_fd())
    }

    /// Forks that were refused. Reading it is what makes the next one heard.
    pub fn refused(&self) -> u64 {
        let mut text = [0; 64];
        let read = |processes: &Processes| processes.events.read_at(&mut text, 0).ok();
        let Some(length) = self.processes.as_ref().and_then(read) else {
            return 0;
        };
        let text = String::from_utf8_lossy(&text[..length]).into_owned();
        of(&text, "max").unwrap_or(0)
    }

    /// Processes and threads there are.
    pub fn processes(&self) -> Option<u64> {
        number(&self.processes.as_ref()?.directory.join("pids.current"))
    }

    pub fn cpu(&self) -> Option<Cpu> {
        let text = fs::read_to_string(self.cpu.as_ref()?.join("cpu.stat")).ok()?;
        Some(Cpu {
            periods: of(&text, "nr_periods")?,
            throttled: of(&text, "nr_throttled")?,
        })
    }
}

/// Asks the kernel to count up a descriptor whenever memory of the v1 group is short, cgroups(7).
fn notice(directory: &Path) -> io::Result<OwnedFd> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let control = File::open(directory.join("memory.oom_control"))?;
    let order = format!("{} {}", event.as_raw_fd(), control.as_raw_fd());
    fs::write(directory.join("cgroup.event_control"), order)?;
    Ok(event)
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn field(path: &Path, name: &str) -> Option<u64> {
    of(&fs::read_to_string(path).ok()?, name)
}

/// A line `NAME NUMBER`.
fn of(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(' ')?;
        (key == name).then(|| value.trim().parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_their_whole_name() {
        let text = "low 1\noom 7\noom_kill 3\noom_group_kill 9\n";
        assert_eq!(of(text, "oom_kill"), Some(3));
        assert_eq!(of(text, "oom"), Some(7));
        assert_eq!(of(text, "max"), None);
    }

    #[test]
    fn without_limits_nothing_is_counted() {
        let none = Gauges::default();
        assert_eq!(
            (none.killed(), none.refused(), none.peak(), none.cpu()),
            (0, 0, None, None)
        );
        assert_eq!((none.short(), none.refusals()), (None, None));
        assert!(!none.kills_one());
    }
}
