//! What differs from what was made, in the words of the Linux backend.

use super::{
    World,
    objects::{Bridge, MTU, Netns, Place, Tree},
    world::STATE,
};
use crate::{
    key::InstanceKey,
    observed::Instance,
    spec::{ContainerSpec, Limits, MountSpec, NetworkSpec, SandboxSpec},
};

impl World {
    /// What a running container stands on, compared with what it was given.
    pub(super) fn standing(
        &self,
        key: &InstanceKey,
        place: &Place,
        container: &ContainerSpec,
        instance: &mut Instance,
    ) {
        if let Some(cgroup) = &place.cgroup {
            limits_drift(&cgroup.limits, &container.limits, &mut instance.drift);
            for stray in &cgroup.strayed {
                instance
                    .drift
                    .push(format!("process {stray} was moved out of its cgroup"));
            }
        }
        let Some(tree) = &place.tree else {
            return;
        };
        instance.broken = self.broken(key, tree, container);
        if instance.broken.is_some() {
            return;
        }
        for (index, mount) in container.mounts.iter().enumerate() {
            if tree.mounts.contains(&index) {
                continue;
            }
            let target = match mount {
                // Held: what is wrong with the volume is told there.
                MountSpec::Volume { volume, .. } if self.lost(volume).is_some() => continue,
                MountSpec::Volume { target, .. }
                | MountSpec::Bind { target, .. }
                | MountSpec::Tmpfs { target, .. } => target,
            };
            instance
                .drift
                .push(format!("{} is not mounted any more", target.display()));
        }
    }

    /// Why the root of a container is gone, if it is.
    pub(super) fn broken(&self, key: &InstanceKey, tree: &Tree, container: &ContainerSpec) -> Option<String> {
        if !tree.overlay {
            return Some("its root is not mounted any more".to_owned());
        }
        if self.trees.get(key).and_then(|directory| directory.upper) != Some(tree.upper) {
            let name = format!("{}/{}-{}{}", key.project, key.service, key.index, key.slot);
            return Some(format!("{STATE}/containers/{name}/upper was deleted"));
        }
        let digest = &container.image_digest;
        (!self.unpacked(digest)).then(|| format!("{STATE}/images/layers/{digest} was deleted"))
    }

    pub(super) fn sandbox_drift(&self, place: &Place, spec: &SandboxSpec, drift: &mut Vec<String>) {
        let empty = Netns::default();
        let netns = place.netns.as_ref().unwrap_or(&empty);
        if !netns.loopback {
            drift.push("lo is down".to_owned());
        }
        let mut wants_default = true;
        for endpoint in &spec.endpoints {
            let name = endpoint.inside();
            let default = endpoint.gateway.filter(|_| wants_default);
            wants_default &= default.is_none();
            let Some(pair) = netns.pairs.get(&endpoint.interface) else {
                drift.push(format!("{name} is missing"));
                continue;
            };
            if !pair.inner.up {
                drift.push(format!("{name} is down"));
            }
            if pair.inner.mac != endpoint.mac {
                drift.push(format!("{name} has another MAC address"));
            }
            if pair.inner.mtu != MTU {
                drift.push(format!("{name} has an MTU of {}", pair.inner.mtu));
            }
            if !pair
                .inner
                .addresses
                .contains(&(endpoint.address, endpoint.prefix))
            {
                drift.push(format!("address {} is missing", endpoint.address));
            }
            if default.is_some() && pair.inner.way_out != default {
                drift.push("default route is missing".to_owned());
            }
            let bridge = self.bridges.get(&endpoint.network);
            // A bridge that is down has switched its ports off.
            let off = bridge.is_some_and(|bridge| pair.bridge == Some(bridge.index) && !bridge.up);
            let bridge = bridge.filter(|bridge| !bridge.renamed).map(|bridge| bridge.index);
            if pair.bridge.is_none() || pair.bridge != bridge {
                drift.push(format!("veth of {name} is not on its bridge"));
            } else if !pair.hairpin {
                drift.push(format!(
                    "the bridge port of {name} has another setting of hairpin"
                ));
            }
            if !pair.up {
                drift.push(format!("veth of {name} is down"));
            } else if off {
                drift.push(format!("the bridge port of {name} does not forward"));
            }
            if pair.mtu != MTU {
                drift.push(format!("veth of {name} has an MTU of {}", pair.mtu));
            }
        }
    }
}

fn limits_drift(found: &Limits, wanted: &Limits, drift: &mut Vec<String>) {
    for (file, found, wanted) in [
        ("memory.max", found.memory, wanted.memory),
        ("cpu.max", found.cpu, wanted.cpu),
        ("pids.max", found.pids, wanted.pids),
    ] {
        let text = |limit: Option<u64>| limit.map_or_else(|| "max".to_owned(), |limit| limit.to_string());
        if found != wanted {
            let (found, wanted) = (text(found), text(wanted));
            drift.push(format!("{file} is {found} instead of {wanted}"));
        }
    }
}

pub(super) fn bridge_drift(bridge: Option<&Bridge>, spec: &NetworkSpec) -> Vec<String> {
    let Some(bridge) = bridge else {
        return vec!["bridge is missing".to_owned()];
    };
    if bridge.renamed {
        return vec!["bridge is missing".to_owned()];
    }
    if !bridge.is_bridge {
        return vec!["its link is not a bridge".to_owned()];
    }
    let mut drift = Vec::new();
    let mut expect = |right: bool, what: &str| {
        if !right {
            drift.push(what.to_owned());
        }
    };
    expect(bridge.up, "bridge is down");
    expect(bridge.own_mac, "bridge has another MAC address");
    expect(bridge.alias, "bridge has lost its alias");
    expect(!bridge.spanning_tree, "bridge runs the spanning tree protocol");
    if bridge.mtu != MTU {
        drift.push(format!("bridge has an MTU of {}", bridge.mtu));
    }
    let own = (spec.gateway, spec.subnet.prefix);
    if !bridge.addresses.contains(&own) {
        drift.push(format!("address {}/{} is missing", own.0, own.1));
    }
    for (address, prefix) in bridge.addresses.iter().filter(|address| **address != own) {
        drift.push(format!("address {address}/{prefix} is not ours"));
    }
    if bridge.up && bridge.addresses.contains(&own) && !bridge.route {
        let subnet = spec.subnet;
        drift.push(format!(
            "route to {}/{} is missing",
            subnet.address, subnet.prefix
        ));
    }
    if !bridge.quiet_ipv6 {
        drift.push("IPv6 is on on the bridge".to_owned());
    }
    drift
}
