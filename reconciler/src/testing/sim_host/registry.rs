//! A registry whose tags move, and what this host keeps of its names, as `backend::image::store::tags` does.

use std::collections::{BTreeMap, BTreeSet};

use super::{World, objects::Layers, world::touch};
use crate::{
    observed::{Asked, Fact, Image, ImageConfig},
    port::Ask,
    testing::generate::{WORSE, WORSENS},
};

/// What a name stands for on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    pub digest: String,
    /// What its tag has moved to, for who follows it.
    pub latest: Option<String>,
    /// Milliseconds since the epoch.
    pub asked: u64,
}

#[derive(Debug, Clone, Default)]
pub struct Registry {
    /// What the tags stand for there. Whatever one has stood for is still to be had by its digest.
    pub tags: BTreeMap<String, String>,
    pub down: bool,
    /// Records of this host.
    pub names: BTreeMap<String, Name>,
    /// Names that somebody has brought to what their tags stand for, whoever wanted to go back.
    pub by_hand: BTreeSet<String>,
}

fn image(digest: &str, unpacked: bool) -> Image {
    let worsens = [WORSENS.to_owned()];
    let config = ImageConfig {
        entrypoint: worsens.into_iter().filter(|_| digest == WORSE).collect(),
        command: vec!["/app".to_owned()],
        ..ImageConfig::default()
    };
    Image::new(digest.to_owned(), unpacked, config)
}

impl World {
    /// `None`: that is no name of the registry.
    pub(super) fn see_name(&self, reference: &str, ask: Ask) -> Option<Fact<Image>> {
        let tag = self.registry.tags.get(reference)?;
        let here = |digest: &String| image(digest, self.unpacked(digest));
        let answer = |at| Asked { at, failed: None };
        let Some(name) = self.registry.names.get(reference) else {
            return Some(match (ask, self.registry.down) {
                (Ask::Never, _) => Fact::Unknown("it is not here; pull it".to_owned()),
                (_, true) => Fact::Unknown("its registry does not answer; it is asked again".to_owned()),
                (_, false) => Fact::Known(Image {
                    asked: Some(answer(self.wall)),
                    ..image(tag, false)
                }),
            });
        };
        let mut seen = Image {
            latest: name.latest.as_ref().map(|latest| Box::new(here(latest))),
            asked: Some(answer(name.asked)),
            ..here(&name.digest)
        };
        if ask == Ask::Anew {
            if self.registry.down {
                let asked = seen.asked.get_or_insert(answer(0));
                asked.failed = Some("its registry does not answer".to_owned());
            } else {
                seen.asked = Some(answer(self.wall));
                match &name.latest {
                    Some(latest) if latest == tag => {}
                    // To be bound anew.
                    Some(_) if name.digest == *tag => (seen.latest, seen.unpacked) = (None, false),
                    None if name.digest == *tag => {}
                    _ => seen.latest = Some(Box::new(image(tag, false))),
                }
            }
        }
        Some(Fact::Known(seen))
    }

    /// Somebody brings `reference` to what its tag stands for. False: there is no such name, or nobody answers.
    pub fn pull_by_hand(&mut self, reference: &str) -> bool {
        let tag = self.registry.tags.get(reference).cloned();
        let Some(digest) = tag.filter(|_| !self.registry.down && !self.disk_full) else {
            return false;
        };
        self.layers.insert(digest.clone(), Layers::Whole);
        self.layers_hurt.remove(&digest);
        let name = Name {
            digest,
            latest: None,
            asked: self.wall,
        };
        self.registry.by_hand.insert(reference.to_owned());
        self.registry.names.insert(reference.to_owned(), name);
        self.moved(touch::IMAGES | touch::RECORDS);
        true
    }
}
