//! What counts as overlapping.

use super::*;

fn subnet(text: &str) -> Subnet {
    let (address, prefix) = text.split_once('/').unwrap();
    Subnet {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
    }
}

#[test]
fn subnets_overlap_when_one_contains_the_other() {
    for (one, other, expected) in [
        ("10.64.0.0/20", "10.64.0.0/20", true),
        ("10.64.0.0/20", "10.64.15.255/32", true),
        ("10.64.0.0/20", "10.0.0.0/8", true),
        ("10.64.0.0/20", "10.64.16.0/20", false),
        ("10.64.0.0/20", "192.168.0.0/16", false),
        ("10.64.0.1/32", "10.64.0.2/32", false),
        ("0.0.0.0/0", "10.64.0.2/32", true),
    ] {
        assert_eq!(overlap(subnet(one), subnet(other)), expected, "{one} {other}");
        assert_eq!(overlap(subnet(other), subnet(one)), expected, "{other} {one}");
    }
}
