//! Images of registries: what a name is offered as, until it is unpacked.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use hyper::StatusCode;
use model::types::ImageName;

use super::{Store, lock};
use crate::{
    image::{
        ImageError,
        config::Digest,
        layer::{self, Layer},
        pull,
        source::Section,
        space,
    },
    records,
    registry::{Client, ClientError, origin::Origin},
};

/// What is left of a layer that nobody goes on with.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// And no registry, however wrong its clock, is left alone for longer.
const LONGEST: Duration = Duration::from_secs(3600);

/// A registry that wants to be asked later.
#[derive(Debug)]
pub(super) struct Wait {
    origin: Origin,
    status: StatusCode,
    until: Instant,
}

impl Store {
    pub(super) fn client(&self, name: &ImageName) -> Result<Client, ImageError> {
        if let Some(wait) = lock(&self.waits).get(&name.registry)
            && let Some(left) = wait.until.checked_duration_since(Instant::now())
        {
            return Err(pull::failed(name)(ClientError::Later {
                origin: wait.origin.clone(),
                status: wait.status,
                after: Some(left),
            }));
        }
        let registries = self.registries.read().map_err(pull::failed(name))?;
        Ok(registries.client())
    }

    /// What the registry offers, asked for once.
    pub(super) fn offer(&self, name: &ImageName) -> Result<Arc<pull::Offer>, ImageError> {
        if let Some(offer) = lock(&self.offers).get(name) {
            return Ok(Arc::clone(offer));
        }
        let client = self.client(name)?;
        let offer = pull::run(pull::offer(&client, name, &self.limits), name);
        let offer = offer.inspect_err(|error| self.wait(name, error))?;
        let offer = Arc::new(offer);
        lock(&self.offers).insert(name.clone(), Arc::clone(&offer));
        Ok(offer)
    }

    /// Fetches the layers that are not here, and unpacks them.
    pub(super) fn pull(&self, name: &ImageName, offer: &pull::Offer) -> Result<(), ImageError> {
        let missing = self.missing(offer);
        let directory = self.directory.join("pull");
        let size = missing.iter().fold(0u64, |sum, one| sum.saturating_add(one.size));
        let progress = self.pulls.begin(name.to_string(), size, missing.len());
        if !missing.is_empty() {
            let client = Arc::new(self.client(name)?);
            space::check(&self.directory, pull::needed(&missing, &directory)).map_err(|source| {
                ImageError::Space {
                    reference: name.to_string(),
                    source,
                }
            })?;
            let unpacked = self.directory.join("layers");
            let layers = pull::layers(client, name, &missing, &directory, Some(&unpacked), &progress);
            pull::run(layers, name).inspect_err(|error| self.wait(name, error))?;
        }
        for pull::Layer {
            digest,
            size,
            diff_id,
        } in &missing
        {
            let (path, target) = (directory.join(digest.hex()), self.layer(diff_id));
            // Another pull may be unpacking the very same: it is waited for, and then nothing is left to do.
            let held = pull::part::hold(&path);
            if !target.is_dir() {
                let opened = held.and_then(|held| Ok((held, Section::whole(&path)?)));
                let (_held, section) = opened.map_err(|source| ImageError::Store {
                    path: path.clone(),
                    source,
                })?;
                let layer = Layer {
                    section,
                    blob: Some((digest.clone(), *size)),
                    diff_id: diff_id.clone(),
                };
                layer::unpack(vec![(layer, target.clone())], &self.limits).map_err(|(_, source)| {
                    ImageError::of_layer(&name.to_string(), diff_id, &target, source)
                })?;
            }
            progress.unpacked();
            // It has become a directory.
            let _ = fs::remove_file(&path);
        }
        self.write(&self.blob(&Digest::of(&offer.manifest)), &offer.manifest)?;
        self.write(&self.blob(&offer.digest), &offer.config)
    }

    /// Who wants to be asked later is, whatever else would be a reason to ask.
    pub(super) fn wait(&self, name: &ImageName, error: &ImageError) {
        if let ImageError::Pull { source, .. } = error
            && let pull::PullError::Registry(ClientError::Later {
                origin,
                status,
                after: Some(after),
            }) = &**source
        {
            let wait = Wait {
                origin: origin.clone(),
                status: *status,
                until: Instant::now() + (*after).min(LONGEST),
            };
            lock(&self.waits).insert(name.registry.clone(), wait);
        }
    }

    /// Layers that are not here, from the lowest on, each once.
    fn missing(&self, offer: &pull::Offer) -> Vec<pull::Layer> {
        let mut seen = BTreeSet::new();
        let missing = offer.layers.iter().filter(|one| seen.insert(&one.diff_id));
        missing
            .filter(|one| !self.layer(&one.diff_id).is_dir())
            .cloned()
            .collect()
    }

    /// A layer that came in part is gone on with; but not for ever. A document that was just being written is not.
    pub(super) fn sweep_parts(&self) {
        for directory in ["blobs/sha256", "rootfs"] {
            let files = fs::read_dir(self.directory.join(directory))
                .into_iter()
                .flatten()
                .flatten();
            for file in files.filter(|file| records::is_temporary(file.file_name().as_bytes())) {
                let _ = fs::remove_file(file.path());
            }
        }
        let parts = fs::read_dir(self.directory.join("pull"))
            .into_iter()
            .flatten()
            .flatten();
        for part in parts {
            let changed = part.metadata().and_then(|metadata| metadata.modified());
            let age = changed
                .ok()
                .and_then(|changed| SystemTime::now().duration_since(changed).ok());
            if age.is_some_and(|age| age > STALE) {
                let _ = fs::remove_file(part.path());
            }
        }
    }
}
