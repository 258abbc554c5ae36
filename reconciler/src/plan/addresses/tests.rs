//! Derived, clear of each other, the same on every run.

use super::*;

fn key(name: &str) -> ResourceKey {
    ResourceKey {
        project: "shop".to_owned(),
        name: name.to_owned(),
    }
}

fn net(text: &str) -> Subnet {
    let (address, prefix) = text.split_once('/').unwrap();
    Subnet {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
    }
}

#[test]
fn subnets_overlap_when_one_holds_the_other() {
    let cases = [
        ("10.64.0.0/20", "10.64.0.0/20", true),
        ("10.64.0.0/20", "10.64.15.255/32", true),
        ("10.64.0.0/20", "10.64.16.0/20", false),
        ("10.0.0.0/8", "10.64.16.0/20", true),
        ("0.0.0.0/0", "10.64.16.0/20", true),
        ("255.255.255.0/24", "255.255.255.255/32", true),
    ];
    for (one, other, expected) in cases {
        assert_eq!(net(one).overlaps(net(other)), expected, "{one} {other}");
        assert_eq!(net(other).overlaps(net(one)), expected, "{other} {one}");
    }
}

#[test]
fn a_subnet_is_derived_from_the_key_and_avoids_what_is_held() {
    let routes = BTreeSet::new();
    let first = subnet(&key("a"), &[], &routes).unwrap();
    assert_eq!(subnet(&key("a"), &[], &routes), Some(first));
    assert!(net("10.64.0.0/10").overlaps(first) && first.prefix == PREFIX);
    let second = subnet(&key("a"), &[first], &routes).unwrap();
    assert!(!second.overlaps(first));
}

#[test]
fn a_route_moves_subnets_to_the_next_pool_but_a_default_route_does_not() {
    let vpn = BTreeSet::from([net("10.0.0.0/8")]);
    let moved = subnet(&key("a"), &[], &vpn).unwrap();
    assert!(net("172.16.0.0/12").overlaps(moved));
    let default = BTreeSet::from([net("0.0.0.0/0"), net("0.0.0.0/1"), net("128.0.0.0/1")]);
    let kept = subnet(&key("a"), &[], &default).unwrap();
    assert!(net("10.64.0.0/10").overlaps(kept));
    let everything = BTreeSet::from([net("10.0.0.0/8"), net("172.16.0.0/12")]);
    assert_eq!(subnet(&key("a"), &[], &everything), None);
}

#[test]
fn all_1280_subnets_are_found_and_none_twice() {
    let mut held = Vec::new();
    while let Some(found) = subnet(&key(&format!("n{}", held.len())), &held, &BTreeSet::new()) {
        assert!(held.iter().all(|other| !found.overlaps(*other)));
        held.push(found);
    }
    assert_eq!(held.len(), 1280);
}

#[test]
fn addresses_fill_a_subnet_without_network_gateway_and_broadcast() {
    let small = net("10.64.0.0/28");
    let mut taken = BTreeSet::new();
    while let Some(found) = address(&format!("web {}", taken.len()), small, &taken) {
        assert!(small.contains(found));
        taken.insert(found);
    }
    assert_eq!(taken.len(), 13);
    for special in ["10.64.0.0", "10.64.0.1", "10.64.0.15"] {
        assert!(!taken.contains(&special.parse().unwrap()), "{special}");
    }
}

#[test]
fn hardware_addresses_are_local_and_unicast() {
    let mac = mac("shop/web/1a shop/shop_default");
    assert_eq!(mac[0], 0x02);
    assert_ne!(mac, super::mac("shop/web/2a shop/shop_default"));
}

#[test]
fn id_ranges_do_not_meet() {
    let mut held = BTreeMap::new();
    for number in 0..300 {
        let project = format!("p{number}");
        let base = id_base(&project, &held).unwrap();
        assert!(base >= FIRST_ID && (base - FIRST_ID).is_multiple_of(IDS));
        assert!(base <= FIRST_ID + (RANGES - 1) * IDS);
        held.insert(project, base);
    }
    assert_eq!(held.values().collect::<BTreeSet<_>>().len(), 300);
    let full = (0..RANGES).map(|number| (format!("p{number}"), FIRST_ID + number * IDS));
    assert_eq!(id_base("one more", &full.collect()), None);
}

#[test]
fn ephemeral_ports_stay_in_their_range() {
    let found = port("web 80/tcp", EPHEMERAL, |_| true).unwrap();
    assert!((EPHEMERAL.0..=EPHEMERAL.1).contains(&found));
    assert_ne!(port("web 80/tcp", EPHEMERAL, |other| other != found), Some(found));
    assert_eq!(
        port("web 80/tcp", (8000, 8002), |other| other == 8001),
        Some(8001)
    );
    assert_eq!(port("web 80/tcp", (8000, 8002), |_| false), None);
    assert_eq!(port("web 80/tcp", (2, 1), |_| true), None);
    assert!(port("web 80/tcp", (1, u16::MAX), |_| true).is_some());
}
