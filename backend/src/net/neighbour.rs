//! How soon the kernel asks again for the hardware address of a neighbour (rtnetlink(7), arp(7)).

use super::{netlink::Batch, sysctl};
use crate::firewall::encode::Attributes;

/// For one link, as [`sysctl::neighbour_retry`] would: along with what else is asked of the link, and without a
/// visit to its namespace.
pub fn set_retry(batch: &mut Batch, link: u32) {
    const SET: u16 = 67;
    const NAME: u16 = 1;
    const PARAMETERS: u16 = 6;
    const LINK: u16 = 1;
    const RETRY: u16 = 5;
    batch.push(SET, 0, |bytes| {
        bytes.extend([libc::AF_INET as u8, 0, 0, 0]);
        bytes.text(NAME, "arp_cache");
        bytes.nest(PARAMETERS, |bytes| {
            bytes.attribute(LINK, &link.to_ne_bytes());
            bytes.attribute(RETRY, &sysctl::NEIGHBOUR_RETRY.to_ne_bytes());
        });
    });
}
