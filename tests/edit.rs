//! An edit changes what it says and nothing else; what is done is what `plan` printed.

use crate::host::{Host, LOOPBACK, Place};

fn three(environment: &str, more: &str) -> String {
    format!(
        r#"services:
  web: {{ image: builtin:hello, ports: ["18100:8080"], environment: {{ {environment} }} }}
  api: {{ image: builtin:hello }}
  db: {{ image: builtin:hello }}
{more}"#
    )
}

#[test]
fn a_changed_environment_value_replaces_exactly_that_service() {
    let Some(mut host) = Host::new("edit-environment") else {
        return;
    };
    host.start_agent();
    host.change("shop", &three("COLOUR: red", ""));
    let before = host.identities("shop");
    assert_eq!(before.len(), 3);
    assert_eq!(
        host.fetch(Place::Host, LOOPBACK, 18100, "/env/COLOUR").trim(),
        "red"
    );

    let done = host.change("shop", &three("COLOUR: blue", ""));
    assert_eq!(done.len(), 1, "{done:?}");
    let (key, class, cause) = &done[0];
    assert_eq!(
        (key.as_str(), class.as_str()),
        ("container shop/web/1a", "restart")
    );
    assert!(
        cause.contains("environment.COLOUR: red -> blue at shop.yaml:2"),
        "{cause}"
    );

    let after = host.identities("shop");
    assert_eq!(
        host.fetch(Place::Host, LOOPBACK, 18100, "/env/COLOUR").trim(),
        "blue"
    );
    assert_ne!(before["web"].pid, after["web"].pid);
    assert_eq!(
        before["web"].addresses, after["web"].addresses,
        "same sandbox, same address"
    );
    assert_eq!((&before["api"], &before["db"]), (&after["api"], &after["db"]));
    host.finish();
}

#[test]
fn an_added_service_starts_and_a_removed_one_goes_and_nothing_else_moves() {
    let Some(mut host) = Host::new("edit-services") else {
        return;
    };
    host.start_agent();
    host.change("shop", &three("A: b", ""));
    let before = host.identities("shop");

    host.change("shop", &three("A: b", "  cache: { image: builtin:hello }\n"));
    let mut with = host.identities("shop");
    assert!(with.remove("cache").is_some());
    assert_eq!(before, with);

    host.change("shop", &three("A: b", ""));
    assert_eq!(before, host.identities("shop"));
    host.finish();
}

#[test]
fn a_published_port_moves_without_a_restart() {
    let Some(mut host) = Host::new("edit-port") else {
        return;
    };
    host.start_agent();
    let text =
        |port: u16| format!("services:\n  web: {{ image: builtin:hello, ports: [\"{port}:8080\"] }}\n");
    host.change("shop", &text(18101));
    host.fetch(Place::Host, LOOPBACK, 18101, "/");
    let before = host.identities("shop");
    host.change("shop", &text(18102));
    host.fetch(Place::Host, LOOPBACK, 18102, "/");
    assert!(
        host.get(Place::Host, LOOPBACK, 18101, "/").is_err(),
        "the old port is closed"
    );
    assert_eq!(before, host.identities("shop"));
    host.finish();
}

#[test]
fn a_rewrite_without_a_change_does_nothing() {
    let Some(mut host) = Host::new("edit-nothing") else {
        return;
    };
    host.start_agent();
    host.change("shop", &three("A: b", ""));
    let before = host.identities("shop");
    let done = host.change("shop", &format!("# a comment\n{}", three("A: b", "")));
    assert!(done.is_empty(), "{done:?}");
    assert_eq!(before, host.identities("shop"));
    host.finish();
}
