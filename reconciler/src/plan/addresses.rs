//! Which subnet, address, id range and host port each object gets. Pure: what the host shows stays,
//! the rest is derived from keys by hash, and collisions go to the next free one in key order.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use crate::{derive, key::ResourceKey, spec::Subnet};

/// Where new subnets come from, in this order.
pub const POOLS: [Subnet; 2] = [
    Subnet {
        address: Ipv4Addr::new(10, 64, 0, 0),
        prefix: 10,
    },
    Subnet {
        address: Ipv4Addr::new(172, 16, 0, 0),
        prefix: 12,
    },
];
/// The size of a new subnet.
pub const PREFIX: u8 = 20;
/// First host id of the first range.
pub const FIRST_ID: u32 = 0x7000_0000;
/// Ids of one project.
pub const IDS: u32 = 65_536;
/// How many ranges there are.
pub const RANGES: u32 = 3840;
/// Host ports for those who did not name one.
pub const EPHEMERAL: (u16, u16) = (49_152, 60_999);

impl Subnet {
    /// The one of this `prefix` that `address` is in.
    pub fn around(address: Ipv4Addr, prefix: u8) -> Self {
        let host_bits = 32 - u32::from(prefix.min(32));
        let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
        Subnet {
            address: Ipv4Addr::from(u32::from(address) & mask),
            prefix,
        }
    }

    fn bounds(self) -> (u64, u64) {
        let first = u64::from(u32::from(self.address));
        (first, first + (1u64 << (32 - u32::from(self.prefix.min(32)))))
    }

    pub fn overlaps(self, other: Subnet) -> bool {
        let ((first, end), (other_first, other_end)) = (self.bounds(), other.bounds());
        first < other_end && other_first < end
    }

    pub fn contains(self, address: Ipv4Addr) -> bool {
        let (first, end) = self.bounds();
        (first..end).contains(&u64::from(u32::from(address)))
    }

    /// The first host: the bridge.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address).wrapping_add(1))
    }
}

/// A free subnet for `key`, clear of `held` and `routes`. `None`: the pools are exhausted.
pub fn subnet(key: &ResourceKey, held: &[Subnet], routes: &BTreeSet<Subnet>) -> Option<Subnet> {
    let number = derive::number(&format!("subnet {key}"));
    for pool in POOLS {
        let count = 1u64 << (PREFIX - pool.prefix);
        let free = (0..count)
            .map(|step| Subnet {
                address: Ipv4Addr::from(
                    u32::from(pool.address) + ((((number % count) + step) % count) << (32 - PREFIX)) as u32,
                ),
                prefix: PREFIX,
            })
            .find(|subnet| {
                let clear = |other: &Subnet| !subnet.overlaps(*other);
                // A default route, whole or in halves as VPNs write it, is no neighbour.
                held.iter().all(clear) && routes.iter().filter(|route| route.prefix > 1).all(clear)
            });
        if free.is_some() {
            return free;
        }
    }
    None
}

/// A free address for `seed` in `subnet`; never the network, the gateway or the broadcast address.
pub fn address(seed: &str, subnet: Subnet, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    let size = 1u64 << (32 - u32::from(subnet.prefix.min(32)));
    let usable = size.checked_sub(3).filter(|usable| *usable > 0)?;
    let number = derive::number(&format!("address {seed}"));
    (0..usable)
        .map(|step| {
            let host = 2 + ((number % usable) + step) % usable;
            Ipv4Addr::from(u32::from(subnet.address) + host as u32)
        })
        .find(|address| !taken.contains(address))
}

/// A locally administered unicast address for `seed`.
pub fn mac(seed: &str) -> [u8; 6] {
    let bytes = derive::number(&format!("mac {seed}")).to_be_bytes();
    [0x02, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4]]
}

/// A free id range for `project`.
pub fn id_base(project: &str, held: &BTreeMap<String, u32>) -> Option<u32> {
    let number = derive::number(&format!("ids {project}")) as u32 % RANGES;
    let used: BTreeSet<u32> = held.values().copied().collect();
    (0..RANGES)
        .map(|step| FIRST_ID + ((number + step) % RANGES) * IDS)
        .find(|base| !used.contains(base))
}

/// A free host port for `seed` out of `first..=last`.
pub fn port(seed: &str, (first, last): (u16, u16), mut free: impl FnMut(u16) -> bool) -> Option<u16> {
    let count = u64::from(last.checked_sub(first)?) + 1;
    let number = derive::number(&format!("port {seed}"));
    (0..count)
        .map(|step| first + ((number % count + step) % count) as u16)
        .find(|port| free(*port))
}

#[cfg(test)]
mod tests;
