//! `${VAR}` in values: the template language of Compose, and its application to a whole tree.
//!
//! Grammar: Compose Specification, "Interpolation". The result is text and is not read as YAML again;
//! keys are never touched.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{At, Node, Value};

/// Nested defaults (`${A:-${B:-…}}`) deeper than this are refused.
const MAX_NESTING: usize = 32;
/// A value may not grow beyond this by interpolation: a bound for hostile files.
const MAX_RESULT: usize = 1024 * 1024;

/// Why a template has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("invalid interpolation `{0}`")]
    Invalid(String),
    #[error("the variable `{name}` is required: {message}")]
    Required { name: String, message: String },
    #[error("defaults are nested more than {MAX_NESTING} deep")]
    TooDeep,
    #[error("the value becomes longer than {MAX_RESULT} bytes")]
    TooLong,
}

impl TemplateError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            TemplateError::Invalid(_) => {
                "write `${NAME}` or `${NAME:-default}`; a literal `$` is written `$$`".to_owned()
            }
            TemplateError::Required { name, .. } => format!("set `{name}` in `.env` next to the manifest"),
            TemplateError::TooDeep | TemplateError::TooLong => "shorten the value".to_owned(),
        }
    }
}

/// The value of a template. `unset` collects the names that were used without a value or default.
///
/// # Errors
/// Broken syntax, a required variable that is missing, too deep nesting, too long a result.
pub fn substitute(
    text: &str,
    environment: &BTreeMap<String, String>,
    unset: &mut BTreeSet<String>,
) -> Result<String, TemplateError> {
    Template { environment, unset }.expand(text, 0)
}

struct Template<'a> {
    environment: &'a BTreeMap<String, String>,
    unset: &'a mut BTreeSet<String>,
}

impl Template<'_> {
    fn expand(&mut self, text: &str, depth: usize) -> Result<String, TemplateError> {
        if depth > MAX_NESTING {
            return Err(TemplateError::TooDeep);
        }
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            result.push_str(&rest[..dollar]);
            let after = &rest[dollar + 1..];
            if let Some(after) = after.strip_prefix('$') {
                result.push('$');
                rest = after;
            } else if let Some(inner) = after.strip_prefix('{') {
                let end = closing_brace(inner).ok_or_else(|| TemplateError::Invalid(cut(&rest[dollar..])))?;
                let whole = &rest[dollar..dollar + 2 + end + 1];
                result.push_str(&self.braced(&inner[..end], whole, depth)?);
                rest = &inner[end + 1..];
            } else {
                let name = &after[..name_length(after)];
                if name.is_empty() {
                    result.push('$');
                } else {
                    result.push_str(self.plain(name));
                }
                rest = &after[name.len()..];
            }
            if result.len() > MAX_RESULT {
                return Err(TemplateError::TooLong);
            }
        }
        result.push_str(rest);
        Ok(result)
    }

    fn plain(&mut self, name: &str) -> &str {
        match self.environment.get(name) {
            Some(value) => value,
            None => {
                self.unset.insert(name.to_owned());
                ""
            }
        }
    }

    /// The inside of `${…}`. The word is expanded only if it is used.
    fn braced(&mut self, inner: &str, whole: &str, depth: usize) -> Result<String, TemplateError> {
        let name = &inner[..name_length(inner)];
        if name.is_empty() {
            return Err(TemplateError::Invalid(cut(whole)));
        }
        let after = &inner[name.len()..];
        if after.is_empty() {
            return Ok(self.plain(name).to_owned());
        }
        let (not_empty, operator) = match after.strip_prefix(':') {
            Some(operator) => (true, operator),
            None => (false, after),
        };
        let value = self.environment.get(name);
        let given = value.is_some_and(|value| !(not_empty && value.is_empty()));
        let value = || value.cloned().unwrap_or_default();
        let mut chars = operator.chars();
        let sign = chars.next();
        let word = chars.as_str();
        match sign {
            Some('-') if given => Ok(value()),
            Some('+') if !given => Ok(value()),
            Some('-' | '+') => self.expand(word, depth + 1),
            Some('?') if given => Ok(value()),
            Some('?') => {
                let message = self.expand(word, depth + 1)?;
                let message = if message.is_empty() {
                    "it has no value".to_owned()
                } else {
                    message
                };
                Err(TemplateError::Required {
                    name: name.to_owned(),
                    message,
                })
            }
            _ => Err(TemplateError::Invalid(cut(whole))),
        }
    }
}

/// `[_A-Za-z][_A-Za-z0-9]*`
fn name_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    if !bytes
        .first()
        .is_some_and(|c| c.is_ascii_alphabetic() || *c == b'_')
    {
        return 0;
    }
    bytes
        .iter()
        .take_while(|c| c.is_ascii_alphanumeric() || **c == b'_')
        .count()
}

/// The position of the brace that closes an already opened `${`; braces nest.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1usize;
    for (at, c) in text.bytes().enumerate() {
        match c {
            b'{' => open += 1,
            b'}' => {
                open -= 1;
                if open == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A template in a tree that has no value, and where.
pub(crate) struct Failure {
    pub at: At,
    pub path: String,
    pub error: TemplateError,
}

/// Expands every text value of the tree, keys excepted.
pub(crate) struct Interpolation<'a> {
    pub environment: &'a BTreeMap<String, String>,
    /// Where each unset name was first met.
    pub unset: BTreeMap<String, At>,
    pub failures: Vec<Failure>,
}

impl Interpolation<'_> {
    pub fn run(&mut self, node: &mut Node, path: &str) {
        match &mut node.value {
            Value::Text(text) if text.contains('$') => {
                let mut unset = BTreeSet::new();
                match substitute(text, self.environment, &mut unset) {
                    Ok(value) => *text = value,
                    Err(error) => self.failures.push(Failure {
                        at: node.at,
                        path: path.to_owned(),
                        error,
                    }),
                }
                for name in unset {
                    self.unset.entry(name).or_insert(node.at);
                }
            }
            Value::List(items) => {
                for item in items {
                    self.run(item, path);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    let path = if path.is_empty() {
                        entry.key.clone()
                    } else {
                        format!("{path}.{}", entry.key)
                    };
                    self.run(&mut entry.value, &path);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "interpolate/tests.rs"]
mod tests;
