//! Images as tools make and push them: skopeo, umoci and podman, to Debian's docker-registry.

use std::{fs, path::Path};

use serde_json::json;

use super::{ADDRESS, Registry};
use crate::{
    host::{Host, podman::Podman},
    images::{self, layout, place, says},
};

/// What the tests' own image is told to run, and what it says then.
const SAYS: [&str; 3] = ["sh", "-c", "echo $WORD $(id -u) $(pwd); exec sleep 1000000"];

/// From the root file system of the tests' own image, by umoci(1).
fn by_umoci(host: &Host, registry: &Registry, rootfs: &Path) {
    let place = host.directory("umoci");
    let at = |name: &str| place.join(name).display().to_string();
    let (layout, base, one, bundle) = (at("layout"), at("layout:base"), at("layout:one"), at("bundle"));
    host.tool("umoci", &["init", "--layout", &layout]);
    host.tool("umoci", &["new", "--image", &base]);
    host.tool("umoci", &["unpack", "--image", &base, &bundle]);
    host.tool(
        "cp",
        &["-a", &format!("{}/.", rootfs.display()), &at("bundle/rootfs")],
    );
    host.tool("umoci", &["repack", "--image", &one, &bundle]);
    let mut config = vec![
        "config",
        "--image",
        &one,
        "--config.user",
        "app",
        "--config.workingdir",
        "/etc",
    ];
    config.extend(["--config.env", "WORD=from-the-image", "--config.env", "PATH=/bin"]);
    config.extend(SAYS.iter().flat_map(|word| ["--config.cmd", word]));
    host.tool("umoci", &config);
    registry.push(host, Path::new(&layout), "umoci/box:1", &[]);
}

/// As [`by_umoci`], by podman(1), which pushes it by itself.
fn by_podman(host: &Host, rootfs: &Path) {
    let podman = Podman::new(host);
    let archive = podman.path("rootfs.tar");
    host.tool(
        "tar",
        &["-C", &rootfs.display().to_string(), "-cf", &archive, "."],
    );
    let command = format!("CMD {}", json!(SAYS));
    let changes = [
        &command,
        "USER app",
        "WORKDIR /etc",
        "ENV WORD=from-the-image",
        "ENV PATH=/bin",
    ];
    let changes: Vec<&str> = changes.iter().flat_map(|change| ["--change", change]).collect();
    let import = ["import", "--quiet"];
    podman.run(&[&import[..], &changes, &[&archive, "localhost/box:1"]].concat());
    for (format, name) in [("oci", "podman/oci:1"), ("v2s2", "podman/docker:1")] {
        let target = format!("docker://{ADDRESS}/{name}");
        let push = ["push", "--quiet", "--tls-verify=false", "--format", format];
        podman.run(&[&push[..], &["localhost/box:1", &target]].concat());
    }
}

/// The manifest of an image that is there.
fn manifest(host: &Host, name: &str, reference: &str) -> Vec<u8> {
    let accept = "Accept: application/vnd.oci.image.manifest.v1+json";
    host.network.on_host(|| {
        host.tool_bytes(
            "curl",
            &[
                "-sSf",
                "-H",
                accept,
                &format!("http://{ADDRESS}/v2/{name}/manifests/{reference}"),
            ],
        )
    })
}

/// An index of two images of one repository, the first of them for this host. Gives its digest.
fn index(host: &Host, name: &str) -> String {
    let (own, other) = match cfg!(target_arch = "aarch64") {
        true => ("arm64", "amd64"),
        false => ("amd64", "arm64"),
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let entry = |tag: &str, architecture: &str| {
        let bytes = manifest(host, name, tag);
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": images::digest(&bytes),
            "size": bytes.len(),
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let index = json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "manifests": [entry("other", other), entry("own", own)],
    });
    let file = host.root.join("index.json");
    fs::write(&file, index.to_string()).expect("a file");
    let body = format!("@{}", file.display());
    let url = format!("http://{ADDRESS}/v2/{name}/manifests/many");
    let content = format!("Content-Type: {kind}");
    host.tool(
        "curl",
        &["-sSf", "-X", "PUT", "-H", &content, "--data-binary", &body, &url],
    );
    images::digest(index.to_string().as_bytes())
}

#[test]
fn images_run_as_every_tool_makes_and_pushes_them() {
    let Some(mut host) = Host::new("registry-tools") else {
        return;
    };
    let [own, other] = ["own", "other"].map(|name| layout(&host, name));
    // A layer of its own: one that is there already is not sent once more in another form.
    let rootfs = host.root.join("busybox");
    fs::write(rootfs.join("etc/zstd"), "zstd").expect("a file");
    let zstd = layout(&host, "zstd");
    fs::remove_file(rootfs.join("etc/zstd")).expect("the file");
    let registry = Registry::plain(&host);
    registry.push(
        &host,
        &zstd,
        "skopeo/zstd:1",
        &["--format", "oci", "--dest-compress-format", "zstd"],
    );
    for (name, more) in [
        ("skopeo/oci:1", &["--format", "oci"][..]),
        ("skopeo/docker:1", &["--format", "v2s2"]),
        (
            "skopeo/best:1",
            &[
                "--format",
                "v2s2",
                "--dest-compress-format",
                "gzip",
                "--dest-compress-level",
                "9",
            ],
        ),
        ("many/box:own", &["--format", "oci"]),
    ] {
        registry.push(&host, &own, name, more);
    }
    registry.push(&host, &other, "many/box:other", &["--format", "oci"]);
    by_umoci(&host, &registry, &rootfs);
    by_podman(&host, &rootfs);
    let zstd = String::from_utf8(manifest(&host, "skopeo/zstd", "1")).expect("JSON");
    assert!(zstd.contains("tar+zstd"), "{zstd}");
    let many = index(&host, "many/box");
    host.start_agent();
    let services = [
        ("oci", "skopeo/oci:1".to_owned()),
        ("docker", "skopeo/docker:1".to_owned()),
        ("zstd", "skopeo/zstd:1".to_owned()),
        ("best", "skopeo/best:1".to_owned()),
        ("many", "many/box:many".to_owned()),
        ("pinned", format!("many/box@{many}")),
        ("both", format!("many/box:other@{many}")),
        ("umoci", "umoci/box:1".to_owned()),
        ("podman", "podman/oci:1".to_owned()),
        ("podman2", "podman/docker:1".to_owned()),
    ];
    let line =
        |(service, image): &(&str, String)| format!("  {service}: {{ image: \"{ADDRESS}/{image}\" }}\n");
    let lines: String = services.iter().map(line).collect();
    host.write_manifest("shop", &format!("services:\n{lines}"));
    host.converged("shop");
    for (service, _) in &services {
        says(&host, "shop", service);
    }
    // Of an index what is for this host, also by its digest.
    for service in ["many", "pinned", "both"] {
        assert_eq!(
            place(&host, "shop", service),
            own.display().to_string(),
            "{service}"
        );
    }
    host.finish();
}
