//! Which of the two slots of an instance is the wanted one.

use crate::{
    key::{InstanceKey, Slot},
    observed::Observed,
};

/// The slot that is there; the first where none or both are.
pub fn slot(project: &str, service: &str, index: u32, observed: &Observed) -> Slot {
    let Some(seen) = observed.instances.known() else {
        return Slot::A;
    };
    let mut key = InstanceKey {
        project: project.to_owned(),
        service: service.to_owned(),
        index,
        slot: Slot::B,
    };
    if !seen.contains_key(&key) {
        return Slot::A;
    }
    key.slot = Slot::A;
    if seen.contains_key(&key) { Slot::A } else { Slot::B }
}
