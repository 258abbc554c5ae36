//! clone3, session, seccomp and terminal calls of a single-threaded process.

use std::{
    ffi::c_int,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// clone_args of clone3(2), as far as kernel 5.7 knows it.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Which side of a clone this is.
pub enum Side {
    /// The pid as the caller's pid namespace sees it.
    Parent(i32),
    Child,
}

/// clone3(2) as fork(2) is: memory is copied. `flags` are CLONE_NEW… and CLONE_PARENT; `cgroup` is a
/// directory of the v2 tree the child is born in. The caller must be single-threaded, so that the
/// child may allocate; the shim is.
///
/// # Errors
/// As clone3(2).
pub fn clone(flags: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Side> {
    let mut args = CloneArgs {
        flags: flags as u32 as u64,
        // With CLONE_PARENT the exit signal is the caller's own and must be zero here.
        exit_signal: if flags & libc::CLONE_PARENT != 0 {
            0
        } else {
            libc::SIGCHLD as u64
        },
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: no CLONE_VM and no stack, so this is a fork; `args` outlives the call and has its size.
    match unsafe { libc::syscall(libc::SYS_clone3, &args, size_of::<CloneArgs>()) } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid as i32)),
    }
}

/// fork(2), where [`clone`] may be filtered away: the default profile has no clone3(2). The caller must be
/// single-threaded, as there.
///
/// # Errors
/// As fork(2).
pub fn fork() -> io::Result<Side> {
    // SAFETY: the caller is single-threaded, so its child may do whatever it may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Side::Child),
        pid => Ok(Side::Parent(pid)),
    }
}

/// _exit(2): runs no handlers of the parent's copy.
pub fn exit(code: i32) -> ! {
    // SAFETY: ends the process; nothing is touched after it.
    unsafe { libc::_exit(code) }
}

/// Every signal to its default, none blocked: what an exec'ed program expects to inherit.
pub fn default_signals() {
    // All zero is SIG_DFL without flags, restorer and mask: more than the struct of any architecture.
    let default = [0u64; 8];
    for signal in 1..=64 {
        // Not by the C library, which keeps two of them for itself.
        // SAFETY: the struct outlives the call; numbers that cannot be set are refused with EINVAL.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &default,
                std::ptr::null_mut::<u64>(),
                size_of::<u64>(),
            )
        };
    }
    // SAFETY: an empty set is a valid mask and outlives the call.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Every signal waits until it is asked for with [`next_signal`].
///
/// # Errors
/// As sigprocmask(2).
pub fn block_signals() -> io::Result<()> {
    // SAFETY: a full set is a valid mask and outlives the call.
    let result = unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &all, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The number of a signal that is blocked, once there is one: sigwaitinfo(2).
///
/// # Errors
/// EINTR.
pub fn next_signal() -> io::Result<c_int> {
    // SAFETY: the set outlives the call, which writes nothing through the null pointer.
    let signal = unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::sigwaitinfo(&all, std::ptr::null_mut())
    };
    match signal {
        -1 => Err(io::Error::last_os_error()),
        signal => Ok(signal),
    }
}

/// kill(2), also for the signals without a name.
///
/// # Errors
/// As kill(2).
pub fn send_signal(pid: i32, signal: c_int) -> io::Result<()> {
    // SAFETY: touches no memory.
    match unsafe { libc::kill(pid, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What /proc/PID/cmdline says from now on, as far as there is room. Only for a process that looks at its
/// arguments no more.
///
/// # Errors
/// /proc/self/stat cannot be read.
pub fn rename(name: &str) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // arg_start and arg_end are 48 and 49 of proc_pid_stat(5); the name, which is 2, may have blanks.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let mut fields = fields.split_whitespace().skip(45).map(str::parse::<usize>);
    let (Some(Ok(start)), Some(Ok(end))) = (fields.next(), fields.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let room = end.saturating_sub(start);
    let length = name.len().min(room.saturating_sub(1));
    // SAFETY: the kernel put the arguments there, `room` bytes that are written by nobody else; what the
    // standard library keeps of them is not looked at any more.
    unsafe {
        let area = std::ptr::with_exposed_provenance_mut::<u8>(start);
        std::ptr::write_bytes(area, 0, room);
        std::ptr::copy_nonoverlapping(name.as_ptr(), area, length);
    }
    Ok(())
}

/// A broken pipe is an error to handle, not an end.
pub fn ignore_sigpipe() {
    // SAFETY: SIG_IGN is a valid disposition for SIGPIPE.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
}

/// Children are gone when they end, and leave no zombies: signal(7).
pub fn reap_children() {
    // SAFETY: SIG_IGN is a valid disposition for SIGCHLD.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// close_range(2) with CLOEXEC: from `first` on, nothing passes the next exec.
///
/// # Errors
/// As close_range(2).
pub fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: only sets a flag on descriptors, closes none.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Closes every descriptor from `first` on. Only for a process that has just been executed and owns none of
/// them yet (what it finds there leaked from its parent), or that uses and drops none of them any more.
///
/// # Errors
/// As close_range(2).
pub fn close_leaked_from(first: u32) -> io::Result<()> {
    // SAFETY: the caller has no owner for these descriptors that would use them.
    match unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// As [`close_leaked_from`] from 3 on, but for `kept`.
///
/// # Errors
/// As close_range(2).
pub fn close_leaked_but<const N: usize>(mut kept: [i32; N]) -> io::Result<()> {
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter_map(|fd| u32::try_from(fd).ok()) {
        if fd > first {
            // SAFETY: as in `close_leaked_from`.
            if unsafe { libc::syscall(libc::SYS_close_range, first, fd - 1, 0) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        first = first.max(fd + 1);
    }
    close_leaked_from(first)
}

/// Makes `fd` the descriptor `target` (dup2(2)), not close-on-exec.
///
/// # Errors
/// As dup2(2).
pub fn place(fd: BorrowedFd<'_>, target: i32) -> io::Result<()> {
    // SAFETY: `fd` is open; the caller gives up what was open as `target`.
    let result = unsafe {
        if fd.as_raw_fd() == target {
            libc::fcntl(target, libc::F_SETFD, 0)
        } else {
            libc::dup2(fd.as_raw_fd(), target)
        }
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Takes over descriptors this process was started with, known by number.
///
/// # Errors
/// EBADF where nothing is open under that number.
pub fn inherited(fd: i32) -> io::Result<OwnedFd> {
    // SAFETY: F_SETFD touches the flag only.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: open (checked above); the start-up code asks for each inherited number once.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A session keyring of its own: what it starts sees no keys of the session it came from (keyctl(2)).
///
/// # Errors
/// As keyctl(2); ENOSYS where the kernel has no keys.
pub fn leave_session_keyring() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring; no memory is touched.
    match unsafe { libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Whether `fd` passes an exec.
///
/// # Errors
/// As fcntl(2).
pub fn keep_over_exec(fd: i32, keep: bool) -> io::Result<()> {
    let flags = if keep { 0 } else { libc::FD_CLOEXEC };
    // SAFETY: F_SETFD touches the flag only.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, flags) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// seccomp(2) SECCOMP_SET_MODE_FILTER. Needs CAP_SYS_ADMIN in the own user namespace, because
/// no_new_privs is left off.
///
/// # Errors
/// As seccomp(2).
pub fn load_filter(program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel copies `len` instructions from `filter`, which outlive the call.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// The other end of a pseudo terminal, without a path (TIOCGPTPEER, ioctl_tty(2)).
///
/// # Errors
/// ENOTTY where `master` is none.
pub fn terminal_peer(master: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let unlock: c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int; TIOCGPTPEER takes open flags and returns a new descriptor.
    unsafe {
        if libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &unlock) < 0 {
            return Err(io::Error::last_os_error());
        }
        match libc::ioctl(
            master.as_raw_fd(),
            libc::TIOCGPTPEER,
            libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC,
        ) {
            -1 => Err(io::Error::last_os_error()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// Standard input becomes the controlling terminal (TIOCSCTTY).
///
/// # Errors
/// As ioctl_tty(2).
pub fn control_terminal() -> io::Result<()> {
    // SAFETY: takes an int argument, no memory.
    if unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Copies the window size of the terminal `from` to the terminal `to`.
///
/// # Errors
/// ENOTTY where one is none.
pub fn copy_window_size(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: both requests take a `winsize`, which lives on this stack.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        if libc::ioctl(from.as_raw_fd(), libc::TIOCGWINSZ, &mut size) < 0
            || libc::ioctl(to.as_raw_fd(), libc::TIOCSWINSZ, &size) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Raises the loopback interface of the current network namespace (netdevice(7)).
///
/// # Errors
/// As ioctl(2).
pub fn raise_loopback(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid; the name fits and stays NUL-terminated.
    unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        request.ifr_name[0] = b'l' as _;
        request.ifr_name[1] = b'o' as _;
        request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as _;
        if libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &request) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// poll(2): the events of each descriptor, in order. An interruption is "nothing yet".
///
/// # Errors
/// As poll(2).
pub fn poll(wanted: &[(i32, i16)], timeout_ms: i32) -> io::Result<Vec<i16>> {
    let mut set: Vec<libc::pollfd> = wanted
        .iter()
        .map(|&(fd, events)| libc::pollfd {
            fd,
            events,
            revents: 0,
        })
        .collect();
    // SAFETY: the array has the length that is passed and outlives the call.
    if unsafe { libc::poll(set.as_mut_ptr(), set.len() as libc::nfds_t, timeout_ms) } < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
        set.iter_mut().for_each(|one| one.revents = 0);
    }
    Ok(set.iter().map(|one| one.revents).collect())
}

/// Maps the text of this program, which is in memory already: each first step into a part of it would be a page fault.
/// As madvise(2), MADV_POPULATE_READ; an older kernel leaves it as it was.
pub fn populate_text() {
    unsafe extern "C" {
        // Of the linker: end(3).
        static __executable_start: u8;
        static etext: u8;
    }
    let first = &raw const __executable_start;
    let length = (&raw const etext).addr() - first.addr();
    // SAFETY: nothing is read, written or moved; the addresses are of this program, and the first is of a page.
    unsafe { libc::madvise(first.cast_mut().cast(), length, libc::MADV_POPULATE_READ) };
}

/// clock_gettime(2) in milliseconds; zero for a clock the kernel does not have.
pub fn clock_milliseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel fills the structure, which lives on this stack.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1000 + time.tv_nsec as u64 / 1_000_000
}
