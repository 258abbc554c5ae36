//! Lines to the journal or to a syslog server. Never waits: what is not taken is kept up to a bound, then dropped
//! and counted.
//!
//! The journal's own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL), RFC 3164 and RFC 5424.

use std::{
    collections::VecDeque,
    io::{self, Write},
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::Path,
};

use jiff::{Timestamp, tz::TimeZone};
use reconciler::{
    key::InstanceKey,
    observed::Fault,
    spec::{LogForward, SyslogAddress, SyslogFormat},
};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};
use serde::{Deserialize, Serialize};

/// Bytes that wait here at most.
const WAITING: usize = 32 << 10;
/// Milliseconds from one try to connect to the next.
const RETRY: u64 = 1000;

/// Lines that nobody took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    pub lines: u64,
    /// Of the first of them.
    pub why: String,
    /// Also those that were told since: all since the service runs.
    #[serde(default)]
    pub total: u64,
}

/// 1, 2, 5, 10, 20, 50 and so on: the greatest that is not more.
fn step(count: u64) -> u64 {
    let mut tens = 1;
    while count / 10 >= tens {
        tens *= 10;
    }
    let steps = [5, 2, 1].into_iter().map(|step: u64| step.saturating_mul(tens));
    steps.into_iter().find(|step| *step <= count).unwrap_or(0)
}

/// The way of one instance.
#[derive(Debug)]
pub struct Forward {
    to: LogForward,
    key: InstanceKey,
    socket: Option<OwnedFd>,
    /// Messages that were not taken yet, and how much of the first was.
    waiting: VecDeque<Vec<u8>>,
    taken: usize,
    /// On the boot clock: not before.
    retry: u64,
    pub dropped: Dropped,
    /// What is to be told of it where the service is shown.
    pub loss: Option<Fault>,
    /// What is to be told in the log here.
    pub news: Option<String>,
    failing: bool,
}

impl Forward {
    pub fn new(to: LogForward, key: InstanceKey, dropped: Dropped) -> Self {
        let mut forward = Forward {
            to,
            key,
            socket: None,
            waiting: VecDeque::new(),
            taken: 0,
            retry: 0,
            dropped,
            loss: None,
            news: None,
            failing: false,
        };
        forward.count();
        forward
    }

    pub fn to(&self) -> &LogForward {
        &self.to
    }

    fn stream(&self) -> bool {
        let LogForward::Syslog { address, .. } = &self.to else {
            return false;
        };
        matches!(address, SyslogAddress::Stream(_) | SyslogAddress::Tcp(_))
    }

    /// One line; `partial`: the rest of it comes with the next.
    pub fn line(&mut self, stderr: bool, text: &[&[u8]], partial: bool, now: Timestamp, clock: u64) {
        self.flush(clock);
        if self.dropped.lines > 0 && self.waiting.is_empty() && self.socket.is_some() {
            let told = format!(
                "stead: {} lines are missing here, they were not taken: {}",
                self.dropped.lines, self.dropped.why
            );
            let message = self.message(true, &[told.as_bytes()], false, now);
            self.waiting.push_back(message);
            let lines = std::mem::take(&mut self.dropped.lines);
            self.news = Some(format!(
                "{lines} lines were not taken by {}: {}",
                self.name(),
                self.dropped.why
            ));
        }
        let message = self.message(stderr, text, partial, now);
        let held: usize = self.waiting.iter().map(Vec::len).sum();
        if held + message.len() > WAITING && !self.waiting.is_empty() {
            return self.drop_lines(1, "it does not take them fast enough");
        }
        self.waiting.push_back(message);
        self.flush(clock);
    }

    fn drop_lines(&mut self, count: u64, why: &str) {
        if self.dropped.lines == 0 {
            self.dropped.why = why.to_owned();
        }
        self.dropped.lines += count;
        self.dropped.total += count;
        self.count();
        if !self.failing {
            self.failing = true;
            self.news = Some(format!(
                "lines are not taken by {}: {why}; they are counted",
                self.name()
            ));
        }
    }

    /// In steps: whoever is told looks at the service anew each time.
    fn count(&mut self) {
        let reached = step(self.dropped.total);
        let known = self.loss.as_ref().and_then(Fault::least).unwrap_or_default();
        if reached > known {
            self.loss = Some(Fault::OutputLost {
                to: self.name(),
                why: self.dropped.why.clone(),
                least: reached,
            });
        }
    }

    fn name(&self) -> String {
        match &self.to {
            LogForward::Journal { .. } => "the journal".into(),
            LogForward::Syslog { address, .. } => match address {
                SyslogAddress::Datagram(path) => format!("syslog unixgram://{}", path.display()),
                SyslogAddress::Stream(path) => format!("syslog unix://{}", path.display()),
                SyslogAddress::Udp(address) => format!("syslog udp://{address}"),
                SyslogAddress::Tcp(address) => format!("syslog tcp://{address}"),
            },
        }
    }

    /// Where there is something to send, what to wait for.
    pub fn poll_fd(&self) -> Option<RawFd> {
        let waits = !self.waiting.is_empty();
        self.socket.as_ref().filter(|_| waits).map(AsRawFd::as_raw_fd)
    }

    /// When to try again, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        (self.socket.is_none() && !self.waiting.is_empty()).then_some(self.retry)
    }

    /// Sends what is taken now.
    pub fn flush(&mut self, clock: u64) {
        if self.socket.is_none() && clock >= self.retry {
            match self.connect() {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => self.failed(&error, clock),
            }
        }
        while let (Some(socket), Some(message)) = (&self.socket, self.waiting.front()) {
            match send(
                socket,
                &message[self.taken..],
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ) {
                Ok(count) => {
                    self.taken += count;
                    if self.taken >= message.len() || !self.stream() {
                        self.taken = 0;
                        self.waiting.pop_front();
                        self.failing &= self.dropped.lines > 0;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => return,
                Err(rustix::io::Errno::MSGSIZE) => {
                    self.waiting.pop_front();
                    self.drop_lines(1, "it is longer than a datagram");
                }
                // Also what an earlier datagram came back with.
                Err(error) => self.failed(&error.into(), clock),
            }
        }
    }

    fn failed(&mut self, error: &io::Error, clock: u64) {
        self.socket = None;
        self.retry = clock + RETRY;
        // A half line must not be the beginning of another.
        if std::mem::take(&mut self.taken) > 0 {
            self.waiting.pop_front();
            self.drop_lines(1, &error.to_string());
        }
        if !self.failing {
            self.failing = true;
            self.news = Some(format!(
                "{} cannot be reached: {error}; a few lines wait",
                self.name()
            ));
        }
    }

    /// For the one that takes over: what waits is not handed on.
    pub fn carried(&self) -> Dropped {
        let mut dropped = self.dropped.clone();
        let left = self.waiting.len() as u64;
        if left > 0 && dropped.lines == 0 {
            dropped.why = "the supervisor was replaced before they were taken".into();
        }
        dropped.lines += left;
        dropped.total += left;
        dropped
    }

    /// The end: what still waits is dropped.
    pub fn finish(mut self, clock: u64) -> Dropped {
        self.retry = 0;
        self.flush(clock);
        let left = self.waiting.len() as u64;
        if left > 0 {
            self.drop_lines(left, "the service ended before they were taken");
        }
        self.dropped
    }

    fn connect(&self) -> io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let unix = |path: &Path, kind: SocketType| -> io::Result<OwnedFd> {
            let socket = socket_with(AddressFamily::UNIX, kind, flags, None)?;
            connect(&socket, &SocketAddrUnix::new(path)?)?;
            Ok(socket)
        };
        let inet = |address: &SocketAddr, kind: SocketType| -> io::Result<OwnedFd> {
            let family = if address.is_ipv4() {
                AddressFamily::INET
            } else {
                AddressFamily::INET6
            };
            let socket = socket_with(family, kind, flags, None)?;
            match connect(&socket, address) {
                // What is sent meanwhile is not taken: it waits.
                Ok(()) | Err(rustix::io::Errno::INPROGRESS) => Ok(socket),
                Err(error) => Err(error.into()),
            }
        };
        match &self.to {
            LogForward::Journal { socket, .. } => unix(socket, SocketType::DGRAM),
            LogForward::Syslog { address, .. } => match address {
                SyslogAddress::Datagram(path) => unix(path, SocketType::DGRAM),
                SyslogAddress::Stream(path) => unix(path, SocketType::STREAM),
                SyslogAddress::Udp(address) => inet(address, SocketType::DGRAM),
                SyslogAddress::Tcp(address) => inet(address, SocketType::STREAM),
            },
        }
    }

    fn message(&self, stderr: bool, text: &[&[u8]], partial: bool, now: Timestamp) -> Vec<u8> {
        let mut out = Vec::new();
        // Error and informational (syslog(3)), as docker has it.
        let severity = if stderr { 3 } else { 6 };
        match &self.to {
            LogForward::Journal { tag, .. } => {
                let key = &self.key;
                let name = format!("{}-{}-{}", key.project, key.service, key.index);
                let _ = write!(
                    out,
                    "PRIORITY={severity}\nSYSLOG_IDENTIFIER={tag}\nCONTAINER_TAG={tag}\nCONTAINER_NAME={name}\n\
                     COM_STEAD_PROJECT={}\nCOM_STEAD_SERVICE={}\n",
                    key.project, key.service
                );
                if partial {
                    out.extend_from_slice(b"CONTAINER_PARTIAL_MESSAGE=true\n");
                }
                // With its length: it may hold anything.
                let length: usize = text.iter().map(|part| part.len()).sum();
                out.extend_from_slice(b"MESSAGE\n");
                out.extend_from_slice(&(length as u64).to_le_bytes());
                text.iter().for_each(|part| out.extend_from_slice(part));
            }
            LogForward::Syslog {
                facility,
                format,
                tag,
                ..
            } => {
                let priority = u32::from(*facility) * 8 + severity;
                let pid = std::process::id();
                let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
                let local = || {
                    now.to_zoned(TimeZone::system())
                        .strftime("%b %e %H:%M:%S")
                        .to_string()
                };
                let _ = match format {
                    SyslogFormat::Local => write!(out, "<{priority}>{} {tag}[{pid}]: ", local()),
                    SyslogFormat::Rfc3164 => write!(out, "<{priority}>{} {} {tag}[{pid}]: ", local(), host()),
                    SyslogFormat::Rfc5424 => {
                        write!(out, "<{priority}>1 {now:.0} {} {tag} {pid} {tag} - ", host())
                    }
                    SyslogFormat::Rfc5424Micro => {
                        write!(out, "<{priority}>1 {now:.6} {} {tag} {pid} {tag} - ", host())
                    }
                };
                text.iter().for_each(|part| out.extend_from_slice(part));
            }
        }
        // Between the messages of a stream (RFC 6587, 3.4.2), and at the end of a field of the journal's.
        if self.stream() || matches!(self.to, LogForward::Journal { .. }) {
            out.push(b'\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_told_in_steps() {
        let told = [0, 1, 3, 5, 9, 10, 19, 20, 99, 100, 4_999, 5_000].map(step);
        let expected = [0, 1, 2, 5, 5, 10, 10, 20, 50, 100, 2_000, 5_000];
        assert_eq!(told, expected);
        assert!(step(u64::MAX) > u64::MAX / 10);
    }
}
