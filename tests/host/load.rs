//! A load from outside that notices everything that goes wrong while it runs.

use std::{
    io::BufRead,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{Host, http, promised};

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    requests: AtomicU64,
    lookups: AtomicU64,
    lines: AtomicU64,
    failures: Mutex<Vec<String>>,
}

pub struct Load {
    tally: Arc<Tally>,
    threads: Vec<JoinHandle<()>>,
    started: Instant,
}

/// What a load has seen.
#[derive(Debug)]
pub struct Report {
    pub requests: u64,
    pub lookups: u64,
    pub stream_lines: u64,
    pub failures: Vec<String>,
    /// New connections a second.
    pub rate: f64,
}

/// How long a stream of one line each 100 ms may be silent.
const SILENCE: Duration = Duration::from_secs(1);

impl Load {
    /// From the neighbour to `address`: new connections to `/` of `port`, at least 500 a second; one
    /// `/stream` that must never end or stall; and on `asking` requests for `/call/<name>`, each a
    /// look-up and a connection from inside that service.
    pub fn start(host: &Host, address: IpAddr, port: u16, asking: u16, name: &str) -> Load {
        let tally = Arc::new(Tally::default());
        let mut threads = Vec::new();
        host.network.on_lan(|| {
            // A thread belongs to the namespace of the one that made it.
            for _ in 0..6 {
                let tally = Arc::clone(&tally);
                threads.push(std::thread::spawn(move || {
                    connections(&tally, SocketAddr::new(address, port));
                }));
            }
            let stream = Arc::clone(&tally);
            threads.push(std::thread::spawn(move || {
                stream_of(&stream, SocketAddr::new(address, port))
            }));
            let lookups = Arc::clone(&tally);
            let path = format!("/call/{name}");
            threads.push(std::thread::spawn(move || {
                look_up(&lookups, SocketAddr::new(address, asking), &path);
            }));
        });
        Load {
            tally,
            threads,
            started: Instant::now(),
        }
    }

    /// From the neighbour: new connections alone.
    pub fn connections(host: &Host, address: IpAddr, port: u16) -> Load {
        let tally = Arc::new(Tally::default());
        let threads = host.network.on_lan(|| {
            let one = |_| {
                let tally = Arc::clone(&tally);
                std::thread::spawn(move || connections(&tally, SocketAddr::new(address, port)))
            };
            (0..6).map(one).collect()
        });
        Load {
            tally,
            threads,
            started: Instant::now(),
        }
    }

    pub fn finish(self) -> Report {
        let elapsed = self.started.elapsed();
        self.tally.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no panic in the load");
        }
        let requests = self.tally.requests.load(Ordering::Relaxed);
        Report {
            requests,
            lookups: self.tally.lookups.load(Ordering::Relaxed),
            stream_lines: self.tally.lines.load(Ordering::Relaxed),
            failures: self.tally.failures.lock().expect("no panic in the load").clone(),
            #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
            rate: requests as f64 / elapsed.as_secs_f64(),
        }
    }
}

impl Tally {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn fail(&self, what: String) {
        self.failures.lock().expect("no panic in the load").push(what);
    }
}

fn connections(tally: &Tally, address: SocketAddr) {
    // Six threads, each at most one connection every 8 ms: 750 a second and never a flood.
    const PACE: Duration = Duration::from_millis(8);
    let mut next = Instant::now();
    while tally.goes_on() {
        match http::get(address, "/healthz") {
            Ok(_) => tally.requests.fetch_add(1, Ordering::Relaxed),
            Err(error) => {
                tally.fail(format!("GET /healthz: {error}"));
                0
            }
        };
        next = (next + PACE).max(Instant::now() - 10 * PACE);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
}

fn stream_of(tally: &Tally, address: SocketAddr) {
    let mut stream = match http::stream(address, "/stream") {
        Ok(stream) => stream,
        Err(error) => return tally.fail(format!("GET /stream: {error}")),
    };
    let mut last = Instant::now();
    let mut line = String::new();
    while tally.goes_on() {
        line.clear();
        match stream.read_line(&mut line) {
            Ok(0) => return tally.fail("the stream ended".to_owned()),
            Ok(_) => {
                tally.lines.fetch_add(1, Ordering::Relaxed);
                if last.elapsed() > promised(SILENCE) {
                    tally.fail(format!("the stream was silent for {:?}", last.elapsed()));
                }
                last = Instant::now();
            }
            Err(error) => return tally.fail(format!("the stream broke: {error}")),
        }
    }
}

fn look_up(tally: &Tally, address: SocketAddr, path: &str) {
    while tally.goes_on() {
        match http::get(address, path) {
            Ok(_) => {
                tally.lookups.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => tally.fail(format!("GET {path}: {error}")),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
