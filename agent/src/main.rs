//! The program `stead`: who is being called, before anything else exists.

mod api;
mod cli;
mod client;
mod collection;
mod daemon;
mod environment;
mod exit;
mod hello;
mod host;
mod images;
mod intake;
mod journal;
mod ledger;
mod logging;
mod orders;
mod planning;
mod registries;
mod render;
mod source;
mod text;
mod why;

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread: a shim forks, and hello is all there is inside a container.
    host::dispatch();
    if hello::is_called() {
        hello::main();
    }
    cli::main()
}
