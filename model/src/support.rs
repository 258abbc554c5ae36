//! Every attribute of the Compose Specification, and whether stead honours it. One table: it drives the
//! messages of the loader and is printed as documentation.

mod differences;
mod resources;
mod services;

pub use differences::{DIFFERENCES, Difference};

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use crate::{
    report::Report,
    syntax::cut,
    tree::{At, Node, Value},
};

/// What happens to an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    Supported,
    /// Accepted without an effect and without a word, because it means nothing on one host.
    Silent,
    /// Accepted without an effect, with a warning that says why.
    Ignored,
    /// A refusal until stead honours it; the hint says what to do meanwhile.
    NotYet,
    /// A refusal for good; the hint says what to use instead.
    Rejected,
}

/// One attribute. `path` has `*` for names and list positions; everything below an attribute that is not
/// supported shares its fate.
#[derive(Debug, Clone, Copy)]
pub struct Attribute {
    pub path: &'static str,
    pub support: Support,
    /// What to do instead, or why nothing happens. Empty where the attribute above has one.
    pub hint: &'static str,
    /// Values that ask for nothing else than what happens anyway.
    pub accepts: &'static [&'static str],
}

/// The table, ordered as the specification is: top level, services, networks, volumes, configs, secrets.
pub fn attributes() -> impl Iterator<Item = &'static Attribute> {
    let parts = [
        resources::TOP,
        services::SERVICE,
        services::NESTED,
        resources::BELOW,
    ];
    parts.into_iter().flatten()
}

/// One attribute of a section (`services.*`; empty: the top level).
pub fn find(section: &str, name: &str) -> Option<&'static Attribute> {
    below(section).find_map(|(known, attribute)| (known == name).then_some(attribute))
}

/// The attributes below a section (`services.*`; empty: the top level), by name.
pub fn below(section: &str) -> impl Iterator<Item = (&'static str, &'static Attribute)> {
    attributes().filter_map(move |attribute| {
        let name = if section.is_empty() {
            attribute.path
        } else {
            attribute.path.strip_prefix(section)?.strip_prefix('.')?
        };
        (!name.contains('.')).then_some((name, attribute))
    })
}

/// The table by the parts of its paths.
#[derive(Default)]
struct Level {
    attribute: Option<&'static Attribute>,
    below: BTreeMap<&'static str, Level>,
}

static TABLE: LazyLock<Level> = LazyLock::new(|| {
    let mut top = Level::default();
    for attribute in attributes() {
        let mut level = &mut top;
        for part in attribute.path.split('.') {
            level = level.below.entry(part).or_default();
        }
        level.attribute = Some(attribute);
    }
    top
});

/// Reports each attribute that a canonical project uses and stead does not act on. What stands for a
/// default, or asks for nothing, is accepted.
/// What is in `refused`, by path, has a refusal of its own already.
pub(crate) fn judge(project: &Node, refused: &BTreeSet<String>, report: &mut Report) {
    let mut walk = Walk {
        refused,
        report,
        path: Vec::new(),
    };
    walk.enter(project, &TABLE, false);
}

enum Part<'n> {
    Key(&'n str),
    Index(usize),
}

struct Walk<'n, 'r> {
    refused: &'r BTreeSet<String>,
    report: &'r mut Report,
    path: Vec<Part<'n>>,
}

impl<'n> Walk<'n, '_> {
    /// `image`: the service that this is in has one.
    fn enter(&mut self, node: &'n Node, level: &Level, image: bool) {
        match &node.value {
            Value::Map(entries) => {
                let named = level.below.get("*");
                for entry in entries {
                    // In a mapping whose keys the user chooses, `x-` is a name like any other.
                    if named.is_none() && entry.key.starts_with("x-") {
                        continue;
                    }
                    // The reference prints some keys with capitals.
                    let key = entry.key.to_ascii_lowercase();
                    if let Some(next) = named.or_else(|| level.below.get(key.as_str())) {
                        self.path.push(Part::Key(&entry.key));
                        self.visit(entry.at, &entry.value, next, image);
                        self.path.pop();
                    }
                }
            }
            Value::List(items) => {
                let Some(next) = level.below.get("*") else {
                    return;
                };
                for (index, item) in items.iter().enumerate() {
                    self.path.push(Part::Index(index));
                    self.visit(item.at, item, next, image);
                    self.path.pop();
                }
            }
            _ => {}
        }
    }

    fn visit(&mut self, at: At, node: &'n Node, level: &Level, image: bool) {
        let Some(attribute) = level.attribute else {
            // A name or a place in a list: `services.web`.
            let own = node.get("image").is_some_and(|image| !asks_nothing(image, &[]));
            return self.enter(node, level, image || own);
        };
        if asks_nothing(node, attribute.accepts) {
            return;
        }
        if let (Value::List(items), [_, ..]) = (&node.value, attribute.accepts) {
            for (index, item) in items.iter().enumerate() {
                self.path.push(Part::Index(index));
                self.visit(item.at, item, level, image);
                self.path.pop();
            }
            return;
        }
        match attribute.support {
            Support::Supported => return self.enter(node, level, image),
            Support::Silent => return,
            _ => {}
        }
        let path = shown(&self.path);
        let hint = attribute.hint;
        match attribute.support {
            Support::Ignored => self.report.warning(at, format!("`{path}` is ignored"), hint),
            // Nothing is to be built while there is an image.
            _ if attribute.path == BUILD && image => self.report.warning(
                at,
                format!("`{path}` is ignored: stead does not build images"),
                "build the image before, or remove this",
            ),
            _ if self.refused.contains(&path) => {}
            support => {
                let yet = if support == Support::NotYet { " yet" } else { "" };
                // The value says something where another one is accepted; sizes are no longer as written.
                let value = short(node).filter(|text| {
                    !attribute.accepts.is_empty() && !text.bytes().all(|c| c.is_ascii_digit())
                });
                let message = match value {
                    Some(value) => format!("`{path}`: `{value}` is not supported{yet}"),
                    None => format!("`{path}` is not supported{yet}"),
                };
                self.report.refuse(at, message, hint);
            }
        }
    }
}

const BUILD: &str = "services.*.build";

/// Nothing is written, or what is accepted.
fn asks_nothing(node: &Node, accepts: &[&str]) -> bool {
    match &node.value {
        Value::Null => true,
        Value::Text(text) if text.is_empty() => true,
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        value => value
            .scalar()
            .is_some_and(|text| accepts.contains(&text.as_str())),
    }
}

/// A scalar that fits into a message.
fn short(node: &Node) -> Option<String> {
    node.value.scalar().filter(|text| text.len() <= 40)
}

fn shown(path: &[Part]) -> String {
    let mut text = String::new();
    for part in path {
        match part {
            Part::Index(index) => text.push_str(&format!("[{index}]")),
            Part::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(&cut(key));
            }
        }
    }
    text
}

/// The name that was probably meant, if some name is close.
pub(crate) fn nearest<'a>(wrong: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Long texts are no typing errors, and the distance is quadratic.
    if wrong.len() > 64 {
        return None;
    }
    let wrong = wrong.to_lowercase().replace('-', "_");
    // Nobody mistypes the first letter of a short name: `gpus` is not `cpus`.
    names
        .filter(|name| name.len() > 5 || name.chars().next() == wrong.chars().next())
        .map(|name| (distance(&wrong, name), name))
        .filter(|(distance, name)| *distance <= (name.len() / 3).max(1))
        .min()
        .map(|(_, name)| name)
}

/// Edits between two texts, a swap of neighbours counting as one.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let same = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + same);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

const fn yes(path: &'static str) -> Attribute {
    row(path, Support::Supported, "")
}

const fn silent(path: &'static str) -> Attribute {
    row(path, Support::Silent, "")
}

const fn ignored(path: &'static str, hint: &'static str) -> Attribute {
    row(path, Support::Ignored, hint)
}

const fn not_yet(path: &'static str, hint: &'static str) -> Attribute {
    row(path, Support::NotYet, hint)
}

const fn rejected(path: &'static str, hint: &'static str) -> Attribute {
    row(path, Support::Rejected, hint)
}

const fn row(path: &'static str, support: Support, hint: &'static str) -> Attribute {
    Attribute {
        path,
        support,
        hint,
        accepts: &[],
    }
}

impl Attribute {
    /// Also these values are accepted.
    const fn but(self, accepts: &'static [&'static str]) -> Attribute {
        Attribute { accepts, ..self }
    }
}

/// What to do where the table has no better advice.
const REMOVE: &str = "remove it, or keep this project on Docker Compose until stead supports it";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml;

    #[test]
    fn the_table_names_every_attribute_once_and_says_what_to_do() {
        let mut seen = BTreeSet::new();
        let mut said = BTreeMap::new();
        for attribute in attributes() {
            assert!(seen.insert(attribute.path), "{} is there twice", attribute.path);
            let above = attribute.path.rmatch_indices('.').find_map(|(end, _)| {
                let support: Option<&Support> = said.get(&attribute.path[..end]);
                support.copied()
            });
            let needs_hint = !matches!(attribute.support, Support::Supported | Support::Silent)
                && above.is_none_or(|above| above == Support::Supported);
            assert_eq!(needs_hint, !attribute.hint.is_empty(), "{}", attribute.path);
            if let Some(above) = above.filter(|above| *above != Support::Supported) {
                assert_eq!(
                    attribute.support, above,
                    "{} shares the fate of its parent",
                    attribute.path
                );
            }
            said.insert(attribute.path, attribute.support);
        }
        assert_eq!(
            below("services.*").count(),
            93,
            "attributes of a service in the schema"
        );
        assert_eq!(below("").count(), 9);
        assert_eq!(seen.len(), 353, "attributes in the schema, nested ones included");
    }

    #[test]
    fn a_typing_error_finds_the_name_that_was_meant() {
        let names = || below("services.*").map(|(name, _)| name);
        for (wrong, want) in [
            ("imagee", Some("image")),
            ("iamge", Some("image")),
            ("enviroment", Some("environment")),
            ("working-dir", Some("working_dir")),
            ("Ports", Some("ports")),
            ("depends", Some("depends_on")),
            ("completely_other", None),
            ("wpus", None),
        ] {
            assert_eq!(nearest(wrong, names()), want, "{wrong}");
        }
    }

    fn found(text: &str) -> Vec<String> {
        let mut report = Report::default();
        report.file("compose.yaml".as_ref(), text);
        judge(&yaml::parse(text, 0).unwrap()[0], &BTreeSet::new(), &mut report);
        let (diagnostics, _) = report.finish();
        let line = |found: crate::diagnostic::Diagnostic| {
            let kind = if found.refusal { "refused" } else { "warning" };
            assert!(found.hint.is_some(), "{}", found.message);
            format!("{}: {kind}: {}", found.span.line, found.message)
        };
        diagnostics.into_iter().map(line).collect()
    }

    #[test]
    fn what_is_not_acted_on_is_reported_once_where_it_stands() {
        let text = "\
services:
  web:
    image: nginx
    build: { context: /p }
    storage_opt: { size: '10' }
    mem_swappiness: '60'
    attach: false
    volumes: [{ type: bind, source: /a, target: /a, image: { subpath: a } }]
    x-mine: { mem_limit: 1 }
    ports:
      - { target: 80, mode: host }
    deploy: { resources: { reservations: { memory: 3, generic_resources: [{}] } } }
  x-app:
    storage_opt: { size: '10' }
networks:
  back: { driver: overlay }
";
        assert_eq!(
            found(text),
            [
                "4: warning: `services.web.build` is ignored: stead does not build images",
                "5: refused: `services.web.storage_opt` is not supported",
                "6: refused: `services.web.mem_swappiness` is not supported",
                "7: warning: `services.web.attach` is ignored",
                "8: refused: `services.web.volumes[0].image` is not supported yet",
                "12: refused: `services.web.deploy.resources.reservations.generic_resources` is not supported",
                "14: refused: `services.x-app.storage_opt` is not supported",
                "16: refused: `networks.back.driver`: `overlay` is not supported yet",
            ]
        );
    }

    #[test]
    fn what_asks_for_nothing_is_accepted() {
        let text = "\
name: p
services:
  web:
    image: nginx
    command: null
    privileged: false
    oom_kill_disable: false
    cpu_count: 0
    isolation: default
    scale: 1
    pull_policy: if_not_present
    runtime: runc
    secrets: []
    blkio_config: {}
    deploy: { placement: {}, resources: {}, replicas: 1, mode: replicated }
    expose: ['80']
    depends_on: { db: { condition: service_started, required: true } }
    ports: [{ mode: ingress, target: 80, protocol: tcp, name: http }]
    volumes: [{ type: bind, source: /a, target: /b, bind: { propagation: rprivate } }]
networks:
  default: { name: p_default, ipam: {}, attachable: true, enable_ipv4: true, enable_ipv6: false }
";
        assert_eq!(found(text), [""; 0]);
    }

    #[test]
    fn a_build_without_an_image_is_refused() {
        let text = "services: { web: { build: { context: /p, dockerfile: Dockerfile } } }";
        assert_eq!(
            found(text),
            ["1: refused: `services.web.build` is not supported yet"]
        );
    }
}
