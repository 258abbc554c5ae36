//! Images from files run as their configuration says, and a wrong digest is refused.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags},
        signal::Signal,
    },
};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::host::{Host, LOOPBACK, PATIENCE, Place, compose, promised, signal};

const SHELL: &[&str] = &["sh", "-c"];

pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// The layer (an uncompressed tar) and the configuration of an image that says where it comes from. Another
/// place makes it another image with the same layer.
pub fn image(host: &Host, place: &Path) -> (Vec<u8>, Vec<u8>) {
    image_that(host, place, SHELL)
}

/// The same with another entrypoint.
fn image_that(host: &Host, place: &Path, entrypoint: &[&str]) -> (Vec<u8>, Vec<u8>) {
    host.busybox();
    let layer = host.tool_bytes(
        "tar",
        &["-C", &host.root.join("busybox").display().to_string(), "-c", "."],
    );
    let architecture = if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "amd64"
    };
    let config = json!({
        "architecture": architecture,
        "os": "linux",
        "config": {
            "Env": ["PATH=/bin", "WORD=from-the-image", format!("PLACE={}", place.display())],
            "User": "app",
            "WorkingDir": "/etc",
            "Entrypoint": entrypoint,
            "Cmd": ["echo $WORD $(id -u) $(pwd); exec sleep 1000000"],
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    });
    (layer, config.to_string().into_bytes())
}

/// image-spec, image-layout.md
pub fn oci_layout(host: &Host, directory: &Path) -> PathBuf {
    write_layout(directory, image(host, directory))
}

fn write_layout(directory: &Path, (layer, config): (Vec<u8>, Vec<u8>)) -> PathBuf {
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("a directory");
    let blob = |bytes: &[u8], kind: &str| {
        let digest = digest(bytes);
        fs::write(blobs.join(&digest["sha256:".len()..]), bytes).expect("a blob");
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"), "digest": digest, "size": bytes.len() })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(&config, "config.v1+json"),
        "layers": [blob(&layer, "layer.v1.tar")],
    });
    let mut manifest = blob(manifest.to_string().as_bytes(), "manifest.v1+json");
    manifest["annotations"] = json!({ "org.opencontainers.image.ref.name": "one" });
    let index = json!({ "schemaVersion": 2, "manifests": [manifest] });
    fs::write(directory.join("index.json"), index.to_string()).expect("the index");
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("the layout");
    blobs.join(&digest(&layer)["sha256:".len()..])
}

/// The directory of a layout of its own: an image that is like no other one, of the same layer.
pub fn layout(host: &Host, name: &str) -> PathBuf {
    let directory = host.directory(name);
    oci_layout(host, &directory);
    directory
}

/// The same for one that runs something else.
pub fn layout_that(host: &Host, name: &str, entrypoint: &[&str]) -> PathBuf {
    let directory = host.directory(name);
    write_layout(&directory, image_that(host, &directory, entrypoint));
    directory
}

/// What the image says when it runs as a service.
pub fn says(host: &Host, project: &str, service: &str) {
    host.wait(&format!("{service} says what its image says"), PATIENCE, || {
        let logs = host.stead(&["logs", project, service]).stdout;
        logs.contains("from-the-image 1000 /etc").then_some(())
    });
}

/// Which of them a service runs.
pub fn place(host: &Host, project: &str, service: &str) -> String {
    let service = format!("{project}/{service}");
    let said = host.stead_ok(&["exec", &service, "--", "sh", "-c", "echo $PLACE"]);
    said.trim().to_owned()
}

/// What `docker save` writes.
pub fn docker_archive(host: &Host, archive: &Path) {
    let directory = host.directory("docker");
    let (layer, config) = image(host, &directory);
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["box:1"], "Layers": ["layer.tar"] }]);
    fs::write(directory.join("layer.tar"), layer).expect("the layer");
    fs::write(directory.join("config.json"), config).expect("the configuration");
    fs::write(directory.join("manifest.json"), manifest.to_string()).expect("the manifest");
    pack(host, &directory, archive);
}

fn pack(host: &Host, directory: &Path, archive: &Path) {
    let (directory, archive) = (directory.display().to_string(), archive.display().to_string());
    host.tool("tar", &["-C", &directory, "-cf", &archive, "."]);
}

#[test]
fn images_from_files_run_as_they_say() {
    let Some(mut host) = Host::new("images") else {
        return;
    };
    let [layout, archived] = ["layout", "archived"].map(|name| self::layout(&host, name));
    let (oci, docker) = (host.root.join("oci.tar"), host.root.join("docker.tar"));
    pack(&host, &archived, &oci);
    docker_archive(&host, &docker);
    host.start_agent();
    let references = [
        ("layout", format!("oci:{}:one", layout.display())),
        ("archive", format!("oci-archive:{}", oci.display())),
        ("docker", format!("docker-archive:{}:box:1", docker.display())),
    ];
    let mut text = String::from("services:\n");
    for (service, reference) in &references {
        text.push_str(&format!("  {service}: {{ image: \"{reference}\" }}\n"));
    }
    host.change("case", &text);
    for (service, _) in &references {
        says(&host, "case", service);
    }
    host.finish();
}

/// Whoever reads one of these files waits, as on a registry that does not answer, until this is dropped.
fn stalled(files: &[&Path]) -> Fanotify {
    let stall = Fanotify::init(
        InitFlags::FAN_CLASS_CONTENT | InitFlags::FAN_CLOEXEC,
        EventFFlags::O_RDONLY,
    )
    .expect("fanotify");
    for file in files {
        let (add, reads) = (MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_ACCESS_PERM);
        stall.mark(add, reads, AT_FDCWD, Some(*file)).expect("a mark");
    }
    stall
}

#[test]
fn a_source_that_stalls_delays_nobody_else() {
    let Some(mut host) = Host::new("images-stall") else {
        return;
    };
    // One stalls when its tag is looked up, the others in the middle of being pulled.
    let (unknown, large, larger) = (
        host.directory("unknown"),
        host.directory("large"),
        host.directory("larger"),
    );
    oci_layout(&host, &unknown);
    let layers = [oci_layout(&host, &large), oci_layout(&host, &larger)];
    let stall = stalled(&[&unknown.join("index.json"), &layers[0], &layers[1]]);
    host.start_agent();
    let shop = |colour: &str| {
        format!(
            "services:\n  web: {{ {}, restart: always, environment: {{ COLOUR: {colour} }} }}\n",
            compose::web(18950)
        )
    };
    let box_of = |directory: &Path| {
        format!(
            "services: {{ box: {{ image: \"oci:{}:one\" }} }}\n",
            directory.display()
        )
    };
    for (project, directory) in [("unknown", &unknown), ("large", &large), ("larger", &larger)] {
        host.write_manifest(project, &box_of(directory));
    }
    host.wait("two images are being unpacked", PATIENCE, || {
        let told = |project| {
            host.stead(&["why", project])
                .stdout
                .contains("the unpacking goes on")
        };
        (told("large") && told("larger")).then_some(())
    });
    // Another project comes all the same, is edited, crashes, and is repaired.
    host.change("shop", &shop("red"));
    host.change("shop", &shop("blue"));
    let links = host.links();
    let bridges: Vec<&String> = links.iter().filter(|link| link.starts_with("stb")).collect();
    let web = host.running("shop", "web");
    signal(web.pid(), Signal::SIGKILL);
    host.wait("web is back", promised(Duration::from_millis(1100)), || {
        host.instance("shop", "web")
            .filter(|now| now.state == "running" && now.pid != web.pid)
    });
    let before = host.running("shop", "web").identity();
    for bridge in &bridges {
        host.tool("ip", &["link", "del", bridge]);
    }
    host.wait("its bridge is back", promised(Duration::from_secs(1)), || {
        host.get(Place::Host, LOOPBACK, 18950, "/env/COLOUR").ok()
    });
    assert_eq!(host.running("shop", "web").identity(), before);
    // What waits says so, and goes on by itself.
    for project in ["unknown", "large", "larger"] {
        // A step that met a bridge in the moment of its going has failed, until its next attempt.
        host.wait(&format!("{project} is being worked on"), PATIENCE, || {
            let status = host.project_status(project)?;
            (status["state"] == "working").then_some(())
        });
        assert!(host.instance(project, "box").is_none_or(|one| one.pid.is_none()));
    }
    drop(stall);
    for project in ["unknown", "large", "larger"] {
        host.running(project, "box");
    }
    host.finish();
}

#[test]
fn a_layer_that_is_not_what_its_digest_says_is_refused() {
    let Some(mut host) = Host::new("images-digest") else {
        return;
    };
    let layout = host.directory("layout");
    let layer = oci_layout(&host, &layout);
    let mut bytes = fs::read(&layer).expect("the layer");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&layer, bytes).expect("the layer");
    host.start_agent();
    host.write_manifest(
        "case",
        &format!("services: {{ box: {{ image: \"oci:{}\" }} }}\n", layout.display()),
    );
    let name = layer
        .file_name()
        .expect("its name")
        .to_string_lossy()
        .into_owned();
    host.wait("the digest is named", PATIENCE, || {
        host.complaint("case").contains(&name[..12]).then_some(())
    });
    assert!(
        host.instance("case", "box")
            .is_none_or(|instance| instance.state != "running")
    );
    host.finish();
}
