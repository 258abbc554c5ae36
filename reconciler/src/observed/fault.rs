//! What goes wrong with a container that neither its state nor its exit status says.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing, in values that stay the same while it lasts: an observation that differs is planned anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    /// The kernel killed it, because it had no memory left within its limit. Bytes.
    OutOfMemory { limit: Option<u64>, peak: Option<u64> },
    /// It went on after its stop signal, and was killed when its grace (milliseconds) was over.
    Resisted { signal: i32, grace: u64 },
    /// A hook after its start failed, and it was stopped for that.
    PostStart {
        hook: u32,
        status: i32,
        /// Where the status does not say it.
        #[serde(default)]
        why: Option<String>,
    },
    /// A hook after its start has failed, and it is being stopped for that.
    PostStartNow {
        hook: u32,
        status: i32,
        #[serde(default)]
        why: Option<String>,
    },
    /// A hook before its stop failed; it was stopped all the same.
    PreStop {
        hook: u32,
        status: i32,
        #[serde(default)]
        why: Option<String>,
    },
    /// It may not start another process.
    ProcessLimit { limit: u64 },
    /// It wants more processor time than it may have. Thousandths of a processor.
    Throttled { limit: Option<u64> },
    /// Its first process does not wait for children that have ended. Not fewer than so many.
    Zombies { least: u64 },
    /// A process sleeps in the kernel, where no signal reaches it.
    Stuck {
        pid: u32,
        name: String,
        /// The kernel function it sleeps in; empty: not known.
        wchan: String,
        /// The file or the file system it waits for.
        on: Option<String>,
    },
    /// Lines of its output that its log driver did not take since it runs. Not fewer than so many.
    OutputLost {
        /// `syslog unix:///dev/log`
        to: String,
        why: String,
        least: u64,
    },
    /// Of a newer supervisor.
    #[serde(other)]
    Unknown,
}

impl Fault {
    /// How the last run was ended; else it is about what runs.
    pub fn is_end(&self) -> bool {
        matches!(
            self,
            Fault::OutOfMemory { .. } | Fault::Resisted { .. } | Fault::PostStart { .. }
        )
    }

    /// How many there are at least, of what is counted.
    pub fn least(&self) -> Option<u64> {
        match self {
            Fault::Zombies { least } | Fault::OutputLost { least, .. } => Some(*least),
            _ => None,
        }
    }

    /// One word, for tables and for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Fault::OutOfMemory { .. } => "out-of-memory",
            Fault::Resisted { .. } => "ignored-stop",
            Fault::PostStart { .. } | Fault::PostStartNow { .. } => "post-start-failed",
            Fault::PreStop { .. } => "pre-stop-failed",
            Fault::ProcessLimit { .. } => "process-limit",
            Fault::Throttled { .. } => "throttled",
            Fault::Zombies { .. } => "zombies",
            Fault::Stuck { .. } => "stuck",
            Fault::OutputLost { .. } => "output-lost",
            Fault::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::OutOfMemory { limit, peak } => {
                f.write_str("killed: out of memory")?;
                if let Some(limit) = limit {
                    write!(f, ", limit {}", Size(*limit))?;
                }
                if let Some(peak) = peak {
                    write!(f, ", peak {}", Size(*peak))?;
                }
                Ok(())
            }
            Fault::Resisted { signal, grace } => write!(
                f,
                "killed: it did not end within {} s of {}",
                Seconds(*grace),
                signal_name(*signal)
            ),
            Fault::PostStart { hook, status, why } => {
                write!(
                    f,
                    "stopped: post_start hook {hook} failed{}",
                    Failed(*status, why.as_deref())
                )
            }
            Fault::PostStartNow { hook, status, why } => {
                write!(
                    f,
                    "it is being stopped: post_start hook {hook} failed{}",
                    Failed(*status, why.as_deref())
                )
            }
            Fault::PreStop { hook, status, why } => {
                write!(
                    f,
                    "pre_stop hook {hook} failed{}",
                    Failed(*status, why.as_deref())
                )
            }
            Fault::ProcessLimit { limit } => write!(
                f,
                "its limit of {limit} processes is reached: it cannot start another; raise `pids_limit`, or see what \
                 starts so many"
            ),
            Fault::Throttled { limit } => {
                f.write_str("it is throttled: it wants more processor time than its limit")?;
                if let Some(limit) = limit {
                    write!(f, " of {} processors", Thousandths(*limit))?;
                }
                f.write_str("; raise `cpus` if it is too slow")
            }
            Fault::Zombies { least } => write!(
                f,
                "{least} or more of its processes have ended and nobody waits for them (zombies); set `init: true`"
            ),
            Fault::Stuck { pid, name, wchan, on } => {
                write!(f, "process {pid} ({name}) is stuck in the kernel (D")?;
                if !wchan.is_empty() {
                    write!(f, ", {wchan}")?;
                }
                f.write_str("), where no signal reaches it")?;
                match on {
                    Some(on) => write!(
                        f,
                        "; it waits for {on}, which must answer or be unmounted (`umount -f`)"
                    ),
                    None => f.write_str("; it goes on when the device or file system it waits for answers"),
                }
            }
            Fault::OutputLost { to, why, least } => write!(
                f,
                "{least} or more lines of its output were not taken by {to}: {why}; see that it reads them, or choose \
                 another `logging.driver`"
            ),
            Fault::Unknown => f.write_str("something this stead does not know; use the newer one to see it"),
        }
    }
}

/// How a hook failed: by its status, or why.
struct Failed<'a>(i32, Option<&'a str>);

impl fmt::Display for Failed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(why) => write!(f, ": {why}"),
            None => write!(f, " with status {}", self.0),
        }
    }
}

/// Bytes as people count memory.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            let tenths = (u128::from(self.0) * 10) >> shift;
            if tenths >= 10 {
                return match tenths % 10 {
                    0 => write!(f, "{} {unit}", tenths / 10),
                    rest => write!(f, "{}.{rest} {unit}", tenths / 10),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

/// Milliseconds, as seconds.
pub struct Seconds(pub u64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Thousandths(self.0).fmt(f)
    }
}

/// `1.5` for 1,500.
struct Thousandths(u64);

impl fmt::Display for Thousandths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            rest => {
                let rest = format!("{rest:03}");
                write!(f, "{}.{}", self.0 / 1000, rest.trim_end_matches('0'))
            }
        }
    }
}

/// The names of signal(7) that a stop is likely to use.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        12 => "SIGUSR2",
        15 => "SIGTERM",
        28 => "SIGWINCH",
        other => return format!("signal {other}"),
    };
    name.to_owned()
}

/// How a container ended, for people: `exited with 3`, or why it was killed.
pub fn ended(code: i32, died: Option<&Fault>) -> String {
    match died {
        Some(fault) => fault.to_string(),
        None => format!("exited with {code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_says_what_and_how_much() {
        let stuck = |on: Option<&str>| Fault::Stuck {
            pid: 7,
            name: "cat".into(),
            wchan: "request_wait_answer".into(),
            on: on.map(str::to_owned),
        };
        let cases = [
            (
                Fault::OutOfMemory {
                    limit: Some(32 << 20),
                    peak: Some((31 << 20) + (1 << 19)),
                },
                "killed: out of memory, limit 32 MiB, peak 31.5 MiB",
            ),
            (
                Fault::OutOfMemory {
                    limit: None,
                    peak: None,
                },
                "killed: out of memory",
            ),
            (
                Fault::Resisted {
                    signal: 15,
                    grace: 1500,
                },
                "killed: it did not end within 1.5 s of SIGTERM",
            ),
            (
                Fault::PostStart {
                    hook: 2,
                    status: 3,
                    why: None,
                },
                "stopped: post_start hook 2 failed with status 3",
            ),
            (
                Fault::PostStartNow {
                    hook: 1,
                    status: 3,
                    why: None,
                },
                "it is being stopped: post_start hook 1 failed with status 3",
            ),
            (
                Fault::PreStop {
                    hook: 1,
                    status: 137,
                    why: Some("it did not end within 2 s".into()),
                },
                "pre_stop hook 1 failed: it did not end within 2 s",
            ),
            (
                Fault::Throttled { limit: Some(250) },
                "it is throttled: it wants more processor time than its limit of 0.25 processors; raise `cpus` if it \
                 is too slow",
            ),
            (
                stuck(Some("/data (fuse)")),
                "process 7 (cat) is stuck in the kernel (D, request_wait_answer), where no signal reaches it; it waits \
                 for /data (fuse), which must answer or be unmounted (`umount -f`)",
            ),
            (
                Fault::OutputLost {
                    to: "syslog unix:///dev/log".into(),
                    why: "it does not take them fast enough".into(),
                    least: 200,
                },
                "200 or more lines of its output were not taken by syslog unix:///dev/log: it does not take them fast \
                 enough; see that it reads them, or choose another `logging.driver`",
            ),
        ];
        for (fault, expected) in cases {
            assert_eq!(fault.to_string(), expected);
        }
        assert_eq!(ended(3, None), "exited with 3");
        assert_eq!(
            ended(137, Some(&Fault::Resisted { signal: 2, grace: 0 })),
            "killed: it did not end within 0 s of SIGINT"
        );
    }

    #[test]
    fn one_of_a_newer_supervisor_is_no_error() {
        let read: Fault = serde_json::from_str(r#"{"fault":"melted","degrees":900}"#).unwrap();
        assert_eq!(read, Fault::Unknown);
        let own = Fault::ProcessLimit { limit: 3 };
        let text = serde_json::to_string(&own).unwrap();
        assert_eq!(serde_json::from_str::<Fault>(&text).unwrap(), own);
    }
}
