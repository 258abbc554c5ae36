//! Writes small OCI image layouts, for tests.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::config::{Digest, REF_NAME, architecture};

/// One member of a layer. Owner root unless said otherwise.
#[derive(Debug, Clone)]
pub struct File {
    pub path: String,
    pub kind: EntryType,
    pub content: Vec<u8>,
    /// Target of a symbolic or hard link.
    pub link: String,
    pub mode: u32,
    pub owner: (u64, u64),
}

impl File {
    pub fn new(path: &str, mode: u32, content: impl Into<Vec<u8>>) -> Self {
        Self::of(EntryType::Regular, path, "", mode, content.into())
    }

    pub fn directory(path: &str, mode: u32) -> Self {
        Self::of(EntryType::Directory, path, "", mode, Vec::new())
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self::of(EntryType::Symlink, path, target, 0o777, Vec::new())
    }

    pub fn hard_link(path: &str, target: &str) -> Self {
        Self::of(EntryType::Link, path, target, 0o644, Vec::new())
    }

    pub fn of(kind: EntryType, path: &str, link: &str, mode: u32, content: Vec<u8>) -> Self {
        File {
            path: path.to_owned(),
            kind,
            content,
            link: link.to_owned(),
            mode,
            owner: (0, 0),
        }
    }

    /// The header, with path and link as they are: nothing is cleaned.
    pub fn header(&self) -> Header {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..self.path.len()].copy_from_slice(self.path.as_bytes());
        old.linkname[..self.link.len()].copy_from_slice(self.link.as_bytes());
        header.set_entry_type(self.kind);
        header.set_mode(self.mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(1_700_000_000);
        header.set_size(self.content.len() as u64);
        header.set_cksum();
        header
    }
}

/// The tar stream of a layer.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn layer(files: &[File]) -> io::Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for file in files {
        builder.append(&file.header(), file.content.as_slice())?;
    }
    builder.into_inner()
}

/// gzip, as most images have it.
///
/// # Errors
/// None in practice: it is written to memory.
pub fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Writes an OCI layout with one image, tagged `latest`, at `dir`. `layers`: bottom first. `config`: the
/// object `config` of the image configuration (`{"Cmd": ["/bin/sh"]}`). Returns the image's digest.
///
/// # Errors
/// The directory cannot be written.
pub fn oci(dir: &Path, layers: &[Vec<File>], config: &Value) -> io::Result<String> {
    let tars = layers
        .iter()
        .map(|files| layer(files))
        .collect::<io::Result<Vec<_>>>()?;
    oci_of(dir, &tars, config)
}

/// As [`oci`], with tar streams as they are.
///
/// # Errors
/// The directory cannot be written.
pub fn oci_of(dir: &Path, tars: &[Vec<u8>], config: &Value) -> io::Result<String> {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let write = |bytes: &[u8], media_type: &str| -> io::Result<Value> {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes)?;
        Ok(json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()}))
    };
    let (mut descriptors, mut diff_ids) = (Vec::new(), Vec::new());
    for tar in tars {
        diff_ids.push(Digest::of(tar).to_string());
        descriptors.push(write(&gzip(tar)?, "application/vnd.oci.image.layer.v1.tar+gzip")?);
    }
    let config = json!({
        "os": "linux",
        "architecture": architecture(),
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = write(
        config.to_string().as_bytes(),
        "application/vnd.oci.image.config.v1+json",
    )?;
    let digest = config["digest"].as_str().unwrap_or_default().to_owned();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": descriptors,
    });
    let mut manifest = write(
        manifest.to_string().as_bytes(),
        "application/vnd.oci.image.manifest.v1+json",
    )?;
    manifest["annotations"] = json!({REF_NAME: "latest"});
    fs::write(
        dir.join("oci-layout"),
        json!({"imageLayoutVersion": "1.0.0"}).to_string(),
    )?;
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(dir.join("index.json"), index.to_string())?;
    Ok(digest)
}

/// An OCI layout of one layer around a static busybox of this host: `/bin/busybox`, its applets as links,
/// `/etc/passwd`, `/tmp`. `None`: this host has no static busybox. Otherwise the image's digest.
///
/// # Errors
/// The directory cannot be written.
pub fn busybox_oci(dir: &Path, config: &Value) -> io::Result<Option<String>> {
    let Some(busybox) = ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .find_map(|path| fs::read(path).ok())
    else {
        return Ok(None);
    };
    let mut files = vec![
        File::directory("bin/", 0o755),
        File::new("bin/busybox", 0o755, busybox),
        File::directory("etc/", 0o755),
        File::new(
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
        ),
        File::new("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
        File::directory("tmp/", 0o1777),
    ];
    for applet in [
        "sh", "ls", "cat", "echo", "sleep", "id", "env", "nc", "wget", "nslookup", "ip", "ping", "kill",
        "mount", "touch", "sync", "true", "false",
    ] {
        files.push(File::symlink(&format!("bin/{applet}"), "busybox"));
    }
    oci(dir, &[files], config).map(Some)
}
