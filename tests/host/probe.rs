//! The probe (tests/probe) in a container.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command, sync::OnceLock};

use super::Host;

/// The program, built now if it is not: it is of another package, so a test run of one file would find the
/// one of yesterday.
pub fn binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args([
                "build",
                "--quiet",
                "--package",
                "stead-probe",
                "--message-format=json",
            ])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(output.status.success(), "the probe is built: {output:?}");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let program = text
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        program.unwrap_or_else(|| panic!("cargo names the probe: {text}"))
    });
    built.clone()
}

impl Host {
    /// A root file system of busybox and the probe that nobody else uses: `change` may do to it what it likes.
    /// Gives the `image:` of it.
    pub fn probed(&self, name: &str, change: impl FnOnce(&std::path::Path)) -> String {
        let image = self.busybox();
        let from = image
            .strip_prefix("rootfs:")
            .expect("a root file system")
            .to_owned();
        let to = self.root.join(name);
        self.tool("cp", &["-a", &from, &to.display().to_string()]);
        fs::copy(binary(), to.join("bin/probe")).expect("the probe");
        for applet in [
            "ls", "ln", "mkdir", "mv", "rm", "readlink", "stat", "mount", "kill", "wc", "head", "mkfifo",
        ] {
            symlink("busybox", to.join("bin").join(applet)).expect("an applet");
        }
        change(&to);
        format!("rootfs:{}", to.display())
    }
}
