//! Names inside each network: services, containers and aliases of every sandbox that is there or about
//! to be.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    action::Action,
    called,
    draft::{Draft, Ready},
    presence::Present,
    step::Class,
    wanted::{self, Wanted, Wants},
};
use crate::{
    key::{Key, ResourceKey},
    observed::Fact,
    spec::{Endpoint, Zone},
};

/// The wanted zone of every network that shall have one. `seen`: what there is.
pub fn zones(
    wants: &Wants<'_>,
    present: &[Present<'_>],
    seen: &BTreeMap<ResourceKey, Arc<Zone>>,
) -> BTreeMap<ResourceKey, Zone> {
    let mut zones: BTreeMap<ResourceKey, Zone> = wants
        .networks
        .keys()
        .map(|key| (key.clone(), Zone::new()))
        .collect();
    let mut former: BTreeMap<ResourceKey, Zone> = BTreeMap::new();
    for one in present.iter().filter(|one| !one.waits) {
        let Some(member) = one.place.and_then(|place| wants.instances.get(place)) else {
            continue;
        };
        let Wanted { project, service } = member.wanted;
        for endpoint in one.endpoints(true) {
            let Some(zone) = zones.get_mut(&endpoint.network) else {
                // One that is held is on a network that only its former version asks for.
                if wants.held.contains_key(one.key)
                    && let Some(names) = seen.get(&endpoint.network)
                {
                    let kept = former.entry(endpoint.network.clone()).or_default();
                    let own = names.iter().filter(|(_, all)| all.contains(&endpoint.address));
                    for (name, _) in own {
                        kept.entry(name.clone()).or_default().insert(endpoint.address);
                    }
                }
                continue;
            };
            let aliases = service
                .networks
                .iter()
                .filter(|(name, _)| wanted::is_network(project, name, &endpoint.network))
                .flat_map(|(_, attachment)| &attachment.aliases)
                .map(|alias| alias.to_ascii_lowercase());
            let own = [one.key.service.clone(), called::usual(one.key)];
            let own = own.into_iter().chain(service.names.container_name.clone());
            for name in own.map(|name| name.to_ascii_lowercase()).chain(aliases) {
                zone.entry(name).or_default().insert(endpoint.address);
            }
        }
    }
    zones.extend(former);
    zones
}

/// What became of the names of each network that needs some.
#[derive(Default)]
pub struct Names {
    pub ready: BTreeMap<ResourceKey, Ready>,
    /// What the first step leaves behind, where that is not yet what is wanted.
    later: BTreeMap<ResourceKey, Option<Zone>>,
}

/// The first step of each network: wanted names, and those of who leaves but still runs.
pub fn now(
    draft: &mut Draft<'_>,
    wants: &Wants<'_>,
    present: Option<&[Present<'_>]>,
    explained: &BTreeSet<String>,
) -> Names {
    let mut names = Names::default();
    let Some(present) = present else {
        return names;
    };
    let seen = match &draft.observed.zones {
        Fact::Known(seen) => seen,
        Fact::Unknown(why) => {
            for key in wants.networks.keys() {
                let why = format!("the names could not be read: {why}");
                draft.wait(Key::Names(key.clone()), why, None);
            }
            return names;
        }
    };
    let networks_known = draft.observed.networks.known().is_some();
    let wanted = zones(wants, present, seen);
    let lingering: Vec<&Endpoint> = present
        .iter()
        .filter(|one| one.lingering)
        .flat_map(|one| one.endpoints(true))
        .collect();
    let stale = seen.keys().filter(|key| {
        networks_known
            && !planted!("old-names-stay")
            && !wanted.contains_key(*key)
            && !wants.left_alone(&key.project)
    });
    for key in wanted.keys().chain(stale) {
        let lingering: BTreeSet<_> = lingering
            .iter()
            .filter(|endpoint| endpoint.network == *key)
            .map(|endpoint| endpoint.address)
            .collect();
        let goal = wanted.get(key);
        let mut first = goal.map(Cow::Borrowed);
        if !lingering.is_empty() {
            let zone = first.get_or_insert_default().to_mut();
            for (name, addresses) in seen.get(key).into_iter().flat_map(|seen| &**seen) {
                let kept: BTreeSet<_> = addresses.intersection(&lingering).copied().collect();
                if !kept.is_empty() {
                    zone.entry(name.clone()).or_default().extend(kept);
                }
            }
            if first.as_deref() != goal {
                names.later.insert(key.clone(), goal.cloned());
            }
        }
        let ready = if first.as_deref() == seen.get(key).map(|seen| &**seen) {
            // What is seen of it does not last.
            match draft.busy(&Key::Names(key.clone())) {
                true => Ready::Blocked,
                false => Ready::Now,
            }
        } else {
            one(
                draft,
                key,
                seen.get(key).map(|seen| &**seen),
                first.map(Cow::into_owned),
                wants.runs(&key.project) && !explained.contains(&key.project),
            )
        };
        names.ready.insert(key.clone(), ready);
    }
    names
}

fn one(
    draft: &mut Draft<'_>,
    key: &ResourceKey,
    seen: Option<&Zone>,
    zone: Option<Zone>,
    unexplained: bool,
) -> Ready {
    let object = Key::Names(key.clone());
    let foreign = match draft.memory.zones.get(key) {
        Some(left) => seen != Some(left),
        None => zone.is_some() && unexplained,
    };
    let cause = wanted::noun("names", Some("differ from what runs".to_owned()));
    let completes = foreign.then_some(Class::Live);
    if let Some(class) = completes {
        draft.change(object.clone(), class, &cause, None);
    }
    let action = Action::SyncNames {
        network: key.clone(),
        zone,
    };
    draft.step(&object, action, &cause, completes, &[])
}

/// The second step of networks that somebody leaves in this pass.
pub fn then(draft: &mut Draft<'_>, names: &Names, stops: &[Ready]) -> BTreeMap<ResourceKey, Ready> {
    let mut ready = names.ready.clone();
    for (key, zone) in &names.later {
        let mut needs = stops.to_vec();
        needs.extend(names.ready.get(key));
        let cause = wanted::noun("names", Some("follow what runs".to_owned()));
        let action = Action::SyncNames {
            network: key.clone(),
            zone: zone.clone(),
        };
        let step = draft.step(&Key::Names(key.clone()), action, &cause, None, &needs);
        ready.insert(key.clone(), step);
    }
    ready
}
