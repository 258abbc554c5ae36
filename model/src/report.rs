//! What is found while a file is read: diagnostics, and the origin of every field.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crate::{
    diagnostic::{Diagnostic, Severity, Span},
    tree::At,
};

/// More findings than this in one project are counted, not kept.
const MAX_DIAGNOSTICS: usize = 100;
/// Longer source lines are not copied into diagnostics.
const MAX_LINE: usize = 4096;

pub(crate) struct Report<'a> {
    file: &'a Path,
    lines: Vec<&'a str>,
    diagnostics: Vec<Diagnostic>,
    left_out: usize,
    failed: bool,
    /// Values that have an error already, and mean nothing to later checks.
    settled: BTreeSet<At>,
    pub origins: BTreeMap<String, Span>,
}

impl<'a> Report<'a> {
    /// Findings in `file`, whose text is `text`.
    pub fn new(file: &'a Path, text: &'a str) -> Self {
        Report {
            file,
            lines: text.lines().collect(),
            diagnostics: Vec::new(),
            left_out: 0,
            failed: false,
            settled: BTreeSet::new(),
            origins: BTreeMap::new(),
        }
    }

    pub fn error(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        self.failed = true;
        self.add(Severity::Error, at, message.into(), hint.into());
    }

    /// An error after which no other finding at this place is of interest.
    pub fn last_error(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        self.error(at, message, hint);
        self.settled.insert(at);
    }

    pub fn warning(&mut self, at: At, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Severity::Warning, at, message.into(), hint.into());
    }

    /// Remembers where the field `path` was written.
    pub fn origin(&mut self, path: String, at: At) {
        self.origins.insert(path, self.span(at));
    }

    /// The position of a field that has an origin, else of the file as a whole.
    pub fn at(&self, path: &str) -> At {
        self.origins
            .get(path)
            .map(|span| At {
                line: span.line,
                column: span.column,
            })
            .unwrap_or_default()
    }

    /// Whether further findings are only counted: then their texts need no effort.
    pub fn full(&self) -> bool {
        self.diagnostics.len() >= MAX_DIAGNOSTICS
    }

    pub fn failed(&self) -> bool {
        self.failed
    }

    /// The findings in the order of the file.
    pub fn finish(mut self) -> (Vec<Diagnostic>, BTreeMap<String, Span>) {
        self.diagnostics
            .sort_by(|a, b| (&a.span, a.severity).cmp(&(&b.span, b.severity)));
        self.diagnostics.dedup();
        if self.left_out > 0 {
            self.diagnostics.push(Diagnostic {
                severity: if self.failed {
                    Severity::Error
                } else {
                    Severity::Warning
                },
                span: self.span(At::default()),
                message: format!("{} more findings are not shown", self.left_out),
                hint: Some("repair those that are shown first".to_owned()),
                source_line: None,
            });
        }
        (self.diagnostics, self.origins)
    }

    fn add(&mut self, severity: Severity, at: At, message: String, hint: String) {
        if self.settled.contains(&at) {
            return;
        }
        if self.full() {
            self.left_out += 1;
            return;
        }
        let line = (at.line as usize)
            .checked_sub(1)
            .and_then(|index| self.lines.get(index));
        self.diagnostics.push(Diagnostic {
            severity,
            span: self.span(at),
            message,
            hint: Some(hint).filter(|hint| !hint.is_empty()),
            source_line: line
                .filter(|line| line.len() <= MAX_LINE)
                .map(|line| (*line).to_owned()),
        });
    }

    fn span(&self, at: At) -> Span {
        Span {
            file: self.file.to_owned(),
            line: at.line,
            column: at.column,
        }
    }
}
