//! Networks and sandboxes with every address, range and host port decided.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use model::types::{PortRange, Protocol, PublishedPort};

use super::{
    InFlight,
    action::Action,
    addresses,
    wanted::{self, Wanted, Wants},
};
use crate::{
    key::{InstanceKey, ResourceKey},
    observed::{Fact, Instance, Observed, State},
    spec::{Endpoint, NetworkSpec, PortBinding, SandboxSpec, Subnet},
};

/// Each wanted object's specification, or why it cannot be had now and what to do.
#[derive(Default)]
pub struct Allocation {
    pub networks: BTreeMap<ResourceKey, Result<NetworkSpec, String>>,
    pub sandboxes: BTreeMap<InstanceKey, Result<SandboxSpec, String>>,
    /// By new slot: the sandbox with the host ports that the slot beside it has until it is removed.
    pub taking_over: BTreeMap<InstanceKey, SandboxSpec>,
    /// Whose removal must come first, because it holds a host port that is wanted here.
    pub holders: BTreeMap<InstanceKey, BTreeSet<InstanceKey>>,
    /// By address: the host ports that lead to it now, reserved or not.
    leads: BTreeMap<Ipv4Addr, Vec<PortBinding>>,
}

impl Allocation {
    /// The host ports that lead to `sandbox` now. Ports go to one of its addresses.
    pub fn led(&self, sandbox: &SandboxSpec) -> &[PortBinding] {
        let mut found = sandbox
            .endpoints
            .iter()
            .filter_map(|endpoint| self.leads.get(&endpoint.address));
        found.next().map_or(&[], Vec::as_slice)
    }
}

/// Host ports that are spoken for.
#[derive(Default)]
struct Ports {
    claims: BTreeMap<(u16, Protocol), Vec<(Ipv4Addr, InstanceKey)>>,
}

impl Ports {
    fn holder(&self, key: &InstanceKey, binding: &PortBinding) -> Option<&InstanceKey> {
        let wide = Ipv4Addr::UNSPECIFIED;
        self.claims
            .get(&(binding.published, binding.protocol))?
            .iter()
            .find(|(ip, holder)| {
                holder != key && (*ip == binding.host_ip || *ip == wide || binding.host_ip == wide)
            })
            .map(|(_, holder)| holder)
    }

    fn claim(&mut self, key: &InstanceKey, binding: &PortBinding) {
        let claims = self
            .claims
            .entry((binding.published, binding.protocol))
            .or_default();
        if !claims
            .iter()
            .any(|(ip, holder)| *ip == binding.host_ip && holder == key)
        {
            claims.push((binding.host_ip, key.clone()));
        }
    }
}

/// What exists or is being made: it holds its addresses.
struct Held {
    networks: BTreeMap<ResourceKey, NetworkSpec>,
    sandboxes: BTreeMap<InstanceKey, SandboxSpec>,
    id_bases: Result<BTreeMap<String, u32>, String>,
    running: BTreeSet<InstanceKey>,
}

pub fn allocate(wants: &Wants<'_>, observed: &Observed, in_flight: &InFlight) -> Allocation {
    let held = Held::new(observed, in_flight);
    let mut allocation = Allocation {
        leads: leads(observed),
        ..Allocation::default()
    };
    networks(wants, observed, &held, &mut allocation);
    let id_bases = id_bases(wants, &held);
    let mut taken: BTreeSet<Ipv4Addr> = held
        .sandboxes
        .values()
        .flat_map(|sandbox| sandbox.endpoints.iter().map(|endpoint| endpoint.address))
        .collect();
    let mut ports = host_ports(wants, &held, &mut allocation);
    for (key, wanted) in &wants.instances {
        if wants.held.contains_key(key)
            && let Some(sandbox) = held.sandboxes.get(key)
        {
            allocation.sandboxes.insert(key.clone(), Ok(sandbox.clone()));
            continue;
        }
        let sandbox = sandbox(key, *wanted, &allocation.networks, &held, &id_bases, &mut taken);
        let sandbox = match (sandbox, ports.remove(key)) {
            (Ok(mut sandbox), Some(Ok(ports))) => {
                sandbox.ports = ports;
                Ok(sandbox)
            }
            (Ok(sandbox), None) => Ok(sandbox),
            (Err(why), _) | (_, Some(Err(why))) => Err(why),
        };
        let sandbox = sandbox.map(|whole| {
            let beside = beside(wants, &held, key);
            let had = |binding: &PortBinding| {
                beside.is_some_and(|beside| beside.ports.iter().any(|other| clash(other, binding)))
            };
            let mut now = whole.clone();
            now.ports.retain(|binding| !had(binding));
            if now != whole {
                allocation.taking_over.insert(key.clone(), whole);
            }
            now
        });
        allocation.sandboxes.insert(key.clone(), sandbox);
    }
    allocation
}

impl Held {
    fn new(observed: &Observed, in_flight: &InFlight) -> Self {
        let none = BTreeMap::new();
        let seen: &BTreeMap<InstanceKey, Instance> = observed.instances.known().unwrap_or(&none);
        // Of a lost one nothing is known, least of all its ids: those of the host would be taken for them.
        let mut sandboxes: BTreeMap<_, _> = seen
            .iter()
            .filter(|(_, instance)| instance.state != State::Lost)
            .map(|(key, instance)| (key.clone(), instance.sandbox.clone()))
            .collect();
        let mut networks: BTreeMap<ResourceKey, NetworkSpec> = observed
            .networks
            .known()
            .into_iter()
            .flatten()
            .map(|(key, network)| (key.clone(), network.spec.clone()))
            .collect();
        for step in in_flight {
            match &step.action {
                Action::EnsureSandbox(spec) => {
                    sandboxes.insert(spec.key.clone(), spec.clone());
                }
                Action::EnsureNetwork(spec) => {
                    networks.insert(spec.key.clone(), spec.clone());
                }
                _ => {}
            }
        }
        let id_bases = match &observed.id_bases {
            Fact::Known(recorded) => {
                let mut bases = recorded.clone();
                for (key, sandbox) in &sandboxes {
                    bases.insert(key.project.clone(), sandbox.id_base);
                }
                Ok(bases)
            }
            Fact::Unknown(why) => Err(format!("the recorded id ranges could not be read: {why}")),
        };
        let running = seen
            .iter()
            .filter(|(_, instance)| matches!(instance.state, State::Running { .. } | State::Exited { .. }))
            .map(|(key, _)| key.clone())
            .collect();
        Held {
            networks,
            sandboxes,
            id_bases,
            running,
        }
    }
}

fn networks(wants: &Wants<'_>, observed: &Observed, held: &Held, allocation: &mut Allocation) {
    let mut subnets: Vec<Subnet> = held.networks.values().map(|spec| spec.subnet).collect();
    for (key, resource) in &wants.networks {
        let subnet = match (held.networks.get(key), &observed.networks, &observed.routes) {
            (Some(spec), _, _) => Ok((spec.subnet, spec.gateway)),
            (None, Fact::Unknown(why), _) => Err(format!("the networks could not be read: {why}")),
            (None, _, Fact::Unknown(why)) => Err(format!("the routes could not be read: {why}")),
            (None, _, Fact::Known(routes)) => addresses::subnet(key, &subnets, routes)
                .map(|subnet| (subnet, subnet.gateway()))
                .ok_or_else(|| {
                    "no free subnet is left in 10.64.0.0/10 and 172.16.0.0/12; remove networks or routes"
                        .to_owned()
                }),
        };
        let spec = subnet.map(|(subnet, gateway)| {
            subnets.push(subnet);
            NetworkSpec {
                key: key.clone(),
                subnet,
                gateway,
                internal: resource.internal,
            }
        });
        allocation.networks.insert(key.clone(), spec);
    }
}

fn id_bases(wants: &Wants<'_>, held: &Held) -> Result<BTreeMap<String, u32>, String> {
    let mut bases = held.id_bases.clone()?;
    for key in wants.instances.keys() {
        if !bases.contains_key(&key.project)
            && let Some(base) = addresses::id_base(&key.project, &bases)
        {
            bases.insert(key.project.clone(), base);
        }
    }
    Ok(bases)
}

fn sandbox(
    key: &InstanceKey,
    Wanted { project, service }: Wanted<'_>,
    networks: &BTreeMap<ResourceKey, Result<NetworkSpec, String>>,
    held: &Held,
    id_bases: &Result<BTreeMap<String, u32>, String>,
    taken: &mut BTreeSet<Ipv4Addr>,
) -> Result<SandboxSpec, String> {
    let before = held.sandboxes.get(key);
    let id_base = match (before, id_bases) {
        (Some(before), _) => before.id_base,
        (None, Ok(bases)) => *bases
            .get(&key.project)
            .ok_or_else(|| "all id ranges are in use; remove a project".to_owned())?,
        (None, Err(why)) => return Err(why.clone()),
    };
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut fresh = Vec::new();
    for name in service.networks.keys() {
        let Some((network, _)) = wanted::network(project, name) else {
            continue;
        };
        let spec = match networks.get(&network) {
            Some(Ok(spec)) => spec,
            Some(Err(why)) => return Err(format!("network {network}: {why}")),
            None => continue,
        };
        let gateway = (!spec.internal).then_some(spec.gateway);
        let had = before.and_then(|before| {
            before
                .endpoints
                .iter()
                .find(|endpoint| endpoint.network == network && spec.subnet.contains(endpoint.address))
        });
        match had {
            Some(had) => endpoints.push(Endpoint {
                gateway,
                prefix: spec.subnet.prefix,
                ..had.clone()
            }),
            None => fresh.push((network, spec, gateway)),
        }
    }
    for (network, spec, gateway) in fresh {
        let seed = format!("{key} {network}");
        let address = addresses::address(&seed, spec.subnet, taken)
            .ok_or_else(|| format!("network {network} has no free address; use another network"))?;
        taken.insert(address);
        let interface = (0..)
            .map(|number| format!("eth{number}"))
            .find(|name| endpoints.iter().all(|endpoint| endpoint.interface != *name))
            .unwrap_or_default();
        endpoints.push(Endpoint {
            network,
            interface,
            address,
            prefix: spec.subnet.prefix,
            gateway,
            mac: addresses::mac(&seed),
        });
    }
    endpoints.sort_by(|a, b| (a.interface.len(), &a.interface).cmp(&(b.interface.len(), &b.interface)));
    Ok(SandboxSpec {
        key: key.clone(),
        id_base,
        endpoints,
        ports: Vec::new(),
    })
}

/// Fixed ports first (who runs keeps, else the first in key order), then the ephemeral ones around them.
fn host_ports(
    wants: &Wants<'_>,
    held: &Held,
    allocation: &mut Allocation,
) -> BTreeMap<InstanceKey, Result<Vec<PortBinding>, String>> {
    let mut ports = Ports::default();
    // Leaving: their ports come free in this pass, but only after them.
    let mut leaving = Ports::default();
    let mut keeping: BTreeMap<&InstanceKey, Vec<PortBinding>> = BTreeMap::new();
    for (key, sandbox) in &held.sandboxes {
        match wants.instances.get(key) {
            None if wants.left_alone(&key.project) => {
                sandbox.ports.iter().for_each(|binding| ports.claim(key, binding));
            }
            None => sandbox
                .ports
                .iter()
                .for_each(|binding| leaving.claim(key, binding)),
            Some(wanted) => {
                let fits =
                    |binding: &&PortBinding| wanted.service.ports.iter().any(|port| fits(port, binding));
                // What a new slot takes over counts as its own; what nobody will want goes with the old one.
                let owner = wants.replaced.get(key).unwrap_or(key);
                let stays = wants.held.contains_key(key);
                for binding in sandbox.ports.iter().filter(|_| stays) {
                    match fits(&binding) {
                        true => ports.claim(owner, binding),
                        false => leaving.claim(key, binding),
                    }
                }
                if owner == key {
                    let own = sandbox.ports.iter().filter(fits).cloned();
                    keeping.entry(key).or_default().extend(own);
                }
            }
        }
    }
    let not_held = || {
        wants
            .instances
            .iter()
            .filter(|(key, _)| !wants.held.contains_key(*key))
    };
    for (key, wanted) in not_held() {
        // What it takes over, or has taken over already: the reservation follows.
        let had = beside(wants, held, key).map_or(&[][..], |beside| &beside.ports);
        let led = held.sandboxes.get(key).map_or(&[][..], |own| allocation.led(own));
        for binding in had.iter().chain(led) {
            let fits = wanted.service.ports.iter().any(|port| fits(port, binding));
            let kept = keeping.entry(key).or_default();
            if fits && !kept.contains(binding) {
                kept.push(binding.clone());
            }
        }
    }
    let order = |running: bool| not_held().filter(move |(key, _)| held.running.contains(*key) == running);
    for (key, kept) in &keeping {
        if held.running.contains(*key) {
            kept.iter().for_each(|binding| ports.claim(key, binding));
        }
    }
    let mut result: BTreeMap<InstanceKey, Result<Vec<PortBinding>, String>> = BTreeMap::new();
    for (key, wanted) in order(true).chain(order(false)) {
        let fixed = wanted
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
        match refused {
            Some(why) => {
                result.insert(key.clone(), Err(why));
            }
            None => claims.iter().for_each(|binding| ports.claim(key, binding)),
        }
    }
    for (key, wanted) in not_held() {
        if result.contains_key(key) {
            continue;
        }
        let mut bindings: Vec<PortBinding> = Vec::new();
        let mut refused = None;
        for port in &wanted.service.ports {
            let binding = match fixed(port) {
                Some(binding) => binding,
                None => ephemeral(key, port, keeping.get(key), &bindings, &ports, &leaving),
            };
            match binding {
                Ok(binding) => {
                    ports.claim(key, &binding);
                    if let Some(holder) = leaving.holder(key, &binding) {
                        allocation
                            .holders
                            .entry(key.clone())
                            .or_default()
                            .insert(holder.clone());
                    }
                    bindings.push(binding);
                }
                Err(why) => refused = Some(why),
            }
        }
        let bindings = refused.map_or(Ok(bindings), Err);
        result.insert(key.clone(), bindings);
    }
    // Another wanted instance may still hold, for a moment, what its new version gives up.
    for (key, bindings) in &result {
        for binding in bindings.iter().flatten() {
            for (other, sandbox) in &held.sandboxes {
                let gives_up = sandbox.ports.iter().any(|held| clash(held, binding));
                if other != key && gives_up {
                    allocation
                        .holders
                        .entry(key.clone())
                        .or_default()
                        .insert(other.clone());
                }
            }
        }
    }
    result
}

/// The sandbox whose place `key` takes.
fn beside<'h>(wants: &Wants<'_>, held: &'h Held, key: &InstanceKey) -> Option<&'h SandboxSpec> {
    let pair = wants.pairs.get(key)?;
    held.sandboxes.get(&pair.old)
}

/// Both cannot be had at once.
fn clash(one: &PortBinding, two: &PortBinding) -> bool {
    one.published == two.published
        && one.protocol == two.protocol
        && (one.host_ip == two.host_ip || one.host_ip.is_unspecified() || two.host_ip.is_unspecified())
}

/// The host ports that lead to each address now, reserved or not.
fn leads(observed: &Observed) -> BTreeMap<Ipv4Addr, Vec<PortBinding>> {
    let mut leads: BTreeMap<Ipv4Addr, Vec<PortBinding>> = BTreeMap::new();
    let firewall = observed.firewall.known();
    for (key, target) in firewall.into_iter().flat_map(|firewall| &firewall.spec.ports) {
        leads.entry(target.address).or_default().push(PortBinding {
            host_ip: key.host_ip,
            published: key.published,
            target: target.port,
            protocol: key.protocol,
        });
    }
    leads
}

fn ephemeral(
    key: &InstanceKey,
    port: &PublishedPort,
    kept: Option<&Vec<PortBinding>>,
    already: &[PortBinding],
    ports: &Ports,
    leaving: &Ports,
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
        return Ok(binding.clone());
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
