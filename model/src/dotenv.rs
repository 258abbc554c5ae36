//! `.env` and env files: names and values of the project environment and of containers.
//!
//! Syntax: Compose Specification, "`.env` file syntax", as the reference loader reads it. `K=V`, `K: V`,
//! `export K=V`, `K` alone; `'raw'`, `"escaped $INTERPOLATED"` and `unquoted $INTERPOLATED # comment`;
//! quotes may span lines. `format: raw` is the other syntax: `K=V` and `K` alone, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    interpolate::{self, TemplateError},
    syntax::cut,
};

/// All values that one call adds may not have more bytes than this: lines that double each other's values
/// would fill the memory.
const MAX_TOTAL: usize = 8 * 1024 * 1024;

/// What is wrong in a file, and where: lines and columns (in characters) count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}")]
pub struct DotenvError {
    line: u32,
    column: u32,
    pub kind: DotenvErrorKind,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DotenvErrorKind {
    #[error("`{0}` is not a variable name")]
    Name(String),
    #[error("the quote {0} is never closed")]
    Unclosed(char),
    #[error("the value cannot be interpolated: {0}")]
    Template(TemplateError),
    #[error("the values become longer than {MAX_TOTAL} bytes")]
    TooMuch,
}

impl DotenvError {
    pub fn line(&self) -> u32 {
        self.line
    }

    pub fn column(&self) -> u32 {
        self.column
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match &self.kind {
            DotenvErrorKind::Name(_) => {
                "write `NAME=value`; a name has no blanks, and a comment starts with `#`".to_owned()
            }
            DotenvErrorKind::Unclosed(quote) => format!("close it with {quote}, or escape it as \\{quote}"),
            DotenvErrorKind::Template(error) => error.hint(),
            DotenvErrorKind::TooMuch => "shorten the values that others refer to".to_owned(),
        }
    }
}

/// Where values come from that a file does not give itself.
pub type Scope<'s> = &'s dyn Fn(&str) -> Option<&'s str>;

/// Reads one file. Values see `environment` first, then the earlier lines. A name without a value takes
/// it from `environment`, or is left out.
///
/// # Errors
/// The first line that breaks the syntax.
pub fn parse(
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, DotenvError> {
    let mut values = BTreeMap::new();
    let scope = |name: &str| environment.get(name).map(String::as_str);
    parse_into(text, &scope, &mut values, &mut BTreeSet::new())?;
    Ok(values)
}

/// Reads one of several files into `values`, which holds what the files before it gave. Values see `scope`
/// first, then `values`. A name without a value takes it from `scope`, or changes nothing. `unset`
/// collects the names that were used without a value.
///
/// # Errors
/// The first line that breaks the syntax; the lines before it are in `values`.
pub fn parse_into(
    text: &str,
    scope: Scope<'_>,
    values: &mut BTreeMap<String, String>,
    unset: &mut BTreeSet<String>,
) -> Result<(), DotenvError> {
    let mut reader = Reader::of(text);
    let mut total = 0;
    while let Some(mut entry) = reader.entry()? {
        let value = match entry.value.take() {
            None => scope(&entry.name).map(str::to_owned),
            Some(Written {
                text, expand: false, ..
            }) => Some(text),
            Some(Written {
                text, line, column, ..
            }) => {
                let lookup = |name: &str| match scope(name) {
                    Some(value) => Some(value),
                    None => values.get(name).map(String::as_str),
                };
                let expanded = interpolate::substitute_with(&text, &lookup, unset);
                let error = |error| DotenvError {
                    line,
                    column,
                    kind: DotenvErrorKind::Template(error),
                };
                Some(expanded.map_err(error)?)
            }
        };
        if let Some(value) = value {
            total += value.len();
            if total > MAX_TOTAL {
                return Err(entry.at(DotenvErrorKind::TooMuch));
            }
            values.insert(entry.name, value);
        }
    }
    Ok(())
}

/// Reads a file of `format: raw` into `values`: lines are `NAME=value` with the value as it stands to the
/// end of the line, `NAME` alone, empty, or a comment that starts with `#`.
///
/// # Errors
/// The first line with an empty name or blanks in its name.
pub fn parse_raw(
    text: &str,
    scope: Scope<'_>,
    values: &mut BTreeMap<String, String>,
) -> Result<(), DotenvError> {
    for (line, written) in (1..).zip(without_mark(text).split('\n')) {
        let written = written.strip_suffix('\r').unwrap_or(written);
        let trimmed = written.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (name, value) = match trimmed.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (trimmed, scope(trimmed)),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(DotenvError {
                line,
                column: characters(written) - characters(trimmed) + 1,
                kind: DotenvErrorKind::Name(cut(name)),
            });
        }
        if let Some(value) = value {
            values.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(())
}

/// One variable of a file.
struct Variable {
    line: u32,
    column: u32,
    name: String,
    /// `None`: only the name is there.
    value: Option<Written>,
}

struct Written {
    line: u32,
    column: u32,
    text: String,
    expand: bool,
}

impl Variable {
    fn at(&self, kind: DotenvErrorKind) -> DotenvError {
        DotenvError {
            line: self.line,
            column: self.column,
            kind,
        }
    }
}

struct Reader<'t> {
    rest: &'t str,
    line: u32,
    column: u32,
}

impl<'t> Reader<'t> {
    fn of(text: &'t str) -> Self {
        Reader {
            rest: without_mark(text),
            line: 1,
            column: 1,
        }
    }

    fn take(&mut self, bytes: usize) -> &'t str {
        let (taken, rest) = self.rest.split_at(bytes);
        match taken.rfind('\n') {
            Some(feed) => {
                self.line += u32::try_from(taken.matches('\n').count()).unwrap_or(u32::MAX);
                self.column = 1 + characters(&taken[feed + 1..]);
            }
            None => self.column += characters(taken),
        }
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'t str {
        self.take(self.rest.len() - self.rest.trim_start_matches(keep).len())
    }

    fn error(&self, kind: DotenvErrorKind) -> DotenvError {
        DotenvError {
            line: self.line,
            column: self.column,
            kind,
        }
    }

    fn entry(&mut self) -> Result<Option<Variable>, DotenvError> {
        self.take_while(char::is_whitespace);
        while self.rest.starts_with('#') {
            self.take_while(|c| c != '\n');
            self.take_while(char::is_whitespace);
        }
        if self.rest.is_empty() {
            return Ok(None);
        }
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with(blank)
        {
            self.take("export".len());
            self.take_while(blank);
        }
        let (line, column) = (self.line, self.column);
        let end = self.rest.find(['=', ':', '\n']).unwrap_or(self.rest.len());
        let written = &self.rest[..end];
        let name = written.trim_end();
        let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        // A blank that is no space is let through, as in the reference loader.
        if !name.chars().all(|c| valid(c) || (blank(c) && c != ' ')) {
            return Err(self.error(DotenvErrorKind::Name(cut(written.trim_end()))));
        }
        self.take(end);
        let value = if self.rest.starts_with(['=', ':']) {
            self.take(1);
            self.take_while(blank);
            Some(self.value()?)
        } else {
            None
        };
        Ok(Some(Variable {
            line,
            column,
            name: name.to_owned(),
            value,
        }))
    }

    fn value(&mut self) -> Result<Written, DotenvError> {
        let (line, column) = (self.line, self.column);
        let quote = match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => quote,
            _ => {
                let raw = self.take_while(|c| c != '\n');
                // A `#` right after the `=` starts no comment.
                let raw = raw.split(" #").next().unwrap_or_default();
                return Ok(Written {
                    line,
                    column,
                    text: raw.trim_end().to_owned(),
                    expand: true,
                });
            }
        };
        let mut escaped = false;
        let end = self.rest[1..].find(|c: char| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some(end) = end else {
            return Err(self.error(DotenvErrorKind::Unclosed(quote)));
        };
        self.take(1);
        let raw = self.take(end);
        // What follows the closing quote is read as the next line would be.
        self.take(1);
        Ok(Written {
            line,
            column,
            text: unescape(raw, quote),
            expand: quote == '"',
        })
    }
}

/// Single quotes know `\'` alone. In double quotes `\$` becomes `$$`, which interpolation turns into `$`;
/// what is no escape stays as it is.
fn unescape(raw: &str, quote: char) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(backslash) = rest.find('\\') {
        text.push_str(&rest[..backslash]);
        let mut chars = rest[backslash + 1..].chars();
        let next = chars.next();
        let after = chars.as_str();
        rest = after;
        match next {
            Some(c) if c == quote => text.push(c),
            Some(c) if quote == '"' && escape(c).is_some() => text.extend(escape(c)),
            Some('$') if quote == '"' => text.push_str("$$"),
            Some('0') if quote == '"' => {
                let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let (digits, after) = after.split_at(digits.min(3));
                rest = after;
                match u32::from_str_radix(digits, 8).ok().filter(|code| *code <= 0xff) {
                    Some(code) if digits.len() == 3 => text.extend(char::from_u32(code)),
                    // As in the reference loader, which drops the zero.
                    _ => {
                        text.push('\\');
                        text.push_str(digits);
                    }
                }
            }
            Some(other) => {
                text.push('\\');
                text.push(other);
            }
            None => text.push('\\'),
        }
    }
    text.push_str(rest);
    text
}

fn escape(c: char) -> Option<char> {
    Some(match c {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\u{7}',
        'b' => '\u{8}',
        'f' => '\u{c}',
        'v' => '\u{b}',
        '\\' => '\\',
        _ => return None,
    })
}

/// White space within a line.
fn blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

fn characters(text: &str) -> u32 {
    u32::try_from(text.chars().count()).unwrap_or(u32::MAX)
}

fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

#[cfg(test)]
#[path = "dotenv/tests.rs"]
mod tests;
