//! `.env` and env files: names and values of the project environment.
//!
//! Syntax: Compose Specification, "`.env` file syntax". `K=V`, `K: V`, `export K=V`, `K` alone; `'raw'`,
//! `"escaped $INTERPOLATED"` and `unquoted $INTERPOLATED # comment`; quotes may span lines.

use std::collections::{BTreeMap, BTreeSet};

use crate::interpolate::{self, TemplateError};

/// What is wrong with a line; lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DotenvError {
    #[error("`{name}` is not a variable name")]
    Name { line: u32, name: String },
    #[error("the quote {quote} is never closed")]
    Unclosed { line: u32, quote: char },
    #[error("the value cannot be interpolated")]
    Template {
        line: u32,
        #[source]
        source: TemplateError,
    },
}

impl DotenvError {
    pub fn line(&self) -> u32 {
        match self {
            DotenvError::Name { line, .. }
            | DotenvError::Unclosed { line, .. }
            | DotenvError::Template { line, .. } => *line,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            DotenvError::Name { .. } => "write `NAME=value`; a comment starts with `#`".to_owned(),
            DotenvError::Unclosed { quote, .. } => {
                format!("close it with {quote}, or escape it as \\{quote}")
            }
            DotenvError::Template { source, .. } => source.hint(),
        }
    }
}

/// Reads one file. Values see `environment` first, then the earlier lines. A name without a value takes
/// it from `environment`, or is left out.
///
/// # Errors
/// The first line that breaks the syntax.
pub fn parse(
    text: &str,
    environment: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, DotenvError> {
    let text = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .replace("\r\n", "\n");
    let mut reader = Reader {
        rest: &text,
        line: 1,
        scope: environment.clone(),
        values: BTreeMap::new(),
    };
    while reader.entry(environment)? {}
    Ok(reader.values)
}

struct Reader<'a> {
    rest: &'a str,
    line: u32,
    /// What values may refer to.
    scope: BTreeMap<String, String>,
    values: BTreeMap<String, String>,
}

impl<'a> Reader<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += u32::try_from(taken.matches('\n').count()).unwrap_or(u32::MAX);
        self.rest = rest;
        taken
    }

    fn take_while(&mut self, keep: impl Fn(char) -> bool) -> &'a str {
        self.take(self.rest.len() - self.rest.trim_start_matches(keep).len())
    }

    fn entry(&mut self, environment: &BTreeMap<String, String>) -> Result<bool, DotenvError> {
        self.take_while(char::is_whitespace);
        if self.rest.is_empty() {
            return Ok(false);
        }
        if self.rest.starts_with('#') {
            self.take_while(|c| c != '\n');
            return Ok(true);
        }
        let line = self.line;
        if let Some(after) = self.rest.strip_prefix("export")
            && after.starts_with([' ', '\t'])
        {
            self.take("export".len());
            self.take_while(|c| matches!(c, ' ' | '\t'));
        }
        let written = self.take_while(|c| !matches!(c, '=' | ':' | '\n'));
        let (name, comment) = match written.split_once(" #") {
            Some((name, _)) => (name.trim(), true),
            None => (written.trim(), false),
        };
        let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if name.is_empty() || !name.chars().all(valid) {
            return Err(DotenvError::Name {
                line,
                name: name.to_owned(),
            });
        }
        let value = if !comment && self.rest.starts_with(['=', ':']) {
            self.take(1);
            self.take_while(|c| matches!(c, ' ' | '\t'));
            Some(self.value(line)?)
        } else {
            self.take_while(|c| c != '\n');
            environment.get(name).cloned()
        };
        // Docker ignores names that start with a digit; nothing could refer to them.
        if let Some(value) = value
            && !name.starts_with(|c: char| c.is_ascii_digit())
        {
            self.scope.entry(name.to_owned()).or_insert_with(|| value.clone());
            if !environment.contains_key(name) {
                self.scope.insert(name.to_owned(), value.clone());
            }
            self.values.insert(name.to_owned(), value);
        }
        Ok(true)
    }

    fn value(&mut self, line: u32) -> Result<String, DotenvError> {
        let quote = match self.rest.chars().next() {
            Some(quote @ ('\'' | '"')) => quote,
            _ => {
                let raw = self.take_while(|c| c != '\n');
                let raw = match raw.find(" #").or_else(|| raw.find("\t#")) {
                    Some(comment) => &raw[..comment],
                    None if raw.starts_with('#') => "",
                    None => raw,
                };
                return self.expand(raw.trim(), line);
            }
        };
        self.take(1);
        let mut escaped = false;
        let end = self.rest.find(|c: char| {
            let closes = c == quote && !escaped;
            escaped = c == '\\' && !escaped;
            closes
        });
        let Some(end) = end else {
            return Err(DotenvError::Unclosed { line, quote });
        };
        let raw = self.take(end);
        self.take(1);
        // Whatever follows a closing quote on its line is a comment.
        self.take_while(|c| c != '\n');
        match quote {
            '\'' => Ok(raw.replace("\\'", "'")),
            _ => self.expand(&unescape(raw), line),
        }
    }

    fn expand(&mut self, text: &str, line: u32) -> Result<String, DotenvError> {
        interpolate::substitute(text, &self.scope, &mut BTreeSet::new())
            .map_err(|source| DotenvError::Template { line, source })
    }
}

/// Escapes of double quotes. `\$` becomes `$$`, which interpolation turns into `$`.
fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    let mut chars = raw.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => text.push('\n'),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('a') => text.push('\u{7}'),
            Some('b') => text.push('\u{8}'),
            Some('f') => text.push('\u{c}'),
            Some('v') => text.push('\u{b}'),
            Some('$') => text.push_str("$$"),
            Some(same @ ('\\' | '"')) => text.push(same),
            Some('0') => {
                let mut code = 0;
                for _ in 0..3 {
                    let Some(digit) = chars.peek().and_then(|c| c.to_digit(8)) else {
                        break;
                    };
                    code = code * 8 + digit;
                    chars.next();
                }
                text.push(char::from_u32(code).unwrap_or('\u{fffd}'));
            }
            Some(other) => {
                text.push('\\');
                text.push(other);
            }
            None => text.push('\\'),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
        let environment = [("OUTER", "outer"), ("WINS", "process")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into();
        parse(text, &environment).map(|values| values.into_iter().collect())
    }

    #[test]
    fn every_form_of_a_line_is_read() {
        for (text, want) in [
            ("A=1\nB=2\n", &[("A", "1"), ("B", "2")][..]),
            ("A=1", &[("A", "1")]),
            ("\u{feff}A=1\r\nB=2\r\n", &[("A", "1"), ("B", "2")]),
            ("  A = 1  \n\n# comment\n\t#B=2\n", &[("A", "1")]),
            ("A: 1\n", &[("A", "1")]),
            ("export A=1\nexport  B=2", &[("A", "1"), ("B", "2")]),
            ("A=\nB=''\nC=\"\"\n", &[("A", ""), ("B", ""), ("C", "")]),
            (
                "A=a b # c\nB=a#b\nC=#x\n",
                &[("A", "a b"), ("B", "a#b"), ("C", "")],
            ),
            ("A=1=2:3\n", &[("A", "1=2:3")]),
            ("A='raw $OUTER \\n' # c\n", &[("A", "raw $OUTER \\n")]),
            ("A='it\\'s'\n", &[("A", "it's")]),
            (
                "A=\"a\\n\\t\\\\\\\"\\$OUTER\\0101\"\n",
                &[("A", "a\n\t\\\"$OUTERA")],
            ),
            (
                "A=\"two\nlines\" # c\nB='two\nlines'\nC=3\n",
                &[("A", "two\nlines"), ("B", "two\nlines"), ("C", "3")],
            ),
            ("A=$OUTER\nB=\"${OUTER}2\"\n", &[("A", "outer"), ("B", "outer2")]),
            ("A=1\nB=$A\n", &[("A", "1"), ("B", "1")]),
            // The environment wins over earlier lines.
            ("WINS=file\nB=$WINS\n", &[("B", "process"), ("WINS", "file")]),
            ("A=${NO:-d}\n", &[("A", "d")]),
            ("OUTER\nNO\n", &[("OUTER", "outer")]),
            ("A=1\nA=2\nB=$A\n", &[("A", "2"), ("B", "2")]),
            ("a.b-c[0]=1\n", &[("a.b-c[0]", "1")]),
            ("1A=1\n", &[]),
            ("", &[]),
        ] {
            let want = want.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            assert_eq!(read(text), Ok(want), "{text:?}");
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        for (text, line, message) in [
            ("A=1\nB C=2\n", 2, "`B C` is not a variable name"),
            ("A=1\n\n=2\n", 3, "`` is not a variable name"),
            ("A=1\nB='x\ny\n", 2, "quote ' is never closed"),
            ("A=\"x\\\"\n", 1, "quote \" is never closed"),
            ("A=1\nB=${\n", 2, "cannot be interpolated"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.line(), line, "{text:?}");
            assert!(error.to_string().contains(message), "{text:?}: {error}");
            assert!(!error.hint().is_empty());
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = read(&text);
        }

        #[test]
        fn single_quotes_keep_everything(value in "[^'\\\\\r]*") {
            prop_assert_eq!(read(&format!("A='{value}'\n")), Ok(vec![("A".to_owned(), value)]));
        }
    }
}
