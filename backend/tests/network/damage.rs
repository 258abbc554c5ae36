//! What somebody breaks: heard of, named, and put right by the very calls the plan orders.

use std::{
    os::fd::AsFd,
    time::{Duration, Instant},
};

use backend::{doctor::Verdict, names, net::watch::NetEvent};

use crate::{
    rig::{Root, Space, eventually, neighbour, network, network_spec, on_a_host, sh},
    shop,
};

#[test]
fn a_network_that_was_damaged_is_repaired() {
    on_a_host(|| {
        let mut root = Root::new("a00005");
        root.network("front", 1, false);
        let spec = network_spec("front", 1, false);
        let bridge = names::bridge(root.mark, &spec.key);
        let drift = || root.net.observe_networks(std::slice::from_ref(&spec)).unwrap()[&spec.key].clone();
        assert_eq!(drift(), [""; 0]);
        for (damage, expected) in [
            (format!("ip link set {bridge} down"), "bridge is down"),
            (
                format!("ip addr flush dev {bridge}"),
                "address 10.64.1.1/24 is missing",
            ),
            (
                format!("ip addr add 10.9.9.9/24 dev {bridge}"),
                "address 10.9.9.9/24 is not ours",
            ),
            (
                format!("ip link set {bridge} address 02:00:00:00:00:01"),
                "bridge has another MAC address",
            ),
            (
                format!("ip link set {bridge} alias x"),
                "bridge has lost its alias",
            ),
            (
                format!("ip link set {bridge} mtu 1400"),
                "bridge has an MTU of 1400",
            ),
            (
                format!("ip link set {bridge} type bridge stp_state 1"),
                "bridge runs the spanning tree protocol",
            ),
            (
                format!("ip route del 10.64.1.0/24 dev {bridge}"),
                "route to 10.64.1.0/24 is missing",
            ),
            (
                format!("echo 0 > /proc/sys/net/ipv6/conf/{bridge}/disable_ipv6"),
                "IPv6 is on on the bridge",
            ),
            (
                format!("echo 1 > /proc/sys/net/ipv6/conf/{bridge}/accept_ra"),
                "IPv6 is on on the bridge",
            ),
            (
                format!("ip link set {bridge} down; ip link set {bridge} name renamed"),
                "bridge is missing",
            ),
            (format!("ip link delete {bridge}"), "bridge is missing"),
        ] {
            sh(&damage);
            assert_eq!(drift(), [expected]);
            root.net.ensure_network(&spec).unwrap();
            assert_eq!(drift(), [""; 0], "after {damage}");
        }
        root.net.remove_network(&spec.key).unwrap();
        root.net.remove_network(&spec.key).unwrap();
        assert_eq!(root.net.our_links().unwrap(), []);
    });
}

#[test]
fn a_sandbox_that_was_damaged_is_repaired() {
    on_a_host(|| {
        let root = shop("a00006");
        let (space, spec) = &root.sandboxes["web"];
        let veth = names::veth(root.mark, &spec.key, "eth0");
        assert_eq!(root.drift("web"), [""; 0]);
        for (inside, damage, expected) in [
            (true, "ip link delete eth0".to_owned(), "eth0 is missing"),
            (
                true,
                "ip route del default".to_owned(),
                "default route is missing",
            ),
            (
                true,
                "ip addr flush dev eth0".to_owned(),
                "address 10.64.1.2 is missing",
            ),
            (true, "ip link set lo down".to_owned(), "lo is down"),
            (false, format!("ip link delete {veth}"), "eth0 is missing"),
            (
                false,
                format!("ip link set {veth} nomaster"),
                "veth of eth0 is not on its bridge",
            ),
            (false, format!("ip link set {veth} down"), "veth of eth0 is down"),
            (
                false,
                format!("ip link set {veth} name renamed"),
                "veth of eth0 is missing",
            ),
            (
                false,
                format!("ip link set {veth} mtu 1400"),
                "veth of eth0 has an MTU of 1400",
            ),
            (
                false,
                format!("ip link set {veth} alias x"),
                "veth of eth0 has lost its alias",
            ),
            (
                false,
                format!("bridge link set dev {veth} hairpin off"),
                "the bridge port of eth0 has another setting of hairpin",
            ),
            (
                false,
                format!("bridge link set dev {veth} isolated on learning off flood off"),
                "the bridge port of eth0 has another setting of learning, flood, isolated",
            ),
            (
                false,
                format!("bridge link set dev {veth} state 0"),
                "the bridge port of eth0 does not forward",
            ),
            (
                false,
                format!("echo 0 > /proc/sys/net/ipv6/conf/{veth}/disable_ipv6"),
                "IPv6 is on on the veth of eth0",
            ),
            (
                false,
                format!("ip netns add elsewhere; ip link set {veth} netns elsewhere"),
                "veth of eth0 is missing",
            ),
            (
                true,
                "ip link set eth0 name renamed".to_owned(),
                "eth0 is missing",
            ),
            (true, "ip link set eth0 down".to_owned(), "eth0 is down"),
            (
                true,
                "ip link set eth0 mtu 1400".to_owned(),
                "eth0 has an MTU of 1400",
            ),
            (
                true,
                "ip link set eth0 address 02:00:00:00:00:01".to_owned(),
                "eth0 has another MAC address",
            ),
            (
                true,
                "ip route replace default via 10.64.1.77 dev eth0".to_owned(),
                "default route is missing",
            ),
            (
                true,
                "ip route replace blackhole default".to_owned(),
                "default route is missing",
            ),
            (
                true,
                "ip route del 10.64.1.0/24".to_owned(),
                "route to 10.64.1.0/24 is missing",
            ),
            (
                true,
                "ip addr del 127.0.0.1/8 dev lo".to_owned(),
                "address 127.0.0.1 is missing",
            ),
            (
                true,
                "echo 0 > /proc/sys/net/ipv6/conf/eth0/disable_ipv6".to_owned(),
                "setting ipv6.conf.eth0.disable_ipv6 was changed",
            ),
            (
                true,
                "echo 1024 > /proc/sys/net/ipv4/ip_unprivileged_port_start".to_owned(),
                "setting ipv4.ip_unprivileged_port_start was changed",
            ),
        ] {
            if inside {
                space.sh(&damage)
            } else {
                sh(&damage)
            };
            let drift = root.drift("web");
            assert!(drift.iter().any(|text| text == expected), "{damage}: {drift:?}");
            root.net
                .attach(&spec.key, &spec.endpoints[0], true, space.fd.as_fd())
                .unwrap();
            assert_eq!(root.drift("web"), [""; 0], "after {damage}");
            // A carrier that has come back is noticed a little later.
            let deadline = Instant::now() + Duration::from_secs(5);
            while root.space("sibling").tcp("10.64.1.2:80") != "web" {
                assert!(Instant::now() < deadline, "not reached after {damage}");
            }
        }
        sh("ip netns del elsewhere");
        root.net.detach(&spec.key, "eth0").unwrap();
        root.net.detach(&spec.key, "eth0").unwrap();
    });
}

#[test]
fn the_way_to_the_resolver_is_repaired() {
    on_a_host(|| {
        let root = Root::new("a00014");
        let space = Space::new();
        let drift = || root.net.resolver_drift(space.fd.as_fd(), 4053).unwrap();
        assert_eq!(drift(), ["the way to the resolver is missing"]);
        root.net.prepare_resolver(space.fd.as_fd(), 4053).unwrap();
        assert_eq!(drift(), [""; 0]);
        space.sh("nft add table ip foreign");
        for (damage, expected) in [
            (
                "delete table ip stead-resolver",
                "the way to the resolver is missing",
            ),
            (
                "flush chain ip stead-resolver raw",
                "rule “other loopback traffic” is missing from chain raw",
            ),
            (
                "add rule ip stead-resolver output drop",
                "chain output has rules that are not stead's",
            ),
            (
                "chain ip stead-resolver raw '{ policy drop; }'",
                "chain raw drops what no rule accepts",
            ),
            (
                "add table ip stead-resolver '{ flags dormant; }'",
                "the rules are switched off",
            ),
        ] {
            space.sh(&format!("nft {damage}"));
            assert_eq!(drift(), [expected]);
            root.net.prepare_resolver(space.fd.as_fd(), 4053).unwrap();
            assert_eq!(drift(), [""; 0], "after {damage}");
        }
        assert!(space.sh("nft list tables").contains("table ip foreign"));
    });
}

#[test]
fn a_bridge_that_is_made_anew_is_opened_once_its_guards_are_there() {
    on_a_host(|| {
        let mut root = Root::new("a00015");
        root.network("front", 1, false);
        let spec = network_spec("front", 1, false);
        let bridge = names::bridge(root.mark, &spec.key);
        let localnet = || sh(&format!("cat /proc/sys/net/ipv4/conf/{bridge}/route_localnet"));
        root.firewall.open(&spec.key).unwrap();
        assert_eq!(localnet(), "0\n", "no guards, no open door");
        root.sync();
        assert_eq!(localnet(), "1\n");
        sh(&format!("ip link del {bridge}"));
        root.net.ensure_network(&spec).unwrap();
        assert_eq!(localnet(), "0\n");
        root.firewall.open(&spec.key).unwrap();
        assert_eq!(localnet(), "1\n");
        assert_eq!(root.firewall.observe().unwrap().drift, [""; 0]);
        for setting in ["route_localnet", "forwarding"] {
            sh(&format!("echo 0 > /proc/sys/net/ipv4/conf/{bridge}/{setting}"));
            let expected = format!("{setting} is off on the bridge of {}", spec.key);
            assert_eq!(root.firewall.observe().unwrap().drift, [expected]);
            root.sync();
            assert_eq!(root.firewall.observe().unwrap().drift, [""; 0]);
        }
    });
}

#[test]
fn foreign_changes_are_told_and_our_own_rules_are_not() {
    on_a_host(|| {
        let mut root = Root::new("a0000c");
        let (sender, events) = std::sync::mpsc::channel();
        let watch = root
            .net
            .watch(root.firewall.port(), move |event| drop(sender.send(event)))
            .unwrap();
        root.network("front", 1, false);
        root.sync();
        let bridge = names::bridge(root.mark, &network("front"));
        root.service("web", "front", 2);
        let web = root.space("web");
        let veth = names::veth(root.mark, &root.sandboxes["web"].1.key, "eth0");
        let number = root.net.namespace_number(web.fd.as_fd()).unwrap();
        assert_eq!(root.net.namespace_number(web.fd.as_fd()).unwrap(), number);
        let (on_bridge, on_veth) = (NetEvent::Link(bridge.clone()), NetEvent::Link(veth.clone()));
        let inside = NetEvent::Inside(number);
        let mut all = Vec::new();
        let mut expect = |what: &str, event: &NetEvent| {
            eventually(what, || {
                let new: Vec<_> = events.try_iter().collect();
                let found = new.contains(event);
                all.extend(new);
                found
            });
            // What else came of it comes before this.
            sh("ip link add stba0000cmarker type bridge; ip link del stba0000cmarker");
            let marker = NetEvent::Link("stba0000cmarker".to_owned());
            eventually("the marker", || {
                let new: Vec<_> = events.try_iter().collect();
                let found = new.contains(&marker);
                all.extend(new);
                found
            });
        };
        expect("the bridge", &on_bridge);
        let here = [
            (format!("ip addr add 10.9.9.9/24 dev {bridge}"), &on_bridge),
            (format!("ip route del 10.64.1.0/24 dev {bridge}"), &on_bridge),
            (
                format!("ip link set {bridge} type bridge stp_state 1"),
                &on_bridge,
            ),
            (format!("bridge link set dev {veth} hairpin off"), &on_veth),
            (format!("ip link set {veth} mtu 1400"), &on_veth),
            (format!("ip link set {veth} nomaster"), &on_veth),
            (
                format!("echo 0 > /proc/sys/net/ipv6/conf/{veth}/disable_ipv6"),
                &on_veth,
            ),
            (
                format!("ip link set {bridge} down; ip link set {bridge} name somethingelse"),
                &on_bridge,
            ),
            ("ip link set somethingelse up".to_owned(), &on_bridge),
            ("ip link del somethingelse".to_owned(), &on_bridge),
            ("nft add table ip foreign".to_owned(), &NetEvent::Firewall),
        ];
        for (change, event) in here {
            sh(&change);
            expect(&change, event);
        }
        for change in [
            "ip route del default",
            "ip addr del 127.0.0.1/8 dev lo",
            "ip link set eth0 mtu 1400",
            "nft add table ip foreign",
            "ip link del eth0",
        ] {
            web.sh(change);
            expect(change, &inside);
        }
        drop(watch);
        assert_eq!(
            all.iter().filter(|event| **event == NetEvent::Firewall).count(),
            1,
            "{all:?}"
        );
    });
}

#[test]
fn a_foreign_firewall_that_swallows_our_traffic_is_named_until_it_lets_us_pass() {
    on_a_host(|| {
        let lan = neighbour();
        let root = shop("a00017");
        let look = backend::doctor::foreign_forwarding;
        assert_eq!(look().verdict, Verdict::Ok, "our own table is none");
        for (table, remedied) in [
            ("inet fw", "insert rule inet fw passing"),
            ("ip other", "insert rule ip other passing"),
        ] {
            sh(&format!(
                "nft 'add table {table}; add chain {table} passing {{ type filter hook forward priority 0; policy drop; }}'"
            ));
            assert_eq!(lan.tcp("192.0.2.1:8080"), "-");
            let found = look();
            assert_eq!(found.verdict, Verdict::Warn, "{found:?}");
            // The remedy is taken at its word.
            assert!(found.remedy.contains(remedied), "{found:?}");
            let (_, commands) = found.remedy.split_once(": ").unwrap();
            for command in commands.split("; ") {
                sh(command);
            }
            assert_eq!(lan.tcp("192.0.2.1:8080"), "web", "{found:?}");
            assert_eq!(look().verdict, Verdict::Ok, "{:?}", look());
            sh(&format!("nft delete table {table}"));
        }
        drop(root);
    });
}
