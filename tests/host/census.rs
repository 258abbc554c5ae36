//! How many processes with an argument there are at one moment, at most.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use super::process;

/// Looks into /proc every 2 ms until it is asked.
pub struct Census {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
    most: Arc<AtomicUsize>,
}

impl Census {
    pub fn of(marker: String) -> Census {
        let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let thread = std::thread::spawn({
            let (stop, most) = (Arc::clone(&stop), Arc::clone(&most));
            move || {
                while !stop.load(Ordering::Relaxed) {
                    most.fetch_max(process::with_argument(&marker).len(), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
            }
        });
        Census { stop, thread, most }
    }

    /// The largest number that was seen.
    pub fn finish(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no panic in the census");
        self.most.load(Ordering::Relaxed)
    }
}
