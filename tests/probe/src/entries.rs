//! Sockets of every family, by the native entry and by the foreign ones.

use crate::{
    calls::{ask, errno_name},
    sys,
};

/// What the filter says to each family, and whether a foreign entry leads anywhere.
pub fn facts() -> Vec<String> {
    let families = 0..=45_u64;
    let said = ask(families
        .clone()
        .map(|family| (libc::SYS_socket as u64, family))
        .collect());
    let mut lines: Vec<String> = families
        .zip(said)
        .map(|(family, verdict)| format!("socket.{family:02} {verdict}"))
        .collect();
    lines.extend(foreign());
    lines
}

/// Each family, really asked for by both entries.
pub fn really(families: &[u32]) -> Vec<String> {
    let mut lines = Vec::new();
    for family in families {
        // A kind that some family of the list has.
        let kinds = [
            libc::SOCK_STREAM,
            libc::SOCK_RAW,
            libc::SOCK_DGRAM,
            libc::SOCK_SEQPACKET,
        ];
        let native = kinds
            .map(|kind| sys::call(libc::SYS_socket, [u64::from(*family), kind as u64, 0, 0, 0, 0]))
            .into_iter()
            .reduce(|best, one| if best.is_ok() { best } else { one });
        lines.push(format!("native {family} {}", word(native.unwrap_or(Err(0)))));
        lines.push(format!("i386 {family} {}", i386_socket(*family)));
    }
    lines
}

pub fn word(result: Result<i64, i32>) -> String {
    match result {
        Ok(_) => "done".into(),
        Err(errno) => errno_name(errno),
    }
}

#[cfg(target_arch = "x86_64")]
fn foreign() -> Vec<String> {
    const X32: u64 = 0x4000_0000;
    let mut lines = vec![
        format!("entry.i386.getpid {}", i386(|| sys::call_i386(20, 0, 0))),
        format!("entry.i386.socket {}", i386_socket(libc::AF_INET as u32)),
    ];
    let said = ask(vec![(X32 + libc::SYS_getppid as u64, 0), (X32 + 41, 2)]);
    lines.extend(
        ["getppid", "socket"]
            .iter()
            .zip(said)
            .map(|(name, verdict)| format!("entry.x32.{name} {verdict}")),
    );
    lines
}

#[cfg(target_arch = "x86_64")]
fn i386_socket(family: u32) -> String {
    // socketcall(SYS_SOCKET, …), whose arguments no filter can see.
    i386(|| match sys::low_memory([family, libc::SOCK_STREAM as u32, 0]) {
        Some(address) => sys::call_i386(102, 1, address),
        None => -libc::ENOMEM,
    })
}

/// In a child: a kernel without the entry answers with a signal.
#[cfg(target_arch = "x86_64")]
fn i386(call: impl FnOnce() -> i32) -> String {
    let end = sys::forked(|| match call() {
        result if result >= 0 => 0,
        result => -result,
    });
    match end {
        sys::End::Exit(0) => "done".into(),
        sys::End::Exit(errno) => errno_name(errno),
        sys::End::Signal(signal) => format!("signal {signal}"),
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn foreign() -> Vec<String> {
    Vec::new()
}

#[cfg(not(target_arch = "x86_64"))]
fn i386_socket(_: u32) -> String {
    "none".into()
}
