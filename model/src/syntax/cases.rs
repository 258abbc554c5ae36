//! The short forms of ports and volumes against the reference loader, where its cases are at hand.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::{port, volume};

/// The rows of a kind; none if there are no cases beside the checkout.
fn rows(kind: &str) -> Vec<Value> {
    let beside = |directory: &Path| directory.join("shared/compose-cases/cases.jsonl");
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(beside)
        .find(|file| file.exists());
    let file = std::env::var_os("STEAD_COMPOSE_CASES")
        .map(|directory| Path::new(&directory).join("cases.jsonl"))
        .or(file);
    let Some(file) = file else {
        eprintln!("no compose cases beside the checkout");
        return Vec::new();
    };
    let rows: Vec<Value> = fs::read_to_string(file)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|row: &Value| row["kind"] == kind)
        .collect();
    assert!(!rows.is_empty(), "{kind}");
    rows
}

#[test]
fn every_port_of_the_reference_agrees() {
    for row in rows("port") {
        let text = row["inputs"][0].as_str().unwrap();
        let ports = port::parse(text, usize::MAX).ok().map(|ports| {
            let fields = |port: port::Port| {
                let mut fields = json!({
                    "mode": "ingress",
                    "target": port.target,
                    "protocol": port.protocol,
                });
                if let Some(published) = port.published {
                    fields["published"] = published.into();
                }
                if let Some(host_ip) = port.host_ip {
                    fields["hostip"] = host_ip.into();
                }
                fields
            };
            Value::from(ports.into_iter().map(fields).collect::<Vec<_>>())
        });
        assert_eq!(ports.is_some(), row["expect"] == "ok", "{row}");
        assert_eq!(ports.unwrap_or_default(), row["want"], "{row}");
    }
}

#[test]
fn every_volume_of_the_reference_agrees() {
    for row in rows("volume") {
        let text = row["inputs"][0].as_str().unwrap();
        assert_eq!(
            row["expect"], "error",
            "a row that this test cannot compare yet: {row}"
        );
        assert!(volume::parse(text).is_err(), "{row}");
    }
}
