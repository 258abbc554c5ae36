//! `stead attach`: the output of a container here as it comes, and what is typed here its input.

mod keys;
mod printer;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
    },
    unistd::{read, write},
};

pub use keys::{Keys, KeysError};

use self::printer::Printer;
use super::{
    client::{Client, ClientError},
    protocol::{Reply, Request},
    relay::Raw,
};
use crate::sys::process;

/// How to attach.
#[derive(Debug)]
pub struct Attach {
    /// What is read here goes to the process, where its standard input is open.
    pub input: bool,
    /// Signals that come here are for the process, where it has no terminal.
    pub signals: bool,
    /// What is typed to leave, where there is a terminal.
    pub keys: Keys,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The process has: exit status, or 128 + signal.
    Exited(i32),
    /// The keys were typed; the process runs on.
    Detached,
    /// This signal came and is not for the process, which runs on.
    Signal(i32),
    /// The output was not taken as fast as it came.
    CutOff,
}

/// Those that docker hands on and that a person can cause.
const PROXIED: [Signal; 8] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
];

fn taken() -> SigSet {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGWINCH);
    signals.extend(PROXIED);
    signals
}

/// From now on signals wait for [`attach`]. Before there is a second thread: it would take them.
///
/// # Errors
/// As sigprocmask(2).
pub fn hold_signals() -> io::Result<()> {
    Ok(taken().thread_block()?)
}

/// Until the end; signals are held since [`hold_signals`]. `stdin` may be a terminal; the window size of the container's follows it.
///
/// # Errors
/// As [`Client::request`], poll(2), and write(2) of standard output.
pub fn attach(socket: &Path, how: &Attach, stdin: BorrowedFd<'_>) -> Result<End, ClientError> {
    let mut client = Client::connect(socket)?;
    let (reply, along) = client.request(&Request::Attach, &[])?;
    let (Reply::Attached { terminal, input }, mut along) = (reply, along.into_iter()) else {
        return Err(ClientError::Unexpected);
    };
    let output = along.next().ok_or(ClientError::Unexpected)?;
    let to = along.next();
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&taken(), flags).map_err(io::Error::from)?;
    let proxy = how.signals && !terminal;
    let input = input && how.input;
    let _raw = (terminal && input).then(|| Raw::enter(stdin));
    if let (true, Some(master)) = (terminal, &to) {
        let _ = process::copy_window_size(stdin, master.as_fd());
    }
    let keys = if terminal { how.keys.clone() } else { Keys::none() };
    let typed = Typed {
        to: to.as_ref().filter(|_| input),
        listening: input,
        keys,
        waiting: Vec::new(),
    };
    let mut printer = Printer::new();
    let far = Far {
        output: &output,
        terminal: to.as_ref().filter(|_| terminal),
        proxy,
    };
    let end = relay(&mut client, typed, stdin, &far, &signals, &mut printer)?;
    drop(output);
    let end = match end {
        Some(end) => end,
        None => client.attach_ended()?.map_or(End::CutOff, End::Exited),
    };
    printer.finish()?;
    Ok(end)
}

/// What there is of the container.
struct Far<'a> {
    output: &'a OwnedFd,
    terminal: Option<&'a OwnedFd>,
    /// Signals are for its process.
    proxy: bool,
}

/// `Ok(None)`: the far end has closed.
fn relay(
    client: &mut Client,
    mut typed: Typed<'_>,
    stdin: BorrowedFd<'_>,
    far: &Far<'_>,
    signals: &SignalFd,
    printer: &mut Printer,
) -> Result<Option<End>, ClientError> {
    let mut packet = vec![0; 64 << 10];
    loop {
        // One that prints slower than the service leaves it in the socket, until the shim cuts it off.
        let space = printer.space();
        let wanted = [
            (far.output.as_raw_fd(), if space { libc::POLLIN } else { 0 }),
            (if typed.ready() { stdin.as_raw_fd() } else { -1 }, libc::POLLIN),
            (typed.waits_for(), libc::POLLOUT),
            (signals.as_fd().as_raw_fd(), libc::POLLIN),
        ];
        let events = process::poll(&wanted, if space { -1 } else { 20 })?;
        if events[0] != 0 && space {
            match read(far.output, &mut packet) {
                Ok(0) | Err(Errno::ECONNRESET) => return Ok(None),
                Ok(count) => printer.print(packet[0], &packet[1..count])?,
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        if events[1] != 0 && typed.take(stdin) {
            return Ok(Some(End::Detached));
        }
        typed.pass_on();
        while let Ok(Some(signal)) = signals.read_signal() {
            match (signal.ssi_signo as i32, far.terminal) {
                (libc::SIGWINCH, Some(master)) => {
                    let _ = process::copy_window_size(stdin, master.as_fd());
                }
                (libc::SIGWINCH, None) => {}
                (signal, _) if far.proxy => client.send(&Request::Signal { signal })?,
                (libc::SIGCONT, _) => {}
                (signal, _) => return Ok(Some(End::Signal(signal))),
            }
        }
    }
}

/// What was typed and is on its way.
struct Typed<'a> {
    to: Option<&'a OwnedFd>,
    listening: bool,
    keys: Keys,
    waiting: Vec<u8>,
}

impl Typed<'_> {
    /// More is read once the process has taken what there was.
    fn ready(&self) -> bool {
        self.listening && self.waiting.is_empty()
    }

    fn waits_for(&self) -> i32 {
        let waits = !self.waiting.is_empty();
        self.to.filter(|_| waits).map_or(-1, AsRawFd::as_raw_fd)
    }

    /// The keys to leave were typed. The end of what is read here is none of the process's input: others
    /// may attach.
    fn take(&mut self, stdin: BorrowedFd<'_>) -> bool {
        let mut chunk = [0; 4096];
        match read(stdin, &mut chunk) {
            Ok(0) => self.listening = false,
            Ok(count) => {
                let (bytes, leave) = self.keys.filter(&chunk[..count]);
                self.waiting = bytes;
                return leave;
            }
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(_) => self.listening = false,
        }
        false
    }

    fn pass_on(&mut self) {
        let Some(to) = self.to else { return };
        while !self.waiting.is_empty() {
            match write(to, &self.waiting) {
                Ok(count) => {
                    self.waiting.drain(..count);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                // It has closed its input.
                Err(_) => {
                    self.waiting.clear();
                    self.listening = false;
                }
            }
        }
    }
}
