//! `profiles`: which services a project has today.

use std::collections::BTreeMap;

use crate::tree::{At, Node, Value};

/// Services that no active profile asks for: their names, where they stand and the profiles that would.
pub(crate) type Disabled = BTreeMap<String, (At, Vec<String>)>;

/// Takes disabled services out of the model. Without `profiles` a service is always on; `*` is every one.
pub(crate) fn select(model: &mut Node, active: &[String]) -> Disabled {
    let mut disabled = Disabled::new();
    let Some(Node {
        value: Value::Map(services),
        ..
    }) = model.get_mut("services")
    else {
        return disabled;
    };
    if active.iter().any(|profile| profile == "*") {
        return disabled;
    }
    services.retain(|service| {
        let profiles = service.value.get("profiles").map(Node::items).unwrap_or_default();
        let names: Vec<&str> = profiles.iter().filter_map(Node::as_text).collect();
        let on = profiles.is_empty()
            || names
                .iter()
                .any(|name| active.iter().any(|active| active == name));
        if !on {
            let names = names.into_iter().map(str::to_owned).collect();
            disabled.insert(service.key.clone(), (service.at, names));
        }
        on
    });
    disabled
}
