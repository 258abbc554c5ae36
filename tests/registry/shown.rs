//! How far a pull is, for who waits for it.

use std::fs;

use super::{kills::throttled, lab};
use crate::{host::Host, images};

#[test]
fn who_applies_a_project_sees_how_far_its_images_are() {
    let Some(mut host) = Host::new("registry-shown") else {
        return;
    };
    let directory = host.directory("large");
    let script = format!("head -c 40000000 /dev/urandom > {}/large", directory.display());
    host.tool("sh", &["-c", &script]);
    let large = lab::packed(&host, &directory);
    let digest = images::digest(&large);
    let shelf = lab::shelf(&host, "1", &directory, &[large]);
    let (server, _) = throttled(&host, shelf, &digest);
    lab::trust(&host, &[server.address.to_string()]);
    host.start_agent();
    let image = format!("{}/app:1", server.address);
    let manifest = host.directory("elsewhere").join("shop.yaml");
    fs::write(
        &manifest,
        format!("services: {{ web: {{ image: \"{image}\" }} }}\n"),
    )
    .expect("a manifest");
    let applied = host.stead(&["apply", "-f", &manifest.display().to_string()]);
    assert_eq!(applied.code, 0, "{applied:?}");
    let told: Vec<&str> = applied
        .stderr
        .lines()
        .filter(|line| line.starts_with("pulling"))
        .collect();
    assert!(told.len() >= 3, "{applied:?}");
    for line in &told {
        assert!(
            line.starts_with(&format!("pulling {image}: ")) && line.contains(" % ("),
            "{line}"
        );
    }
    assert!(
        !applied.stderr.contains('\x1b'),
        "no bars but on a terminal: {applied:?}"
    );
    host.finish();
}
