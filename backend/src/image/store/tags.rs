//! A name of a registry: what it stands for on this host, and what its tag has moved to since.

use std::time::{Duration, SystemTime};

use model::types::ImageName;
use reconciler::{
    observed::{Asked, Image},
    port::Ask,
};
use tokio::time::timeout;

use super::{Binding, Pin, Store, lock};
use crate::{
    chain,
    image::{
        ImageError,
        config::Digest,
        pull::{self, PullError},
    },
};

/// A registry that is asked whether a tag has moved keeps nobody waiting for longer.
const LIMIT: Duration = Duration::from_secs(5);

/// What has become of a tag.
enum Tag {
    Stands,
    /// It stands again for what it stood for at first.
    Back,
    Moved(Box<Image>),
}

/// What a name was bound to.
struct Bound {
    digest: String,
    manifest: Option<String>,
}

impl Binding {
    /// What is known of `digest`, if the name is bound to that.
    fn pin(&self, digest: &str) -> Option<Bound> {
        let latest = self.latest.as_ref();
        let latest = latest.map(|pin| (&pin.digest, Some(&pin.manifest)));
        let mut all = [(&self.digest, self.manifest.as_ref())].into_iter().chain(latest);
        all.find(|(own, _)| *own == digest)
            .map(|(digest, manifest)| Bound {
                digest: digest.clone(),
                manifest: manifest.cloned(),
            })
    }

    /// The same images; what the tag stands for is to be had by `manifest`.
    fn at(&self, manifest: String) -> Binding {
        let mut binding = self.clone();
        binding.asked = Some(epoch());
        match &mut binding.latest {
            Some(latest) => latest.manifest = manifest,
            None => binding.manifest = Some(manifest),
        }
        binding
    }
}

/// The name, at one index or manifest of it.
fn at(name: &ImageName, manifest: Option<&str>) -> ImageName {
    ImageName {
        digest: manifest.map(str::to_owned).or_else(|| name.digest.clone()),
        ..name.clone()
    }
}

fn not_here(name: &ImageName) -> ImageError {
    ImageError::NotHere {
        name: name.to_string(),
    }
}

fn answered(at: u64) -> Asked {
    Asked { at, failed: None }
}

/// Milliseconds.
fn epoch() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

impl Store {
    /// What a name stands for, and to those who follow its tag. A registry that does not tell changes nothing.
    pub(super) fn of_registry(&self, name: &ImageName, ask: Ask) -> Result<Image, ImageError> {
        let Some(binding) = self.bindings.get(&name.to_string())? else {
            if ask == Ask::Never {
                return Err(not_here(name));
            }
            let offer = self.offer(name)?;
            return Ok(Image {
                asked: Some(answered(epoch())),
                ..Image::new(offer.digest.to_string(), false, offer.runtime())
            });
        };
        let kept = self.pinned(name, &binding.digest, binding.manifest.as_deref(), ask)?;
        if ask == Ask::Never && !kept.unpacked {
            return Err(not_here(name));
        }
        let mut image = Image {
            asked: Some(answered(self.last_answer(name, &binding))),
            ..kept
        };
        if let Some(latest) = &binding.latest {
            image.latest = Some(Box::new(self.pinned(
                name,
                &latest.digest,
                Some(&latest.manifest),
                ask,
            )?));
        }
        if ask == Ask::Anew && name.digest.is_none() {
            match self.moved(name, &binding) {
                Ok(tag) => {
                    image.asked = Some(answered(epoch()));
                    match tag {
                        Tag::Stands => {}
                        Tag::Back => (image.latest, image.unpacked) = (None, false),
                        Tag::Moved(latest) => image.latest = Some(latest),
                    }
                }
                Err(error) => {
                    let asked = image.asked.get_or_insert(answered(0));
                    asked.failed = Some(chain(&error));
                }
            }
        }
        Ok(image)
    }

    /// An image that a name was bound to. What is damaged is to be had again, and the very same.
    fn pinned(
        &self,
        name: &ImageName,
        digest: &str,
        manifest: Option<&str>,
        ask: Ask,
    ) -> Result<Image, ImageError> {
        let parsed = Digest::parse(digest);
        let stored = parsed.and_then(|digest| Some((self.stored_config(&digest)?, digest)));
        if let Some(((config, diff_ids), digest)) = stored {
            let whole = self.stored(&digest, &diff_ids);
            return Ok(Image::new(digest.to_string(), whole, config));
        }
        if ask == Ask::Never {
            return Err(not_here(name));
        }
        let offer = self.offer(&at(name, manifest))?;
        Ok(Image::new(offer.digest.to_string(), false, offer.runtime()))
    }

    /// What the tag stands for now, to those who follow it.
    fn moved(&self, name: &ImageName, binding: &Binding) -> Result<Tag, ImageError> {
        let client = self.client(name)?;
        let asking = async {
            let told = timeout(LIMIT, client.digest(name)).await;
            match told {
                Ok(told) => told.map_err(pull::failed(name)),
                Err(_) => Err(pull::failed(name)(PullError::Slow(LIMIT))),
            }
        };
        let told = pull::run(asking, name).inspect_err(|error| self.wait(name, error))?;
        let told = told.to_string();
        lock(&self.answers).insert(name.clone(), epoch());
        let latest = binding.latest.as_ref();
        if latest.is_some_and(|latest| latest.manifest == told) {
            return Ok(Tag::Stands);
        }
        if binding.manifest.as_ref() != Some(&told) {
            // What was offered before may have moved on, too.
            lock(&self.offers).remove(name);
            let offer = self.offer(name)?;
            let digest = offer.digest.to_string();
            // An index is another also where the image of this platform is the same.
            if digest == *latest.map_or(&binding.digest, |latest| &latest.digest) {
                self.bindings.put(&name.to_string(), &binding.at(told))?;
                return Ok(Tag::Stands);
            }
            if digest != binding.digest {
                let image = Image::new(digest, false, offer.runtime());
                return Ok(Tag::Moved(Box::new(image)));
            }
        }
        Ok(if latest.is_some() { Tag::Back } else { Tag::Stands })
    }

    fn last_answer(&self, name: &ImageName, binding: &Binding) -> u64 {
        let answer = lock(&self.answers).get(name).copied();
        answer.or(binding.asked).unwrap_or(0)
    }

    /// Brings `digest` here, which `name` stands for now or was bound to before, and binds it.
    pub(super) fn take(&self, name: &ImageName, digest: &str, latest: bool) -> Result<(), ImageError> {
        let binding = self.bindings.get(&name.to_string())?;
        let bound = binding.as_ref().and_then(|binding| binding.pin(digest));
        let whole = Digest::parse(digest).is_some_and(|digest| {
            self.stored_config(&digest)
                .is_some_and(|(_, diff_ids)| self.stored(&digest, &diff_ids))
        });
        let pin = match bound {
            Some(pin) if whole => pin,
            bound => {
                let from = at(name, bound.as_ref().and_then(|pin| pin.manifest.as_deref()));
                let offer = self.offer(&from)?;
                let pulled = match offer.digest.to_string() {
                    found if found != digest => Err(ImageError::Changed {
                        reference: name.to_string(),
                        expected: digest.to_owned(),
                        found,
                    }),
                    _ => self.pull(name, &offer),
                };
                // Pulled, or to be asked for again: a tag may stand for another image by then.
                lock(&self.offers).remove(&from);
                pulled?;
                Bound {
                    digest: digest.to_owned(),
                    manifest: Some(offer.reference.to_string()),
                }
            }
        };
        self.bind_name(name, binding, pin, latest)
    }

    /// Brings what the tag stands for now, asked anew, and binds the name to it, whoever keeps what it stood for.
    /// Gives its digest.
    pub(super) fn take_anew(&self, name: &ImageName) -> Result<String, ImageError> {
        lock(&self.offers).remove(name);
        let offer = self.offer(name)?;
        let pulled = self.pull(name, &offer);
        lock(&self.offers).remove(name);
        pulled?;
        let pin = Bound {
            digest: offer.digest.to_string(),
            manifest: Some(offer.reference.to_string()),
        };
        let digest = pin.digest.clone();
        self.bind_name(name, None, pin, false)?;
        Ok(digest)
    }

    /// The index or manifest that `digest` came with, if the name was bound to that.
    pub(super) fn pinned_manifest(&self, name: &str, digest: &str) -> Result<Option<String>, ImageError> {
        let binding = self.bindings.get(name)?;
        Ok(binding.and_then(|binding| binding.pin(digest)?.manifest))
    }

    fn bind_name(
        &self,
        name: &ImageName,
        binding: Option<Binding>,
        pin: Bound,
        latest: bool,
    ) -> Result<(), ImageError> {
        let asked = Some(epoch());
        let binding = match (binding, pin.manifest) {
            (Some(binding), Some(manifest)) if latest => Binding {
                latest: Some(Pin {
                    digest: pin.digest,
                    manifest,
                }),
                asked,
                ..binding
            },
            (_, manifest) => Binding {
                digest: pin.digest,
                stamp: None,
                manifest,
                latest: None,
                asked,
            },
        };
        Ok(self.bindings.put(&name.to_string(), &binding)?)
    }
}

#[cfg(test)]
mod tests;
