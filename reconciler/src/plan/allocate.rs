//! Networks and sandboxes with every address, range and host port decided.

mod interfaces;
mod ports;

use std::{
    borrow::Cow,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use model::types::{Attachment, Project, Service};

use super::{
    InFlight,
    action::Action,
    addresses,
    called::Called,
    spaces::{self, Lent},
    wanted::{self, Member, Wants},
};
use crate::{
    key::{InstanceKey, ResourceKey},
    observed::{Fact, Observed, State},
    spec::{Endpoint, NetworkSpec, PortBinding, SandboxSpec, Spaces, Subnet},
};

/// Each wanted object's specification, or why it cannot be had now and what to do.
#[derive(Default)]
pub struct Allocation<'a> {
    pub networks: BTreeMap<ResourceKey, Result<NetworkSpec, String>>,
    /// Of each wanted instance.
    pub sandboxes: Vec<Result<Cow<'a, SandboxSpec>, String>>,
    /// What services lend to others.
    pub lent: Lent<'a>,
    /// By new slot: the sandbox with the host ports that the slot beside it has until it is removed.
    pub taking_over: BTreeMap<InstanceKey, SandboxSpec>,
    /// Whose removal must come first, because it holds a host port that is wanted here.
    pub holders: BTreeMap<InstanceKey, BTreeSet<InstanceKey>>,
    /// By address: the host ports that lead to it now, reserved or not.
    leads: BTreeMap<Ipv4Addr, Vec<PortBinding>>,
}

impl Allocation<'_> {
    /// What the sandbox of the wanted instance at `place` shall be, where that is known.
    pub fn sandbox(&self, place: usize) -> Option<&SandboxSpec> {
        self.sandboxes.get(place)?.as_deref().ok()
    }

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
    /// Those of the wanted instances.
    own: Vec<Option<&'a SandboxSpec>>,
    /// What those had that are being changed right now: not given up before the change is done.
    changing: Vec<(&'a InstanceKey, &'a SandboxSpec)>,
    id_bases: Result<BTreeMap<String, u32>, String>,
}

pub fn allocate<'a>(wants: &Wants<'a>, observed: &'a Observed, in_flight: &'a InFlight) -> Allocation<'a> {
    let held = Held::new(wants, observed, in_flight);
    let mut allocation = Allocation {
        leads: leads(observed),
        lent: Lent::new(wants),
        ..Allocation::default()
    };
    networks(wants, observed, &held, &mut allocation);
    let id_bases = id_bases(wants, &held);
    let mut taken: BTreeSet<Ipv4Addr> = held
        .sandboxes
        .values()
        .flat_map(|sandbox| sandbox.endpoints.iter().map(|endpoint| endpoint.address))
        .collect();
    let called = Called::new(wants, observed);
    let mut ports = ports::host_ports(wants, &held, &mut allocation).into_iter();
    let mut sandboxes = Vec::with_capacity(wants.instances.len());
    let one_project =
        |one: &Member<'_>, other: &Member<'_>| std::ptr::eq(one.wanted.project, other.wanted.project);
    for members in wants.instances.chunk_by(one_project) {
        let Some(first) = members.first() else { continue };
        let networks = attachable(first.wanted.project, &allocation.networks);
        for member in members {
            let key = &member.key;
            let before = held.own.get(sandboxes.len()).copied().flatten();
            let ports = ports.next().flatten();
            if wants.held.contains_key(key)
                && let Some(sandbox) = before
            {
                sandboxes.push(Ok(Cow::Borrowed(sandbox)));
                continue;
            }
            let named = called.taken(member).map_or(Ok(()), Err);
            let sandbox = named
                .and_then(|()| spaces::spaces(wants, observed, &allocation.lent, member))
                .and_then(|spaces| sandbox(member, before, spaces, &networks, &id_bases, &mut taken));
            let sandbox = match (sandbox, ports) {
                (Ok(sandbox), Some(Ok(ports))) if sandbox.ports == ports => Ok(sandbox),
                (Ok(sandbox), Some(Ok(ports))) => {
                    let sandbox = sandbox.into_owned();
                    Ok(Cow::Owned(SandboxSpec { ports, ..sandbox }))
                }
                (Ok(sandbox), None) => Ok(sandbox),
                (Err(why), _) | (_, Some(Err(why))) => Err(why),
            };
            sandboxes.push(sandbox.map(|mut whole| {
                let beside = ports::beside(wants, &held, key);
                let had = |binding: &PortBinding| {
                    beside.is_some_and(|beside| beside.ports.iter().any(|other| ports::clash(other, binding)))
                };
                if whole.ports.iter().any(had) {
                    allocation
                        .taking_over
                        .insert(key.clone(), whole.clone().into_owned());
                    whole.to_mut().ports.retain(|binding| !had(binding));
                }
                whole
            }));
        }
    }
    allocation.sandboxes = sandboxes;
    allocation
}

impl<'a> Held<'a> {
    fn new(wants: &Wants<'a>, observed: &'a Observed, in_flight: &'a InFlight) -> Self {
        let seen = || observed.instances.known().into_iter().flatten();
        // Of a lost one nothing is known, least of all its ids: those of the host would be taken for them.
        let mut sandboxes: BTreeMap<_, _> = seen()
            .filter(|(_, instance)| instance.state != State::Lost)
            .map(|(key, instance)| (key, &*instance.sandbox))
            .collect();
        let mut networks: BTreeMap<_, _> = observed
            .networks
            .known()
            .into_iter()
            .flatten()
            .map(|(key, network)| (key, &network.spec))
            .collect();
        let own = wants.instances.iter().map(|member| member.seen);
        let own = own.map(|seen| {
            seen.filter(|seen| seen.state != State::Lost)
                .map(|seen| &*seen.sandbox)
        });
        let mut own: Vec<_> = own.collect();
        let mut changing = Vec::new();
        for step in in_flight {
            match &step.action {
                Action::EnsureSandbox(spec) => {
                    let before = sandboxes.insert(&spec.key, spec);
                    changing.extend(before.map(|before| (&spec.key, before)));
                    if let Some(own) = wants.place(&spec.key).and_then(|place| own.get_mut(place)) {
                        *own = Some(spec);
                    }
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
                let ranged = sandboxes.iter().filter(|(_, sandbox)| !sandbox.spaces.host_ids);
                for (key, sandbox) in ranged {
                    if bases.get(&key.project) != Some(&sandbox.id_base) {
                        bases.insert(key.project.clone(), sandbox.id_base);
                    }
                }
                Ok(bases)
            }
            Fact::Unknown(why) => Err(format!("the recorded id ranges could not be read: {why}")),
        };
        Held {
            networks,
            sandboxes,
            own,
            changing,
            id_bases,
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
    for Member { key, .. } in &wants.instances {
        if !bases.contains_key(&key.project)
            && let Some(base) = addresses::id_base(&key.project, &bases)
        {
            bases.insert(key.project.clone(), base);
        }
    }
    Ok(bases)
}

/// The networks of a project by their keys in the file.
type Attachable<'n> = BTreeMap<&'n str, To<'n>>;
type To<'n> = (ResourceKey, Result<&'n NetworkSpec, &'n str>);

fn attachable<'n>(
    project: &'n Project,
    networks: &'n BTreeMap<ResourceKey, Result<NetworkSpec, String>>,
) -> Attachable<'n> {
    let found = project.networks.keys().filter_map(|name| {
        let (full, _) = wanted::network(project, name)?;
        let spec = networks.get(&full)?.as_ref().map_err(String::as_str);
        Some((name.as_str(), (full, spec)))
    });
    found.collect()
}

/// The sandbox of `member`, without host ports where it is another one than `before`.
fn sandbox<'a>(
    member: &Member<'_>,
    before: Option<&'a SandboxSpec>,
    spaces: Spaces,
    networks: &Attachable<'_>,
    id_bases: &Result<BTreeMap<String, u32>, String>,
    taken: &mut BTreeSet<Ipv4Addr>,
) -> Result<Cow<'a, SandboxSpec>, String> {
    let (key, service) = (&member.key, member.wanted.service);
    let same = |before: &&SandboxSpec| before.key == *key && before.spaces == spaces;
    if let Some(before) = before.filter(|before| same(before) && stays(before, service, networks)) {
        return Ok(Cow::Borrowed(before));
    }
    let id_base = match (before, id_bases) {
        _ if spaces.host_ids => 0,
        (Some(before), _) if !before.spaces.host_ids => before.id_base,
        (_, Ok(bases)) => *bases
            .get(&key.project)
            .ok_or_else(|| "all id ranges are in use; remove a project".to_owned())?,
        (_, Err(why)) => return Err(why.clone()),
    };
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut fresh = Vec::new();
    for (attachment, (network, spec)) in attached(service, networks) {
        let asked = attachment.mac_address.map(|mac| mac.0);
        let spec = match spec {
            Ok(spec) => *spec,
            Err(why) => return Err(format!("network {network}: {why}")),
        };
        let gateway = gateway(spec);
        match before.and_then(|before| kept(before, network, spec)) {
            Some(had) => endpoints.push(Endpoint {
                gateway,
                prefix: spec.subnet.prefix,
                mac: match (asked, had.mac_asked) {
                    (Some(mac), _) => mac,
                    // Back to its own.
                    (None, true) => addresses::mac(&seed(key, network)),
                    (None, false) => had.mac,
                },
                mac_asked: asked.is_some(),
                ..had.clone()
            }),
            None => fresh.push((network, spec, gateway, asked)),
        }
    }
    for (network, spec, gateway, asked) in fresh {
        let seed = seed(key, network);
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
            network: network.clone(),
            interface,
            address,
            prefix: spec.subnet.prefix,
            gateway,
            mac: asked.unwrap_or_else(|| addresses::mac(&seed)),
            mac_asked: asked.is_some(),
            name: None,
            settings: BTreeMap::new(),
        });
    }
    endpoints.sort_by(by_interface);
    let endpoints = furnished(service, networks, &endpoints);
    Ok(Cow::Owned(SandboxSpec {
        key: key.clone(),
        id_base,
        endpoints,
        ports: Vec::new(),
        spaces,
    }))
}

/// What each network of a service leads to.
fn attached<'s>(
    service: &'s Service,
    networks: &'s Attachable<'s>,
) -> impl Iterator<Item = (&'s Attachment, &'s To<'s>)> {
    let all = service.networks.iter();
    all.filter_map(|(name, attachment)| Some((attachment, networks.get(name.as_str())?)))
}

fn seed(key: &InstanceKey, network: &ResourceKey) -> String {
    format!("{key} {network}")
}

/// With the names and settings that the service asks for.
fn furnished(service: &Service, networks: &Attachable<'_>, endpoints: &[Endpoint]) -> Vec<Endpoint> {
    let attachment = |endpoint: &Endpoint| {
        let mut all = attached(service, networks);
        all.find_map(|(attachment, (network, _))| (*network == endpoint.network).then_some(attachment))
    };
    let all = endpoints
        .iter()
        .filter_map(|endpoint| Some((attachment(endpoint)?, endpoint)));
    let all: Vec<_> = all.collect();
    let found = interfaces::furnished(&all).into_iter();
    found.map(Cow::into_owned).collect()
}

/// Whether the endpoints that are there are all that shall be, as they shall be.
fn stays<'s>(before: &'s SandboxSpec, service: &'s Service, networks: &'s Attachable<'s>) -> bool {
    let same = |(attachment, (network, spec)): (&'s Attachment, &To<'_>)| {
        let spec = spec.ok()?;
        let had = kept(before, network, spec)?;
        let asked = attachment.mac_address.map(|mac| mac.0);
        let mac = had.mac_asked.then_some(had.mac);
        let same = (had.gateway, had.prefix, mac) == (gateway(spec), spec.subnet.prefix, asked);
        same.then_some((attachment, had))
    };
    let Some(shall) = attached(service, networks)
        .map(same)
        .collect::<Option<Vec<(&Attachment, &Endpoint)>>>()
    else {
        return false;
    };
    let owned = |endpoint: &Cow<'_, Endpoint>| matches!(endpoint, Cow::Owned(_));
    if interfaces::furnished(&shall).iter().any(owned) {
        return false;
    }
    let mut shall: Vec<&Endpoint> = shall.into_iter().map(|(_, endpoint)| endpoint).collect();
    shall.sort_by(|one, other| by_interface(one, other));
    let mut pairs = shall.iter().zip(&before.endpoints);
    shall.len() == before.endpoints.len() && pairs.all(|(shall, have)| std::ptr::eq(*shall, have))
}

/// `eth2` before `eth10`.
fn by_interface(one: &Endpoint, other: &Endpoint) -> Ordering {
    (one.interface.len(), &one.interface).cmp(&(other.interface.len(), &other.interface))
}

/// The endpoint on `network` that is there and can stay.
fn kept<'b>(before: &'b SandboxSpec, network: &ResourceKey, spec: &NetworkSpec) -> Option<&'b Endpoint> {
    let mut endpoints = before.endpoints.iter();
    endpoints.find(|endpoint| endpoint.network == *network && spec.subnet.contains(endpoint.address))
}

fn gateway(spec: &NetworkSpec) -> Option<Ipv4Addr> {
    (!spec.internal || planted!("internal-with-gateway")).then_some(spec.gateway)
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
