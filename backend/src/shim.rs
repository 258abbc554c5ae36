//! The supervisor of one sandbox: a small single-threaded process that outlives the agent.
//!
//! [`dispatch`] is the shim's `main`; [`spawn`] keeps ready ones for the agent; [`client`] speaks to
//! them. In between: [`serve`] the loop, [`state`] who asks, [`assigned`] what is answered, [`run`] the container and its output.

mod assigned;
pub mod attach;
mod attached;
mod begin;
pub mod client;
pub(crate) mod clock;
pub mod door;
pub mod ground;
mod hooks;
mod joined;
mod launch;
mod made;
mod program;
pub mod protocol;
pub mod record;
pub mod relay;
pub(crate) mod remount;
mod run;
mod seed;
mod serve;
pub mod spawn;
mod state;
mod stub;
pub(crate) mod terminal;
mod upgrade;
mod waiting;
mod watch;
pub mod wire;
mod words;

/// The running program as supervisors are to execute it.
///
/// # Errors
/// As open_tree(2) and mount_setattr(2).
pub fn sealed_program() -> std::io::Result<std::os::fd::OwnedFd> {
    program::sealed(program::OWN.as_ref())
}

/// What `argv[0]` reads when the program is to be a shim.
pub const PROGRAM: &str = "stead-shim";

/// To be called first in `main`, before any thread: runs the shim and ends the process when it was
/// started as one, else does nothing.
pub fn dispatch() {
    let mut arguments = std::env::args_os();
    if arguments.next().is_none_or(|name| name != PROGRAM) {
        return;
    }
    let arguments: Vec<_> = arguments.collect();
    let result = match arguments.as_slice() {
        [verb, idle] if verb == seed::VERB => seed::run(idle.as_ref()),
        [verb, state] if verb == "resume" => upgrade::resume(&state.to_string_lossy()),
        _ => Err(std::io::Error::other("a shim is started by the agent only")),
    };
    match result {
        Ok(()) => std::process::exit(0),
        Err(error) => {
            eprintln!("shim: {error}");
            std::process::exit(1)
        }
    }
}
