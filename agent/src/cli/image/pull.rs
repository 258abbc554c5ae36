//! `stead image pull`: names asked of their registries anew, with progress.

use std::{
    collections::BTreeMap,
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    time::Duration,
};

use backend::{
    image::{ImageError, Reference},
    layout::Layout,
};
use serde_json::json;

use crate::{
    cli::{Global, print, pulling::Pulling},
    exit,
    images::{self, Moved, Store},
};

/// Images that are brought at once; of each so many layers.
const AT_ONCE: usize = 3;

/// How often a bar is drawn anew.
const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The registry is asked anew. Where the tag has moved, the name stands for the new image from
now on, and the agent brings the services that use the name to it, whatever their policy.
Several are brought at once. What a broken transfer has brought is not fetched again.")]
pub struct Pull {
    /// As in `image:` of a manifest.
    #[arg(value_name = "NAME", required = true)]
    names: Vec<String>,
}

impl Pull {
    pub fn run(&self, global: &Global, layout: &Layout) -> anyhow::Result<u8> {
        let parsed = self.names.iter().map(|name| name.parse());
        let references: Vec<Reference> = parsed.collect::<Result<_, _>>()?;
        let store = images::open(layout);
        let mut status = 0;
        bring(&store, &references, global.json, |reference, ended| {
            let error = match ended {
                Ok(moved) => return tell(&moved, "pulled", global.json),
                Err(error) => anyhow::Error::new(error).context(format!(
                    "{reference} was not brought; what came of it is kept for the next time"
                )),
            };
            if global.json {
                let event = json!({
                    "event": "failed", "name": reference.to_string(), "error": format!("{error:#}"),
                });
                print(&format!("{event}\n"))?;
            }
            eprintln!("stead: {error:#}");
            status = exit::status(&error);
            Ok(())
        })?;
        Ok(status)
    }
}

type Ended = Result<Moved, ImageError>;

/// What a thread that brings images tells, by the number of the name.
enum Event {
    Begun(usize),
    Ended(usize, Ended),
}

/// Brings them, [`AT_ONCE`] at once, and shows how far they are. What became of them is told in their order.
fn bring(
    store: &Store,
    references: &[Reference],
    as_json: bool,
    mut told: impl FnMut(&Reference, Ended) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (next, (sender, events)) = (AtomicUsize::new(0), mpsc::channel());
    // One after the other, until there is none, or nobody listens.
    let brings = |sender: Sender<Event>| {
        let numbered = std::iter::from_fn(|| {
            let number = next.fetch_add(1, Ordering::Relaxed);
            Some((number, references.get(number)?))
        });
        for (number, reference) in numbered {
            let told = sender
                .send(Event::Begun(number))
                .and_then(|()| sender.send(Event::Ended(number, store.bring(reference))));
            if told.is_err() {
                return;
            }
        }
    };
    let mut pulling = Pulling::new(as_json);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(references.len()) {
            let sender = sender.clone();
            scope.spawn(|| brings(sender));
        }
        drop(sender);
        let (mut ended, mut said) = (BTreeMap::new(), 0);
        // Moved here, so that nobody listens any more when this returns; the threads end with what they have begun.
        let events = events;
        loop {
            match events.recv_timeout(EVERY) {
                Ok(Event::Begun(number)) => pulling.begin(&references[number].to_string())?,
                Ok(Event::Ended(number, one)) => {
                    ended.insert(number, one);
                    while let Some(one) = ended.remove(&said) {
                        pulling.clear()?;
                        told(&references[said], one)?;
                        said += 1;
                    }
                }
                Err(RecvTimeoutError::Timeout) => pulling.show(&store.progress())?,
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    })
}

/// What a name stands for now.
pub fn tell(moved: &Moved, word: &str, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        let event = json!({
            "event": word, "name": moved.name, "before": moved.before, "digest": moved.now,
        });
        return print(&format!("{event}\n"));
    }
    print(&match &moved.before {
        Some(before) if *before == moved.now => format!("{word} {} {} (as it was)\n", moved.name, moved.now),
        Some(before) => format!("{word} {} {} -> {}\n", moved.name, before, moved.now),
        None => format!("{word} {} {}\n", moved.name, moved.now),
    })
}
