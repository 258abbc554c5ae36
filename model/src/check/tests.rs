//! Clashes inside one project, as tables.

use crate::decode::tests::read;

#[test]
fn clashes_of_a_project_are_refused() {
    let web = |more: &str| format!("image: builtin:hello, networks: {{ default: null }}, {more}");
    let two = |a: &str, b: &str| {
        let networks = "networks: { default: { name: n, ipam: { config: [{ subnet: 10.5.0.0/16, gateway: 10.5.0.1 }] } }, b: { name: b } }";
        let (_, found) = read(&format!(
            "services:\n  a: {{ {} }}\n  b: {{ {} }}\n{networks}\n",
            web(a),
            web(b)
        ));
        found
            .into_iter()
            .filter(|message| !message.ends_with("not supported yet"))
            .collect::<Vec<_>>()
    };
    let port = |text: &str| format!("ports: [{{ {text}, target: 80 }}]");
    let clash = "`services.b.ports`: a already publishes the host port 80, in line 2";
    for (a, b, want) in [
        ("published: '80'", "published: '80'", Some(clash)),
        (
            "published: '80', host_ip: 127.0.0.1",
            "published: '80'",
            Some(clash),
        ),
        (
            "published: '80'",
            "published: '80', host_ip: 127.0.0.1",
            Some(clash),
        ),
        (
            "published: '80', host_ip: '::1'",
            "published: '80', host_ip: 127.0.0.1",
            None,
        ),
        (
            "published: '80', host_ip: 127.0.0.2",
            "published: '80', host_ip: 127.0.0.1",
            None,
        ),
        ("published: '80', protocol: udp", "published: '80'", None),
        ("published: 80-90", "published: '80'", None),
        ("mode: host", "mode: host", None),
    ] {
        assert_eq!(
            two(&port(a), &port(b)).first().map(String::as_str),
            want,
            "{a} {b}"
        );
    }
    let fixed = |address: &str| format!("networks: {{ default: {{ ipv4_address: {address} }} }}");
    let fixed_two = |a: &str, b: &str| {
        let text = format!(
            "services:\n  a: {{ image: builtin:hello, {} }}\n  b: {{ image: builtin:hello, {} }}\nnetworks: {{ default: {{ name: n, ipam: {{ config: [{{ subnet: 10.5.0.0/16, gateway: 10.5.0.1 }}] }} }} }}\n",
            fixed(a),
            fixed(b)
        );
        let found = read(&text).1.into_iter();
        found
            .filter(|message| !message.ends_with("not supported yet"))
            .collect::<Vec<_>>()
    };
    for (a, b, want) in [
        ("10.5.0.2", "10.5.0.3", None),
        (
            "10.5.0.2",
            "10.5.0.2",
            Some("`10.5.0.2` is already taken, by `a`"),
        ),
        (
            "10.5.0.2",
            "10.5.0.1",
            Some("`10.5.0.1` is already taken, by `the gateway`"),
        ),
        (
            "10.5.0.2",
            "10.6.0.1",
            Some("`10.6.0.1` is in no subnet of the network `default`"),
        ),
        ("10.5.0.2", "999.0.0.5", Some("`999.0.0.5` is not an IP address")),
    ] {
        let found = fixed_two(a, b);
        match want {
            None => assert_eq!(found, [""; 0]),
            Some(want) => assert!(found.len() == 1 && found[0].ends_with(want), "{found:?}"),
        }
    }
    let names = two("container_name: same", "container_name: same");
    assert_eq!(
        names,
        ["`services.b.container_name`: the service `a` has the same container name `same`"]
    );
}

#[test]
fn networks_and_volumes_are_checked() {
    for (text, want) in [
        (
            "networks: { n: { name: n, ipam: { config: [{ subnet: bogus }] } } }",
            "`networks.n.ipam.config[0].subnet`: `bogus` is not a subnet",
        ),
        (
            "networks: { n: { name: n, ipam: { config: [{ subnet: 10.0.0.1/8 }] } } }",
            "`networks.n.ipam.config[0].subnet`: `10.0.0.1/8` is an address in the subnet `10.0.0.0/8`",
        ),
        (
            "networks: { n: { name: n, ipam: { config: [{ subnet: 10.0.0.0/8, gateway: 11.0.0.1 }] } } }",
            "`networks.n.ipam.config[0]`: `11.0.0.1` is not inside the subnet `10.0.0.0/8`",
        ),
        (
            "networks: { n: { name: n, ipam: { config: [{ subnet: 10.0.0.0/8, ip_range: 11.0.0.0/16 }] } } }",
            "`networks.n.ipam.config[0].ip_range`: `11.0.0.0/16` is not inside",
        ),
        (
            "networks: { n: { name: 'a b' } }",
            "`networks.n.name`: `a b` is not a name",
        ),
        (
            "volumes: { v: { name: ../../etc } }",
            "`volumes.v.name`: `../../etc` is not a name",
        ),
        (
            "volumes: { '..': { name: v } }",
            "`..` is not a name for an entry of `volumes`",
        ),
        (
            "volumes: { a: { name: v }, b: { name: v } }",
            "the volumes `a` and `b` have the same name `v`",
        ),
        (
            "services: { a: { image: 'builtin:hello', networks: { n: null, m: null } } }\nnetworks: { n: { ipam: { config: [{ subnet: 10.0.0.0/8 }] } }, m: { ipam: { config: [{ subnet: 10.1.0.0/16 }] } } }",
            "`networks.m.ipam.config`: `10.1.0.0/16` overlaps `10.0.0.0/8` of the network `n`",
        ),
        (
            "services: { a: { image: 'builtin:hello', networks: { d: null }, depends_on: { b: { condition: service_healthy } } }, b: { image: 'builtin:hello', healthcheck: { disable: true } } }",
            "`services.a.depends_on.b` waits for health, and `b` has its healthcheck disabled",
        ),
    ] {
        let found = read(&format!("name: p\n{text}\n")).1.into_iter();
        let found: Vec<_> = found
            .filter(|message| !message.ends_with("not supported yet"))
            .collect();
        assert!(
            found.len() == 1 && found[0].starts_with(want),
            "{text}: {found:?}"
        );
    }
}

#[test]
fn who_is_shown_the_hosts_own_tree_is_warned() {
    for (image, warned) in [
        ("rootfs:/", true),
        ("rootfs://", true),
        ("rootfs:/srv/..", true),
        ("rootfs:/srv", false),
        ("builtin:hello", false),
    ] {
        let (_, found) = read(&format!("services:\n  a: {{ image: \"{image}\" }}\n"));
        let says = found.iter().any(|message| message.contains("/etc/shadow"));
        assert_eq!(says, warned, "{image}: {found:?}");
    }
}
