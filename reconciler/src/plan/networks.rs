//! Bridges that must be made or repaired.

use std::collections::BTreeMap;

use super::{
    action::Action,
    allocate::Allocation,
    draft::{Draft, Ready},
    step::{Cause, Class},
    wanted::{self, Wants},
};
use crate::{
    key::{Key, ResourceKey},
    observed::Fact,
};

/// What became of the wanted networks.
#[derive(Default)]
pub struct Networks {
    pub ready: BTreeMap<ResourceKey, Ready>,
    /// Why a network that exists changes: its instances follow.
    pub causes: BTreeMap<ResourceKey, Cause>,
}

pub fn networks(draft: &mut Draft<'_>, wants: &Wants<'_>, allocation: &Allocation<'_>) -> Networks {
    let mut networks = Networks::default();
    for (key, wanted) in &wants.networks {
        let object = Key::Network(key.clone());
        let seen = match &draft.observed.networks {
            Fact::Known(seen) => seen.get(key),
            Fact::Unknown(why) => {
                let why = format!("the networks could not be read: {why}");
                let blocked = draft.wait(object, why, None);
                networks.ready.insert(key.clone(), blocked);
                continue;
            }
        };
        let field = format!("networks.{}", wanted.name);
        let change = match seen {
            None => Some((Class::Create, wanted::cause(wanted.project, field, None, None))),
            Some(seen) if seen.spec.internal != wanted.internal => {
                let cause = wanted::cause(
                    wanted.project,
                    format!("{field}.internal"),
                    Some(seen.spec.internal.to_string()),
                    Some(wanted.internal.to_string()),
                );
                networks.causes.insert(key.clone(), cause.clone());
                Some((Class::Live, cause))
            }
            Some(seen) if !seen.drift.is_empty() => {
                Some((Class::Live, wanted::noun("bridge", Some(seen.drift.join(", ")))))
            }
            Some(_) => None,
        };
        let ready = match change {
            // What is seen of it does not last.
            None if draft.busy(&object) => Ready::Blocked,
            None => Ready::Now,
            Some((class, cause)) => {
                draft.change(object.clone(), class, &cause, None);
                match allocation.networks.get(key) {
                    Some(Ok(spec)) => {
                        let action = Action::EnsureNetwork(spec.clone());
                        draft.step(&object, action, &cause, Some(class), &[])
                    }
                    Some(Err(why)) => draft.wait(object, why.clone(), None),
                    None => Ready::Blocked,
                }
            }
        };
        networks.ready.insert(key.clone(), ready);
    }
    used(draft, wants, &mut networks);
    networks
}

/// Networks that nobody wants any more, but that somebody is still on whose turn has not come: repaired, too.
fn used(draft: &mut Draft<'_>, wants: &Wants<'_>, networks: &mut Networks) {
    let Some(seen) = draft.observed.networks.known() else {
        return;
    };
    let damaged = seen.iter().filter(|(_, network)| !network.drift.is_empty());
    for (key, network) in damaged.filter(|(key, _)| !wants.networks.contains_key(*key)) {
        let on_it = wants
            .instances
            .iter()
            .filter_map(|member| member.seen)
            .any(|seen| {
                let mut endpoints = seen.sandbox.endpoints.iter();
                endpoints.any(|endpoint| endpoint.network == *key)
            });
        if on_it {
            let object = Key::Network(key.clone());
            let cause = wanted::noun("bridge", Some(network.drift.join(", ")));
            let action = Action::EnsureNetwork(network.spec.clone());
            let ready = draft.step(&object, action, &cause, None, &[]);
            networks.ready.insert(key.clone(), ready);
        }
    }
}
