//! Networks and sandboxes with every address, range and host port decided.

mod ports;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use super::{
    InFlight,
    action::Action,
    addresses,
    wanted::{self, Wanted, Wants},
};
use crate::{
    key::{InstanceKey, ResourceKey},
    observed::{Fact, Observed, State},
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

/// What exists or is being made: it holds its addresses.
struct Held<'a> {
    networks: BTreeMap<&'a ResourceKey, &'a NetworkSpec>,
    sandboxes: BTreeMap<&'a InstanceKey, &'a SandboxSpec>,
    /// What those had that are being changed right now: not given up before the change is done.
    changing: Vec<(&'a InstanceKey, &'a SandboxSpec)>,
    id_bases: Result<BTreeMap<String, u32>, String>,
    running: BTreeSet<&'a InstanceKey>,
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
    let mut ports = ports::host_ports(wants, &held, &mut allocation);
    for (key, wanted) in &wants.instances {
        if wants.held.contains_key(key)
            && let Some(sandbox) = held.sandboxes.get(key)
        {
            allocation.sandboxes.insert(key.clone(), Ok((*sandbox).clone()));
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
        let sandbox = sandbox.map(|mut whole| {
            let beside = ports::beside(wants, &held, key);
            let had = |binding: &PortBinding| {
                beside.is_some_and(|beside| beside.ports.iter().any(|other| ports::clash(other, binding)))
            };
            if whole.ports.iter().any(had) {
                allocation.taking_over.insert(key.clone(), whole.clone());
                whole.ports.retain(|binding| !had(binding));
            }
            whole
        });
        allocation.sandboxes.insert(key.clone(), sandbox);
    }
    allocation
}

impl<'a> Held<'a> {
    fn new(observed: &'a Observed, in_flight: &'a InFlight) -> Self {
        let seen = || observed.instances.known().into_iter().flatten();
        // Of a lost one nothing is known, least of all its ids: those of the host would be taken for them.
        let mut sandboxes: BTreeMap<_, _> = seen()
            .filter(|(_, instance)| instance.state != State::Lost)
            .map(|(key, instance)| (key, &instance.sandbox))
            .collect();
        let mut networks: BTreeMap<_, _> = observed
            .networks
            .known()
            .into_iter()
            .flatten()
            .map(|(key, network)| (key, &network.spec))
            .collect();
        let mut changing = Vec::new();
        for step in in_flight {
            match &step.action {
                Action::EnsureSandbox(spec) => {
                    let before = sandboxes.insert(&spec.key, spec);
                    changing.extend(before.map(|before| (&spec.key, before)));
                }
                Action::EnsureNetwork(spec) => {
                    networks.insert(&spec.key, spec);
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
        let running = seen()
            .filter(|(_, instance)| matches!(instance.state, State::Running { .. } | State::Exited { .. }))
            .map(|(key, _)| key)
            .collect();
        Held {
            networks,
            sandboxes,
            changing,
            id_bases,
            running,
        }
    }
}

fn networks(wants: &Wants<'_>, observed: &Observed, held: &Held<'_>, allocation: &mut Allocation) {
    let mut subnets: Vec<Subnet> = held.networks.values().map(|spec| spec.subnet).collect();
    for (key, resource) in &wants.networks {
        let subnet = match (held.networks.get(key), &observed.networks, &observed.routes) {
            (Some(spec), _, _) => Ok((spec.subnet, spec.gateway)),
            (None, Fact::Unknown(why), _) => Err(format!("the networks could not be read: {why}")),
            (None, _, Fact::Unknown(why)) => Err(format!("the routes could not be read: {why}")),
            (None, _, Fact::Known(_)) if planted!("foreign-routes-ignored") => {
                let subnet = addresses::subnet(key, &subnets, &BTreeSet::new());
                let subnet = subnet.map(|subnet| (subnet, subnet.gateway()));
                subnet.ok_or_else(String::new)
            }
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

fn id_bases(wants: &Wants<'_>, held: &Held<'_>) -> Result<BTreeMap<String, u32>, String> {
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
    held: &Held<'_>,
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
        let gateway = (!spec.internal || planted!("internal-with-gateway")).then_some(spec.gateway);
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
        if !planted!("address-twice") {
            taken.insert(address);
        }
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
