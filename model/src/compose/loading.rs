//! Files to one model, in the order of the Compose Specification: interpolate, include, reset, extend,
//! merge, check, long form; then defaults, paths and the environment over all of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    rc::Rc,
};

use super::{
    environment,
    extends::Services,
    files::{Files, Need, Wanted},
    merge, paths, reset, unique,
};
use crate::{
    canonical, dotenv,
    interpolate::Interpolation,
    load::Options,
    report::Report,
    shape,
    syntax::{cut, is_date},
    tree::{At, Node, Value},
    yaml,
};

/// Values in all files of a project: about 2,500 services. A bound for hostile files, as the others.
const MAX_WRITTEN: usize = 50_000;
/// Values of the model in long form.
const MAX_LONG: usize = 64_000;
/// Values that `extends` copies.
const MAX_COPIED: usize = 64_000;

pub(crate) type Environment = BTreeMap<String, String>;

/// One project while it is read.
pub(crate) struct Loading<'a> {
    pub files: Files<'a>,
    pub options: &'a Options,
    pub report: Report,
    /// Files that services extend, by the directory they were named in.
    pub(super) bases: BTreeMap<(PathBuf, PathBuf), Option<Services>>,
    /// Files that were parsed before they are loaded.
    parsed: BTreeMap<PathBuf, Vec<Node>>,
    /// Variables that were used and have no value, which are reported once.
    unset: BTreeSet<String>,
    written: usize,
    copied: usize,
}

/// Against what a file is read.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub directory: &'a Path,
    pub environment: &'a Environment,
    /// The files that include this one, outermost first.
    pub included: &'a [PathBuf],
}

/// A file, and where it is named.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub file: PathBuf,
    pub at: At,
    /// The field that names it; empty for the project's own files.
    pub path: String,
    pub need: Need,
}

impl Origin {
    /// A file of the project itself.
    pub fn own(file: PathBuf) -> Self {
        Origin::named(file, At::default(), "")
    }

    pub fn named(file: PathBuf, at: At, path: &str) -> Self {
        Origin {
            file,
            at,
            path: path.to_owned(),
            need: Need::Required,
        }
    }

    pub fn wanted(&self) -> Wanted<'_> {
        Wanted {
            at: self.at,
            path: &self.path,
            need: self.need,
        }
    }
}

impl<'a> Loading<'a> {
    pub fn new(files: Files<'a>, options: &'a Options) -> Self {
        Loading {
            files,
            options,
            report: Report::default(),
            bases: BTreeMap::new(),
            parsed: BTreeMap::new(),
            unset: BTreeSet::new(),
            written: 0,
            copied: 0,
        }
    }

    /// The merged model of several files in long form, its paths absolute.
    pub fn model(&mut self, files: &[Origin], scope: &Scope<'_>) -> Node {
        let mut model = Node::new(Value::Map(Vec::new()), At::default());
        for origin in files {
            let documents = match self.parsed.remove(&origin.file) {
                Some(documents) => documents,
                None => self.parse(origin),
            };
            for (document, resets) in self.documents(documents, scope) {
                let mut document = self.include(document, &origin.file, scope, &resets);
                resets.apply(&mut model);
                self.extend(&mut document, &origin.file, scope, &resets);
                model = merge::merge(model, document, &mut self.report);
                unique::unique(&mut model, &mut self.report);
                shape::check(&model, &mut self.report);
                self.report.settle();
                if let Some(version) = model.remove("version") {
                    let hint = "it has no meaning any more; remove it";
                    self.report.warning(version.at, "`version` is ignored", hint);
                }
                self.long(&mut model);
            }
        }
        canonical::defaults(&mut model);
        self.fit(&mut model);
        canonical::validate(&model, &mut self.report);
        paths::resolve(
            &mut model,
            scope.directory,
            self.options.home.as_deref(),
            &mut self.report,
        );
        environment::resolve(&mut model, scope.environment);
        self.report.settle();
        model
    }

    /// The services of a file that is extended: not checked, because it need not be valid alone.
    pub(super) fn base_model(&mut self, origin: &Origin, scope: &Scope<'_>) -> (Node, Rc<reset::Paths>) {
        let mut model = Node::new(Value::Map(Vec::new()), At::default());
        let mut last = Rc::default();
        let documents = self.parse(origin);
        for (document, resets) in self.documents(documents, scope) {
            resets.apply(&mut model);
            last = resets;
            model = merge::merge(model, document, &mut self.report);
            unique::unique(&mut model, &mut self.report);
            self.report.settle();
            self.long(&mut model);
        }
        (model, last)
    }

    fn long(&mut self, model: &mut Node) {
        canonical::long(model, &mut self.report);
        canonical::omit_empty(model);
        unique::unique(model, &mut self.report);
        self.fit(model);
        self.report.settle();
    }

    /// Empties a model that is too large for what comes next, which is reported.
    pub fn fit(&mut self, model: &mut Node) {
        if size(model) > MAX_LONG {
            let message = format!("the project has more than {MAX_LONG} values in long form");
            let hint = "split it into several projects, and publish shorter ranges of ports";
            self.report.error(model.at, message, hint);
            model.value = Value::Map(Vec::new());
        }
    }

    /// The documents of a file as they are written; they stay for [`Self::model`].
    pub fn parsed(&mut self, origin: &Origin) -> &[Node] {
        let documents = self.parse(origin);
        let entry = self.parsed.entry(origin.file.clone());
        entry.or_insert(documents)
    }

    /// Nothing, if the file cannot be read or is not YAML, which is reported.
    fn parse(&mut self, origin: &Origin) -> Vec<Node> {
        let Some(text) = self.files.read(&origin.file, origin.wanted(), &mut self.report) else {
            return Vec::new();
        };
        let number = self.report.file(&origin.file, &text);
        match yaml::parse(&text, number) {
            Ok(documents) => documents,
            Err(error) => {
                self.report.error(error.at, error.message, error.hint);
                Vec::new()
            }
        }
    }

    /// Fills in the variables and finds what each document resets; drops what is no mapping.
    fn documents(&mut self, documents: Vec<Node>, scope: &Scope<'_>) -> Vec<(Node, Rc<reset::Paths>)> {
        let mut ready = Vec::new();
        for mut document in documents {
            if !matches!(document.value, Value::Map(_)) {
                let message = format!(
                    "a Compose file is a mapping, and this is {}",
                    document.value.kind()
                );
                self.report
                    .error(document.at, message, "write `services:` and a service below it");
                continue;
            }
            self.written += size(&document);
            if self.written > MAX_WRITTEN {
                let message = format!("the files of this project have more than {MAX_WRITTEN} values");
                self.report
                    .error(document.at, message, "split it into several projects");
                break;
            }
            let resets = reset::take(&mut document);
            warn_of_dates(&document, &mut self.report);
            self.interpolate(&mut document, scope.environment);
            refuse_nul(&document, &mut self.report);
            shape::cast(&mut document, &mut self.report);
            self.report.settle();
            ready.push((document, Rc::new(resets)));
        }
        ready
    }

    fn interpolate(&mut self, document: &mut Node, environment: &Environment) {
        let mut interpolation = Interpolation {
            environment,
            unset: BTreeMap::new(),
            failures: Vec::new(),
        };
        interpolation.run(document, "");
        let Interpolation { unset, failures, .. } = interpolation;
        for (name, at) in unset {
            self.unset(name, at);
        }
        for failure in failures {
            let message = format!("`{}`: {}", failure.path, failure.error);
            self.report.last_error(failure.at, message, failure.error.hint());
        }
    }

    /// `scope` with the variables of files below it, a later file above an earlier one.
    pub fn environment(&mut self, files: &[Origin], scope: &Environment) -> Environment {
        let mut values = Environment::new();
        for origin in files {
            let Some(text) = self.files.read(&origin.file, origin.wanted(), &mut self.report) else {
                continue;
            };
            let lookup = |name: &str| scope.get(name).map(String::as_str);
            let mut unset = BTreeSet::new();
            if let Err(error) = dotenv::parse_into(&text, &lookup, &mut values, &mut unset) {
                self.broken(&origin.file, &error);
            }
            let at = At {
                file: self.report.file(&origin.file, ""),
                ..At::default()
            };
            unset.into_iter().for_each(|name| self.unset(name, at));
        }
        values.extend(scope.clone());
        values
    }

    /// Reports an env file that cannot be read as one. Its line is not shown: it may hold a password.
    pub(super) fn broken(&mut self, file: &Path, error: &dotenv::DotenvError) {
        let at = At {
            file: self.report.file(file, ""),
            line: error.line(),
            column: error.column(),
        };
        self.report.error(at, error.to_string(), error.hint());
    }

    /// Warns of a variable that has no value, once.
    pub(super) fn unset(&mut self, name: String, at: At) {
        if self.unset.contains(&name) {
            return;
        }
        let message = format!("the variable `{name}` is not set, and counts as empty");
        let hint = format!("set it in `.env`, or write `${{{name}:-}}`");
        self.report.warning(at, message, hint);
        self.unset.insert(name);
    }

    /// Whether `extends` has copied too much already, which is reported.
    pub(super) fn is_full(&self) -> bool {
        self.copied > MAX_COPIED
    }

    /// Whether a copy still fits; reported where not.
    pub(super) fn grow(&mut self, copy: &Node, at: At) -> bool {
        self.copied += size(copy);
        if !self.is_full() {
            return true;
        }
        let message = format!("`extends` copies more than {MAX_COPIED} values");
        self.report
            .last_error(at, message, "share less, or split the project");
        false
    }
}

fn size(node: &Node) -> usize {
    let below: usize = match &node.value {
        Value::List(items) => items.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| size(&entry.value)).sum(),
        _ => 0,
    };
    below + 1
}

/// The reference makes a point in time of a date without quotes, and prints that.
fn warn_of_dates(node: &Node, report: &mut Report) {
    match &node.value {
        Value::Text(text) if is_date(text) && !report.full() && report.is_plain(node.at, text) => {
            let message = format!(
                "`{}` stays text here; docker compose makes a time of it",
                cut(text)
            );
            let hint = "put it in quotes, so that it is the same text everywhere";
            report.warning(node.at, message, hint);
        }
        Value::List(items) => items.iter().for_each(|item| warn_of_dates(item, report)),
        Value::Map(entries) => entries
            .iter()
            .for_each(|entry| warn_of_dates(&entry.value, report)),
        _ => {}
    }
}

/// A NUL can come from `"\0"`; neither execve(2) nor a path can hold one.
fn refuse_nul(node: &Node, report: &mut Report) {
    const HINT: &str = "remove the `\\0`";
    match &node.value {
        Value::Text(text) if text.contains('\0') => {
            report.last_error(node.at, "a value holds a NUL character", HINT);
        }
        Value::List(items) => items.iter().for_each(|item| refuse_nul(item, report)),
        Value::Map(entries) => {
            for entry in entries {
                if entry.key.contains('\0') {
                    report.last_error(entry.at, "a key holds a NUL character", HINT);
                }
                refuse_nul(&entry.value, report);
            }
        }
        _ => {}
    }
}
