//! What an operator has ordered, instance by instance.

use std::collections::BTreeMap;

use super::{spaces, wanted::Wanted};
use crate::{
    desired::{Desired, Intent, Target},
    key::InstanceKey,
    time::Now,
};

/// The order that counts for one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Not to run; `one`: this instance, and not all of its service.
    Stop { one: bool },
    /// To be started again if its last start was before this moment of the boot clock.
    Run { at: u64 },
}

pub struct Orders<'a> {
    intents: &'a BTreeMap<Target, Intent>,
    boot_id: &'a str,
    /// By project and service: a start that comes from a dependency with `restart: true`.
    inherited: BTreeMap<(&'a str, &'a str), u64>,
}

impl<'a> Orders<'a> {
    pub fn new(desired: &'a Desired, boot_id: &'a str, order: &[(&'a str, Wanted<'a>)]) -> Self {
        let mut orders = Orders {
            intents: &desired.intents,
            boot_id,
            inherited: BTreeMap::new(),
        };
        if desired.intents.is_empty() {
            return orders;
        }
        let mut begun: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for (target, intent) in &desired.intents {
            if let Some(at) = orders.run(intent) {
                let latest = begun.entry((&target.project, &target.service)).or_default();
                *latest = at.max(*latest);
            }
        }
        for &(name, wanted) in order {
            let project = wanted.project.name.as_str();
            let restarted = wanted
                .service
                .depends_on
                .iter()
                .filter(|(name, on)| spaces::restarts_with(wanted.service, name, on));
            let from = restarted.filter_map(|(on, _)| begun.get(&(project, on.as_str())).copied());
            if let Some(at) = from.max() {
                orders.inherited.insert((project, name), at);
                let latest = begun.entry((project, name)).or_default();
                *latest = at.max(*latest);
            }
        }
        orders
    }

    fn run(&self, intent: &Intent) -> Option<u64> {
        match intent {
            Intent::Run { boot_id, at } if *boot_id == self.boot_id => Some(at.boot),
            _ => None,
        }
    }

    /// The last word about `key`. A start that was asked for on another boot is done.
    pub fn of(&self, key: &InstanceKey) -> Option<Order> {
        if self.intents.is_empty() {
            return None;
        }
        let mut target = Target {
            project: key.project.clone(),
            service: key.service.clone(),
            index: None,
        };
        let all = self.intents.get(&target);
        target.index = Some(key.index);
        let own = self.intents.get(&target);
        let last = match (own, all) {
            (Some(own), Some(all)) if moment(all).wall > moment(own).wall => Some(all),
            (own, all) => own.or(all),
        };
        if let Some(Intent::Stop { .. }) = last {
            return Some(Order::Stop { one: last == own });
        }
        let inherited = self.inherited.get(&(key.project.as_str(), key.service.as_str()));
        last.and_then(|last| self.run(last))
            .max(inherited.copied())
            .map(|at| Order::Run { at })
    }
}

fn moment(intent: &Intent) -> Now {
    match intent {
        Intent::Stop { at } | Intent::Run { at, .. } => *at,
    }
}
