//! What somebody breaks by hand is put back, and no process notices.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::host::{HOST, Host, LOOPBACK, PATIENCE, Place};

const SHOP: &str = r#"services:
  web: { image: builtin:hello, ports: ["18500:8080"] }
  asker: { image: builtin:hello, ports: ["18501:8080"] }
"#;

/// Long enough for a debug build; the promise is 2 s.
const REPAIR: Duration = Duration::from_secs(2);

/// From outside, from the host by loopback, and from service to service by name.
fn works(host: &Host) -> Option<()> {
    host.get(Place::Lan, HOST, 18500, "/healthz").ok()?;
    host.get(Place::Host, LOOPBACK, 18500, "/healthz").ok()?;
    host.get(Place::Lan, HOST, 18501, "/call/web").ok().map(drop)
}

fn prepared(name: &str) -> Option<Host> {
    let mut host = Host::new(name)?;
    host.start_agent();
    host.write_manifest("shop", SHOP);
    host.converged("shop");
    host.wait("everything works", PATIENCE, || works(&host));
    Some(host)
}

fn repaired(host: &Host, what: &str, break_it: impl FnOnce()) {
    let before = host.identities("shop");
    break_it();
    let start = Instant::now();
    host.wait(&format!("everything works again after: {what}"), REPAIR, || {
        works(host)
    });
    eprintln!("{what}: repaired within {:?}", start.elapsed());
    host.nothing_to_do(PATIENCE);
    assert_eq!(host.identities("shop"), before, "{what} restarted something");
}

fn link(host: &Host, prefix: &str) -> String {
    let prefix = format!("{prefix}{}", host.mark());
    let links = host.links();
    links
        .iter()
        .find(|name| name.starts_with(&prefix))
        .unwrap_or_else(|| panic!("no {prefix}… in {links:?}"))
        .clone()
}

#[test]
fn a_deleted_bridge_comes_back() {
    let Some(host) = prepared("repair-bridge") else {
        return;
    };
    let bridge = link(&host, "stb");
    repaired(&host, "ip link del of the bridge", || {
        host.tool("ip", &["link", "del", &bridge]);
    });
    host.finish();
}

#[test]
fn a_deleted_veth_comes_back() {
    let Some(host) = prepared("repair-veth") else {
        return;
    };
    for round in 0..3 {
        let veth = link(&host, "stv");
        repaired(&host, &format!("ip link del of a veth, round {round}"), || {
            host.tool("ip", &["link", "del", &veth]);
        });
    }
    host.finish();
}

#[test]
fn a_bridge_taken_down_comes_up() {
    let Some(host) = prepared("repair-down") else {
        return;
    };
    let bridge = link(&host, "stb");
    repaired(&host, "ip link set of the bridge down", || {
        host.tool("ip", &["link", "set", &bridge, "down"]);
    });
    host.finish();
}

#[test]
fn a_ruleset_flushed_while_no_agent_ran_is_there_after_its_start() {
    let Some(mut host) = prepared("repair-flush") else {
        return;
    };
    let before = host.identities("shop");
    host.kill_agent();
    host.tool("nft", &["flush", "ruleset"]);
    assert!(
        host.get(Place::Lan, HOST, 18500, "/healthz").is_err(),
        "the port is gone with the rules"
    );
    host.spawn_agent(Host::binary());
    host.wait("everything works again after a flush", REPAIR, || works(&host));
    host.nothing_to_do(PATIENCE);
    assert_eq!(host.identities("shop"), before);
    host.finish();
}

#[test]
fn an_element_removed_from_our_table_comes_back_or_cannot_be_removed() {
    let Some(host) = prepared("repair-element") else {
        return;
    };
    let elements = elements(&host);
    assert!(!elements.is_empty(), "published ports are map elements");
    for element in elements {
        let name = element["name"].to_string();
        let command = json!({ "nftables": [{ "delete": { "element": element } }] }).to_string();
        let file = host.root.join("delete.json");
        std::fs::write(&file, command).expect("a file");
        repaired(&host, &format!("nft delete element of {name}"), || {
            let reply = host.tool_reply("nft", &["-j", "-f", &file.display().to_string()]);
            // Where the kernel has owned tables that persist (6.9), nobody but the agent can.
            assert!(
                reply.code == 0
                    || reply.stderr.contains("not permitted")
                    || reply.stdout.contains("not permitted"),
                "{reply:?}"
            );
        });
    }
    host.finish();
}

/// Each element of each set and map of our `inet` table, as `nft -j` deletes it.
fn elements(host: &Host) -> Vec<Value> {
    let text = host.tool("nft", &["-j", "list", "table", "inet", &host.table()]);
    let ruleset: Value = serde_json::from_str(&text).expect("JSON of nft");
    let mut found = Vec::new();
    for object in ruleset["nftables"].as_array().into_iter().flatten() {
        let Some(set) = object.get("map").or_else(|| object.get("set")) else {
            continue;
        };
        for element in set["elem"].as_array().into_iter().flatten() {
            found.push(
                json!({ "family": "inet", "table": host.table(), "name": set["name"], "elem": [element] }),
            );
        }
    }
    found
}
