//! Which instance has which host port: fixed ones first, ephemeral ones around them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr},
};

use model::types::{PortRange, Protocol, PublishedPort};

use super::{Allocation, Held};
use crate::{
    key::InstanceKey,
    observed::State,
    plan::{
        addresses,
        wanted::{Member, Wants},
    },
    spec::{PortBinding, SandboxSpec},
};

/// Host ports that are spoken for.
#[derive(Default)]
struct Ports<'k> {
    claims: HashMap<(u16, Protocol), Vec<(Ipv4Addr, &'k InstanceKey)>>,
}

impl<'k> Ports<'k> {
    fn holder(&self, key: &InstanceKey, binding: &PortBinding) -> Option<&'k InstanceKey> {
        let wide = Ipv4Addr::UNSPECIFIED;
        self.claims
            .get(&(binding.published, binding.protocol))?
            .iter()
            .find(|(ip, holder)| {
                *holder != key && (*ip == binding.host_ip || *ip == wide || binding.host_ip == wide)
            })
            .map(|(_, holder)| *holder)
    }

    fn claim(&mut self, key: &'k InstanceKey, binding: &PortBinding) {
        let claims = self
            .claims
            .entry((binding.published, binding.protocol))
            .or_default();
        if !claims
            .iter()
            .any(|(ip, holder)| *ip == binding.host_ip && *holder == key)
        {
            claims.push((binding.host_ip, key));
        }
    }
}

/// Fixed ports first (who runs keeps, else the first in key order), then the ephemeral ones around them. Of
/// each wanted instance; none for one that stays as it is.
pub fn host_ports(
    wants: &Wants<'_>,
    held: &Held<'_>,
    allocation: &mut Allocation<'_>,
) -> Vec<Option<Result<Vec<PortBinding>, String>>> {
    let mut ports = Ports::default();
    // Leaving: their ports come free in this pass, but only after them.
    let mut leaving = Ports::default();
    // Of each wanted instance.
    let mut keeping: Vec<Vec<&PortBinding>> = vec![Vec::new(); wants.instances.len()];
    let sandboxes = || held.sandboxes.iter().map(|(key, sandbox)| (*key, *sandbox));
    for (key, sandbox, place) in wants.in_step(sandboxes()) {
        let member = place.and_then(|place| Some((wants.instances.get(place)?, keeping.get_mut(place)?)));
        match member {
            None if wants.left_alone(&key.project) => {
                sandbox.ports.iter().for_each(|binding| ports.claim(key, binding));
            }
            None => sandbox
                .ports
                .iter()
                .for_each(|binding| leaving.claim(key, binding)),
            Some((member, kept)) => {
                let service = member.wanted.service;
                let fits = |binding: &&PortBinding| service.ports.iter().any(|port| fits(port, binding));
                // What a new slot takes over counts as its own; what nobody will want goes with the old one.
                let owner = wants.replaced.get(key);
                let stays = wants.held.contains_key(key);
                for binding in sandbox.ports.iter().filter(|_| stays) {
                    match fits(&binding) {
                        true => ports.claim(owner.unwrap_or(key), binding),
                        false => leaving.claim(key, binding),
                    }
                }
                if owner.is_none() {
                    kept.extend(sandbox.ports.iter().filter(fits));
                }
            }
        }
    }
    let not_held = || {
        let members = wants.instances.iter().enumerate();
        members.filter(|(_, member)| !wants.held.contains_key(&member.key))
    };
    for (place, member) in not_held() {
        // What it takes over, or has taken over already: the reservation follows.
        let beside = beside(wants, held, &member.key);
        let had = beside.map_or(&[][..], |beside| &beside.ports);
        let led = held.own.get(place).copied().flatten().into_iter().chain(beside);
        let led = led.flat_map(|sandbox| allocation.led(sandbox));
        let Some(kept) = keeping.get_mut(place) else {
            continue;
        };
        for binding in had.iter().chain(led) {
            let service = member.wanted.service;
            if !kept.contains(&binding) && service.ports.iter().any(|port| fits(port, binding)) {
                kept.push(binding);
            }
        }
    }
    let running = |member: &Member<'_>| {
        let state = member.seen.map(|seen| &seen.state);
        matches!(state, Some(State::Running { .. } | State::Exited { .. }))
    };
    for (member, kept) in wants.instances.iter().zip(&keeping) {
        if running(member) {
            kept.iter().for_each(|binding| ports.claim(&member.key, binding));
        }
    }
    let order = |first: bool| not_held().filter(move |(_, member)| running(member) == first);
    let mut result: Vec<Option<Result<Vec<PortBinding>, String>>> = vec![None; wants.instances.len()];
    for (place, member) in order(true).chain(order(false)) {
        let key = &member.key;
        let fixed = member
            .wanted
            .service
            .ports
            .iter()
            .filter_map(|port| Some((port, fixed(port)?)));
        let mut refused = None;
        let mut claims = Vec::new();
        for (port, binding) in fixed {
            match binding {
                Err(why) => refused = Some(why),
                Ok(binding) => match ports.holder(key, &binding) {
                    Some(holder) => {
                        let port = format!("host port {}/{}", binding.published, protocol(port.protocol));
                        refused = Some(
                            if (&holder.project, &holder.service) == (&key.project, &key.service) {
                                format!(
                                    "only one of several containers can have {port}, and {holder} has it; leave \
                                 the host port out of `ports`, or give a range"
                                )
                            } else {
                                format!("{port} is used by {holder}; change `ports` of one of the two")
                            },
                        );
                    }
                    None => claims.push(binding),
                },
            }
        }
        match (refused, result.get_mut(place)) {
            (Some(why), Some(result)) => *result = Some(Err(why)),
            _ => claims.iter().for_each(|binding| ports.claim(key, binding)),
        }
    }
    let mut holders: BTreeMap<InstanceKey, BTreeSet<InstanceKey>> = BTreeMap::new();
    for (place, member) in not_held() {
        let (key, kept) = (&member.key, keeping.get(place));
        let Some(result) = result.get_mut(place).filter(|result| result.is_none()) else {
            continue;
        };
        let mut bindings: Vec<PortBinding> = Vec::new();
        let mut refused = None;
        for port in &member.wanted.service.ports {
            let binding = match fixed(port) {
                Some(binding) => binding,
                None => ephemeral(key, port, kept, &bindings, &ports, &leaving),
            };
            match binding {
                Ok(binding) => {
                    ports.claim(key, &binding);
                    if let Some(holder) = leaving.holder(key, &binding) {
                        holders.entry(key.clone()).or_default().insert(holder.clone());
                    }
                    bindings.push(binding);
                }
                Err(why) => refused = Some(why),
            }
        }
        *result = Some(refused.map_or(Ok(bindings), Err));
    }
    // Another wanted instance may still hold, for a moment, what its new version gives up.
    let changing = held.changing.iter().copied();
    let changing = changing.filter(|_| !planted!("port-not-yet-given-up"));
    let all = sandboxes().chain(changing);
    let mut given_up: Vec<(&InstanceKey, &PortBinding)> = all
        .flat_map(|(key, sandbox)| sandbox.ports.iter().map(move |binding| (key, binding)))
        .collect();
    given_up.sort_by_key(|(_, binding)| binding.published);
    for (Member { key, .. }, bindings) in wants.instances.iter().zip(&result) {
        for binding in bindings.iter().flatten().flatten() {
            let first = given_up.partition_point(|(_, held)| held.published < binding.published);
            let same = given_up.get(first..).unwrap_or_default().iter();
            for (other, held) in same.take_while(|(_, held)| held.published == binding.published) {
                if *other != key && clash(held, binding) {
                    holders.entry(key.clone()).or_default().insert((*other).clone());
                }
            }
        }
    }
    allocation.holders = holders;
    result
}

/// The sandbox whose place `key` takes.
pub fn beside<'h>(wants: &Wants<'_>, held: &Held<'h>, key: &InstanceKey) -> Option<&'h SandboxSpec> {
    let pair = wants.pairs.get(key)?;
    held.sandboxes.get(&pair.old).copied()
}

/// Both cannot be had at once.
pub fn clash(one: &PortBinding, two: &PortBinding) -> bool {
    one.published == two.published
        && one.protocol == two.protocol
        && (one.host_ip == two.host_ip || one.host_ip.is_unspecified() || two.host_ip.is_unspecified())
}

fn ephemeral(
    key: &InstanceKey,
    port: &PublishedPort,
    kept: Option<&Vec<&PortBinding>>,
    already: &[PortBinding],
    ports: &Ports<'_>,
    leaving: &Ports<'_>,
) -> Result<PortBinding, String> {
    let free = |binding: &PortBinding| {
        ports.holder(key, binding).is_none()
            && !already
                .iter()
                .any(|other| other.published == binding.published && other.protocol == binding.protocol)
    };
    if let Some(binding) = kept
        .into_iter()
        .flatten()
        .find(|binding| fits(port, binding) && free(binding))
    {
        return Ok((*binding).clone());
    }
    let (first, last) = port
        .published
        .map_or(addresses::EPHEMERAL, |range| (range.first, range.last));
    let host_ip = host_ip(port)?;
    let binding = |published| PortBinding {
        host_ip,
        published,
        target: port.target,
        protocol: port.protocol,
    };
    let seed = format!("{key} {}/{}", port.target, protocol(port.protocol));
    addresses::port(&seed, (first, last), |number| {
        let binding = binding(number);
        free(&binding) && leaving.holder(key, &binding).is_none()
    })
    .map(binding)
    .ok_or_else(|| format!("no host port out of {first}-{last} is free; publish a wider range"))
}

/// `None`: one is to be chosen.
fn fixed(port: &PublishedPort) -> Option<Result<PortBinding, String>> {
    let PortRange { first, last } = port.published?;
    (first == last).then(|| {
        Ok(PortBinding {
            host_ip: host_ip(port)?,
            published: first,
            target: port.target,
            protocol: port.protocol,
        })
    })
}

fn host_ip(port: &PublishedPort) -> Result<Ipv4Addr, String> {
    match port.host_ip {
        None => Ok(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V4(ip)) => Ok(ip),
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => Ok(Ipv4Addr::UNSPECIFIED),
        Some(IpAddr::V6(ip)) => Err(format!(
            "ports cannot be published on the IPv6 address {ip} yet; use an IPv4 address"
        )),
    }
}

fn fits(port: &PublishedPort, binding: &PortBinding) -> bool {
    let (first, last) = port
        .published
        .map_or(addresses::EPHEMERAL, |range| (range.first, range.last));
    port.target == binding.target
        && port.protocol == binding.protocol
        && host_ip(port).is_ok_and(|ip| ip == binding.host_ip)
        && (first..=last).contains(&binding.published)
}

fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}
