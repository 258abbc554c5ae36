//! `stead image rm` and `stead image gc`.

use std::collections::BTreeSet;

use anyhow::bail;
use backend::layout::Layout;
use serde_json::{Value, json};

use super::{count, short};
use crate::{
    cli::{Global, print, print_json},
    images::{self, Kind, PATIENCE, Selected, Stored, Use, What},
    render,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "\
A name that a project or a container uses is not let go of without --force; what a container
is made of stays in any case until that is gone. A digest stands for all names of its image.")]
pub struct Rm {
    /// Names, or digests, or at least four digits of the beginning of one.
    #[arg(value_name = "NAME", required = true)]
    images: Vec<String>,
    /// Also names that are used; who uses them has the image brought again when needed.
    #[arg(short, long)]
    force: bool,
}

#[derive(Debug, clap::Args)]
#[command(after_help = "\
An image is used by its containers, running or not, and by projects that name it, also in the
revision that they would be rolled back to. Volumes are never touched.")]
pub struct Gc {
    /// Only say what would be removed.
    #[arg(long)]
    dry_run: bool,
}

impl Rm {
    pub fn run(&self, global: &Global, layout: &Layout) -> anyhow::Result<u8> {
        let store = images::open(layout);
        let survey = store.survey()?;
        let used = match images::used(layout) {
            Ok(used) => used,
            Err(error) if self.force => {
                bail!(error.context("--force does not help: what a container is made of is not known"))
            }
            Err(error) => return Err(error),
        };
        let mut names = BTreeSet::new();
        for text in &self.images {
            let image = survey.find(text)?;
            let asked = asked(text, image);
            let users = users(&used, image, &asked);
            if !users.is_empty() && !self.force {
                bail!(
                    "{} is used by {}; take it out of there first, or let go of the name with --force",
                    title(&asked, image),
                    users.into_iter().collect::<Vec<_>>().join(", ")
                );
            }
            names.extend(asked);
        }
        let selected = images::collect(layout, &store, &names, What::Nobodys, PATIENCE)?;
        if global.json {
            print_json(&document(&selected, false))?;
        } else {
            let let_go: String = names.iter().map(|name| format!("let go of {name}\n")).collect();
            print(&format!(
                "{let_go}{}",
                text(&selected, &names, "removed", "freed")
            ))?;
        }
        for text in &self.images {
            if let Ok(image) = survey.find(text)
                && let (_, containers) = used.of(image)
                && !containers.is_empty()
            {
                let containers: Vec<String> = containers.into_iter().collect();
                eprintln!(
                    "stead: the layers of {} stay until {} is gone",
                    short(&image.digest),
                    containers.join(", ")
                );
            }
        }
        Ok(0)
    }
}

/// The names that are meant: the one that was written, or all of the image's.
fn asked(text: &str, image: &Stored) -> BTreeSet<String> {
    match images::canonical(text).filter(|name| image.names.contains(name)) {
        Some(name) => BTreeSet::from([name]),
        None => image.names.clone(),
    }
}

fn title(asked: &BTreeSet<String>, image: &Stored) -> String {
    asked.first().unwrap_or(&image.digest).clone()
}

/// Who would miss something: projects the names, containers the last name of what they are made of.
fn users(used: &Use, image: &Stored, asked: &BTreeSet<String>) -> BTreeSet<String> {
    let named = Stored {
        names: asked.clone(),
        ..image.clone()
    };
    let (mut users, containers) = used.of(&named);
    if *asked == image.names {
        users.extend(containers);
    }
    users
}

impl Gc {
    pub fn run(&self, global: &Global, layout: &Layout) -> anyhow::Result<u8> {
        let store = images::open(layout);
        let none = BTreeSet::new();
        let selected = match self.dry_run {
            true => images::choose(layout, &store, &none, What::Unused)?,
            false => images::collect(layout, &store, &none, What::Unused, PATIENCE)?,
        };
        if global.json {
            print_json(&document(&selected, self.dry_run))?;
        } else {
            let words = match self.dry_run {
                true => ("would remove", "would free"),
                false => ("removed", "freed"),
            };
            print(&text(&selected, &none, words.0, words.1))?;
        }
        Ok(0)
    }
}

fn document(selected: &Selected, dry_run: bool) -> Value {
    let images = selected
        .images
        .iter()
        .map(|image| json!({ "digest": image.digest, "names": image.names }));
    json!({
        "images": images.collect::<Vec<_>>(),
        "names": selected.names,
        "parts": selected.parts.keys().collect::<Vec<_>>(),
        "bytes": selected.bytes(),
        "dry_run": dry_run,
    })
}

/// `told`: names that were told of already.
fn text(selected: &Selected, told: &BTreeSet<String>, removed: &str, freed: &str) -> String {
    let mut text = String::new();
    for image in &selected.images {
        let names: Vec<&str> = image
            .names
            .iter()
            .filter(|name| !told.contains(*name))
            .map(String::as_str)
            .collect();
        text.push_str(&format!("{removed} {} {}", short(&image.digest), names.join(" ")));
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    let of_images: BTreeSet<_> = selected.images.iter().flat_map(|image| &image.parts).collect();
    let left = selected
        .parts
        .iter()
        .filter(|(path, _)| !of_images.contains(path));
    let left = left.filter(|(_, part)| part.kind != Kind::Foreign).count();
    if left > 0 {
        text.push_str(&format!("{removed} {}\n", count(left, "leftover")));
    }
    text.push_str(&match selected.bytes() {
        0 if selected.is_empty() => "nothing to remove\n".to_owned(),
        bytes => format!("{freed} {} ({bytes} bytes)\n", render::bytes(bytes)),
    });
    text
}
