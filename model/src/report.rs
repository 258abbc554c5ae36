//! What is found while files are read: diagnostics, and the origin of every field.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    diagnostic::{Diagnostic, Severity, Span},
    tree::At,
};

/// More findings than this in one project are counted, not kept.
const MAX_DIAGNOSTICS: usize = 100;
/// Longer source lines are not copied into diagnostics.
const MAX_LINE: usize = 4096;

/// The files of one project and all that is found in them.
#[derive(Debug, Default)]
pub(crate) struct Report {
    files: Vec<File>,
    numbers: BTreeMap<PathBuf, u16>,
    diagnostics: Vec<Diagnostic>,
    left_out: usize,
    errors: usize,
    refused: bool,
    /// Values that have an error already, and mean nothing to later checks.
    settled: BTreeSet<At>,
    /// Values with an error of the present stage.
    fresh: Vec<At>,
    /// Where each canonical field came from, by dotted path.
    pub origins: BTreeMap<String, At>,
}

#[derive(Debug)]
struct File {
    path: PathBuf,
    text: String,
    /// Where each line starts, made for the first finding.
    lines: Option<Vec<usize>>,
}

impl Report {
    /// Enters a file, once; the number is what [`At::file`] holds. More than 65,535 files share the last.
    pub fn file(&mut self, path: &Path, text: &str) -> u16 {
        let number = u16::try_from(self.files.len()).unwrap_or(u16::MAX);
        let number = *self.numbers.entry(path.to_owned()).or_insert(number);
        if let Some(file) = self.files.get_mut(usize::from(number)) {
            if file.text.is_empty() {
                text.clone_into(&mut file.text);
            }
            return number;
        }
        self.files.push(File {
            path: path.to_owned(),
            text: text.to_owned(),
            lines: None,
        });
        number
    }

    /// The path of a file by its number.
    pub fn path(&self, file: u16) -> &Path {
        self.files
            .get(usize::from(file))
            .map_or(Path::new(""), |file| &file.path)
    }

    /// What no loader of Compose accepts.
    pub fn error(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        self.errors += 1;
        self.fresh.push(at);
        self.add(Severity::Error, false, at, message.into(), hint.into());
    }

    /// An error after which no other finding at this place is of interest.
    pub fn last_error(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        self.error(at, message, hint);
        self.settled.insert(at);
    }

    /// Later findings at this place are about a mistake that is told already, at another one.
    pub fn hush(&mut self, at: At) {
        if at.line > 0 {
            self.settled.insert(at);
        }
    }

    /// What Compose loads and stead does not run: an error for `plan` and `apply`, a warning for `config`.
    pub fn refuse(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        self.refused = true;
        self.add(Severity::Error, true, at, message.into(), hint.into());
    }

    pub fn warning(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, false, at, message.into(), hint.into());
    }

    /// A stage ends: values that have an error by now mean nothing to later ones.
    pub fn settle(&mut self) {
        let known = |at: &At| at.line > 0;
        self.settled.extend(self.fresh.drain(..).filter(known));
    }

    /// Remembers where the canonical field `path` was written.
    pub fn origin(&mut self, path: String, at: At) {
        self.origins.insert(path, at);
    }

    /// The position of a field that has an origin, else of the first file as a whole.
    pub fn at(&self, path: &str) -> At {
        self.origins.get(path).copied().unwrap_or_default()
    }

    /// Whether further findings are only counted: then their texts need no effort.
    pub fn full(&self) -> bool {
        self.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    /// Whether an error was found that no loader of Compose accepts.
    pub fn failed(&self) -> bool {
        self.errors > 0
    }

    /// How many such errors were found.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Whether something was found that stead does not run.
    pub fn refused(&self) -> bool {
        self.refused
    }

    /// The findings in the order of the files, and the origins.
    pub fn finish(mut self) -> (Vec<Diagnostic>, BTreeMap<String, Span>) {
        self.diagnostics
            .sort_by(|a, b| (&a.span, a.severity).cmp(&(&b.span, b.severity)));
        self.diagnostics.dedup();
        if self.left_out > 0 {
            self.diagnostics.push(Diagnostic {
                severity: if self.errors > 0 || self.refused {
                    Severity::Error
                } else {
                    Severity::Warning
                },
                refusal: self.errors == 0,
                span: self.span(At::default()),
                message: format!("{} more findings are not shown", self.left_out),
                hint: Some("repair those that are shown first".to_owned()),
                source_line: None,
            });
        }
        let origins = std::mem::take(&mut self.origins);
        let origins = origins
            .into_iter()
            .map(|(path, at)| (path, self.span(at)))
            .collect();
        (self.diagnostics, origins)
    }

    fn add(&mut self, severity: Severity, refusal: bool, at: At, message: String, hint: String) {
        if self.settled.contains(&at) {
            return;
        }
        if self.full() {
            self.left_out += 1;
            return;
        }
        let source_line = self.line(at);
        self.diagnostics.push(Diagnostic {
            severity,
            refusal,
            span: self.span(at),
            message,
            hint: Some(hint).filter(|hint| !hint.is_empty()),
            source_line,
        });
    }

    /// Whether a value was written as this text, without quotes.
    pub fn is_plain(&mut self, at: At, text: &str) -> bool {
        let column = (at.column as usize).saturating_sub(1);
        self.line(at)
            .is_some_and(|line| line.chars().skip(column).take(text.len()).eq(text.chars()))
    }

    fn line(&mut self, at: At) -> Option<String> {
        let index = (at.line as usize).checked_sub(1)?;
        let file = self.files.get_mut(usize::from(at.file))?;
        let text = &file.text;
        let lines = file.lines.get_or_insert_with(|| {
            let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
            std::iter::once(0).chain(breaks).collect()
        });
        let line = text[*lines.get(index)?..].lines().next()?;
        (line.len() <= MAX_LINE).then(|| line.to_owned())
    }

    fn span(&self, at: At) -> Span {
        Span {
            file: self.path(at.file).to_owned(),
            line: at.line,
            column: at.column,
        }
    }
}
