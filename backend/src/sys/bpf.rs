//! bpf(2), as much of it as a device filter needs.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// One instruction, as linux/bpf.h has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    pub code: u8,
    /// The destination in the low four bits, the source in the high ones.
    pub registers: u8,
    pub offset: i16,
    pub value: i32,
}

const PROG_LOAD: u32 = 5;
const PROG_ATTACH: u32 = 8;
const PROG_QUERY: u32 = 16;
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE_ATTACH: u32 = 6;
/// Beside what others have attached further up: each of them must allow.
const ALLOW_MULTI: u32 = 2;

#[repr(C)]
#[derive(Default)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    version: u32,
    flags: u32,
    name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target: u32,
    kind: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
}

/// Loads a program of the type that decides about devices.
///
/// # Errors
/// As bpf(2); EINVAL where the kernel has no such programs (CONFIG_CGROUP_BPF).
pub fn load_device_filter(program: &[Instruction]) -> io::Result<OwnedFd> {
    let mut name = [0; 16];
    name[..5].copy_from_slice(b"stead");
    let attr = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        name,
        ..Load::default()
    };
    // SAFETY: `attr` has the size that is passed; the program and the license it points to outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &attr, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Puts a device filter on a cgroup of the v2 tree, where it stays until the cgroup goes.
///
/// # Errors
/// As bpf(2); EPERM where somebody has forbidden it further up.
pub fn attach_device_filter(cgroup: BorrowedFd<'_>, program: &OwnedFd) -> io::Result<()> {
    let attr = Attach {
        target: cgroup.as_raw_fd() as u32,
        program: program.as_fd().as_raw_fd() as u32,
        kind: CGROUP_DEVICE_ATTACH,
        flags: ALLOW_MULTI,
    };
    // SAFETY: `attr` has the size that is passed.
    match unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &attr, size_of::<Attach>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// How many device filters a cgroup has of its own.
///
/// # Errors
/// As bpf(2).
pub fn device_filters(cgroup: BorrowedFd<'_>) -> io::Result<u32> {
    let mut attr = Query {
        target: cgroup.as_raw_fd() as u32,
        kind: CGROUP_DEVICE_ATTACH,
        ..Query::default()
    };
    // SAFETY: `attr` has the size that is passed; without room for numbers the kernel writes only their count.
    match unsafe { libc::syscall(libc::SYS_bpf, PROG_QUERY, &mut attr, size_of::<Query>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(attr.count),
    }
}
