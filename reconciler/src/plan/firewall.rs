//! The firewall of the whole root, from who is there. Isolation comes before reachability: networks and
//! endpoints first, ports once something was started behind them.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    action::Action,
    allocate::Allocation,
    draft::{Draft, Ready},
    presence::Present,
    spaces::DEEPEST,
    step::Class,
    wanted::{self, Wants},
};
use crate::{
    key::{InstanceKey, Key, ResourceKey},
    observed::Fact,
    spec::{
        Endpoint, FirewallNetwork, FirewallSpec, NetworkSpec, PublishKey, PublishTarget, SandboxSpec, Space,
        Subnet,
    },
};

/// Which moment of the pass the firewall is for.
#[derive(Default)]
pub struct Stage<'a> {
    /// Those who leave and have been stopped by then.
    pub stopped: BTreeSet<&'a InstanceKey>,
    /// Sandboxes are what they shall be, and these have been started.
    pub settled: Option<BTreeSet<&'a InstanceKey>>,
    /// New slots that take host ports over: names lead to them by then.
    pub flipping: BTreeSet<&'a InstanceKey>,
}

/// What the firewall shall be at `stage`.
pub fn spec(
    draft: &Draft<'_>,
    wants: &Wants<'_>,
    allocation: &Allocation<'_>,
    present: &[Present<'_>],
    stage: &Stage<'_>,
) -> FirewallSpec {
    let none = BTreeSet::new();
    let mut spec = FirewallSpec::default();
    let observed = draft.observed.networks.known();
    let rules = draft.observed.firewall.known();
    let network = |key: &ResourceKey| -> Option<FirewallNetwork> {
        if let Some(Ok(spec)) = allocation.networks.get(key) {
            return Some(empty(spec));
        }
        if let Some(network) = observed?.get(key) {
            return Some(empty(&network.spec));
        }
        // Its record is missing, and somebody may be on it all the same.
        let rules = rules?.spec.networks.get(key)?;
        Some(FirewallNetwork {
            endpoints: BTreeSet::new(),
            ..*rules
        })
    };
    for key in wants.networks.keys() {
        if let Some(network) = network(key) {
            spec.networks.insert(key.clone(), network);
        }
    }
    let left_alone = observed.into_iter().flatten();
    for (key, network) in left_alone.filter(|(key, _)| wants.left_alone(&key.project)) {
        spec.networks.insert(key.clone(), empty(&network.spec));
    }
    for one in present.iter().filter(|one| !stage.stopped.contains(one.key)) {
        // One whose sandbox cannot be brought to its specification in this pass keeps what it has.
        let settled = stage
            .settled
            .as_ref()
            .is_some_and(|settled| settled.contains(one.key));
        let endpoints = one.endpoints(settled);
        for endpoint in endpoints.clone() {
            join(&mut spec, endpoint, network);
        }
        let ends = if planted!("ports-before-the-sandbox") {
            one.endpoints(true)
        } else {
            endpoints
        };
        // One that changes networks is not on the new one yet.
        let there = |end: &&Endpoint| {
            settled
                || planted!("ports-before-the-sandbox")
                || one.seen.is_none_or(|seen| {
                    let mut own = seen.sandbox.endpoints.iter();
                    own.any(|own| own.address == end.address)
                })
        };
        let mut ends = ends.filter(there);
        let first = ends.clone().next();
        let target = ends.find(|endpoint| endpoint.gateway.is_some()).or(first);
        let Some(target) = target else { continue };
        for binding in one.ports(stage.settled.as_ref().unwrap_or(&none), &stage.flipping) {
            let key = PublishKey {
                host_ip: binding.host_ip,
                published: binding.published,
                protocol: binding.protocol,
            };
            let target = PublishTarget {
                address: target.address,
                port: binding.target,
            };
            spec.ports.insert(key, target);
        }
    }
    // Also one that nobody wants any more: it is there before it can be removed.
    for sandbox in draft.making_sandboxes() {
        for endpoint in &sandbox.endpoints {
            join(&mut spec, endpoint, network);
        }
    }
    spec
}

/// `endpoint` is on its network. Where that is no `network` any more, with its record and its rules gone, the
/// endpoint itself tells enough of it to be kept apart from the others.
fn join(
    spec: &mut FirewallSpec,
    endpoint: &Endpoint,
    network: impl Fn(&ResourceKey) -> Option<FirewallNetwork>,
) {
    let who = (endpoint.address, endpoint.mac);
    if let Some(known) = spec.networks.get_mut(&endpoint.network) {
        known.endpoints.insert(who);
    } else {
        let mut network = network(&endpoint.network).unwrap_or_else(|| told_by(endpoint));
        network.endpoints.insert(who);
        spec.networks.insert(endpoint.network.clone(), network);
    }
}

fn told_by(endpoint: &Endpoint) -> FirewallNetwork {
    let subnet = Subnet::around(endpoint.address, endpoint.prefix);
    FirewallNetwork {
        subnet,
        gateway: endpoint.gateway.unwrap_or_else(|| subnet.gateway()),
        internal: endpoint.gateway.is_none(),
        endpoints: BTreeSet::new(),
    }
}

fn empty(network: &NetworkSpec) -> FirewallNetwork {
    FirewallNetwork {
        subnet: network.subnet,
        gateway: network.gateway,
        internal: network.internal,
        endpoints: BTreeSet::new(),
    }
}

/// The first step: what the firewall shall be right now. `names`: those that lead to new slots whose host
/// ports follow with this step.
pub fn now(
    draft: &mut Draft<'_>,
    spec: Option<&FirewallSpec>,
    networks: &BTreeMap<ResourceKey, Ready>,
    names: &[Ready],
    explained: &BTreeSet<String>,
) -> Ready {
    let Some(spec) = spec else {
        // Who leaves must be taken out of it first.
        if let Fact::Unknown(why) = &draft.observed.networks {
            let why = format!("the networks could not be read: {why}");
            draft.wait(Key::Firewall, why, None);
        }
        return Ready::Blocked;
    };
    let seen = match &draft.observed.firewall {
        Fact::Known(seen) => seen,
        Fact::Unknown(why) => {
            let why = format!("the firewall could not be read: {why}");
            return draft.wait(Key::Firewall, why, None);
        }
    };
    let nothing = FirewallSpec::default();
    let due = draft.memory.firewall_due;
    // A bridge that is being made right now gets its settings with that.
    let making = draft.making_a_network();
    // What is seen does not last where something else is being made of it.
    let same = seen.spec == *spec && draft.making_firewall().is_none_or(|making| making == spec);
    let whole = seen.drift.is_empty() || planted!("firewall-drift-ignored");
    if same && (whole || (making && *spec != nothing)) && (!due || *spec == nothing) {
        return Ready::Now;
    }
    if draft.busy(&Key::Firewall) {
        return Ready::Blocked;
    }
    // Somebody else's doing: it is not what we left, or, where we do not know, nothing else explains it.
    let foreign = match &draft.memory.firewall {
        Some(left) => seen.spec != *left || (!seen.drift.is_empty() && *left != nothing && !due && !making),
        None => explained.is_empty() && !due && !making,
    };
    let text = match seen.drift.is_empty() {
        true => "its rules differ from what runs".to_owned(),
        false => seen.drift.join(", "),
    };
    let cause = wanted::noun("firewall", Some(text));
    let completes = foreign.then_some(Class::Live);
    if let Some(class) = completes {
        draft.change(Key::Firewall, class, &cause, None);
    }
    // A network that cannot be made now must not keep the others from being isolated.
    let needs: Vec<Ready> = networks
        .values()
        .chain(names)
        .filter(|ready| **ready != Ready::Blocked)
        .copied()
        .collect();
    draft.step(
        &Key::Firewall,
        Action::SyncFirewall(spec.clone()),
        &cause,
        completes,
        &needs,
    )
}

/// A later step of the pass, where the firewall is not yet what it will have to be.
pub fn then(
    draft: &mut Draft<'_>,
    before: &FirewallSpec,
    spec: &FirewallSpec,
    needs: &[Ready],
) -> Option<Ready> {
    (before != spec).then(|| {
        let cause = wanted::noun("firewall", Some("follows what runs".to_owned()));
        let action = Action::SyncFirewall(spec.clone());
        draft.step(&Key::Firewall, action, &cause, None, needs)
    })
}

/// Whether what is there already keeps these networks and addresses, and those of the sandboxes that it joins, apart
/// from the others.
pub fn isolates(draft: &Draft<'_>, allocation: &Allocation<'_>, sandbox: Option<&SandboxSpec>) -> bool {
    let (Some(seen), Some(sandbox)) = (draft.observed.firewall.known(), sandbox) else {
        return false;
    };
    let sandboxes = || std::iter::successors(Some(sandbox), |sandbox| lender(draft, sandbox)).take(DEEPEST);
    let holds = |spec: &FirewallSpec| {
        sandboxes().flat_map(|sandbox| &sandbox.endpoints).all(|endpoint| {
            spec.networks.get(&endpoint.network).is_some_and(|network| {
                network.endpoints.contains(&(endpoint.address, endpoint.mac))
                    && matches!(allocation.networks.get(&endpoint.network), Some(Ok(spec)) if spec.internal == network.internal)
            })
        })
    };
    seen.drift.is_empty() && holds(&seen.spec) && draft.making_firewall().is_none_or(holds)
}

/// Whose network namespace `sandbox` joins, as it is.
fn lender<'d>(draft: &Draft<'d>, sandbox: &SandboxSpec) -> Option<&'d SandboxSpec> {
    let joins = sandbox.spaces.network == Space::Joined;
    let of = sandbox.spaces.of.as_ref().filter(|_| joins)?;
    let lender = draft.observed.instances.known()?.get(of)?;
    Some(&lender.sandbox)
}
