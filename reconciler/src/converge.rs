//! The loop: wait, observe, plan, execute, publish.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::{desired::Desired, journal::Journal, port::Backend, status::Status};

/// Two ends for the rest of the program.
pub struct Handle {
    /// Send a new value to change what is wanted.
    pub desired: watch::Sender<Arc<Desired>>,
    pub status: watch::Receiver<Arc<Status>>,
    /// Wakes the loop for a full look at the host; the text is the logged reason.
    pub wake: mpsc::UnboundedSender<String>,
    pub task: tokio::task::JoinHandle<()>,
}

/// Starts the loop. It ends when `Handle::desired` is dropped; nothing on the host is stopped by that.
pub fn start(_backend: Arc<dyn Backend>, _journal: Arc<dyn Journal>, _first: Desired) -> Handle {
    let (desired, _) = watch::channel(Arc::new(Desired::default()));
    let (_status, status) = watch::channel(Arc::new(Status {
        projects: Default::default(),
        observed: Arc::new(crate::observed::Observed::nothing_known()),
        plan: Default::default(),
        pass: 0,
        at: Default::default(),
    }));
    let (wake, _) = mpsc::unbounded_channel();
    Handle {
        desired,
        status,
        wake,
        task: tokio::spawn(async {}),
    }
}
