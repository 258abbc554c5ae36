//! `builtin:hello`: an image like any other, whose only layer is made from the running executable.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown},
    path::Path,
};

use reconciler::observed::{ImageConfig, ImageHealthcheck};

use super::layer::{LayerError, publish};

/// Changes only with what the image does, never with the build: an upgrade of stead keeps the stored
/// layer and restarts no service that uses it. (SHA-256 of `stead builtin:hello 1`.)
pub const DIGEST: &str = "sha256:dbc27c5c57cf2f3c16fdeef2669e01c9ca75b4df8e861098286ddd3a59a2bf58";

/// The unprivileged user of the image, who owns /data.
const HELLO: u32 = 1000;

pub(super) fn config() -> ImageConfig {
    let text = |text: &str| text.to_owned();
    ImageConfig {
        environment: [("DATA", "/data"), ("PATH", "/bin"), ("PORT", "8080")]
            .map(|(name, value)| (text(name), text(value)))
            .into(),
        entrypoint: vec![text("/bin/hello")],
        working_dir: text("/"),
        healthcheck: Some(ImageHealthcheck {
            test: ["CMD", "/bin/hello", "--probe", "http://127.0.0.1:8080/healthz"]
                .map(text)
                .into(),
            interval: 1000,
            ..ImageHealthcheck::default()
        }),
        ..ImageConfig::default()
    }
}

/// Makes the layer at `target`, once.
pub(super) fn unpack(target: &Path) -> Result<(), LayerError> {
    publish(target, |new| {
        fill(new).map_err(|source| LayerError::Store {
            path: target.to_owned(),
            source,
        })
    })
}

fn fill(new: &Path) -> io::Result<()> {
    fs::set_permissions(new, fs::Permissions::from_mode(0o755))?;
    for (name, mode) in [
        ("bin", 0o755),
        ("data", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("proc", 0o755),
        ("sys", 0o755),
        ("tmp", 0o1777),
    ] {
        let path = new.join(name);
        DirBuilder::new().mode(0o700).create(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
    }
    chown(new.join("data"), Some(HELLO), Some(HELLO))?;
    fs::write(
        new.join("etc/passwd"),
        "root:x:0:0:root:/:/bin/hello\nhello:x:1000:1000:hello:/:/bin/hello\n",
    )?;
    fs::write(new.join("etc/group"), "root:x:0:\nhello:x:1000:\n")?;
    for file in ["etc/passwd", "etc/group"] {
        fs::set_permissions(new.join(file), fs::Permissions::from_mode(0o644))?;
    }
    // What runs now, also when the file it came from has been replaced meanwhile.
    let mut executable = File::open("/proc/self/exe")?;
    let mut copy = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(new.join("bin/hello"))?;
    io::copy(&mut executable, &mut copy)?;
    copy.set_permissions(fs::Permissions::from_mode(0o755))
}
