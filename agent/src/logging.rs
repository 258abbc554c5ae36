//! What stead says about itself, on standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::EnvFilter;

/// Who speaks: what goes without saying differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// An agent with a progress of its own, which tells what fails better.
    Up,
    Command,
    Daemon,
}

/// `STEAD_LOG` (tracing's filter syntax) wins over `-v`; `STEAD_LOG_FORMAT=json` for programs.
pub fn start(verbose: u8, speaker: Speaker) {
    let least = match speaker {
        Speaker::Up => 0,
        Speaker::Command => 1,
        Speaker::Daemon => 2,
    };
    let levels = ["error", "warn", "info", "debug", "trace"];
    let level = levels[usize::from(verbose.saturating_add(least)).min(levels.len() - 1)];
    let filter = EnvFilter::try_from_env("STEAD_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_writer(stderr)
        .with_env_filter(filter)
        .with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false);
    // A second call (tests) keeps the first.
    let _ = if std::env::var_os("STEAD_LOG_FORMAT").is_some_and(|format| format == "json") {
        builder.json().try_init()
    } else {
        builder.try_init()
    };
}
