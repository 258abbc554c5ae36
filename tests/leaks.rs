//! What a project leaves behind: its volumes, and nothing else.

use crate::host::{Host, LOOPBACK, PATIENCE, Place};

const SHOP: &str = r#"services:
  web: { image: builtin:hello, ports: ["18900:8080", "18900:8080/udp"], volumes: ["data:/data"], networks: [front, back] }
  api: { image: builtin:hello, networks: [back] }
networks: { front: , back: }
volumes: { data: }
"#;

#[test]
fn down_leaves_the_volume_and_nothing_else() {
    let Some(mut host) = Host::new("leaks-down") else {
        return;
    };
    host.start_agent();
    host.write_manifest("shop", SHOP);
    host.converged("shop");
    host.stead_ok(&["down", "shop"]);
    assert!(host.services().is_empty(), "down waits until all is gone");
    assert!(
        !host.manifest("shop").exists(),
        "the manifest was the instance's own"
    );
    assert!(host.root.join("state/volumes/shop_data").exists());
    host.stop_agent();
    host.wait("nothing carries the mark", PATIENCE, || {
        host.leaks().is_empty().then_some(())
    });
    host.finish();
}

#[test]
fn down_with_volumes_takes_them_too() {
    let Some(mut host) = Host::new("leaks-volumes") else {
        return;
    };
    host.start_agent();
    host.write_manifest("shop", SHOP);
    host.converged("shop");
    host.stead_ok(&["down", "shop", "--volumes"]);
    assert!(!host.root.join("state/volumes/shop_data").exists());
    host.finish();
}

/// The foreign half of the host stays as it is, byte for byte.
#[test]
fn what_is_not_ours_is_not_touched() {
    let Some(mut host) = Host::new("leaks-foreign") else {
        return;
    };
    host.tool("nft", &["add", "table", "inet", "theirs"]);
    host.tool(
        "nft",
        &[
            "add",
            "chain",
            "inet",
            "theirs",
            "c",
            "{ type filter hook input priority 0; }",
        ],
    );
    host.tool("ip", &["link", "add", "theirs0", "type", "bridge"]);
    host.start_agent();
    host.write_manifest("shop", SHOP);
    host.converged("shop");
    host.fetch(Place::Host, LOOPBACK, 18900, "/");
    host.stead_ok(&["down", "shop"]);
    host.stop_agent();
    assert!(host.tool("nft", &["list", "tables"]).contains("theirs"));
    assert!(host.links().contains(&"theirs0".to_owned()));
    host.tool("nft", &["delete", "table", "inet", "theirs"]);
    host.tool("ip", &["link", "del", "theirs0"]);
    host.finish();
}

#[test]
fn an_agent_killed_while_it_works_leaves_nothing_that_the_next_cannot_finish() {
    let Some(mut host) = Host::new("leaks-killed") else {
        return;
    };
    host.spawn_agent(Host::binary());
    for round in 0..6 {
        host.write_manifest("shop", SHOP);
        // Anywhere on the way: the sooner the round, the earlier the moment.
        host.wait("some of it is there", PATIENCE, || {
            (host.links().len() >= round.min(4)).then_some(())
        });
        host.kill_agent();
        host.remove_manifest("shop");
        host.start_agent();
        host.gone("shop");
    }
    host.finish();
}
