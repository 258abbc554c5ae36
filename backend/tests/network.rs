//! The network on the real kernel: who reaches whom, what is repaired, and what stays untouched.

#[path = "network/figures.rs"]
mod figures;
#[path = "network/listing.rs"]
mod listing;
#[path = "network/rig.rs"]
mod rig;

use std::{
    net::UdpSocket,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use backend::{
    firewall::Firewall,
    names,
    net::{NetError, watch::NetEvent},
};
use rig::{Root, Space, eventually, neighbour, network, network_spec, on_a_host, sh, tcp, udp, udp_from};

/// Two networks that can go out, one that cannot; `web` and `sibling` on the first.
fn shop(mark: &'static str) -> Root {
    let mut root = Root::new(mark);
    root.network("front", 1, false);
    root.network("back", 2, false);
    root.network("inner", 3, true);
    root.service("web", "front", 2);
    root.service("sibling", "front", 3);
    root.service("other", "back", 2);
    root.service("vault", "inner", 2);
    root.service("vault2", "inner", 3);
    root.publish("0.0.0.0", 8080, "web");
    root.publish("192.0.2.1", 8081, "other");
    root.sync();
    root
}

fn set_bridge_nf(on: bool) -> bool {
    let value = if on { "1" } else { "0" };
    std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", value).is_ok()
}

#[test]
fn who_reaches_whom() {
    on_a_host(|| {
        let lan = neighbour();
        lan.serve("lan", "0.0.0.0:7000");
        let root = shop("a00001");
        Space {
            fd: std::fs::File::open("/proc/thread-self/ns/net").unwrap().into(),
        }
        .serve("loopback", "127.0.0.1:9000");
        lan.sh("ip route add 10.64.0.0/16 via 192.0.2.1");
        let mut wrong = Vec::new();
        for bridge_nf in [false, true] {
            if !set_bridge_nf(bridge_nf) {
                eprintln!("skipped: no br_netfilter");
                continue;
            }
            let cases: &[(&str, &str, &str)] = &[
                ("lan", "192.0.2.1:8080", "web"),
                ("lan", "192.0.2.1:8081", "other"),
                ("lan", "10.64.1.2:80", "-"),
                ("lan", "10.64.3.2:80", "-"),
                ("host", "127.0.0.1:8080", "web"),
                ("host", "192.0.2.1:8080", "web"),
                ("host", "192.0.2.1:8081", "other"),
                ("host", "127.0.0.1:8081", "-"),
                ("host", "10.64.1.2:80", "web"),
                ("web", "192.0.2.1:8080", "web"),
                ("web", "10.64.1.1:8080", "web"),
                ("sibling", "192.0.2.1:8080", "web"),
                ("sibling", "10.64.1.2:80", "web"),
                ("other", "192.0.2.1:8080", "web"),
                ("web", "192.0.2.1:8081", "other"),
                ("other", "10.64.1.2:80", "-"),
                ("web", "10.64.2.2:80", "-"),
                ("web", "192.0.2.2:7000", "lan"),
                ("vault2", "10.64.3.2:80", "vault"),
                ("vault", "192.0.2.2:7000", "-"),
                ("vault", "10.64.1.2:80", "-"),
                ("vault", "10.64.3.1:8080", "-"),
                ("web", "10.64.3.2:80", "-"),
                ("web", "127.0.0.1:9000", "-"),
            ];
            for (from, to, expected) in cases {
                let (tcp, udp) = match *from {
                    "host" => (tcp(to), udp(to)),
                    "lan" => (lan.tcp(to), lan.udp(to)),
                    service => (root.space(service).tcp(to), root.space(service).udp(to)),
                };
                for (protocol, got) in [("tcp", tcp), ("udp", udp)] {
                    if got != *expected {
                        wrong.push(format!(
                            "bridge-nf {bridge_nf}: {from} -> {to}/{protocol}: {got}, not {expected}"
                        ));
                    }
                }
            }
        }
        assert!(
            wrong.is_empty(),
            "{}\n{}",
            wrong.join("\n"),
            sh("nft list ruleset")
        );
    });
}

#[test]
fn the_hosts_loopback_is_out_of_reach_even_by_a_route() {
    on_a_host(|| {
        let root = shop("a00002");
        let host = Space {
            fd: std::fs::File::open("/proc/thread-self/ns/net").unwrap().into(),
        };
        host.serve("loopback", "127.0.0.1:9000");
        let web = root.space("web");
        // The container sends 127.0.0.1 out of eth0 instead of keeping it.
        web.sh(
            "echo 1 > /proc/sys/net/ipv4/conf/eth0/route_localnet; ip addr del 127.0.0.1/8 dev lo; ip route add \
             127.0.0.1 via 10.64.1.1 dev eth0",
        );
        assert_eq!(web.tcp("127.0.0.1:9000"), "-");
        let bridge = names::bridge(root.mark, &network("front"));
        assert_eq!(
            sh(&format!("cat /proc/sys/net/ipv4/conf/{bridge}/route_localnet")).trim(),
            "1"
        );
        sh(&format!(
            "nft add rule inet stead-{} loopback accept 2>/dev/null || true",
            root.mark
        ));
    });
}

#[test]
fn nobody_speaks_with_anothers_address() {
    on_a_host(|| {
        let root = shop("a00003");
        let sibling = root.space("sibling");
        assert_eq!(sibling.tcp("10.64.1.2:80"), "web");
        sibling.sh(
            "ip addr add 10.64.1.9/24 dev eth0; ip addr del 10.64.1.3/24 dev eth0; ip neigh flush dev eth0",
        );
        assert_eq!(sibling.tcp("10.64.1.2:80"), "-");
        sibling.sh(
            "ip addr add 10.64.1.3/24 dev eth0; ip addr del 10.64.1.9/24 dev eth0; ip addr add 10.64.1.3/24 dev eth0 \
             2>/dev/null || true; ip link set eth0 address 02:00:00:00:00:99; ip neigh flush dev eth0",
        );
        assert_eq!(sibling.tcp("10.64.1.2:80"), "-");
    });
}

#[test]
fn a_network_on_top_of_the_hosts_route_is_refused() {
    on_a_host(|| {
        let root = Root::new("a00004");
        let _lan = neighbour();
        sh("ip route add 10.64.0.0/16 via 192.0.2.2");
        let refused = root.net.ensure_network(&network_spec("front", 1, false));
        assert!(
            matches!(refused, Err(NetError::SubnetOverlap { .. })),
            "{refused:?}"
        );
        assert_eq!(root.net.our_links().unwrap(), []);
    });
}

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
fn connections_through_a_host_port_are_counted_until_both_sides_have_ended() {
    on_a_host(|| {
        let lan = neighbour();
        let root = shop("a00016");
        let of = |service: &str| {
            let address = root.sandboxes[service].1.endpoints[0].address;
            root.firewall.connections(&[address].into()).unwrap()
        };
        let listener = root
            .space("web")
            .run(|| std::net::TcpListener::bind("0.0.0.0:81").unwrap());
        let mut spec = root.spec.clone();
        for target in spec.ports.values_mut() {
            target.port = 81;
        }
        root.firewall.sync(&spec).unwrap();
        assert_eq!(of("web"), 0);
        let client = lan.run(|| std::net::TcpStream::connect("192.0.2.1:8080").unwrap());
        let (server, _) = listener.accept().unwrap();
        assert_eq!((of("web"), of("sibling")), (1, 0));
        // Between two services no host port is passed.
        let direct = root
            .space("sibling")
            .run(|| std::net::TcpStream::connect("10.64.1.2:81").unwrap());
        assert_eq!(of("web"), 1);
        drop(client);
        eventually("one side has ended", || of("web") == 1);
        drop(server);
        eventually("both have ended", || of("web") == 0);
        drop(direct);
    });
}

#[test]
fn the_rules_survive_a_flush_and_the_end_of_the_agent() {
    on_a_host(|| {
        sh(
            "nft 'add table ip foreign; add chain ip foreign c { type filter hook input priority 0; }; add rule ip \
            foreign c counter accept'",
        );
        let foreign = sh("nft list table ip foreign");
        let mut root = shop("a00007");
        assert_eq!(root.firewall.observe().unwrap().spec, root.spec);
        assert_eq!(root.firewall.observe().unwrap().drift, [""; 0]);
        assert_eq!(sh("nft list table ip foreign"), foreign);
        // Where the kernel guards the tables, nothing happens; elsewhere they come back.
        for damage in [
            "nft flush ruleset".to_owned(),
            "nft delete table inet stead-a00007".to_owned(),
            "nft delete table bridge stead-a00007".to_owned(),
            "nft flush chain inet stead-a00007 forward".to_owned(),
            "nft flush set inet stead-a00007 bridges".to_owned(),
        ] {
            for agent_down in [false, true] {
                if agent_down {
                    // A new firewall takes the place of the old one, which is gone first.
                    let directory = root.directory.path().join("forwarding");
                    root.firewall = Firewall::new("ffffff", &directory).unwrap();
                    sh(&format!("{damage} 2>/dev/null || true"));
                    root.firewall = Firewall::new(root.mark, &directory).unwrap();
                } else {
                    sh(&format!("{damage} 2>/dev/null || true"));
                }
                root.sync();
                let observed = root.firewall.observe().unwrap();
                assert_eq!(
                    (observed.spec, observed.drift),
                    (root.spec.clone(), Vec::new()),
                    "{damage}"
                );
                assert_eq!(tcp("127.0.0.1:8080"), "web", "{damage} {agent_down}");
            }
        }
        root.firewall.release().unwrap();
        assert!(!sh("nft list tables").contains("stead-"));
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "0");
    });
}

#[test]
fn changes_are_elements_and_come_back_as_the_same_spec() {
    on_a_host(|| {
        let mut root = shop("a00008");
        let handles = || sh("nft -a list chain inet stead-a00008 forward");
        let before = handles();
        root.publish("0.0.0.0", 8090, "sibling");
        root.spec.networks.get_mut(&network("back")).unwrap().internal = true;
        root.spec.ports.retain(|key, _| key.published != 8081);
        root.sync();
        assert_eq!(handles(), before, "no rule was written anew");
        assert_eq!(root.firewall.observe().unwrap().spec, root.spec);
        assert_eq!(tcp("127.0.0.1:8090"), "sibling");
        root.spec.networks.remove(&network("back"));
        root.sync();
        assert_eq!(root.firewall.observe().unwrap().spec, root.spec);
        assert_eq!(root.firewall.observe().unwrap().drift, [""; 0]);
    });
}

#[test]
fn a_udp_client_that_keeps_sending_follows_a_port_to_its_new_target() {
    on_a_host(|| {
        let lan = neighbour();
        let mut root = shop("a00009");
        let client = lan.run(|| UdpSocket::bind("192.0.2.2:5555").unwrap());
        assert_eq!(udp_from(&client, "192.0.2.1:8080"), "web");
        root.publish("0.0.0.0", 8080, "sibling");
        root.sync();
        assert_eq!(udp_from(&client, "192.0.2.1:8080"), "sibling");
    });
}

#[test]
fn with_forwarding_turned_on_for_us_others_are_still_not_forwarded() {
    on_a_host(|| {
        let lan = neighbour();
        let far = Space::new();
        let fd = std::os::fd::AsRawFd::as_raw_fd(&far.fd);
        sh(&format!(
            "ip link add far0 type veth peer name wire netns /proc/{}/fd/{fd}; ip addr add 198.51.100.1/24 dev far0; \
             ip link set far0 up",
            std::process::id()
        ));
        far.sh("ip addr add 198.51.100.2/24 dev wire; ip link set wire up; ip route add default via 198.51.100.1");
        far.serve("far", "0.0.0.0:7000");
        let root = shop("a0000a");
        assert_eq!(sh("cat /proc/sys/net/ipv4/ip_forward").trim(), "1");
        assert_eq!(lan.tcp("198.51.100.2:7000"), "-");
        assert_eq!(root.space("web").tcp("198.51.100.2:7000"), "far");
    });
}

#[test]
fn names_reach_the_resolver_and_a_service_may_have_port_53() {
    on_a_host(|| {
        let root = shop("a0000b");
        let web = root.space("web");
        root.net.prepare_resolver(web.fd.as_fd(), 40053).unwrap();
        root.net.prepare_resolver(web.fd.as_fd(), 40053).unwrap();
        web.serve("resolver", "127.0.0.11:40053");
        web.serve("own", "0.0.0.0:53");
        for (address, expected) in [
            ("127.0.0.11:53", "resolver"),
            ("127.0.0.1:53", "own"),
            ("10.64.1.2:53", "own"),
        ] {
            assert_eq!(web.tcp(address), expected, "{address}");
            // A connected socket takes an answer only from where it asked.
            let address_ = address.to_owned();
            let got = web.run(move || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.connect(&address_).unwrap();
                udp_from(&socket, &address_)
            });
            assert_eq!(got, expected, "{address}");
        }
        assert_eq!(root.space("sibling").udp("10.64.1.2:53"), "own");
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
            sh("ip link add stba0000cmarker type dummy; ip link del stba0000cmarker");
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
fn outside_names_are_asked_at_the_next_server_when_the_first_is_not_there() {
    on_a_host(|| {
        const QUESTION: &[u8] = b"\x12\x35\x01\0\0\x01\0\0\0\0\0\0\x07example\x03org\0\0\x01\0\x01";
        let upstream = UdpSocket::bind("127.0.0.3:53").unwrap();
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = upstream.recv_from(&mut buffer) {
                buffer[2] |= 0x80;
                let _ = upstream.send_to(&buffer[..length], from);
            }
        });
        let directory = tempfile::tempdir().unwrap();
        let resolv_conf = directory.path().join("resolv.conf");
        std::fs::write(
            &resolv_conf,
            "nameserver 127.0.0.11\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n",
        )
        .unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let listener = std::net::TcpListener::bind(address).unwrap();
        let resolver = backend::shim::protocol::Resolver {
            zones: Vec::new(),
            forward: true,
        };
        let server = backend::dns::server::Server::new(socket, listener, resolver).unwrap();
        let mut server = server.with_resolv_conf(resolv_conf);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_nonblocking(true).unwrap();
        client.send_to(QUESTION, address).unwrap();
        let mut reply = [0; 512];
        let mut length = 0;
        let started = std::time::Instant::now();
        eventually("the answer comes", || {
            let mut waiting = Vec::new();
            server.poll_fds(&mut waiting);
            for (fd, events) in waiting {
                server.ready(fd, events);
            }
            server.tick(started.elapsed().as_millis() as u64);
            length = client.recv(&mut reply).unwrap_or(0);
            length > 0
        });
        assert_eq!(&reply[..2], b"\x12\x35");
        assert_eq!(&reply[12..length], &QUESTION[12..]);
    });
}
