//! The boot clock, which goes on while the machine sleeps, and the wall clock, in milliseconds.

use crate::sys::process::clock_milliseconds;

pub fn boot() -> u64 {
    clock_milliseconds(libc::CLOCK_BOOTTIME)
}

pub fn wall() -> u64 {
    clock_milliseconds(libc::CLOCK_REALTIME)
}
