//! Images into the store, volumes made and removed.

use super::{
    super::{
        SimError, World, disk,
        disk::Content,
        error,
        objects::{Layers, UNKNOWN, VolumeDirectory},
        registry::Name,
        world::{Lost, touch},
    },
    Next, Work,
};
use crate::{
    key::ResourceKey,
    port::{ActionError, Retry},
};

impl World {
    pub(super) fn unpack(
        &mut self,
        reference: &str,
        digest: &str,
        latest: bool,
        work: &mut Work,
    ) -> Result<Next, ActionError> {
        if self.registry.tags.contains_key(reference) {
            return self.take(reference, digest, latest, work);
        }
        let stands = self
            .images
            .get(reference)
            .is_some_and(|image| image.digest == digest);
        if !stands {
            let missing = SimError::NoImage(reference.to_owned());
            return Err(error(Retry::AfterChange, missing));
        }
        if self.unpacked(digest) {
            return Ok(Next::End);
        }
        self.unpack_layers(digest, work)
    }

    /// `latest`: for who follows the tag alone.
    fn take(
        &mut self,
        reference: &str,
        digest: &str,
        latest: bool,
        work: &mut Work,
    ) -> Result<Next, ActionError> {
        let before = self.registry.names.get(reference);
        let bound =
            before.is_some_and(|name| name.digest == digest || name.latest.as_deref() == Some(digest));
        if !bound || !self.unpacked(digest) {
            if self.registry.down {
                return Err(error(Retry::Again, SimError::NoRegistry(reference.to_owned())));
            }
            let stands = self.registry.tags.get(reference).is_some_and(|tag| tag == digest);
            if !bound && !stands {
                return Err(error(Retry::AfterChange, SimError::NoImage(reference.to_owned())));
            }
        }
        if !self.unpacked(digest) {
            return self.unpack_layers(digest, work);
        }
        let name = match before {
            Some(before) if latest => Name {
                latest: Some(digest.to_owned()),
                asked: self.wall,
                ..before.clone()
            },
            _ => Name {
                digest: digest.to_owned(),
                latest: None,
                asked: self.wall,
            },
        };
        let same = before.is_some_and(|before| before.digest == name.digest && before.latest == name.latest);
        if same {
            return Ok(Next::End);
        }
        self.room()?;
        self.registry.names.insert(reference.to_owned(), name);
        self.moved(touch::IMAGES | touch::RECORDS);
        Ok(Next::Did(work.stage + 1))
    }

    fn unpack_layers(&mut self, digest: &str, work: &mut Work) -> Result<Next, ActionError> {
        if self.disk_full {
            // Nothing half unpacked stays.
            self.layers.remove(digest);
        }
        self.room()?;
        let layers = match work.stage {
            0 => Layers::Half,
            _ => Layers::Whole,
        };
        self.layers.insert(digest.to_owned(), layers);
        self.moved(touch::IMAGES);
        Ok(Next::Did(work.stage + 1))
    }

    /// 0 what there is · 1 directory beside · 2 identity · 3 rename · 4 sync · 5.. record
    pub(super) fn ensure_volume(&mut self, key: &ResourceKey, work: &mut Work) -> Result<Next, ActionError> {
        const RECORD: u8 = 5;
        let lost = |volume: &ResourceKey, why: String| {
            let volume = volume.to_string();
            Err(error(Retry::AfterChange, SimError::VolumeLost { volume, why }))
        };
        match work.stage {
            0 => {
                if let Some(torn) = self.volumes.torn() {
                    return Err(error(Retry::Again, SimError::Damaged(torn.to_string())));
                }
                if self.volumes.contains_key(key) {
                    return match self.lost(key) {
                        Some(why) => lost(key, why.of(key)),
                        None => Ok(Next::End),
                    };
                }
                let sharers = self.volumes.keys().filter(|other| other.name == key.name);
                if let Some(why) = sharers.filter_map(|other| self.lost(other)).next() {
                    return lost(key, why.of(key));
                }
                let mut trees = self.instances.values().filter_map(|place| place.tree.as_ref());
                let mounted = trees.any(|tree| tree.volumes.contains_key(key));
                match self.directories.get(&key.name) {
                    // Lost, and not new, whatever became of its record.
                    None if mounted => {
                        self.volumes.set(key.clone(), UNKNOWN);
                        self.moved(touch::RECORDS | touch::VOLUMES);
                        lost(key, Lost::Missing.of(key))
                    }
                    None => {
                        work.number = self.number();
                        Ok(Next::To(1))
                    }
                    Some(VolumeDirectory {
                        identity: Some(identity),
                        data: true,
                        ..
                    }) => {
                        work.number = *identity;
                        Ok(Next::To(4))
                    }
                    Some(_) => lost(key, "what lies in its place was not made by stead".to_owned()),
                }
            }
            1 | 2 => {
                self.room()?;
                self.debris.insert(work.number);
                self.moved(touch::VOLUMES);
                Ok(Next::Did(work.stage + 1))
            }
            3 => {
                self.debris.remove(&work.number);
                let directory = VolumeDirectory {
                    identity: Some(work.number),
                    key: key.clone(),
                    data: true,
                    written: 0,
                };
                self.directories.insert(key.name.clone(), directory);
                self.loose_directories.insert(key.name.clone());
                self.moved(touch::VOLUMES);
                Ok(Next::Did(4))
            }
            4 => {
                self.loose_directories.remove(&key.name);
                self.moved(touch::VOLUMES);
                Ok(Next::Did(RECORD))
            }
            stage if stage < RECORD + disk::STAGES => {
                let identity = work.number;
                self.record(RECORD, stage, |world, stage| {
                    world.touched |= touch::VOLUMES;
                    world.volumes.put(key, &identity, stage)
                })
            }
            _ => Ok(Next::End),
        }
    }

    /// 0 aside · 1 sync · 2 record · 3 sync · 4 data
    pub(super) fn remove_volume(&mut self, key: &ResourceKey, work: &mut Work) -> Result<Next, ActionError> {
        match work.stage {
            0 => {
                if let Some(torn) = self.volumes.torn() {
                    return Err(error(Retry::Again, SimError::Damaged(torn.to_string())));
                }
                let Some(Content::Whole(identity)) = self.volumes.get(key).cloned() else {
                    return Ok(Next::End);
                };
                let shared = self
                    .volumes
                    .keys()
                    .any(|other| other != key && other.name == key.name);
                if shared || self.lost(key).is_some() {
                    return Ok(Next::To(2));
                }
                work.number = identity;
                self.removed_volumes.insert(identity);
                self.directories.remove(&key.name);
                self.debris.insert(identity);
                self.moved(touch::VOLUMES);
                Ok(Next::Did(1))
            }
            1 => {
                self.moved(touch::VOLUMES);
                Ok(Next::Did(2))
            }
            2 => {
                let identity = self.volumes.whole(key).copied();
                if !self.volumes.unlink(key) {
                    return Ok(Next::End);
                }
                // Of one that is lost, too, nobody wants to know any more.
                if !self.volumes.keys().any(|other| other.name == key.name) {
                    self.removed_volumes.extend(identity);
                }
                self.moved(touch::VOLUMES | touch::RECORDS);
                Ok(Next::Did(3))
            }
            3 => {
                self.volumes.sync(key);
                self.moved(touch::RECORDS);
                Ok(Next::Did(4))
            }
            _ if self.debris.remove(&work.number) => {
                self.moved(touch::VOLUMES);
                Ok(Next::Did(5))
            }
            _ => Ok(Next::End),
        }
    }
}
