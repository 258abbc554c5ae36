//! Devices of vendors, from files to what a service has.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    load::{Loaded, Options, load},
    types::Edits,
};

const NET: &str = r#"{ "cdiVersion": "0.6.0", "kind": "vendor.com/net",
    "containerEdits": { "env": ["ANY=net"], "additionalGids": [7],
        "hooks": [{ "hookName": "createContainer", "path": "/usr/bin/vendor-hook" }] },
    "devices": [
        { "name": "one", "containerEdits": { "env": ["WHO=one"], "deviceNodes": [{ "path": "/dev/one" }] } },
        { "name": "two", "containerEdits": { "env": ["WHO=two"], "deviceNodes": [{ "path": "/dev/two" }] } },
        { "name": "moved", "containerEdits": { "netDevices": [{ "hostInterfaceName": "ib0", "name": "ib0" }] } }
    ] }"#;

const GPUS: &str = "cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
  - { name: '1', containerEdits: { deviceNodes: [{ path: /dev/nvidia1 }] } }
  - { name: '0', containerEdits: { deviceNodes: [{ path: /dev/nvidia0 }] } }
  - { name: GPU-abc, containerEdits: { deviceNodes: [{ path: /dev/nvidia0 }] } }
  - name: all
    containerEdits: { deviceNodes: [{ path: /dev/nvidia0, fileMode: 0o666 }, { path: /dev/nvidia1 }] }
";

const OTHER: &str = "cdiVersion: 0.5.0
kind: amd.com/gpu
devices: [{ name: '0', containerEdits: { deviceNodes: [{ path: /dev/kfd }] } }]
";

fn loaded(service: &str, files: &[(&str, &str)]) -> Loaded {
    let manifest = format!("name: p\nservices:\n  web:\n    image: builtin:hello\n    {service}\n");
    let mut sources: BTreeMap<PathBuf, Vec<u8>> = files
        .iter()
        .map(|(path, text)| (PathBuf::from(path), text.as_bytes().to_vec()))
        .collect();
    sources.insert("/p/compose.yaml".into(), manifest.into_bytes());
    let options = Options {
        directory: "/p".into(),
        ..Options::default()
    };
    load(&sources, &[PathBuf::from("/p/compose.yaml")], &options)
}

fn edits(service: &str, files: &[(&str, &str)]) -> Edits {
    let loaded = loaded(service, files);
    let project = loaded
        .project
        .unwrap_or_else(|| panic!("{service}: {:#?}", loaded.diagnostics));
    *project.services["web"].security.edits.clone().unwrap()
}

fn targets(edits: &Edits) -> Vec<&str> {
    edits
        .nodes
        .iter()
        .filter_map(|node| node.target.to_str())
        .collect()
}

#[test]
fn devices_are_found_by_name_and_by_what_they_can_do() {
    let files = [
        ("/etc/cdi/net.json", NET),
        ("/etc/cdi/nvidia.yaml", GPUS),
        ("/etc/cdi/amd.yml", OTHER),
        ("/etc/cdi/README", "nothing"),
    ];
    for (service, expected) in [
        ("devices: ['vendor.com/net=two']", &["/dev/two"][..]),
        (
            "devices: ['/dev/null', 'vendor.com/net=two', 'vendor.com/net=one']",
            &["/dev/two", "/dev/one"],
        ),
        ("gpus: all", &["/dev/nvidia0", "/dev/nvidia1"]),
        ("gpus: [{ count: 1 }]", &["/dev/nvidia0"]),
        ("gpus: [{ count: 2 }]", &["/dev/nvidia0", "/dev/nvidia1"]),
        ("gpus: [{ device_ids: [GPU-abc] }]", &["/dev/nvidia0"]),
        ("gpus: [{ device_ids: ['amd.com/gpu=0'] }]", &["/dev/kfd"]),
        ("gpus: [{ driver: amd, count: all }]", &["/dev/kfd"]),
        (
            "deploy: { resources: { reservations: { devices: [{ driver: cdi, device_ids: ['vendor.com/net=one'], capabilities: [gpu] }] } } }",
            &["/dev/one"],
        ),
        (
            "deploy: { resources: { reservations: { devices: [{ capabilities: [net], count: 2, driver: vendor.com }] } } }",
            &["/dev/one", "/dev/two"],
        ),
        (
            "deploy: { resources: { reservations: { devices: [{ driver: nvidia, count: 1, capabilities: [gpu, utility] }] } } }",
            &["/dev/nvidia0"],
        ),
    ] {
        // The third device of `net` cannot be had, and is not asked for by number.
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| (*path, text.replace("\"moved\"", "\"z\"")))
            .collect();
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        assert_eq!(targets(&edits(service, &files)), expected, "{service}");
    }
    let both = edits("devices: ['vendor.com/net=one', 'vendor.com/net=two']", &files);
    assert_eq!(both.environment["WHO"], "two", "the later one wins");
    assert_eq!(
        (both.environment["ANY"].as_str(), &both.groups[..]),
        ("net", &[7][..])
    );
    assert_eq!(both.hooks.len(), 1, "what comes with any of them comes once");
    let all = edits("gpus: all", &files);
    assert_eq!(all.nodes[0].like.mode, Some(0o666));
}

#[test]
fn a_later_directory_wins_and_equal_ones_do_not() {
    let other = NET.replace("/dev/two", "/dev/other");
    let wins = [
        ("/etc/cdi/net.json", NET),
        ("/var/run/cdi/x.json", other.as_str()),
    ];
    assert_eq!(
        targets(&edits("devices: ['vendor.com/net=two']", &wins)),
        ["/dev/other"]
    );
    let equal = [("/etc/cdi/net.json", NET), ("/etc/cdi/x.json", other.as_str())];
    told(
        "devices: ['vendor.com/net=two']",
        &equal,
        "stands in /etc/cdi/net.json and in /etc/cdi/x.json",
    );
}

fn told(service: &str, files: &[(&str, &str)], want: &str) {
    let loaded = loaded(service, files);
    assert!(loaded.project.is_none(), "{service}");
    let found: Vec<_> = loaded.diagnostics.iter().filter(|found| found.refusal).collect();
    let [found] = &found[..] else {
        panic!("{service}: {found:#?}")
    };
    assert!(found.message.contains(want), "{service}: {}", found.message);
    assert_eq!(found.span.line, 5, "{}", found.message);
}

#[test]
fn what_cannot_be_had_is_told_where_it_is_asked_for() {
    let net = ("/etc/cdi/net.json", NET);
    let searched = "no CDI file in /etc/cdi or /var/run/cdi describes";
    for (service, files, want) in [
        (
            "gpus: all",
            &[][..],
            &*format!("{searched} a device of `nvidia.com/gpu`"),
        ),
        (
            "gpus: all",
            &[net],
            &*format!("{searched} a device of `nvidia.com/gpu`"),
        ),
        (
            "devices: ['vendor.com/net=nine']",
            &[net],
            &*format!("{searched} `vendor.com/net=nine`"),
        ),
        (
            "devices: ['vendor.com/net=one']",
            &[("/etc/cdi/net.json", "{")],
            "/etc/cdi/net.json is none",
        ),
        (
            "devices: ['vendor.com/net=moved']",
            &[net],
            "it wants interfaces of the host (netDevices)",
        ),
        (
            "gpus: [{ count: 3 }]",
            &[("/etc/cdi/n.yaml", GPUS)],
            "this host has 2",
        ),
        (
            "gpus: [{ driver: cdi, count: 1 }]",
            &[("/etc/cdi/n.yaml", GPUS)],
            "takes devices by their names",
        ),
        (
            "gpus: all",
            &[
                ("/etc/cdi/a.yaml", OTHER),
                ("/etc/cdi/b.yaml", &*OTHER.replace("amd.com", "b.com")),
            ],
            "`amd.com/gpu` and `b.com/gpu` are all meant",
        ),
        ("devices: ['vendor.com=x']", &[net], "is not the path of a device"),
    ] {
        told(service, files, want);
    }
}

#[test]
fn the_directories_are_looked_at_only_for_who_asks_and_are_inputs_then() {
    let inputs = |service: &str| loaded(service, &[("/etc/cdi/net.json", NET)]).inputs;
    let with = inputs("devices: ['vendor.com/net=one']");
    for path in ["/etc/cdi", "/etc/cdi/net.json", "/var/run/cdi"] {
        assert!(with.contains(Path::new(path)), "{path}: {with:?}");
    }
    let without = inputs("devices: [/dev/null]");
    assert!(
        !without.iter().any(|path| path.starts_with("/etc")),
        "{without:?}"
    );
}
