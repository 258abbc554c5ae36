//! `stead version`

use serde_json::json;

use super::{Global, print, print_json};

/// The target as rustc names it, as far as the compiler tells.
fn target() -> String {
    let environment = match () {
        () if cfg!(target_env = "musl") => "musl",
        () => "gnu",
    };
    format!(
        "{}-unknown-{}-{environment}",
        std::env::consts::ARCH,
        std::env::consts::OS
    )
}

pub fn run(global: &Global) -> anyhow::Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let build = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    if global.json {
        print_json(&json!({"version": version, "target": target(), "build": build}))?;
    } else {
        print(&format!("stead {version} ({}, {build})\n", target()))?;
    }
    Ok(0)
}
