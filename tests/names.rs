//! Names resolve where they should and nowhere else.

use crate::host::{Host, LOOPBACK, PATIENCE, Place};

#[test]
fn services_reach_each_other_by_every_name_they_have() {
    let Some(mut host) = Host::new("names") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "shop",
        r#"services:
  web: { image: builtin:hello, container_name: boss, networks: { default: { aliases: [www] } } }
  client: { image: builtin:hello, ports: ["18800:8080"], links: ["web:Linked"] }
  other: { image: builtin:hello, ports: ["18804:8080"] }
"#,
    );
    host.converged("shop");
    let web = host.running("shop", "web").address().to_string();
    for name in ["web", "shop-web-1", "boss", "www", "linked", "WEB", "web:8080"] {
        let page = host.fetch(Place::Host, LOOPBACK, 18800, &format!("/call/{name}"));
        assert!(page.contains(&web), "{name}: {page}");
    }
    assert!(host.get(Place::Host, LOOPBACK, 18800, "/call/nobody").is_err());
    // A link is known to who has it, and to nobody else.
    host.fetch(Place::Host, LOOPBACK, 18804, "/call/boss");
    assert!(host.get(Place::Host, LOOPBACK, 18804, "/call/linked").is_err());
    assert_eq!(host.running("shop", "web").name, "boss");
    host.finish();
}

#[test]
fn a_service_is_not_reached_from_a_network_it_is_not_on() {
    let Some(mut host) = Host::new("isolation") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "shop",
        r#"services:
  front: { image: builtin:hello, networks: [front], ports: ["18801:8080"] }
  middle: { image: builtin:hello, networks: [front, back], ports: ["18802:8080"] }
  back: { image: builtin:hello, networks: [back] }
networks: { front: , back: }
"#,
    );
    host.write_manifest(
        "other",
        "services: { other: { image: builtin:hello, ports: [\"18803:8080\"] } }\n",
    );
    host.converged("shop");
    host.converged("other");
    let address = |project: &str, service: &str| host.running(project, service).address().to_string();
    let (back, other) = (address("shop", "back"), address("other", "other"));

    host.fetch(Place::Host, LOOPBACK, 18802, "/call/back");
    host.fetch(Place::Host, LOOPBACK, 18802, "/call/front");
    host.fetch(Place::Host, LOOPBACK, 18801, "/call/middle");
    for (port, target) in [
        (18801, "back"),
        (18801, back.as_str()),
        (18801, "other"),
        (18801, other.as_str()),
        (18803, back.as_str()),
    ] {
        let reached = host.get(Place::Host, LOOPBACK, port, &format!("/call/{target}"));
        assert!(
            reached.is_err(),
            "{target} was reached through {port}: {reached:?}"
        );
    }
    host.finish();
}

#[test]
fn a_service_that_serves_port_53_itself_runs_and_still_resolves() {
    let Some(mut host) = Host::new("port-53") else {
        return;
    };
    host.start_agent();
    host.write_manifest(
        "dns",
        r#"services:
  dns: { image: builtin:hello, command: ["--bind-53"], ports: ["18804:8080"] }
  web: { image: builtin:hello }
"#,
    );
    host.converged("dns");
    let before = host.running("dns", "dns");
    host.fetch(Place::Host, LOOPBACK, 18804, "/call/web");
    assert_eq!(host.running("dns", "dns").identity(), before.identity());
    host.finish();
}

#[test]
fn a_name_follows_the_service_it_stands_for() {
    let Some(mut host) = Host::new("names-follow") else {
        return;
    };
    host.start_agent();
    let text = |more: &str| {
        format!("services:\n  client: {{ image: builtin:hello, ports: [\"18805:8080\"] }}\n{more}")
    };
    host.write_manifest("shop", &text(""));
    host.converged("shop");
    assert!(host.get(Place::Host, LOOPBACK, 18805, "/call/late").is_err());
    host.write_manifest("shop", &text("  late: { image: builtin:hello }\n"));
    host.fetch(Place::Host, LOOPBACK, 18805, "/call/late");
    host.write_manifest("shop", &text(""));
    host.wait("the name is gone", PATIENCE, || {
        host.get(Place::Host, LOOPBACK, 18805, "/call/late")
            .is_err()
            .then_some(())
    });
    host.finish();
}

#[test]
fn a_container_name_is_one_containers_on_the_whole_host() {
    let Some(mut host) = Host::new("container-name") else {
        return;
    };
    host.start_agent();
    let file = "services: { web: { image: builtin:hello, container_name: boss } }\n";
    host.write_manifest("shop", file);
    host.converged("shop");
    let first = host.running("shop", "web").identity();
    // Also before it in the order of names: who has the name keeps it.
    host.write_manifest("bar", file);
    host.wait("the second is told who has the name", PATIENCE, || {
        let status = host.stead(&["status", "bar"]).stdout;
        status
            .contains("the container name boss is that of shop/web")
            .then_some(())
    });
    assert_eq!(host.running("shop", "web").identity(), first);
    host.remove_manifest("shop");
    host.converged("bar");
    assert_eq!(host.running("bar", "web").name, "boss");
    host.finish();
}
