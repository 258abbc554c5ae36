//! The system calls nix and rustix do not offer safely: the only place with `unsafe`.

pub mod bpf;
pub mod message;
pub mod mount;
pub mod process;
