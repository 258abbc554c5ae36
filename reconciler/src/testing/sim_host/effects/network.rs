//! Bridges, the firewall and names.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    super::{
        SimError, World, disk,
        drift::bridge_drift,
        error,
        objects::{Bridge, MTU, Skeleton},
        world::touch,
    },
    Next, Work,
};
use crate::{
    key::{Key, ResourceKey},
    port::{ActionError, Retry},
    spec::{FirewallSpec, NetworkSpec, Zone},
};

impl World {
    /// 0.. record · 4 link · 5 name, IPv6 off · 6 the rest, in one datagram · 7 route_localnet
    pub(super) fn ensure_network(
        &mut self,
        spec: &NetworkSpec,
        work: &mut Work,
    ) -> Result<Next, ActionError> {
        let key = &spec.key;
        let guarded = self.firewall.networks.contains_key(key) && !self.rules_hurt;
        match work.stage {
            stage if stage < disk::STAGES => self.record(0, stage, |world, stage| {
                world.touched |= touch::NETWORKS;
                world.networks.put(key, spec, stage)
            }),
            4 => match self.bridges.get(key) {
                Some(bridge) if !bridge.is_bridge => {
                    Err(error(Retry::Again, SimError::NotABridge(key.clone())))
                }
                Some(_) => Ok(Next::To(5)),
                None => {
                    if self.routes.iter().any(|route| route.overlaps(spec.subnet)) {
                        return Err(error(Retry::Again, SimError::SubnetOverlap(key.clone())));
                    }
                    let index = self.number() as u32;
                    self.bridges.insert(key.clone(), Bridge::new(index));
                    self.moved(touch::NETWORKS);
                    Ok(Next::Did(5))
                }
            },
            stage => {
                let Some(bridge) = self.bridges.get_mut(key) else {
                    return Err(error(Retry::Again, SimError::BridgeMissing(key.clone())));
                };
                match stage {
                    5 if bridge.quiet_ipv6 && !bridge.renamed => Ok(Next::To(6)),
                    5 => {
                        bridge.renamed = false;
                        bridge.quiet_ipv6 = true;
                        self.moved(touch::NETWORKS);
                        Ok(Next::Did(6))
                    }
                    6 if bridge_drift(Some(bridge), spec).is_empty() => Ok(Next::To(7)),
                    6 => {
                        bridge.mtu_set |= bridge.mtu != MTU;
                        bridge.up = true;
                        bridge.route = true;
                        bridge.own_mac = true;
                        bridge.alias = true;
                        bridge.spanning_tree = false;
                        bridge.mtu = MTU;
                        bridge.addresses = BTreeSet::from([(spec.gateway, spec.subnet.prefix)]);
                        self.moved(touch::NETWORKS);
                        Ok(Next::Did(7))
                    }
                    // Opened where its guards are in force.
                    7 if guarded && !bridge.localnet => {
                        bridge.localnet = true;
                        self.moved(touch::FIREWALL | touch::NETWORKS);
                        Ok(Next::Did(8))
                    }
                    _ => Ok(Next::End),
                }
            }
        }
    }

    /// 0 link · 1 record · 2 sync
    pub(super) fn remove_network(&mut self, key: &ResourceKey, work: &mut Work) -> Result<Next, ActionError> {
        match work.stage {
            0 => {
                let used = self.instances.values().any(|place| {
                    place.shim.as_ref().is_some_and(|shim| {
                        shim.sandbox
                            .endpoints
                            .iter()
                            .any(|endpoint| endpoint.network == *key)
                    })
                });
                self.need(!used, &Key::Network(key.clone()), "that nobody is on it")?;
                if !self.delete_link(key) {
                    return Ok(Next::To(1));
                }
                self.moved(touch::NETWORKS);
                Ok(Next::Did(1))
            }
            1 => {
                if !self.networks.unlink(key) {
                    return Ok(Next::End);
                }
                self.moved(touch::NETWORKS | touch::RECORDS);
                Ok(Next::Did(2))
            }
            2 => {
                self.networks.sync(key);
                self.moved(touch::RECORDS);
                Ok(Next::Did(3))
            }
            _ => Ok(Next::End),
        }
    }

    /// A bridge goes; its ports stay, alone. False: there was none.
    pub(in super::super) fn delete_link(&mut self, key: &ResourceKey) -> bool {
        let Some(bridge) = self.bridges.remove(key) else {
            return false;
        };
        for place in self.instances.values_mut() {
            for pair in place.netns.iter_mut().flat_map(|netns| netns.pairs.values_mut()) {
                if pair.bridge == Some(bridge.index) {
                    pair.bridge = None;
                }
            }
        }
        true
    }

    /// A bridge whose MTU nobody has set takes the least of its ports.
    pub(in super::super) fn follow_ports(&mut self) {
        for bridge in self.bridges.values_mut().filter(|bridge| !bridge.mtu_set) {
            let netns = self.instances.values().filter_map(|place| place.netns.as_ref());
            let pairs = netns.flat_map(|netns| netns.pairs.values());
            let ports = pairs.filter(|pair| pair.bridge == Some(bridge.index));
            bridge.mtu = ports.map(|pair| pair.mtu).min().unwrap_or(MTU);
        }
    }

    /// 0 note · 1 rules, in one transaction · 2 forwarding · 3 one bridge after the other.
    /// To nothing: 10 forwarding · 11 bridges · 12 note · 13 tables.
    pub(super) fn sync_firewall(
        &mut self,
        spec: &FirewallSpec,
        work: &mut Work,
    ) -> Result<Next, ActionError> {
        let empty = spec.networks.is_empty() && spec.ports.is_empty();
        match work.stage {
            0 if empty => Ok(Next::To(10)),
            0 => {
                if self.turned_on || self.ip_forward {
                    return Ok(Next::To(1));
                }
                self.turned_on = true;
                self.moved(touch::FIREWALL);
                Ok(Next::Did(1))
            }
            1 => {
                let whole = self.skeleton == Skeleton::Whole;
                if whole && self.firewall == *spec {
                    self.rules_hurt = false;
                    return Ok(Next::To(2));
                }
                self.skeleton = Skeleton::Whole;
                self.firewall = spec.clone();
                self.rules_hurt = false;
                self.moved(touch::FIREWALL);
                Ok(Next::Did(2))
            }
            2 => {
                if self.ip_forward {
                    return Ok(Next::To(3));
                }
                self.ip_forward = true;
                self.moved(touch::FIREWALL);
                Ok(Next::Did(3))
            }
            3 => {
                let mut bridges = self.bridges.iter_mut();
                let shut = bridges.find(|(key, bridge)| !bridge.localnet && spec.networks.contains_key(*key));
                let Some((_, bridge)) = shut else {
                    return Ok(Next::End);
                };
                bridge.localnet = true;
                self.moved(touch::FIREWALL | touch::NETWORKS);
                Ok(Next::Did(3))
            }
            10 => {
                if !(self.turned_on && self.ip_forward) {
                    return Ok(Next::To(11));
                }
                self.ip_forward = false;
                self.moved(touch::FIREWALL);
                Ok(Next::Did(11))
            }
            11 => {
                let kept = &self.firewall.networks;
                let mut bridges = self.bridges.iter_mut();
                let open = bridges.find(|(key, bridge)| bridge.localnet && kept.contains_key(*key));
                let Some((_, bridge)) = open else {
                    return Ok(Next::To(12));
                };
                bridge.localnet = false;
                self.moved(touch::FIREWALL | touch::NETWORKS);
                Ok(Next::Did(11))
            }
            12 => {
                if !std::mem::take(&mut self.turned_on) {
                    return Ok(Next::To(13));
                }
                self.moved(touch::FIREWALL);
                Ok(Next::Did(13))
            }
            _ => {
                self.rules_hurt = false;
                if self.skeleton == Skeleton::Absent {
                    return Ok(Next::End);
                }
                self.skeleton = Skeleton::Absent;
                self.firewall = FirewallSpec::default();
                self.moved(touch::FIREWALL);
                Ok(Next::Did(14))
            }
        }
    }

    pub(super) fn sync_names(
        &mut self,
        network: &ResourceKey,
        zone: Option<&Zone>,
        work: &mut Work,
    ) -> Result<Next, ActionError> {
        if work.stage > 0 || self.zones.get(network).map(|zone| &**zone) == zone {
            return Ok(Next::End);
        }
        match zone {
            Some(zone) => self.zones.insert(network.clone(), Arc::new(zone.clone())),
            None => self.zones.remove(network),
        };
        self.moved(touch::NAMES);
        Ok(Next::Did(1))
    }
}
