//! How far the pulls under way are: counted by the transfers, read by whoever wants to show it.

use std::sync::{
    Arc, Mutex, PoisonError, Weak,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use serde::{Deserialize, Serialize};

/// One pull, as far as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The name of the image, in full.
    pub reference: String,
    /// Compressed bytes of its layers that are here, those of earlier attempts too. Falls where what came was wrong.
    pub fetched: u64,
    /// Compressed bytes of the layers that were not here.
    pub size: u64,
    /// How many of `layers` are unpacked.
    pub unpacked: usize,
    /// Layers that were not here.
    pub layers: usize,
}

/// The pulls of one store.
#[derive(Debug, Default)]
pub(super) struct Pulls(Mutex<Vec<Weak<Pull>>>);

/// One of them. It is under way as long as somebody holds it, and so ends in whatever way the transfer does.
#[derive(Debug, Default)]
pub(super) struct Pull {
    reference: String,
    size: u64,
    layers: usize,
    fetched: AtomicU64,
    unpacked: AtomicUsize,
}

impl Pulls {
    pub(super) fn begin(&self, reference: String, size: u64, layers: usize) -> Arc<Pull> {
        let pull = Arc::new(Pull {
            reference,
            size,
            layers,
            ..Pull::default()
        });
        let mut pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulls.retain(|pull| pull.strong_count() > 0);
        pulls.push(Arc::downgrade(&pull));
        pull
    }

    /// Those under way, the oldest first.
    pub(super) fn progress(&self) -> Vec<Progress> {
        let pulls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pulls
            .iter()
            .filter_map(Weak::upgrade)
            .map(|pull| pull.progress())
            .collect()
    }
}

impl Pull {
    pub(super) fn came(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They came once, and are wanted anew.
    pub(super) fn gone(&self, bytes: u64) {
        self.fetched.fetch_sub(bytes, Ordering::Relaxed);
    }

    pub(super) fn unpacked(&self) {
        self.unpacked.fetch_add(1, Ordering::Relaxed);
    }

    fn progress(&self) -> Progress {
        Progress {
            reference: self.reference.clone(),
            fetched: self.fetched.load(Ordering::Relaxed),
            size: self.size,
            unpacked: self.unpacked.load(Ordering::Relaxed),
            layers: self.layers,
        }
    }
}
