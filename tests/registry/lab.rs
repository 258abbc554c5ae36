//! Images for registries that do not behave.

use std::{fs, path::Path};

use serde_json::json;

use crate::{
    host::{
        Host,
        registries::{Request, Server, Shelf, shelved},
    },
    images,
};

/// The tests' own image under `app/TAG`, with more layers (tar streams) on top. `place` makes it another image.
pub fn shelf(host: &Host, tag: &str, place: &Path, more: &[Vec<u8>]) -> Shelf {
    let (layer, config) = images::image(host, place);
    let layers = [&[layer], more].concat();
    let mut config: serde_json::Value = serde_json::from_slice(&config).expect("its configuration");
    let diff_ids: Vec<String> = layers.iter().map(|layer| images::digest(layer)).collect();
    config["rootfs"]["diff_ids"] = json!(diff_ids);
    let config = config.to_string().into_bytes();
    let descriptor = |bytes: &[u8]| json!({ "digest": images::digest(bytes), "size": bytes.len() });
    let manifest = json!({
        "schemaVersion": 2,
        "config": descriptor(&config),
        "layers": layers.iter().map(|layer| descriptor(layer)).collect::<Vec<_>>(),
    });
    let mut shelf = Shelf::new();
    shelf.insert(format!("app/manifests/{tag}"), manifest.to_string().into_bytes());
    for blob in layers.into_iter().chain([config]) {
        shelf.insert(format!("app/blobs/{}", images::digest(&blob)), blob);
    }
    shelf
}

/// On the loopback of the test's host.
pub fn answering(host: &Host, answer: impl Fn(&Request) -> Vec<u8> + Send + Sync + 'static) -> Server {
    host.network.on_host(|| Server::answering(answer))
}

pub fn registry(host: &Host, shelf: Shelf) -> Server {
    answering(host, move |asked| shelved(&shelf, asked))
}

/// These may be asked without TLS.
pub fn trust(host: &Host, addresses: &[String]) {
    let lines = addresses
        .iter()
        .map(|address| format!("\"{address}\": {{ insecure: true }}\n"));
    fs::write(host.root.join("registries.yaml"), lines.collect::<String>()).expect("a file");
}

/// A tar stream of a directory that the test has filled.
pub fn packed(host: &Host, directory: &Path) -> Vec<u8> {
    host.tool_bytes("tar", &["-C", &directory.display().to_string(), "-c", "."])
}
