//! A disk that writes back when it likes: what was not synced may be kept, lost or torn by a power cut.

use std::collections::BTreeMap;

use super::Random;

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<T> {
    Whole(T),
    /// Its checksum does not fit.
    Torn,
}

/// A record in the page cache and on the platter.
#[derive(Debug, Clone)]
pub struct File<T> {
    /// What a reader sees.
    pub now: Option<Content<T>>,
    /// What is there after a power cut that loses everything unsynced.
    pub durable: Option<Content<T>>,
    /// Temporary files beside it, one for each who writes, and whether it was synced.
    pub temporary: Vec<(T, bool)>,
    /// What `now` was renamed from had not been synced.
    loose: bool,
}

/// The records of one kind, one file each.
#[derive(Debug, Clone)]
pub struct Files<K, T>(BTreeMap<K, File<T>>);

/// Where the writing of a record is: each is one system call.
pub const WRITE: u8 = 0;
pub const SYNC: u8 = 1;
pub const RENAME: u8 = 2;
pub const SYNC_DIRECTORY: u8 = 3;
/// How many there are.
pub const STAGES: u8 = 4;
/// No system call: only whether one would be needed.
pub const SAME: u8 = u8::MAX;

impl<K, T> Default for Files<K, T> {
    fn default() -> Self {
        Files(BTreeMap::new())
    }
}

impl<K: Ord + Clone, T: Clone + PartialEq> Files<K, T> {
    /// What is there, damaged or not.
    pub fn get(&self, key: &K) -> Option<&Content<T>> {
        self.0.get(key)?.now.as_ref()
    }

    /// What is there, as far as it can be read.
    pub fn whole(&self, key: &K) -> Option<&T> {
        match self.get(key)? {
            Content::Whole(body) => Some(body),
            Content::Torn => None,
        }
    }

    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, &Content<T>)> + Clone {
        self.0
            .iter()
            .filter_map(|(key, file)| Some((key, file.now.as_ref()?)))
    }

    pub fn keys(&self) -> impl Iterator<Item = &K> + Clone {
        self.iter().map(|(key, _)| key)
    }

    pub fn len(&self) -> usize {
        self.iter().count()
    }

    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// Some file cannot be read: then a list of them is worth nothing.
    pub fn torn(&self) -> Option<&K> {
        self.iter()
            .find(|(_, content)| **content == Content::Torn)
            .map(|(key, _)| key)
    }

    /// One system call of replacing a record. False at [`WRITE`]: it says the same already.
    pub fn put(&mut self, key: &K, body: &T, stage: u8) -> bool {
        if stage == SAME {
            return self.whole(key) != Some(body);
        }
        let fresh = || File {
            now: None,
            durable: None,
            temporary: Vec::new(),
            loose: false,
        };
        if stage == WRITE && self.whole(key) == Some(body) {
            return false;
        }
        let file = self.0.entry(key.clone()).or_insert_with(fresh);
        match stage {
            WRITE => file.temporary.push((body.clone(), false)),
            SYNC => {
                let mut mine = file.temporary.iter_mut();
                if let Some((_, synced)) = mine.find(|(other, synced)| other == body && !synced) {
                    *synced = true;
                }
            }
            RENAME => {
                let mut mine = file.temporary.iter();
                if let Some(index) = mine.position(|(other, synced)| other == body && *synced) {
                    let (body, synced) = file.temporary.swap_remove(index);
                    file.now = Some(Content::Whole(body));
                    file.loose = !synced;
                }
            }
            _ => self.sync(key),
        }
        true
    }

    /// Takes the name away. False: there was none.
    pub fn unlink(&mut self, key: &K) -> bool {
        match self.0.get_mut(key) {
            Some(file) => file.now.take().is_some(),
            None => false,
        }
    }

    /// The directory is synced, as far as this name is concerned.
    pub fn sync(&mut self, key: &K) {
        if let Some(file) = self.0.get_mut(key) {
            if !file.loose {
                file.durable.clone_from(&file.now);
            }
            if file.now.is_none() && file.temporary.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// At once and durably, as if it had always been so.
    pub fn set(&mut self, key: K, body: T) {
        let content = Some(Content::Whole(body));
        let file = File {
            now: content.clone(),
            durable: content,
            temporary: Vec::new(),
            loose: false,
        };
        self.0.insert(key, file);
    }

    /// Bits rot.
    pub fn tear(&mut self, key: &K) {
        if let Some(file) = self.0.get_mut(key) {
            file.now = Some(Content::Torn);
            file.durable = Some(Content::Torn);
        }
    }

    pub fn remove(&mut self, key: &K) {
        self.0.remove(key);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Temporary files that a killed agent has left.
    pub fn leftovers(&self) -> usize {
        self.0.values().map(|file| file.temporary.len()).sum()
    }

    pub fn sweep(&mut self) {
        self.0.retain(|_, file| {
            file.temporary.clear();
            file.now.is_some() || file.durable.is_some()
        });
    }

    /// The power goes: every write that was not synced has its own coin.
    pub fn crash(&mut self, random: &mut Random) {
        self.0.retain(|_, file| {
            file.temporary.clear();
            if file.now != file.durable {
                file.now = match (random.below(2), file.loose) {
                    (0, _) => file.durable.clone(),
                    (_, false) => file.now.take(),
                    (_, true) => Some(Content::Torn),
                };
            }
            file.loose = false;
            file.durable.clone_from(&file.now);
            file.now.is_some()
        });
    }
}
