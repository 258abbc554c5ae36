//! `stead image pull`: names asked of their registries anew, with progress.

use std::time::Duration;

use backend::{image::Reference, layout::Layout};
use serde_json::json;

use crate::{
    cli::{Global, print, pulling::Pulling},
    images::{self, Moved, Store},
};

/// How often a bar is drawn anew.
const EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(after_help = "\
The registry is asked anew. Where the tag has moved, the name stands for the new image from
now on, and the agent brings the services that use the name to it, whatever their policy.
What a broken transfer has brought is not fetched again.")]
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
        for reference in &references {
            match follow(&store, reference, global.json) {
                Ok(moved) => tell(&moved, "pulled", global.json)?,
                Err(error) => {
                    let error = error.context(format!(
                        "{reference} was not brought; what came of it is kept for the next time"
                    ));
                    if global.json {
                        let event = json!({
                            "event": "failed", "name": reference.to_string(), "error": format!("{error:#}"),
                        });
                        print(&format!("{event}\n"))?;
                    }
                    return Err(error);
                }
            }
        }
        Ok(0)
    }
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

fn follow(store: &Store, reference: &Reference, as_json: bool) -> anyhow::Result<Moved> {
    let name = reference.to_string();
    let mut pulling = Pulling::new(as_json);
    pulling.begin(&name)?;
    std::thread::scope(|scope| {
        let bringing = scope.spawn(|| store.bring(reference));
        while !bringing.is_finished() {
            std::thread::sleep(EVERY);
            let mut all = store.progress();
            all.retain(|one| one.reference == name);
            if !all.is_empty() {
                pulling.show(&all)?;
            }
        }
        pulling.clear()?;
        let ended = bringing.join();
        let moved = ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok(moved)
    })
}
