//! What containers are called. A `container_name` is one container's on the whole host.

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

/// Why `member` cannot be called what it is to be called: who has the name keeps it, and of two that are new
/// the first in the order of keys gets it.
pub fn taken(wants: &Wants<'_>, observed: &Observed, member: &Member<'_>) -> Option<String> {
    let name = own(member)?;
    let other =
        |key: &InstanceKey| (&key.project, &key.service) != (&member.key.project, &member.key.service);
    let has = |instance: &Instance| recorded(instance) == Some(name);
    let mut seen = observed.instances.known().into_iter().flatten();
    let owner = seen.find(|(key, instance)| other(key) && was(key, instance, name));
    let owner = owner.map(|(key, _)| key);
    let mine = member.seen.is_some_and(has);
    let mut wanted = wants
        .instances
        .iter()
        .map(|member| (&member.key, is(member, name)));
    let first = wanted.find(|(key, called)| *called && other(key) && **key < member.key);
    let owner = owner.or(first.map(|(key, _)| key).filter(|_| !mine))?;
    Some(format!(
        "the container name {name} is that of {}/{}; give one of them another name, or remove `container_name`",
        owner.project, owner.service
    ))
}
