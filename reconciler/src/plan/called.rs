//! What containers are called. A `container_name` is one container's on the whole host.

use std::{borrow::Cow, collections::BTreeMap};

use super::wanted::{Member, Wants};
use crate::{
    key::InstanceKey,
    observed::{Instance, Observed},
};

/// The name of a container that has no other.
pub fn usual(key: &InstanceKey) -> String {
    format!("{}-{}-{}", key.project, key.service, key.index)
}

pub fn is(member: &Member<'_>, name: &str) -> bool {
    own(member) == Some(name) || usual(&member.key) == name
}

/// Whether one that is seen was started under this name.
pub fn was(key: &InstanceKey, instance: &Instance, name: &str) -> bool {
    recorded(instance) == Some(name) || usual(key) == name
}

fn own<'a>(member: &Member<'a>) -> Option<&'a str> {
    member.wanted.service.names.container_name.as_deref()
}

fn recorded(instance: &Instance) -> Option<&str> {
    let container = instance.container.as_ref()?;
    container.fields.get("container_name").map(String::as_str)
}

/// Who is called what, where somebody asks for a name: one look for all who do.
#[derive(Default)]
pub struct Called<'a> {
    seen: BTreeMap<Cow<'a, str>, Vec<&'a InstanceKey>>,
    wanted: BTreeMap<Cow<'a, str>, Vec<&'a InstanceKey>>,
}

impl<'a> Called<'a> {
    pub fn new(wants: &'a Wants<'_>, observed: &'a Observed) -> Self {
        let mut called = Called::default();
        if wants.instances.iter().all(|member| own(member).is_none()) {
            return called;
        }
        for (key, instance) in observed.instances.known().into_iter().flatten() {
            let names = recorded(instance).map(Cow::Borrowed);
            for name in names.into_iter().chain([Cow::Owned(usual(key))]) {
                called.seen.entry(name).or_default().push(key);
            }
        }
        for member in &wants.instances {
            let names = own(member).map(Cow::Borrowed);
            for name in names.into_iter().chain([Cow::Owned(usual(&member.key))]) {
                called.wanted.entry(name).or_default().push(&member.key);
            }
        }
        called
    }

    /// Why `member` cannot be called what it is to be called: who has the name keeps it, and of two that are new
    /// the first in the order of keys gets it.
    pub fn taken(&self, member: &Member<'_>) -> Option<String> {
        let name = own(member)?;
        let of = |key: &InstanceKey| (key.project.clone(), key.service.clone());
        let others = |all: &BTreeMap<_, Vec<&'a InstanceKey>>| {
            let all = all.get(name).into_iter().flatten().copied();
            all.filter(|key| of(key) != of(&member.key)).min()
        };
        let mine = member.seen.and_then(recorded) == Some(name);
        let first = others(&self.wanted).filter(|key| !mine && **key < member.key);
        let owner = others(&self.seen).or(first)?;
        Some(format!(
            "the container name {name} is that of {}/{}; give one of them another name, or remove `container_name`",
            owner.project, owner.service
        ))
    }
}
