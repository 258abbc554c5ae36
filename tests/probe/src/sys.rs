//! The raw system calls of the probe: what an attacker does, no library offers safely.
//!
//! The second place with `unsafe`, beside `backend::sys`, and no part of what is shipped.

use std::{
    ffi::{CString, c_int, c_long},
    io,
};

/// A system call with whatever arguments: its result, or the error number.
pub fn call(number: c_long, arguments: [u64; 6]) -> Result<i64, i32> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the probe passes numbers, null and pointers to what outlives the call; that the kernel does
    // nothing else with them is what is being looked at.
    match unsafe { libc::syscall(number, a, b, c, d, e, f) } {
        -1 => Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        result => Ok(result),
    }
}

/// The address of a string for [`call`]; the string must outlive it.
pub fn pointer(text: &CString) -> u64 {
    text.as_ptr() as u64
}

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Exit(i32),
    Signal(i32),
}

/// Runs `child` in a fork; what it gives is its exit status. Only while this process has one thread.
pub fn forked(child: impl FnOnce() -> i32) -> End {
    // SAFETY: single-threaded, so the child may do what the parent may; it never returns from here.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = child();
        // SAFETY: ends the process.
        unsafe { libc::_exit(code) };
    }
    let mut status: c_int = 0;
    loop {
        // SAFETY: `status` outlives the call.
        let ended = unsafe { libc::waitpid(pid, &mut status, 0) };
        if ended == pid {
            break;
        }
        if ended < 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return End::Exit(-1);
        }
    }
    if libc::WIFSIGNALED(status) {
        End::Signal(libc::WTERMSIG(status))
    } else {
        End::Exit(libc::WEXITSTATUS(status))
    }
}

/// The calling thread's calls whose sixth argument is `mark` go to the descriptor that is returned, unless a
/// filter that was there before says otherwise.
pub fn listen(mark: u64) -> io::Result<c_int> {
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let jump_equal = |k: u32, jf: u8| libc::sock_filter {
        code: (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
        jt: 0,
        jf,
        k,
    };
    let load = |offset| statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset);
    // The sixth argument in struct seccomp_data.
    let sixth = 16 + 5 * 8;
    let program = [
        load(sixth),
        jump_equal(mark as u32, 3),
        load(sixth + 4),
        jump_equal((mark >> 32) as u32, 1),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: both calls concern this thread only; the program outlives the second.
    let descriptor = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &program,
        )
    };
    match descriptor {
        -1 => Err(io::Error::last_os_error()),
        descriptor => Ok(descriptor as c_int),
    }
}

/// Answers one call of a [`listen`]er with the error `errno`: it is not carried out.
pub fn refuse_next(listener: c_int, errno: i32) -> io::Result<()> {
    // SAFETY: both structures are plain numbers, zeroed as the kernel demands, and outlive the calls.
    unsafe {
        let mut notice: libc::seccomp_notif = std::mem::zeroed();
        if libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_RECV as _, &mut notice) < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut answer: libc::seccomp_notif_resp = std::mem::zeroed();
        answer.id = notice.id;
        answer.error = -errno;
        if libc::ioctl(listener, libc::SECCOMP_IOCTL_NOTIF_SEND as _, &mut answer) < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A system call through the 32-bit entry of a 64-bit process. The arguments are 32 bits wide.
#[cfg(target_arch = "x86_64")]
pub fn call_i386(number: u32, first: u32, second: u32) -> i32 {
    let result: u64;
    // SAFETY: the kernel clobbers nothing but r8 to r11 and the result; rbx is put back.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) u64::from(first) => _,
            inout("rax") u64::from(number) => result,
            in("rcx") u64::from(second),
            in("rdx") 0_u64,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result as i32
}

/// Three numbers where a 32-bit pointer reaches them: `socketcall` takes its arguments from memory.
#[cfg(target_arch = "x86_64")]
pub fn low_memory(values: [u32; 3]) -> Option<u32> {
    // SAFETY: a fresh private page that nothing else knows of, written within its length, never unmapped.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return None;
        }
        std::ptr::copy_nonoverlapping(values.as_ptr(), page.cast::<u32>(), values.len());
        u32::try_from(page as u64).ok()
    }
}
