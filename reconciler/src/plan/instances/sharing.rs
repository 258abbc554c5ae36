//! The steps of those who share namespaces: what they wait for, and who ends before what he lives in goes.

use super::{Ground, Instances};
use crate::{
    key::{InstanceKey, Key},
    plan::{
        action::Action,
        draft::{Draft, Ready},
        spaces,
        wanted::{Member, Wants},
    },
};

/// Stops those who live in the process namespace of `key`, which its sandbox takes along: with their grace, once
/// nothing keeps that from being removed. Adds their stops to what its own waits for.
pub(super) fn stop_dwellers(
    draft: &mut Draft<'_>,
    ground: &Ground<'_>,
    instances: &mut Instances,
    key: &InstanceKey,
    first: &mut Vec<Ready>,
) {
    let object = Key::Instance(key.clone());
    if planted!("dwellers-not-stopped")
        || draft.busy(&object)
        || draft.memory.held(&object, draft.now).is_some()
    {
        return;
    }
    let needs = first.clone();
    for (other, _) in ground.within.of(key).filter(|(_, kinds)| kinds.pid) {
        let stop = match ground.removed.get(other) {
            Some(removed) => *removed,
            None => {
                let action = Action::StopContainer {
                    key: other.clone(),
                    drain: 0,
                };
                let stop = draft.step(
                    &Key::Instance(other.clone()),
                    action,
                    &spaces::anew(key),
                    None,
                    &needs,
                );
                instances.stops.insert(other.clone(), stop);
                stop
            }
        };
        first.push(stop);
    }
}

/// One that has ended is not started again in namespaces that go in this pass: said, if it is so.
pub(super) fn leaves(draft: &mut Draft<'_>, ground: &Ground<'_>, member: &Member<'_>) -> Option<Ready> {
    let all = draft.observed.instances.known()?;
    let mut lenders = spaces::lenders_of(all, member.seen?).into_iter();
    let going = |lender: &&InstanceKey| {
        let removed = ground.removed.get(*lender);
        removed.is_some_and(|removed| *removed != Ready::Blocked) || draft.removing(lender)
    };
    let lender = lenders.find(going)?;
    let why = format!("waits until {lender} is gone, whose namespaces it shares");
    Some(draft.wait(Key::Instance(member.key.clone()), why, None))
}

/// One that runs goes on in what is there, and keeps its lender from leaving: said, if that one is to leave.
pub(super) fn unlent(draft: &mut Draft<'_>, wants: &Wants<'_>, member: &Member<'_>) {
    if let Some(why) = spaces::unlent(wants, member) {
        draft.wait(Key::Instance(member.key.clone()), why, None);
    }
}

/// When the sandbox is there whose namespaces are joined.
pub(super) fn joined(
    draft: &mut Draft<'_>,
    ground: &Ground<'_>,
    instances: &Instances,
    place: usize,
) -> Option<Ready> {
    let spaces = &ground.allocation.sandbox(place)?.spaces;
    // Of a project that nothing is planned for: it is there.
    let lender = ground.wants.place(spaces.of.as_ref()?)?;
    let there = ground.wants.instances.get(lender)?;
    let sandbox = instances.sandboxes.get(lender).copied().flatten();
    let sandbox = sandbox.unwrap_or(Ready::Blocked);
    if sandbox != Ready::Now || planted!("joins-whatever-there-is") {
        return Some(sandbox);
    }
    // What is seen of it does not last.
    if draft.removing(&there.key) {
        return Some(Ready::Blocked);
    }
    let InstanceKey { project, service, .. } = &there.key;
    let whole = there.seen.filter(|seen| !seen.identity.is_empty());
    let why = match whole {
        Some(seen) if spaces::lends(&seen.sandbox.spaces, spaces) => return Some(Ready::Now),
        Some(_) => format!("{service} does not lend what is to be shared before its sandbox is made anew"),
        // Stopped, or at its end, with nothing left of it or of what held its namespaces: nothing of it is going to
        // be made.
        None => {
            format!("{service} does not run, and what it shares is gone; `stead start {project}/{service}`")
        }
    };
    let own = ground.wants.instances.get(place)?.key.clone();
    Some(draft.wait(Key::Instance(own), why, None))
}
