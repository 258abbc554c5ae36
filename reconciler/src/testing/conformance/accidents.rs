//! The damage that histories name, in their words.

use std::net::Ipv4Addr;

use super::super::sim_host::damage::Damage;
use crate::{
    key::{InstanceKey, ResourceKey, Slot},
    spec::Subnet,
};

pub fn damage(words: &[&str]) -> Option<Damage> {
    Some(match words {
        ["port-taken", port] => Damage::PortTaken(port.parse().ok()?),
        ["port-freed", port] => Damage::PortFreed(port.parse().ok()?),
        ["route-added", subnet] => Damage::RouteAdded(self::subnet(subnet)?),
        ["route-removed", subnet] => Damage::RouteRemoved(self::subnet(subnet)?),
        ["bridge-address-added", name, address] => {
            Damage::BridgeAddressAdded(resource(name), address.parse::<Ipv4Addr>().ok()?)
        }
        ["rules-flushed"] => Damage::RulesFlushed,
        ["rule-deleted"] => Damage::RuleDeleted,
        ["port-element-deleted"] => Damage::PortElementDeleted,
        ["forwarding-off"] => Damage::ForwardingOff,
        ["unmounted", key, index] => Damage::MountUnmounted(instance(key)?, index.parse().ok()?),
        ["killed", key] => Damage::ProcessKilled(instance(key)?, 137),
        ["ids-record-deleted", project] => Damage::IdRecordDeleted((*project).to_owned()),
        [what, name] => of_resource(what, name).or_else(|| of_instance(what, instance(name)?))?,
        [what, key, interface] => of_interface(what, instance(key)?, (*interface).to_owned())?,
        _ => return None,
    })
}

fn of_resource(what: &str, name: &str) -> Option<Damage> {
    let key = resource(name);
    let full = key.name.clone();
    Some(match what {
        "bridge-deleted" => Damage::BridgeDeleted(key),
        "bridge-down" => Damage::BridgeDown(key),
        "bridge-address-removed" => Damage::BridgeAddressRemoved(key),
        "bridge-mtu" => Damage::BridgeMtu(key),
        "bridge-mac" => Damage::BridgeMac(key),
        "bridge-alias" => Damage::BridgeAlias(key),
        "bridge-stp" => Damage::BridgeSpanningTree(key),
        "bridge-renamed" => Damage::BridgeRenamed(key),
        "bridge-ipv6" => Damage::BridgeIpv6(key),
        "bridge-route-removed" => Damage::BridgeRouteRemoved(key),
        "endpoint-element-deleted" => Damage::EndpointElementDeleted(key),
        "localnet-off" => Damage::LocalnetOff(key),
        "zone-deleted" => Damage::ZoneDeleted(key),
        "zone-changed" => Damage::ZoneChanged(key),
        "network-record-torn" => Damage::NetworkRecordTorn(key),
        "network-record-deleted" => Damage::NetworkRecordDeleted(key),
        "volume-record-deleted" => Damage::VolumeRecordDeleted(key),
        "volume-moved-away" => Damage::VolumeMovedAway(full),
        "volume-put-back" => Damage::VolumePutBack(full),
        "volume-replaced" => Damage::VolumeReplaced(full),
        "volume-restored" => Damage::VolumeRestored(full),
        _ => return None,
    })
}

fn of_instance(what: &str, key: InstanceKey) -> Option<Damage> {
    Some(match what {
        "lo-down" => Damage::LoopbackDown(key),
        "upper-deleted" => Damage::UpperDeleted(key),
        "limits-changed" => Damage::LimitsChanged(key),
        "process-strayed" => Damage::ProcessStrayed(key),
        "shim-killed" => Damage::ShimKilled(key),
        "shim-silent" => Damage::ShimSilent(key),
        "shim-answers" => Damage::ShimAnswers(key),
        _ => return None,
    })
}

fn of_interface(what: &str, key: InstanceKey, interface: String) -> Option<Damage> {
    Some(match what {
        "veth-deleted" => Damage::VethDeleted(key, interface),
        "veth-down" => Damage::VethDown(key, interface),
        "veth-off-bridge" => Damage::VethOffBridge(key, interface),
        "veth-hairpin" => Damage::VethHairpin(key, interface),
        "veth-mtu" => Damage::VethMtu(key, interface),
        "inner-down" => Damage::InnerDown(key, interface),
        "inner-address-removed" => Damage::InnerAddressRemoved(key, interface),
        "inner-route-removed" => Damage::InnerRouteRemoved(key, interface),
        "inner-mac" => Damage::InnerMac(key, interface),
        _ => return None,
    })
}

/// `web`, `web/2b`: of the project `shop`, number 1 and slot a where nothing else is said.
pub fn instance(text: &str) -> Option<InstanceKey> {
    let (service, place) = text.split_once('/').unwrap_or((text, "1a"));
    let (index, slot) = place.split_at_checked(place.len().checked_sub(1)?)?;
    Some(InstanceKey {
        project: "shop".to_owned(),
        service: service.to_owned(),
        index: index.parse().ok()?,
        slot: match slot {
            "a" => Slot::A,
            "b" => Slot::B,
            _ => return None,
        },
    })
}

/// A network or a volume of the project `shop`, by the name that its file gives it.
pub fn resource(name: &str) -> ResourceKey {
    ResourceKey {
        project: "shop".to_owned(),
        name: format!("shop_{name}"),
    }
}

fn subnet(text: &str) -> Option<Subnet> {
    let (address, prefix) = text.split_once('/')?;
    Some(Subnet {
        address: address.parse().ok()?,
        prefix: prefix.parse().ok()?,
    })
}
