//! `stead image ls` and `stead image inspect`.

use std::collections::BTreeMap;

use backend::layout::Layout;
use serde_json::{Value, json};

use super::{count, short};
use crate::{
    cli::{Global, print, print_json},
    images::{self, Inspection, Kind, Part, Stored, Survey, Use},
    render,
};

#[derive(Debug, clap::Args)]
pub struct Inspect {
    /// A name, a digest, or at least four digits of the beginning of one.
    #[arg(value_name = "NAME|DIGEST")]
    image: String,
}

pub fn run(global: &Global, layout: &Layout) -> anyhow::Result<u8> {
    let store = images::open(layout);
    let survey = store.survey()?;
    let used = match images::used(layout) {
        Ok(used) => Some(used),
        Err(error) => {
            eprintln!("stead: who uses what is not known: {error:#}");
            None
        }
    };
    if global.json {
        print_json(&document(&survey, used.as_ref()))?;
    } else {
        print(&text(&survey, used.as_ref(), render::colour_out()))?;
    }
    Ok(0)
}

/// Once for each name; an image without one once.
fn rows(survey: &Survey) -> impl Iterator<Item = (Option<&str>, &Stored)> {
    survey.images.iter().flat_map(|image| {
        let names = image.all_names().map(|name| Some(name.as_str()));
        let unnamed = image.all_names().next().is_none().then_some(None);
        names.chain(unnamed).map(move |name| (name, image))
    })
}

fn document(survey: &Survey, used: Option<&Use>) -> Value {
    let images = rows(survey).map(|(name, image)| {
        let (size, shared) = survey.size(image);
        let used_by = used.map(|used| {
            let (projects, containers) = used.of(image);
            json!({ "projects": projects, "containers": containers })
        });
        json!({
            "name": name,
            "latest": name.is_some_and(|name| image.followed.contains(name)),
            "digest": image.digest,
            "created": image.created,
            "size": size,
            "shared": shared,
            "used_by": used_by,
            "state": state(image),
        })
    });
    let leftovers = survey
        .leftovers()
        .map(|(path, part)| json!({ "what": word(part.kind), "path": path, "size": part.size }));
    json!({
        "images": images.collect::<Vec<_>>(),
        "leftovers": leftovers.collect::<Vec<_>>(),
        "total": survey.total,
    })
}

fn state(image: &Stored) -> &'static str {
    match image {
        Stored {
            unreadable: Some(_), ..
        } => "damaged",
        Stored { incomplete: true, .. } => "incomplete",
        _ => "whole",
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Layer => "layer of no image",
        Kind::Recipe => "recipe of no layer",
        Kind::Document => "document of no image",
        Kind::Rootfs => "path of no image",
        Kind::Pull => "part of a broken pull",
        Kind::Unfinished => "unfinished change",
        Kind::Held => "replaced layer",
        Kind::Foreign => "file not of stead",
    }
}

fn text(survey: &Survey, used: Option<&Use>, colour: bool) -> String {
    let head = ["NAME", "DIGEST", "CREATED", "SIZE", "SHARED", "USED BY"];
    let rows: Vec<Vec<String>> = rows(survey)
        .map(|(name, image)| {
            let (size, shared) = survey.size(image);
            let size = match state(image) {
                "whole" => render::bytes(size),
                state => format!("{} ({state})", render::bytes(size)),
            };
            vec![
                match name {
                    Some(name) if image.followed.contains(name) => format!("{name} (latest)"),
                    Some(name) => name.to_owned(),
                    None => "<none>".to_owned(),
                },
                short(&image.digest).to_owned(),
                image.created.as_deref().map_or("-", day).to_owned(),
                size,
                render::bytes(shared),
                used.map_or("?".to_owned(), |used| users(used, image)),
            ]
        })
        .collect();
    let mut text = render::table(&head, &rows, colour);
    let mut leftovers: BTreeMap<Kind, Vec<&Part>> = BTreeMap::new();
    for (_, part) in survey.leftovers() {
        leftovers.entry(part.kind).or_default().push(part);
    }
    for (kind, parts) in &leftovers {
        let size = parts.iter().map(|part| part.size).sum();
        text.push_str(&format!(
            "left over: {}, {}\n",
            plural(parts.len(), word(*kind)),
            render::bytes(size)
        ));
    }
    text.push_str(&format!("total: {}\n", render::bytes(survey.total)));
    text
}

/// `2 layers of no image`
fn plural(number: usize, what: &str) -> String {
    match (number, what.split_once(' ')) {
        (1, _) => format!("1 {what}"),
        (_, Some((noun @ ("layer" | "recipe" | "document" | "path" | "part" | "file"), rest))) => {
            format!("{number} {noun}s {rest}")
        }
        _ => count(number, what),
    }
}

/// The day of a moment in RFC 3339; images of reproducible builds are of 1970 or of no day.
fn day(created: &str) -> &str {
    created.split('T').next().unwrap_or(created)
}

/// Projects whose containers are told need no word of their own.
fn users(used: &Use, image: &Stored) -> String {
    let (projects, containers) = used.of(image);
    let told = |project: &String| {
        containers
            .iter()
            .any(|container| container.starts_with(&format!("{project}/")))
    };
    let projects = projects.iter().filter(|project| !told(project));
    let all: Vec<&str> = projects.chain(&containers).map(String::as_str).collect();
    match all.is_empty() {
        true => "-".to_owned(),
        false => all.join(", "),
    }
}

impl Inspect {
    pub fn run(&self, layout: &Layout) -> anyhow::Result<u8> {
        let store = images::open(layout);
        let survey = store.survey()?;
        let image = survey.find(&self.image)?;
        print_json(&inspected(&store.inspect(&survey, image)?))?;
        Ok(0)
    }
}

fn inspected(image: &Inspection) -> Value {
    let layers = image
        .layers
        .iter()
        .map(|(diff_id, size, here)| json!({ "diff_id": diff_id, "size": size, "here": here }));
    let names = image
        .names
        .iter()
        .map(|(name, manifest)| json!({ "name": name, "pinned": manifest }));
    let of = |key: &str| image.config.get(key).cloned().unwrap_or(Value::Null);
    json!({
        "digest": image.digest,
        "names": names.collect::<Vec<_>>(),
        "manifest": image.manifest,
        "created": of("created"),
        "os": of("os"),
        "architecture": of("architecture"),
        "config": of("config"),
        "layers": layers.collect::<Vec<_>>(),
        "history": of("history"),
        "size": image.size,
        "shared": image.shared,
    })
}

#[cfg(test)]
mod tests {
    use super::{day, plural};

    #[test]
    fn numbers_of_leftovers_are_read_as_written() {
        for (number, what, expected) in [
            (1, "layer of no image", "1 layer of no image"),
            (2, "layer of no image", "2 layers of no image"),
            (3, "part of a broken pull", "3 parts of a broken pull"),
            (2, "unfinished change", "2 unfinished changes"),
            (2, "replaced layer", "2 replaced layers"),
            (2, "file not of stead", "2 files not of stead"),
        ] {
            assert_eq!(plural(number, what), expected);
        }
        assert_eq!(day("2024-10-02T17:00:01.2Z"), "2024-10-02");
    }
}
