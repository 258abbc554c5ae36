//! `${VAR}` in values: the template language of Compose, and its application to a whole tree.
//!
//! Grammar: Compose Specification, "Interpolation". The result is text and is not read as YAML again;
//! keys are never touched.
//!
//! ```text
//! template := ( "$$" | "$" NAME | "${" NAME [ OP WORD ] "}" | other )*
//! NAME     := [_A-Za-z][_A-Za-z0-9]*
//! OP       := ":-" | "-" | ":?" | "?" | ":+" | "+"
//! WORD     := template up to the matching "}", on the same line
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use crate::{
    syntax::cut,
    tree::{At, Node, Value},
};

/// A value may not grow by more bytes than this: a bound for hostile files.
const MAX_GROWTH: usize = 1024 * 1024;
/// Words within words may not be deeper than this.
const MAX_NESTING: usize = 100_000;
/// All values of one tree together may not have more bytes than this after interpolation.
const MAX_TOTAL: usize = 8 * 1024 * 1024;

/// Why a template has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("invalid interpolation `{0}`")]
    Invalid(String),
    #[error("the variable `{name}` is required: {message}")]
    Required { name: String, message: String },
    #[error("words are nested more than {MAX_NESTING} deep")]
    TooDeep,
    #[error("the value becomes longer by more than {MAX_GROWTH} bytes")]
    TooLong,
    #[error("all values together become longer than {MAX_TOTAL} bytes")]
    TooMuch,
}

impl TemplateError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            TemplateError::Invalid(_) => {
                "write `${NAME}` or `${NAME:-default}`; a literal `$` is written `$$`".to_owned()
            }
            TemplateError::Required { name, .. } => format!("set `{name}` in `.env` next to the manifest"),
            TemplateError::TooDeep => "write the defaults side by side, or shorter".to_owned(),
            TemplateError::TooLong | TemplateError::TooMuch => "shorten the values it refers to".to_owned(),
        }
    }
}

/// The value of a template. `unset` collects the names that were used without a value or default.
///
/// # Errors
/// Broken syntax, a required variable that is missing, too long a result.
pub fn substitute(
    text: &str,
    environment: &BTreeMap<String, String>,
    unset: &mut BTreeSet<String>,
) -> Result<String, TemplateError> {
    substitute_with(text, &|name| environment.get(name).map(String::as_str), unset)
}

/// As [`substitute`], with the variables behind a function.
///
/// One pass from left to right: a word that is used is expanded where it stands, one that is not is
/// skipped, so neither depth nor number of the braces costs more than their bytes.
pub(crate) fn substitute_with<'e>(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<&'e str>,
    unset: &mut BTreeSet<String>,
) -> Result<String, TemplateError> {
    if text.len() >= NONE as usize {
        return Err(TemplateError::TooLong);
    }
    let braces = Braces::of(text);
    let mut result = String::with_capacity(text.len());
    let mut words: Vec<Word> = Vec::new();
    let mut at = 0;
    loop {
        if result.len() > text.len() + MAX_GROWTH {
            return Err(TemplateError::TooLong);
        }
        let end = words.last().map_or(text.len(), |word| word.end);
        let Some(found) = text[at..end].find('$') else {
            result.push_str(&text[at..end]);
            let Some(word) = words.pop() else {
                return Ok(result);
            };
            if let Some((name, start)) = word.required {
                return Err(required(name, &result[start..]));
            }
            at = word.end + 1;
            continue;
        };
        let dollar = at + found;
        result.push_str(&text[at..dollar]);
        let rest = &text[dollar + 1..end];
        if rest.starts_with('$') {
            result.push('$');
            at = dollar + 2;
            continue;
        }
        let Some(inner) = rest.strip_prefix('{') else {
            let name = &rest[..name_length(rest)];
            if name.is_empty() {
                result.push('$');
            } else {
                result.push_str(value_or_note(name, lookup, unset));
            }
            at = dollar + 1 + name.len();
            continue;
        };
        let invalid = || TemplateError::Invalid(shown(&text[dollar..]));
        let name = &inner[..name_length(inner)];
        if name.is_empty() {
            return Err(invalid());
        }
        let after = dollar + 2 + name.len();
        if text[after..end].starts_with('}') {
            result.push_str(value_or_note(name, lookup, unset));
            at = after + 1;
            continue;
        }
        let (operator, length) = Operator::read(&text[after..end]).ok_or_else(invalid)?;
        let start = after + length;
        let close = braces
            .closing(dollar + 1, text, start, end, words.is_empty())
            .ok_or_else(invalid)?;
        let value = lookup(name);
        let given = value.is_some_and(|value| !(operator.not_empty && value.is_empty()));
        let (used, required) = match (operator.sign, given) {
            (Sign::Default, given) => (!given, None),
            (Sign::Alternative, given) => (given, None),
            (Sign::Required, given) => (!given, Some((name, result.len()))),
        };
        if used {
            if words.len() >= MAX_NESTING {
                return Err(TemplateError::TooDeep);
            }
            words.push(Word { end: close, required });
            at = start;
        } else {
            result.push_str(value.unwrap_or_default());
            at = close + 1;
        }
    }
}

/// A word that is being expanded, up to the brace at `end`.
struct Word<'t> {
    end: usize,
    /// The word is the message of this name's absence, and begins here in the result.
    required: Option<(&'t str, usize)>,
}

#[derive(Clone, Copy)]
enum Sign {
    Default,
    Alternative,
    Required,
}

#[derive(Clone, Copy)]
struct Operator {
    sign: Sign,
    /// With a colon: an empty value counts as none.
    not_empty: bool,
}

impl Operator {
    /// The operator at the start of the text and its length.
    fn read(text: &str) -> Option<(Operator, usize)> {
        let (not_empty, rest) = match text.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let sign = match rest.as_bytes().first()? {
            b'-' => Sign::Default,
            b'+' => Sign::Alternative,
            b'?' => Sign::Required,
            _ => return None,
        };
        Some((Operator { sign, not_empty }, 1 + usize::from(not_empty)))
    }
}

/// No position; longer texts are refused.
const NONE: u32 = u32::MAX;

/// Which brace closes which, line by line.
struct Braces {
    /// Positions of `{`, ascending, each with that of its `}`, or [`NONE`]. Small: there may be millions.
    pairs: Vec<(u32, u32)>,
}

impl Braces {
    fn of(text: &str) -> Self {
        let mut pairs: Vec<(u32, u32)> = Vec::new();
        let mut open: Vec<u32> = Vec::new();
        for (at, c) in (0..NONE).zip(text.bytes()) {
            match c {
                b'{' => {
                    open.push(u32::try_from(pairs.len()).unwrap_or(NONE));
                    pairs.push((at, NONE));
                }
                b'}' => {
                    if let Some(pair) = open.pop().and_then(|index| pairs.get_mut(index as usize)) {
                        pair.1 = at;
                    }
                }
                b'\n' => open.clear(),
                _ => {}
            }
        }
        Braces { pairs }
    }

    /// The brace that ends the word `text[start..]` of the brace at `open`, before `end`. Where braces do
    /// not pair up it is the last one of the line, as in the reference loader. `lines`: there may be line
    /// feeds before `end`, which is so outside of words only.
    fn closing(&self, open: usize, text: &str, start: usize, end: usize, lines: bool) -> Option<usize> {
        let index = self
            .pairs
            .binary_search_by_key(&open, |pair| pair.0 as usize)
            .ok()?;
        let (_, close) = *self.pairs.get(index)?;
        if close != NONE && (close as usize) < end {
            return Some(close as usize);
        }
        let mut line = &text[start..end];
        if lines {
            line = line.split('\n').next().unwrap_or_default();
        }
        line.rfind('}').map(|found| start + found)
    }
}

fn value_or_note<'e>(
    name: &str,
    lookup: &dyn Fn(&str) -> Option<&'e str>,
    unset: &mut BTreeSet<String>,
) -> &'e str {
    lookup(name).unwrap_or_else(|| {
        if !unset.contains(name) {
            unset.insert(name.to_owned());
        }
        ""
    })
}

fn required(name: &str, message: &str) -> TemplateError {
    let message = match message {
        "" => "it has no value".to_owned(),
        message => cut(message),
    };
    TemplateError::Required {
        name: name.to_owned(),
        message,
    }
}

/// `[_A-Za-z][_A-Za-z0-9]*`
fn name_length(text: &str) -> usize {
    let mut bytes = text.bytes();
    match bytes.next() {
        Some(c) if c.is_ascii_alphabetic() || c == b'_' => {
            1 + bytes
                .take_while(|c| c.is_ascii_alphanumeric() || *c == b'_')
                .count()
        }
        _ => 0,
    }
}

/// A broken template for a message: to its first closing brace, else to the end of the line.
fn shown(text: &str) -> String {
    let line = text.split('\n').next().unwrap_or_default();
    cut(line.split_inclusive('}').next().unwrap_or_default())
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
        self.walk(node, &mut path.to_owned(), &mut 0);
    }

    /// `total`: the bytes made so far. `path` grows on the way down and shrinks on the way up: a path per
    /// node would cost a long key once for each node below it.
    fn walk(&mut self, node: &mut Node, path: &mut String, total: &mut usize) {
        if *total > MAX_TOTAL {
            return;
        }
        let length = path.len();
        match &mut node.value {
            Value::Text(text) if text.contains('$') => {
                let mut unset = BTreeSet::new();
                let mut result = substitute(text, self.environment, &mut unset);
                if let Ok(value) = &result {
                    *total += value.len();
                    if *total > MAX_TOTAL {
                        result = Err(TemplateError::TooMuch);
                    }
                }
                match result {
                    Ok(value) => *text = value,
                    Err(error) => self.failures.push(Failure {
                        at: node.at,
                        path: path.clone(),
                        error,
                    }),
                }
                for name in unset {
                    self.unset.entry(name).or_insert(node.at);
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    let _ = write!(path, "[{index}]");
                    self.walk(item, path, total);
                    path.truncate(length);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(&cut(&entry.key));
                    self.walk(&mut entry.value, path, total);
                    path.truncate(length);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "interpolate/tests.rs"]
mod tests;
