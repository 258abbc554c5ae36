//! The one way in: texts and an environment to a project, what was read, and what is wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
};

use crate::{
    canonical::Canonical,
    decode::{Decoder, former::check},
    diagnostic::{Diagnostic, Severity, Span},
    dotenv,
    interpolate::{self, Interpolation},
    name::project_name,
    normalise,
    report::Report,
    source::{MAX_FILE, Sources, too_large},
    tree::{At, Node, Value},
    types::Project,
    yaml,
};

/// What the caller decides. The process environment is never looked at here.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Where relative paths and `.env` are looked for.
    pub directory: PathBuf,
    /// The name where the file has none; normalised by `load`.
    pub fallback_name: String,
    /// Wins over `.env`.
    pub environment: BTreeMap<String, String>,
    /// Instead of `.env` in `directory`.
    pub env_files: Vec<PathBuf>,
    /// What `~` stands for.
    pub home: Option<PathBuf>,
    /// Active profiles, next to those of `COMPOSE_PROFILES`; `*` is all of them.
    pub profiles: Vec<String>,
    /// The source is not trusted (git): nothing outside `directory` is read or named by
    /// `include`, `extends`, `env_file`, `label_file`, configs and secrets.
    pub confined: bool,
}

/// Total: any input gives a `Loaded`.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `None` when some diagnostic is an error, a refusal included.
    pub project: Option<Project>,
    /// What `config` prints; `None` when some diagnostic is an error that is no refusal.
    pub canonical: Option<Canonical>,
    /// Every file looked at, also the missing ones: all of them are to be watched.
    pub inputs: BTreeSet<PathBuf>,
    pub diagnostics: Vec<Diagnostic>,
}

/// Loads one project from its Compose file ; several files of one project are an error today.
pub fn load(sources: &dyn Sources, files: &[PathBuf], options: &Options) -> Loaded {
    let mut loading = Loading {
        sources,
        options,
        inputs: BTreeSet::new(),
        diagnostics: Vec::new(),
    };
    let environment = loading.environment();
    let project = match files {
        [] => {
            loading.error(
                &options.directory,
                0,
                "there is no Compose file to load",
                "name one, or write `compose.yaml`",
            );
            None
        }
        [file] => loading.file(file, environment),
        [_, more @ ..] => {
            loading.inputs.extend(files.iter().cloned());
            for file in more {
                let message = "merging several Compose files is not supported yet";
                loading.error(
                    file,
                    0,
                    message,
                    "put everything into one file, and remove this one",
                );
            }
            None
        }
    };
    let Loading {
        inputs, diagnostics, ..
    } = loading;
    let project = project.filter(|_| !diagnostics.iter().any(Diagnostic::is_error));
    Loaded {
        project,
        canonical: None,
        inputs,
        diagnostics,
    }
}

struct Loading<'a> {
    sources: &'a dyn Sources,
    options: &'a Options,
    inputs: BTreeSet<PathBuf>,
    diagnostics: Vec<Diagnostic>,
}

impl Loading<'_> {
    /// The variables of the project: those given, over env files (later ones win) or `.env`.
    fn environment(&mut self) -> BTreeMap<String, String> {
        let given = &self.options.environment;
        let optional = self.options.env_files.is_empty();
        let files = if optional {
            vec![self.options.directory.join(".env")]
        } else {
            self.options.env_files.clone()
        };
        let mut environment = BTreeMap::new();
        for file in files {
            let mut scope = environment.clone();
            scope.extend(given.clone());
            let Some(text) = self.read(&file, optional) else {
                continue;
            };
            match dotenv::parse(&text, &scope) {
                Ok(values) => environment.extend(values),
                Err(error) => {
                    let message = match std::error::Error::source(&error) {
                        Some(source) => format!("{error}: {source}"),
                        None => error.to_string(),
                    };
                    let mut report = Report::default();
                    let number = report.file(&file, &text);
                    report.error(
                        At {
                            file: number,
                            line: error.line(),
                            column: 1,
                        },
                        message,
                        error.hint(),
                    );
                    self.diagnostics.extend(report.finish().0);
                }
            }
        }
        environment.extend(given.clone());
        environment
    }

    fn file(&mut self, file: &Path, mut environment: BTreeMap<String, String>) -> Option<Project> {
        let text = self.read(file, false)?;
        let mut report = Report::default();
        report.file(file, &text);
        let project = self.parse(&text, &mut environment, &mut report);
        let failed = report.failed();
        let (diagnostics, origins) = report.finish();
        self.diagnostics.extend(diagnostics);
        project
            .filter(|_| !failed)
            .map(|project| Project { origins, ..project })
    }

    fn parse(
        &self,
        text: &str,
        environment: &mut BTreeMap<String, String>,
        report: &mut Report,
    ) -> Option<Project> {
        if let Some(at) = find_nul(text) {
            report.error(
                at,
                "this is binary data, not YAML",
                "write the file again as text",
            );
            return None;
        }
        let mut root = match yaml::parse(text) {
            Ok(root) => root,
            Err(error) => {
                report.error(error.at, error.message, error.hint);
                return None;
            }
        };
        if root.value == Value::Null {
            report.error(
                At::default(),
                "the file is empty",
                "write `services:` and a service below it",
            );
            return None;
        }
        // The name first: it is a variable for everything else.
        let name = self.name(&mut root, environment, report);
        environment.insert(
            "COMPOSE_PROJECT_NAME".to_owned(),
            name.clone().unwrap_or_default(),
        );
        let mut interpolation = Interpolation {
            environment,
            unset: BTreeMap::new(),
            failures: Vec::new(),
        };
        interpolation.run(&mut root, "");
        let Interpolation { unset, failures, .. } = interpolation;
        for (name, at) in unset {
            let message = format!("the variable `{name}` is not set, and counts as empty");
            report.warning(at, message, format!("set it in `.env`, or write `${{{name}:-}}`"));
        }
        for failure in failures {
            report.last_error(
                failure.at,
                format!("`{}`: {}", failure.path, failure.error),
                failure.error.hint(),
            );
        }
        refuse_nul(&root, report);
        let mut decoder = Decoder {
            report,
            environment,
            directory: &self.options.directory,
            home: self.options.home.as_ref(),
        };
        let declared = decoder.project(&root);
        let project = normalise::normalise(&name.unwrap_or_default(), &self.options.directory, &declared);
        check::check(&project, &declared, report);
        Some(project)
    }

    /// `COMPOSE_PROJECT_NAME`, else `name:`, else the caller's.
    fn name(
        &self,
        root: &mut Node,
        environment: &BTreeMap<String, String>,
        report: &mut Report,
    ) -> Option<String> {
        const HINT: &str = "use `a-z`, `0-9`, `_` and `-`, a letter or digit first; for example `name: shop`";
        if let Some(name) = environment
            .get("COMPOSE_PROJECT_NAME")
            .filter(|name| !name.is_empty())
        {
            if project_name(name) != *name {
                report.error(
                    At::default(),
                    format!("`COMPOSE_PROJECT_NAME`: `{name}` is not a project name"),
                    HINT,
                );
                return None;
            }
            return Some(name.clone());
        }
        let entry = match &mut root.value {
            Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == "name"),
            _ => None,
        };
        let (at, written) = match entry {
            Some(entry) => {
                report.origin("name".to_owned(), entry.at);
                let Value::Text(text) = &entry.value.value else {
                    let message = format!("`name` must be text, and is {}", entry.value.value.kind());
                    report.error(entry.value.at, message, HINT);
                    return None;
                };
                // A template that fails is reported with all the others.
                let name = interpolate::substitute(text, environment, &mut BTreeSet::new()).ok()?;
                (entry.value.at, name)
            }
            None => (At::default(), self.options.fallback_name.clone()),
        };
        let name = project_name(&written);
        if name.len() > 128 {
            report.error(at, "`name` is longer than 128 characters", HINT);
            return None;
        }
        if name.is_empty() {
            report.error(
                at,
                format!("`name`: nothing of `{written}` can be part of a project name"),
                HINT,
            );
            return None;
        }
        Some(name)
    }

    /// The text of a file without its byte order mark. Failures are reported.
    fn read(&mut self, file: &Path, optional: bool) -> Option<String> {
        self.inputs.insert(file.to_owned());
        let read = self
            .sources
            .read(file)
            .and_then(|bytes| match bytes.len() as u64 {
                0..=MAX_FILE => Ok(bytes),
                large => Err(too_large(large)),
            });
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if optional && error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.error(file, 0, "the file does not exist", "check its name, or write it");
                return None;
            }
            Err(error) => {
                let message = format!("the file cannot be read: {error}");
                self.error(file, 0, &message, "make it a readable text file of at most 4 MiB");
                return None;
            }
        };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
        match str::from_utf8(bytes) {
            Ok(text) => Some(text.to_owned()),
            Err(error) => {
                let line = 1 + bytes[..error.valid_up_to()]
                    .iter()
                    .filter(|byte| **byte == b'\n')
                    .count();
                let message = "the file is not UTF-8 text";
                self.error(
                    file,
                    u32::try_from(line).unwrap_or(0),
                    message,
                    "save it in the encoding UTF-8",
                );
                None
            }
        }
    }

    fn error(&mut self, file: &Path, line: u32, message: &str, hint: &str) {
        self.diagnostics.push(Diagnostic {
            severity: Severity::Error,
            refusal: false,
            span: Span {
                file: file.to_owned(),
                line,
                column: line.min(1),
            },
            message: message.to_owned(),
            hint: Some(hint.to_owned()),
            source_line: None,
        });
    }
}

fn find_nul(text: &str) -> Option<At> {
    let before = &text[..text.find('\0')?];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some(At {
        file: 0,
        line: u32::try_from(line).ok()?,
        column: u32::try_from(column).ok()?,
    })
}

/// A NUL can still come from `"\0"`; neither execve(2) nor a path can hold one.
fn refuse_nul(node: &Node, report: &mut Report) {
    const HINT: &str = "remove the `\\0`";
    match &node.value {
        Value::Text(text) if text.contains('\0') => {
            report.error(node.at, "a value holds a NUL character", HINT)
        }
        Value::List(items) => items.iter().for_each(|item| refuse_nul(item, report)),
        Value::Map(entries) => {
            for entry in entries {
                if entry.key.contains('\0') {
                    report.error(entry.at, "a key holds a NUL character", HINT);
                }
                refuse_nul(&entry.value, report);
            }
        }
        _ => {}
    }
}
