//! Images that must be unpacked before something can start.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
};

use model::types::Service;

use super::{
    action::Action,
    draft::{Draft, Ready},
    step::Class,
    wanted::{self, Member, Wanted, Wants},
};
use crate::{
    desired::Desired,
    key::{InstanceKey, Key},
    memory::{Again, Memory},
    observed::{Fact, Image, Observed},
    pull, rollout,
};

/// Why nothing is known of an image in the first moments.
pub(crate) const UNSEEN: &str = "it was not looked at yet";

/// What `service` is to run, or why that is not known.
pub fn resolve<'a>(observed: &'a Observed, service: &Service) -> Result<&'a Image, String> {
    match observed.images.get(&service.image) {
        Some(Fact::Known(image)) => Ok(pull::chosen(image, service)),
        Some(Fact::Unknown(why)) => Err(why.clone()),
        None => Err(UNSEEN.to_owned()),
    }
}

/// Whether somebody wants what `reference` stands for, and does not follow its tag, or would go back to it.
pub fn is_kept(desired: &Desired, observed: &Observed, memory: &Memory, reference: &str) -> bool {
    let projects = desired.projects.iter();
    let projects = projects.filter_map(|(name, wish)| Some((name, memory.effective(name, wish)?)));
    let mut services = projects.flat_map(|(name, project)| iter::repeat(name).zip(project.services.values()));
    services.any(|(name, service)| {
        let returns = || rollout::returns(service) && memory.on_trial(name, service, observed).is_some();
        service.image == reference && (!pull::follows(service) || returns())
    })
}

/// Whether `image` is what `reference` stands for to those who do not follow it.
fn stands_for(observed: &Observed, reference: &str, image: &Image) -> bool {
    let known = observed.images.get(reference).and_then(Fact::known);
    known.is_none_or(|known| known.digest == image.digest)
}

/// The layers of `image` are there: its name is to stand for it, and for nothing that nobody wants or would go back to.
fn name(
    draft: &mut Draft<'_>,
    key: &InstanceKey,
    wanted: &Wanted<'_>,
    image: &Image,
    kept: impl Fn(&str) -> bool,
) {
    let reference = wanted.service.image.clone();
    let Some(known) = draft.observed.images.get(&reference).and_then(Fact::known) else {
        return;
    };
    // Another name may have brought the layers. What is of no registry stands for itself.
    let bound = image.unpacked || known.asked.is_none() || planted!("second-name-not-kept");
    let (stands, kept) = (known.digest == image.digest, kept(&reference));
    let digest = image.digest.clone();
    let image_key = Key::Image {
        project: key.project.clone(),
        reference: reference.clone(),
    };
    let (action, class, before) = match (bound, stands) {
        (false, _) => {
            let latest = !stands && kept;
            let action = Action::UnpackImage {
                reference,
                digest,
                latest,
            };
            (action, Class::Create, None)
        }
        (true, false) if !kept => {
            let action = Action::PinImage { reference, digest };
            (action, Class::Live, Some(known.digest.clone()))
        }
        (true, _) => return,
    };
    let field = format!("services.{}.image", key.service);
    let cause = wanted::cause(wanted.project, field, before, Some(image.digest.clone()));
    draft.change(image_key.clone(), class, &cause, None);
    // Of one name both what is kept and the latest may have to be told.
    if !draft.plan.steps.iter().any(|step| step.key == image_key) {
        draft.step(&image_key, action, &cause, Some(class), &[]);
    }
}

/// By digest: whether its layers are there.
pub type Unpacked = BTreeMap<String, Ready>;

/// One unpack a digest, in the first project that wants it. References that stand for one digest are not
/// looked at in the same moment, so any of them may say that it is unpacked.
/// `kept`: see [`is_kept`].
pub fn images(draft: &mut Draft<'_>, wants: &Wants<'_>, kept: impl Fn(&str) -> bool) -> Unpacked {
    let mut unpacked = Unpacked::new();
    let known = draft.observed.images.values().filter_map(Fact::known);
    let known = known.flat_map(|image| iter::once(image).chain(image.latest.as_deref()));
    let there: BTreeSet<&str> = known
        .filter(|image| image.unpacked)
        .map(|image| image.digest.as_str())
        .collect();
    let mut named: BTreeSet<(&String, &String)> = BTreeSet::new();
    let mut under_way: BTreeMap<&String, Key> = BTreeMap::new();
    for Member { key, wanted, .. } in &wants.instances {
        let reference = &wanted.service.image;
        let resolved = resolve(draft.observed, wanted.service);
        // Most are there, and nothing more is to be said of them.
        if let Ok(image) = resolved
            && there.contains(image.digest.as_str())
        {
            if !unpacked.contains_key(&image.digest) {
                unpacked.insert(image.digest.clone(), Ready::Now);
            }
            if named.insert((reference, &image.digest)) {
                name(draft, key, wanted, image, &kept);
            }
            continue;
        }
        let image_key = Key::Image {
            project: key.project.clone(),
            reference: reference.clone(),
        };
        let field = format!("services.{}.image", key.service);
        match resolved {
            Err(why) => {
                let cause = wanted::cause(wanted.project, field, None, None);
                let place = cause
                    .span
                    .map(|span| format!(" ({}:{})", span.file.display(), span.line))
                    .unwrap_or_default();
                let until = match draft.memory.failures.get(&image_key).map(|failed| failed.again) {
                    Some(Again::At(until)) => Some(until),
                    _ => None,
                };
                draft.wait(image_key, format!("image {reference}{place}: {why}"), until);
            }
            Ok(image) if !unpacked.contains_key(&image.digest) => {
                let cause = wanted::cause(wanted.project, field, None, Some(image.digest.clone()));
                draft.change(image_key.clone(), Class::Create, &cause, None);
                let action = Action::UnpackImage {
                    reference: reference.clone(),
                    digest: image.digest.clone(),
                    latest: !stands_for(draft.observed, reference, image) && kept(reference),
                };
                // Of one name both what is kept and the latest may be missing.
                let busy = under_way.values().any(|other| *other == image_key);
                let ready = match busy || draft.unpacking(&image.digest) {
                    true => Ready::Blocked,
                    false => draft.step(&image_key, action, &cause, Some(Class::Create), &[]),
                };
                unpacked.insert(image.digest.clone(), ready);
                under_way.insert(&image.digest, image_key);
            }
            // What another project is about to unpack, and cannot, is told here, too.
            Ok(image) => {
                let other = under_way.get(&image.digest).filter(|other| **other != image_key);
                if let Some(failed) = other.and_then(|other| draft.memory.held(other, draft.now)) {
                    let until = match failed.again {
                        Again::At(until) => Some(until),
                        Again::AfterChange | Again::Never => None,
                    };
                    draft.wait(image_key, failed.message.clone(), until);
                }
            }
        }
    }
    unpacked
}
