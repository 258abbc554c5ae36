//! The skeleton as text, and the way from a spec to elements and back.

use std::collections::{BTreeMap, BTreeSet};

use reconciler::{
    key::ResourceKey,
    spec::{FirewallNetwork, PublishKey, PublishTarget, Subnet},
};

use super::*;

#[test]
fn the_skeleton_reads_so() {
    let text = ruleset::text(&ruleset::skeleton("abcdef", true), "stead-abcdef");
    assert_eq!(text, include_str!("ruleset/skeleton.txt"), "{text}");
}

#[test]
fn only_where_stead_turned_forwarding_on_is_everybody_elses_dropped() {
    let strict = ruleset::text(&ruleset::skeleton("abcdef", true), "t");
    let open = ruleset::text(&ruleset::skeleton("abcdef", false), "t");
    let rule = "        meta nfproto ipv4 drop comment \"forwarding was off before stead\"\n";
    assert_eq!(strict.replace(rule, ""), open);
}

fn spec() -> FirewallSpec {
    let network = |third, prefix, internal| FirewallNetwork {
        subnet: Subnet {
            address: Ipv4Addr::new(10, 64, third, 0),
            prefix,
        },
        gateway: Ipv4Addr::new(10, 64, third, 1),
        internal,
        endpoints: BTreeSet::from([(Ipv4Addr::new(10, 64, third, 2), [2, 0, 0, 0, 0, third])]),
    };
    let key = |name: &str| ResourceKey {
        project: "shop".to_owned(),
        name: name.to_owned(),
    };
    let publish = |host_ip, published, protocol| {
        let key = PublishKey {
            host_ip,
            published,
            protocol,
        };
        let target = PublishTarget {
            address: Ipv4Addr::new(10, 64, 0, 2),
            port: 80,
        };
        (key, target)
    };
    FirewallSpec {
        networks: BTreeMap::from([
            (key("shop_default"), network(0, 20, false)),
            (key("shop_inner"), network(16, 20, true)),
            (key("a name with spaces"), network(32, 30, false)),
        ]),
        ports: BTreeMap::from([
            publish(Ipv4Addr::UNSPECIFIED, 8080, Protocol::Tcp),
            publish(Ipv4Addr::UNSPECIFIED, 8080, Protocol::Udp),
            publish(Ipv4Addr::LOCALHOST, 8081, Protocol::Tcp),
        ]),
    }
}

#[test]
fn a_spec_can_be_read_back_from_its_elements() {
    let elements = ruleset::elements("abcdef", &spec());
    assert_eq!(ruleset::spec_from("abcdef", &elements), spec());
}

#[test]
fn elements_that_do_not_belong_together_are_no_network() {
    let mut elements = ruleset::elements("abcdef", &spec());
    elements.remove(&(Family::Inet, "bridges"));
    assert_eq!(ruleset::spec_from("abcdef", &elements).networks, BTreeMap::new());
    // Another root's elements.
    assert_eq!(
        ruleset::spec_from("000000", &ruleset::elements("abcdef", &spec())).networks,
        BTreeMap::new()
    );
}

#[test]
fn only_changed_udp_ports_and_addresses_that_went_make_flows_stale() {
    let mut after = spec();
    after.ports.retain(|key, _| key.published != 8080);
    if let Some(network) = after.networks.values_mut().next() {
        network.endpoints.clear();
    }
    let before = ruleset::elements("abcdef", &spec());
    assert!(stale(&before, &before).is_empty());
    let stale = stale(&before, &ruleset::elements("abcdef", &after));
    assert_eq!(stale.published, BTreeSet::from([(Ipv4Addr::UNSPECIFIED, 8080)]));
    assert_eq!(stale.addresses, BTreeSet::from([Ipv4Addr::new(10, 64, 32, 2)]));
}
