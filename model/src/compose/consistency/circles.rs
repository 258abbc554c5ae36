//! Circles of `depends_on`, each reported once, at the dependency that closes it.

use std::collections::{BTreeMap, BTreeSet};

use super::Index;
use crate::{
    report::Report,
    tree::{At, Node},
};

pub(super) fn check(services: &Index<'_>, report: &mut Report) {
    let edges: BTreeMap<&str, BTreeMap<&str, At>> = services
        .iter()
        .map(|(name, entry)| (*name, dependencies(&entry.value, services)))
        .collect();
    let mut done = BTreeSet::new();
    for start in edges.keys() {
        if done.contains(start) {
            continue;
        }
        // The chain so far, each with the dependencies still to look at: no recursion, chains may be long.
        let next = |name: &str| -> Vec<(&str, At)> {
            let edges = edges.get(name).into_iter().flatten();
            edges.rev().map(|(name, at)| (*name, *at)).collect()
        };
        let mut chain: Vec<(&str, Vec<(&str, At)>)> = vec![(start, next(start))];
        let mut on_chain: BTreeSet<&str> = [*start].into();
        while let Some((name, rest)) = chain.last_mut() {
            let name = *name;
            let Some((dependency, at)) = rest.pop() else {
                chain.pop();
                on_chain.remove(name);
                done.insert(name);
                continue;
            };
            if on_chain.contains(dependency) {
                let from = chain
                    .iter()
                    .position(|(name, _)| *name == dependency)
                    .unwrap_or(0);
                let mut names: Vec<&str> = chain[from..].iter().map(|(name, _)| *name).collect();
                names.push(dependency);
                let message = if names.len() == 2 {
                    format!("`services.{name}` depends on itself")
                } else {
                    format!("`depends_on` goes in a circle: {}", shorten(&names))
                };
                report.error(at, message, "remove one of these dependencies");
            } else if !done.contains(dependency) {
                on_chain.insert(dependency);
                chain.push((dependency, next(dependency)));
            }
        }
    }
}

fn dependencies<'m>(service: &'m Node, services: &Index<'_>) -> BTreeMap<&'m str, At> {
    let entries = service.get("depends_on").map(Node::entries).unwrap_or_default();
    entries
        .iter()
        .filter(|entry| services.contains_key(entry.key.as_str()))
        .map(|entry| (entry.key.as_str(), entry.at))
        .collect()
}

/// The first names of a circle, and the last.
pub(crate) fn shorten(names: &[&str]) -> String {
    const MOST: usize = 12;
    if names.len() <= MOST {
        return names.join(" → ");
    }
    format!(
        "{} → … → {}",
        names[..MOST - 1].join(" → "),
        names[names.len() - 1]
    )
}
