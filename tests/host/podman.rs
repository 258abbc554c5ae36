//! podman(1) with a storage of its own below the root of a test, so that nothing of it is left.

use std::{fs, path::PathBuf};

use super::Host;

/// Believes every image, and knows nothing of what the machine's own podman has.
pub struct Podman<'h> {
    host: &'h Host,
    directory: PathBuf,
}

impl<'h> Podman<'h> {
    pub fn new(host: &'h Host) -> Self {
        let directory = host.directory("podman");
        let policy = host.directory("podman/.config/containers").join("policy.json");
        fs::write(policy, r#"{"default":[{"type":"insecureAcceptAnything"}]}"#).expect("a policy");
        Podman { host, directory }
    }

    /// Of a file beside its storage.
    pub fn path(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// What it says.
    pub fn run(&self, arguments: &[&str]) -> String {
        let (home, root, runroot) = (self.path(""), self.path("root"), self.path("runroot"));
        let own = [
            "--root",
            &root,
            "--runroot",
            &runroot,
            "--storage-driver",
            "vfs",
            "--cgroup-manager",
            "cgroupfs",
        ];
        // Its locks lie in places that belong to the machine.
        let apart = "mount -t tmpfs none /dev/shm && mount -t tmpfs none /run && HOME=$0 exec podman \"$@\"";
        let unshare = ["--mount", "sh", "-c", apart, &home];
        self.host
            .tool("unshare", &[&unshare[..], &own, arguments].concat())
    }
}
