//! Images of registries: what a name is offered as, until it is unpacked and bound.

use std::{
    fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use model::types::ImageName;

use super::{Store, lock};
use crate::{
    image::{
        ImageError,
        config::Digest,
        layer::{self, Layer},
        pull,
        source::Section,
    },
    registry::Client,
};

/// What is left of a layer that nobody goes on with.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

impl Store {
    fn client(&self, name: &ImageName) -> Result<Client, ImageError> {
        let registries = self.registries.read().map_err(pull::failed(name))?;
        Ok(registries.client())
    }

    /// What the registry offers, asked for once.
    pub(super) fn offer(&self, name: &ImageName) -> Result<Arc<pull::Offer>, ImageError> {
        if let Some(offer) = lock(&self.offers).get(name) {
            return Ok(Arc::clone(offer));
        }
        let client = self.client(name)?;
        let offer = pull::run(pull::offer(&client, name, &self.limits), name)?;
        let offer = Arc::new(offer);
        lock(&self.offers).insert(name.clone(), Arc::clone(&offer));
        Ok(offer)
    }

    /// Fetches the layers that are not here, unpacks them, and binds the name.
    pub(super) fn pull(&self, name: &ImageName, offer: &pull::Offer) -> Result<(), ImageError> {
        let of_layers = offer.layers.iter().zip(&offer.diff_ids);
        let missing = of_layers.filter(|(_, diff_id)| !self.layer(diff_id).is_dir());
        let (missing, diff_ids): (Vec<_>, Vec<_>) = missing.map(|(layer, id)| (layer.clone(), id)).unzip();
        let directory = self.directory.join("pull");
        if !missing.is_empty() {
            let client = Arc::new(self.client(name)?);
            pull::run(pull::layers(client, name, &missing, &directory), name)?;
        }
        for ((digest, size), diff_id) in missing.iter().zip(diff_ids) {
            let (path, target) = (directory.join(digest.hex()), self.layer(diff_id));
            if !target.is_dir() {
                let section = Section::whole(&path).map_err(|source| ImageError::Store {
                    path: path.clone(),
                    source,
                })?;
                let layer = Layer {
                    section,
                    blob: Some((digest.clone(), *size)),
                    diff_id: diff_id.clone(),
                };
                let unpacked = layer::unpack(vec![(layer, target)], &self.limits);
                unpacked.map_err(|(_, source)| ImageError::Layer {
                    reference: name.to_string(),
                    layer: diff_id.to_string(),
                    source,
                })?;
            }
            // It has become a directory; another image that unpacks it as well reads on from the open file.
            let _ = fs::remove_file(&path);
        }
        self.write(&self.blob(&Digest::of(&offer.manifest)), &offer.manifest)?;
        self.write(&self.blob(&offer.digest), &offer.config)?;
        self.bind(&name.to_string(), &offer.digest, None, Some(&offer.reference))
    }

    /// A layer that came in part is gone on with; but not for ever.
    pub(super) fn sweep_parts(&self) {
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
