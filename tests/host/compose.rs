//! What the manifests of the tests are made of.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use super::Host;

/// A service of the demonstration image that publishes its port.
pub fn web(port: u16) -> String {
    format!("image: builtin:hello, ports: [\"{port}:8080\"]")
}

/// A service with everything that can be broken: a volume, a bind of `given` beside its manifest, a tmpfs,
/// limits. Its project declares the volume `data`.
pub fn furnished(port: u16) -> String {
    format!(
        "{}, restart: always, volumes: [\"data:/data\", \"./given:/given\"], tmpfs: [/scratch], \
         mem_limit: 256m, cpus: 1.5, pids_limit: 200",
        web(port)
    )
}

impl Host {
    /// A root file system with nothing but a static busybox and the users `root` and `app` (1000).
    /// Gives the `image:` of it.
    pub fn busybox(&self) -> String {
        let root = self.root.join("busybox");
        if !root.exists() {
            for directory in ["bin", "etc", "tmp", "out", "proc", "sys", "dev"] {
                fs::create_dir_all(root.join(directory)).expect("a directory of the image");
            }
            fs::copy(busybox_binary(), root.join("bin/busybox")).expect("busybox");
            for applet in [
                "sh", "cat", "date", "echo", "env", "grep", "id", "ip", "nc", "nslookup", "pwd", "sleep",
                "su", "touch", "true", "usleep", "wget",
            ] {
                symlink("busybox", root.join("bin").join(applet)).expect("an applet");
            }
            fs::write(
                root.join("etc/passwd"),
                "root:x:0:0::/:/bin/sh\napp:x:1000:1000::/:/bin/sh\n",
            )
            .expect("users");
            fs::write(root.join("etc/group"), "root:x:0:\napp:x:1000:\n").expect("groups");
        }
        format!("rootfs:{}", root.display())
    }

    /// A directory for a bind mount.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.root.join(name);
        fs::create_dir_all(&path).expect("a directory");
        path
    }
}

fn busybox_binary() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("busybox-static is installed")
}
