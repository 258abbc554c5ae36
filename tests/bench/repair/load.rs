//! A request to each service every so often, each on a connection of its own, and what became of them.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crate::host::{HOST, http, network::Network, target::Target};

/// Between two requests to a service.
const PACE: Duration = Duration::from_millis(20);
/// A request that takes longer is lost.
const LIMIT: Duration = Duration::from_secs(1);

/// A request that was not answered.
pub struct Loss {
    /// Which of the targets.
    pub service: usize,
    pub start: Instant,
    pub end: Instant,
    pub error: String,
}

pub struct Load {
    threads: Vec<JoinHandle<()>>,
    over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    losses: Arc<Mutex<Vec<Loss>>>,
    start: Instant,
}

impl Load {
    /// One thread a service, so that one that is broken keeps no other waiting.
    pub fn start(targets: &[Target], network: &Network) -> Load {
        let mut load = Load {
            threads: Vec::new(),
            over: Arc::default(),
            answered: Arc::default(),
            losses: Arc::default(),
            start: Instant::now(),
        };
        network.on_lan(|| {
            for (service, target) in targets.iter().enumerate() {
                let address = SocketAddr::new(HOST, target.port);
                let (over, answered) = (Arc::clone(&load.over), Arc::clone(&load.answered));
                let losses = Arc::clone(&load.losses);
                load.threads.push(std::thread::spawn(move || {
                    let mut next = Instant::now();
                    while !over.load(Ordering::Relaxed) {
                        let start = Instant::now();
                        match http::get_within(address, "/healthz", LIMIT) {
                            Ok(_) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => losses.lock().expect("no panic").push(Loss {
                                service,
                                start,
                                end: Instant::now(),
                                error,
                            }),
                        }
                        // What a request that took long has kept from being sent is sent after it.
                        next += PACE;
                        std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    }
                }));
            }
        });
        load
    }

    /// Requests sent, how many a second, and those of them that were not answered.
    pub fn finish(self) -> (u64, f64, Vec<Loss>) {
        let elapsed = self.start.elapsed().as_secs_f64();
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no panic in the load");
        }
        let losses = std::mem::take(&mut *self.losses.lock().expect("no panic"));
        let requests = self.answered.load(Ordering::Relaxed) + losses.len() as u64;
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        (requests, requests as f64 / elapsed, losses)
    }
}
