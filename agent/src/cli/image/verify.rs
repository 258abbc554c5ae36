//! `stead image verify`: is what is stored still what it was?

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::Context;
use backend::{layout::Layout, lock};
use serde_json::json;

use super::short;
use crate::{
    cli::{Global, print, print_json},
    exit,
    images::{self, Fault, Store, Stored, Use},
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Documents are compared with their digests, layers file by file with what they were made of.
With --repair what is damaged is brought anew, from the registry by the digest that the name
stood for, or from the archive it came from. Containers keep what they have of a damaged
layer, for files under a running container must not change: the agent starts them anew on the
repaired one.")]
pub struct Verify {
    /// Names, or digests, or at least four digits of the beginning of one; all images without any.
    #[arg(value_name = "NAME")]
    images: Vec<String>,
    /// Bring what is damaged anew.
    #[arg(long)]
    repair: bool,
    /// The archive or layout that the images were loaded from; otherwise where their names lead.
    #[arg(long, value_name = "FILE", requires = "repair")]
    from: Option<PathBuf>,
}

impl Verify {
    pub fn run(&self, global: &Global, layout: &Layout) -> anyhow::Result<u8> {
        let store = images::open(layout);
        let survey = store.survey()?;
        let chosen: Vec<&Stored> = match self.images.as_slice() {
            [] => survey.images.iter().collect(),
            names => names
                .iter()
                .map(|name| survey.find(name))
                .collect::<Result<_, _>>()?,
        };
        let mut checked = images::Checked::default();
        let mut found: Vec<(&Stored, Vec<Fault>)> = Vec::new();
        for image in &chosen {
            eprintln!("checking {}", image.title());
            found.push((image, store.verify(image, &mut checked)?));
        }
        // Whose they were is told by none of them any more.
        let documents = match self.images.is_empty() {
            true => store.damaged_documents(&survey)?,
            false => Vec::new(),
        };
        let known: BTreeSet<&str> = survey
            .images
            .iter()
            .filter(|image| image.unreadable.is_some())
            .filter_map(|image| image.digest.strip_prefix("sha256:"))
            .collect();
        let is_new = |path: &&PathBuf| {
            let name = path.file_name().and_then(|name| name.to_str());
            !name.is_some_and(|name| known.contains(name))
        };
        let documents: Vec<_> = documents.iter().filter(is_new).collect();
        let damaged = found.iter().filter(|(_, faults)| !faults.is_empty()).count();
        if global.json {
            let faults = found.iter().flat_map(|(image, faults)| {
                faults.iter().map(move |fault| {
                    json!({
                        "image": fault.image, "name": image.names.first(), "layer": fault.layer,
                        "path": fault.path, "what": fault.what,
                    })
                })
            });
            print_json(&json!({
                "checked": chosen.len(),
                "faults": faults.collect::<Vec<_>>(),
                "documents": documents,
            }))?;
        } else {
            for (image, faults) in &found {
                print(&faults.iter().map(|fault| line(image, fault)).collect::<String>())?;
            }
            for path in &documents {
                print(&format!(
                    "{}: a document that is not what its name says\n",
                    path.display()
                ))?;
            }
            if damaged == 0 && documents.is_empty() {
                print(&format!(
                    "{}: all as it was\n",
                    super::count(chosen.len(), "image")
                ))?;
            }
        }
        if damaged == 0 && documents.is_empty() {
            return Ok(0);
        }
        if !self.repair {
            eprintln!("stead: `stead image verify --repair` brings what is damaged anew");
            return Ok(exit::FAILED);
        }
        let used = images::used(layout).context("nothing was repaired")?;
        let mut done = BTreeSet::new();
        for (image, faults) in found.iter().filter(|(_, faults)| !faults.is_empty()) {
            self.repair(layout, &store, image, faults, &used, &mut done);
        }
        let mut whole = true;
        let mut checked = images::Checked::default();
        let survey = store.survey()?;
        for (image, _) in found {
            if let Ok(now) = survey.find(&image.digest) {
                whole &= store.verify(now, &mut checked)?.is_empty();
            }
        }
        whole &= documents.iter().all(|path| is_sound(path));
        Ok(if whole { 0 } else { exit::FAILED })
    }

    /// `done`: layers that were brought with another image.
    fn repair(
        &self,
        layout: &Layout,
        store: &Store,
        image: &Stored,
        faults: &[Fault],
        used: &Use,
        done: &mut BTreeSet<String>,
    ) {
        let mut faults = faults.to_vec();
        // What a damaged configuration is of is known when that is here again.
        for _ in 0..2 {
            faults.retain(|fault| fault.layer.as_ref().is_none_or(|layer| !done.contains(layer)));
            if faults.is_empty() {
                return;
            }
            let layers = faults.iter().filter_map(|fault| fault.layer.clone()).collect();
            let repaired = match store.repair(image, &layers, &used.grounds, self.from.as_deref()) {
                Ok(repaired) => repaired,
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    eprintln!(
                        "stead: {} cannot be repaired: {error:#}. Where it was loaded from an archive, name that with --from",
                        image.title()
                    );
                    return;
                }
            };
            eprintln!(
                "repaired {} from {}: {}",
                image.title(),
                repaired.source,
                super::count(repaired.layers.len(), "layer")
            );
            tell_users(layout, image, used, !repaired.held.is_empty());
            done.extend(repaired.layers);
            faults = store
                .verify(image, &mut images::Checked::default())
                .unwrap_or_default();
        }
    }
}

fn line(image: &Stored, fault: &Fault) -> String {
    let layer = fault
        .layer
        .as_ref()
        .map(|layer| format!(" layer {}", short(layer)));
    let path = fault.path.as_ref().map(|path| format!(" {}", path.display()));
    format!(
        "{} ({}){}{}: {}\n",
        image.title(),
        short(&image.digest),
        layer.unwrap_or_default(),
        path.unwrap_or_default(),
        fault.what
    )
}

/// Brought anew meanwhile, or gone.
fn is_sound(path: &Path) -> bool {
    !path.exists() || images::is_what_its_name_says(path)
}

fn tell_users(layout: &Layout, image: &Stored, used: &Use, held: bool) {
    let (_, containers) = used.of(image);
    if !held || containers.is_empty() {
        return;
    }
    let containers = containers.into_iter().collect::<Vec<_>>().join(", ");
    match lock::holder(layout) {
        Some(_) => eprintln!("stead: the agent starts anew what stands on the damaged layer: {containers}"),
        None => eprintln!(
            "stead: this stands on the damaged layer until it is started anew, which an agent does when it starts: {containers}"
        ),
    }
}
