//! Prints what comes, however slowly: a thread writes, and what it has not written yet is bounded.

use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Sender},
    },
    thread::JoinHandle,
};

/// What waits here at most, before it waits in the socket of the shim.
const MOST: usize = 16 << 20;

/// Standard output and standard error.
pub struct Printer {
    to: Sender<(u8, Vec<u8>)>,
    waiting: Arc<AtomicUsize>,
    thread: JoinHandle<io::Result<()>>,
}

impl Printer {
    pub fn new() -> Self {
        let (to, from) = mpsc::channel::<(u8, Vec<u8>)>();
        let waiting = Arc::new(AtomicUsize::new(0));
        let left = Arc::clone(&waiting);
        let thread = std::thread::spawn(move || {
            for (stream, bytes) in from {
                match stream {
                    2 => write(&mut io::stderr(), &bytes)?,
                    _ => write(&mut io::stdout(), &bytes)?,
                }
                left.fetch_sub(bytes.len(), Ordering::Relaxed);
            }
            Ok(())
        });
        Printer { to, waiting, thread }
    }

    pub fn space(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < MOST
    }

    /// # Errors
    /// Whoever reads what is printed has gone.
    pub fn print(&mut self, stream: u8, bytes: &[u8]) -> io::Result<()> {
        self.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        self.to
            .send((stream, bytes.to_vec()))
            .map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Waits until all is written.
    ///
    /// # Errors
    /// As write(2).
    pub fn finish(self) -> io::Result<()> {
        drop(self.to);
        self.thread.join().unwrap_or(Ok(()))
    }
}

fn write(to: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
