//! The journal of a root: one JSON object a line, bounded in size and age, and its latest entries in memory.

mod files;
mod repeats;

use std::{
    collections::VecDeque,
    path::Path,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, SyncSender, TrySendError},
    },
    time::Duration,
};

use anyhow::Context;
use reconciler::journal::{Entry, Journal};
use serde::{Deserialize, Serialize};

use files::Files;
pub use files::read;
use repeats::Repeats;

/// Entries kept for those who follow the progress.
const KEPT: usize = 2000;
/// Entries that may wait for a slow disk; more are not written, and that is told.
const QUEUED: usize = 4096;
/// How long the end of the agent waits for its last lines.
const PATIENCE: Duration = Duration::from_secs(1);

/// An entry with its number since the agent started.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Numbered {
    pub number: u64,
    #[serde(flatten)]
    pub entry: Entry,
}

enum Order {
    Write(Box<Entry>),
    /// What is too old goes.
    Prune,
    /// Answered once all before it is written.
    Settle(SyncSender<()>),
}

/// Those who record never wait for the disk: a thread of its own writes.
pub struct FileJournal {
    orders: SyncSender<Order>,
    inner: Mutex<Inner>,
}

struct Inner {
    next: u64,
    latest: VecDeque<Numbered>,
    repeats: Repeats,
    /// Not written, because the disk did not keep up.
    lost: u64,
}

impl FileJournal {
    /// `path` is the file that is written; older ones stand beside it with a number.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let mut files =
            Files::open(path).with_context(|| format!("cannot open the journal {}", path.display()))?;
        let (orders, due) = mpsc::sync_channel(QUEUED);
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || {
                while let Ok(order) = due.recv() {
                    let done = match order {
                        Order::Write(entry) => files.write(&entry),
                        Order::Prune => files.prune(),
                        Order::Settle(reply) => {
                            let _ = reply.send(());
                            Ok(())
                        }
                    };
                    if let Err(error) = done {
                        tracing::error!(path = %files.path().display(), %error, "cannot write the journal; make room on that disk");
                    }
                }
            })?;
        Ok(FileJournal {
            orders,
            inner: Mutex::new(Inner {
                next: 1,
                latest: VecDeque::new(),
                repeats: Repeats::default(),
                lost: 0,
            }),
        })
    }

    /// Entries with a greater number, oldest first.
    pub fn since(&self, number: u64) -> Vec<Numbered> {
        let inner = self.inner();
        inner
            .latest
            .iter()
            .filter(|entry| entry.number > number)
            .cloned()
            .collect()
    }

    /// Removes what is too old, also where nothing new is written.
    pub fn prune(&self) {
        // A full queue prunes when it writes.
        let _ = self.orders.try_send(Order::Prune);
    }

    /// Waits until what was recorded is in the file, or the disk is too slow to wait for.
    pub fn settle(&self) {
        let (reply, settled) = mpsc::sync_channel(1);
        if self.orders.try_send(Order::Settle(reply)).is_ok() {
            let _ = settled.recv_timeout(PATIENCE);
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for FileJournal {
    fn record(&self, entry: Entry) {
        let mut inner = self.inner();
        let Some(entry) = inner.repeats.take(entry) else {
            return;
        };
        let written = self.orders.try_send(Order::Write(Box::new(entry.clone())));
        match written {
            Ok(()) if inner.lost > 0 => {
                tracing::error!(entries = inner.lost, "were not written to the journal");
                inner.lost = 0;
            }
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                inner.lost = inner.lost.saturating_add(1);
                if inner.lost == 1 {
                    tracing::error!("the disk does not keep up with the journal; entries are lost");
                }
            }
        }
        let number = inner.next;
        inner.next += 1;
        if inner.latest.len() == KEPT {
            inner.latest.pop_front();
        }
        inner.latest.push_back(Numbered { number, entry });
    }
}

#[cfg(test)]
mod tests;
