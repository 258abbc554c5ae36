//! The image store as the agent and its commands see it: what is needed of it, and what may go.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::Context;
use backend::{
    image::{ImageError, config::Digest},
    layout::Layout,
    linux,
};

pub use backend::image::store::{
    Checked, Fault, Inspection, Kind, Moved, Part, Selected, Store, Stored, Survey, Use, What, canonical,
    select,
};

use crate::{host, intake::store};

/// How long a command waits for those who bring something in.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn open(layout: &Layout) -> Store {
    Store::open(layout).with_registries(host::settings(layout))
}

/// Who needs which image, read from the disk and the host's own marks, with or without an agent: containers, running
/// or not; the projects' last good versions, and those that would be rolled back to.
///
/// # Errors
/// Some of it cannot be read. Then nothing may be removed.
pub fn used(layout: &Layout) -> anyhow::Result<Use> {
    let mut used = linux::holders(layout)?;
    for (reference, projects) in store::images(layout)? {
        // What is no reference is bound to nothing.
        if let Some(name) = canonical(&reference) {
            used.names.entry(name).or_default().extend(projects);
        }
    }
    Ok(used)
}

/// Removes, and says what. `names` are let go of first, whoever needs them. `dry`: only says.
///
/// # Errors
/// Something is being brought in for longer than `patience`, or it is not known what is needed.
pub fn collect(
    layout: &Layout,
    store: &Store,
    names: &BTreeSet<String>,
    what: What,
    patience: Duration,
) -> anyhow::Result<Selected> {
    // Nobody waits for that.
    let measured = store.measure()?;
    let hold = hold(store, patience)?;
    let selected = choose_of(measured, layout, store, names, what)?;
    store.collect(hold, &selected)?;
    Ok(selected)
}

/// What [`collect`] would remove.
///
/// # Errors
/// As [`collect`].
pub fn choose(
    layout: &Layout,
    store: &Store,
    names: &BTreeSet<String>,
    what: What,
) -> anyhow::Result<Selected> {
    choose_of(store.measure()?, layout, store, names, what)
}

fn choose_of(
    measured: Survey,
    layout: &Layout,
    store: &Store,
    names: &BTreeSet<String>,
    what: What,
) -> anyhow::Result<Selected> {
    let mut survey = store.survey_of(measured)?;
    for image in &mut survey.images {
        image.names.retain(|name| !names.contains(name));
        image.followed.retain(|name| !names.contains(name));
    }
    let used = used(layout).context("nothing was removed")?;
    let selected = select(&survey, &used, what, SystemTime::now());
    let mut selected = selected.map_err(|path| ImageError::Unknown { path })?;
    selected.names.extend(names.iter().cloned());
    Ok(selected)
}

fn hold(store: &Store, patience: Duration) -> anyhow::Result<backend::image::store::Hold> {
    match store.hold(Duration::ZERO) {
        Err(ImageError::Busy { .. }) if !patience.is_zero() => {
            eprintln!(
                "stead: an image is being brought in; waiting up to {} s for that",
                patience.as_secs()
            );
            Ok(store.hold(patience)?)
        }
        held => Ok(held?),
    }
}

/// Whether a stored document has the digest that it is called by.
pub fn is_what_its_name_says(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy())
        .unwrap_or_default();
    std::fs::read(path).is_ok_and(|bytes| Digest::of(&bytes).hex() == name)
}
