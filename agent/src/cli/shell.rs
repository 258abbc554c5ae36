//! Variables of this shell that a project uses and that an agent of its own does not see.

use std::{collections::BTreeMap, path::PathBuf};

use backend::layout::Layout;
use model::load::load;

use crate::{
    environment,
    source::{Candidate, directory},
    text,
};

/// What to say about `paths` before they are handed to an agent; empty: it makes no difference.
pub fn notes(layout: &Layout, paths: &[PathBuf]) -> Vec<String> {
    let Ok(agents) = environment::of(layout) else {
        return Vec::new();
    };
    let here = environment::of_process();
    let mut notes = Vec::new();
    for candidate in paths.iter().filter_map(|path| directory::at(path).ok()).flatten() {
        let names = used(&candidate, &agents, &here);
        if !names.is_empty() {
            notes.push(format!(
                "{} of this shell: the agent does not see it; write it into {}",
                names.join(", "),
                candidate.directory.join(".env").display()
            ));
        }
    }
    notes
}

/// The variables of `here` that make another project of it than the agent's own.
fn used(
    candidate: &Candidate,
    agents: &BTreeMap<String, String>,
    here: &BTreeMap<String, String>,
) -> Vec<String> {
    let with = |more: &mut dyn Iterator<Item = (&String, &String)>| {
        let mut environment = agents.clone();
        environment.extend(more.map(|(name, value)| (name.clone(), value.clone())));
        let (files, options) = candidate.to_load(environment);
        let loaded = load(&text::Disk, &files, &options);
        let revision = loaded.project.as_ref().map(text::revision);
        let messages = loaded.diagnostics.into_iter().map(|found| found.message);
        (revision, messages.collect::<Vec<_>>())
    };
    let alone = with(&mut std::iter::empty());
    if with(&mut here.iter()) == alone {
        return Vec::new();
    }
    let matters = |pair: &(&String, &String)| with(&mut std::iter::once(*pair)) != alone;
    here.iter()
        .filter(matters)
        .map(|(name, _)| name.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_that_a_file_uses_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let text = "services: { web: { image: \"builtin:hello\", environment: { A: \"${TAG:-1}\" } } }\n";
        std::fs::write(directory.path().join("compose.yaml"), text).unwrap();
        let candidate = directory::at(directory.path()).unwrap().remove(0);
        let map = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()));
            pairs.collect::<BTreeMap<String, String>>()
        };
        let here = map(&[("TAG", "2"), ("HOME", "/root")]);
        assert_eq!(used(&candidate, &map(&[]), &here), ["TAG"]);
        assert!(used(&candidate, &map(&[("TAG", "2")]), &here).is_empty());
        assert!(used(&candidate, &map(&[]), &map(&[("HOME", "/root")])).is_empty());
    }
}
