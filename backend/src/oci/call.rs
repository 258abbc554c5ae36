//! One hook: a program with the state on its standard input, for so long and no longer.

use std::{
    convert::Infallible,
    ffi::CString,
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::{
        prctl,
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, pipe2},
};
use reconciler::spec::OciHook;
use rustix::{
    fs::{OFlags, fcntl_setfl},
    process::{PidfdFlags, pidfd_open},
};

use crate::{
    rootfs::{Step, StepError},
    shim::protocol::Reason,
    sys::process::{self, Side},
};

/// Seconds for a hook that does not say how many it wants: nothing may hang for ever.
const TIMEOUT: u32 = 10;
/// So much of what it printed last is kept, in bytes, and so much of that is told, in characters.
const KEPT: usize = 4096;
const TOLD: usize = 300;
/// What a shell says of a command that cannot be run.
const NOT_RUN: i32 = 127;

/// Runs it to its end.
///
/// # Errors
/// It failed or took too long, with the last it printed.
pub fn call(hook: &OciHook, state: &[u8], directory: &Path) -> Result<(), StepError> {
    let (input, told) = pipe2(OFlag::O_CLOEXEC).step("make", "a pipe")?;
    let (ear, mouth) = pipe2(OFlag::O_CLOEXEC).step("make", "a pipe")?;
    fcntl_setfl(&ear, OFlags::NONBLOCK).step("set up", "a pipe")?;
    // It fits into the pipe, so who does not read it holds up nobody.
    nix::unistd::write(&told, state).step("write", "the state of the container")?;
    drop(told);
    let pid = match process::fork().step("fork for the", hook)? {
        Side::Parent(pid) => Pid::from_raw(pid),
        Side::Child => {
            let Err(errno) = become_hook(hook, &input, &mouth, directory);
            let _ = writeln!(io::stderr(), "it cannot be executed: {}", errno.desc());
            process::exit(NOT_RUN)
        }
    };
    drop((input, mouth));
    let mut printed = Vec::new();
    let timeout = hook.timeout.unwrap_or(TIMEOUT);
    let ended = wait(pid, &ear, &mut printed, Duration::from_secs(timeout.into()));
    // With what it left behind, unless that has gone its own way.
    let _ = killpg(pid, Signal::SIGKILL);
    let _ = kill(pid, Signal::SIGKILL);
    let status = waitpid(pid, Some(WaitPidFlag::__WALL)).step("wait for the", hook)?;
    let what = match (ended.step("wait for the", hook)?, status) {
        (false, _) => format!("did not end within {timeout} s, and was killed"),
        (true, WaitStatus::Exited(_, 0)) => return Ok(()),
        (true, WaitStatus::Exited(_, status)) => format!("failed with status {status}"),
        (true, WaitStatus::Signaled(_, signal, _)) => format!("was killed by {signal}"),
        (true, _) => "ended strangely".to_owned(),
    };
    let last = last(&printed).map(|last| format!(": {last}")).unwrap_or_default();
    Err(StepError {
        message: format!("the {hook} {what}{last}; see the CDI file that asks for it"),
        errno: None,
        reason: Reason::System,
    })
}

/// Does not come back when it succeeds. Nothing of this process stays open but three descriptors.
fn become_hook(
    hook: &OciHook,
    input: &OwnedFd,
    output: &OwnedFd,
    directory: &Path,
) -> Result<Infallible, Errno> {
    for (number, descriptor) in [input, output, output].into_iter().enumerate() {
        process::place(descriptor.as_fd(), number as i32).map_err(errno)?;
    }
    process::close_on_exec_from(3).map_err(errno)?;
    let path = c_string(hook.path.as_os_str().as_bytes())?;
    let mut argv = c_strings(&hook.args)?;
    if argv.is_empty() {
        argv.push(path.clone());
    }
    let envp = c_strings(&hook.env)?;
    prctl::set_pdeathsig(Some(Signal::SIGKILL))?;
    nix::unistd::setsid()?;
    process::default_signals();
    nix::unistd::chdir(directory)?;
    nix::unistd::execve(&path, &argv, &envp)
}

fn c_string(bytes: &[u8]) -> Result<CString, Errno> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

fn c_strings(words: &[String]) -> Result<Vec<CString>, Errno> {
    words.iter().map(|word| c_string(word.as_bytes())).collect()
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// Until it has ended; `false`: it has not. What it prints is read meanwhile.
fn wait(pid: Pid, ear: &OwnedFd, printed: &mut Vec<u8>, timeout: Duration) -> io::Result<bool> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(io::ErrorKind::InvalidInput)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let end = Instant::now() + timeout;
    let mut open = true;
    loop {
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        let both = [(pidfd.as_raw_fd(), libc::POLLIN), (ear.as_raw_fd(), libc::POLLIN)];
        let watched = if open { &both[..] } else { &both[..1] };
        let ready = process::poll(watched, i32::try_from(left).unwrap_or(i32::MAX))?;
        let ended = ready[0] != 0;
        open = open && listen(ear, printed)?;
        if ended || left == 0 {
            return Ok(ended);
        }
    }
}

/// Reads what fits into a pipe. `false`: there will be no more.
fn listen(ear: &OwnedFd, printed: &mut Vec<u8>) -> io::Result<bool> {
    let mut chunk = [0; KEPT];
    for _ in 0..16 {
        match nix::unistd::read(ear, &mut chunk) {
            Ok(0) => return Ok(false),
            Ok(count) => {
                printed.extend_from_slice(&chunk[..count]);
                let past = printed.len().saturating_sub(KEPT);
                printed.drain(..past);
            }
            Err(Errno::EAGAIN) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(true)
}

/// The end of the last line that says something.
fn last(printed: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(printed);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    let line: Vec<char> = line.chars().filter(|c| !c.is_control()).collect();
    let past = line.len().saturating_sub(TOLD);
    Some(line[past..].iter().collect())
}
