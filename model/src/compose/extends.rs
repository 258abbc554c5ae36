//! `extends`: a service takes the attributes of another one, of the same file or of another.
//!
//! Compose Specification, "extends". Same merge rules as for several files.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    consistency::shorten,
    loading::{Loading, Origin, Scope},
    merge, paths, reset,
};
use crate::tree::{At, Entry, Node, Value};

/// The services of one file while they are extended.
#[derive(Debug, Clone)]
pub(super) struct Services {
    file: PathBuf,
    services: Rc<BTreeMap<String, Node>>,
    /// What the file resets, to be taken out of the bases of its own services.
    resets: Rc<reset::Paths>,
}

/// A service by its file and name.
type Key = (PathBuf, String);
/// Services with everything they extend; nothing for those that are null or have an error.
type Done = BTreeMap<Key, Option<Node>>;

/// An error ends every service on the way to it; it is reported once.
fn failed(way: Vec<(Key, Services, Node)>, done: &mut Done) -> Option<Node> {
    done.extend(way.into_iter().map(|(key, ..)| (key, None)));
    None
}

impl Loading<'_> {
    /// Resolves every `extends` of one document.
    pub(super) fn extend(
        &mut self,
        document: &mut Node,
        file: &Path,
        scope: &Scope<'_>,
        resets: &Rc<reset::Paths>,
    ) {
        let Some(services) = document.get_mut("services") else {
            return;
        };
        let Value::Map(entries) = &mut services.value else {
            return;
        };
        if !entries.iter().any(|entry| entry.value.get("extends").is_some()) {
            return;
        }
        let here = Services {
            file: file.to_owned(),
            services: Rc::new(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.value.clone()))
                    .collect(),
            ),
            resets: resets.clone(),
        };
        let mut done = BTreeMap::new();
        for Entry { key, at, value } in entries {
            if value.get("extends").is_none() {
                continue;
            }
            match self.extended(key, &here, scope, &mut done) {
                Some(extended) => *value = extended,
                // What the service lacks is what it would have taken.
                None => self.report.hush(*at),
            }
        }
    }

    /// The service with everything it extends. `None`: it is null, or an error is reported.
    ///
    /// Chains may be long: the way to the last base is walked first, then back.
    fn extended(&mut self, name: &str, here: &Services, scope: &Scope<'_>, done: &mut Done) -> Option<Node> {
        if self.is_full() {
            return None;
        }
        let mut way: Vec<(Key, Services, Node)> = Vec::new();
        let mut on_way: BTreeSet<Key> = BTreeSet::new();
        let (mut name, mut here) = (name.to_owned(), here.clone());
        let mut base = loop {
            let key = (here.file.clone(), name.clone());
            if let Some(done) = done.get(&key) {
                break done.clone();
            }
            let service = here.services.get(&name).filter(|service| !service.is_null());
            let Some(service) = service.cloned() else {
                break None;
            };
            let mut entries = service.entries().iter();
            let Some(entry) = entries.find(|entry| entry.key == "extends") else {
                break Some(service);
            };
            let extends = &entry.value;
            let path = format!("services.{name}.extends");
            if on_way.contains(&key) {
                let round = way.iter().map(|(key, ..)| key.1.as_str()).chain([name.as_str()]);
                let names: Vec<_> = round.skip_while(|other| *other != name).collect();
                let message = format!("`extends` goes in a circle: {}", shorten(&names));
                self.report
                    .last_error(extends.at, message, "remove one of these `extends`");
                return failed(way, done);
            }
            let Some((reference, file)) = self.target(entry, &path) else {
                return failed(way, done);
            };
            let next = match file {
                Some((file, at)) => self.base_file(&file, at, &path, scope),
                None => Some(here.clone()),
            };
            let Some(next) = next else {
                return failed(way, done);
            };
            if !next.services.contains_key(&reference) {
                let names = next.services.keys().map(String::as_str);
                let hint = match crate::support::nearest(&reference, names) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => "name a service of that file".to_owned(),
                };
                let file = next.file.display();
                let message = format!("`{path}`: there is no service `{reference}` in `{file}`");
                self.report.error(extends.at, message, hint);
                return failed(way, done);
            }
            on_way.insert(key.clone());
            way.push((key, here, service));
            (name, here) = (reference, next);
        };
        while let Some((key, here, service)) = way.pop() {
            base = match base {
                // A null base has nothing to give.
                None => Some(service),
                Some(mut base) => {
                    let at = service.get("extends").map_or(service.at, |extends| extends.at);
                    if !self.grow(&base, at) {
                        return failed(way, done);
                    }
                    here.resets.apply_to("services", &key.1, &mut base);
                    let mut extended = merge::extend_service(base, service, &key.1, &mut self.report);
                    extended.remove("extends");
                    Some(extended)
                }
            };
            done.insert(key, base.clone());
        }
        base
    }

    /// The service that is named, and the file, if one is.
    fn target(&mut self, entry: &Entry, path: &str) -> Option<(String, Option<(String, At)>)> {
        const HINT: &str = "write `extends: { service: NAME, file: PATH }`";
        let extends = &entry.value;
        if let Some(name) = extends.as_text() {
            return Some((name.to_owned(), None));
        }
        let service = match extends.get("service") {
            Some(service) => match service.as_text() {
                Some(name) => name,
                None => {
                    let message = format!("`{path}.service` must be text, and is {}", service.value.kind());
                    self.report.last_error(service.at, message, HINT);
                    return None;
                }
            },
            None => {
                let (at, message) = match &extends.value {
                    Value::Map(_) => (entry.at, format!("`{path}` has no `service`")),
                    other => (
                        extends.at,
                        format!("`{path}` must be text or a mapping, and is {}", other.kind()),
                    ),
                };
                self.report.last_error(at, message, HINT);
                return None;
            }
        };
        let file = match extends.get("file") {
            None => None,
            Some(file) => match file.as_text() {
                Some(text) => Some((text.to_owned(), file.at)),
                None if file.is_null() => None,
                None => {
                    let message = format!("`{path}.file` must be text, and is {}", file.value.kind());
                    self.report.last_error(file.at, message, HINT);
                    return None;
                }
            },
        };
        Some((service.to_owned(), file))
    }

    /// The services of another file, in long form, with its paths made absolute.
    fn base_file(&mut self, file: &str, at: At, path: &str, scope: &Scope<'_>) -> Option<Services> {
        let file = crate::syntax::clean(&scope.directory.join(file));
        let cached = (scope.directory.to_owned(), file.clone());
        if let Some(services) = self.bases.get(&cached) {
            return services.clone();
        }
        let origin = Origin::named(file.clone(), at, path);
        let failed = self.report.errors();
        let (mut model, resets) = self.base_model(&origin, scope);
        let directory = file.parent().unwrap_or(Path::new("/"));
        paths::resolve(
            &mut model,
            directory,
            self.options.home.as_deref(),
            &mut self.report,
        );
        let services = match model.remove("services").map(|services| services.value) {
            Some(Value::Map(services)) => Some(Services {
                file,
                services: Rc::new(
                    services
                        .into_iter()
                        .map(|entry| (entry.key, entry.value))
                        .collect(),
                ),
                resets,
            }),
            // The file cannot be read, which is reported.
            _ if self.report.errors() > failed => None,
            _ => {
                let message = format!("`{path}`: there are no services in `{}`", file.display());
                self.report.error(at, message, "name a file that has `services`");
                None
            }
        };
        // Also a failure: it is reported once.
        self.bases.insert(cached, services.clone());
        services
    }
}
