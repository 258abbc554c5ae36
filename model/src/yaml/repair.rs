//! What Compose's own parser takes and YAML 1.2 does not: quoted texts that go on in a line that is not
//! indented, and a comment right behind a value. A few more spaces make YAML of it, and change no value.

use super::ParseError;
use crate::tree::At;

/// How often a file is read at most; a large one is not read again.
pub(super) fn attempts(text: &str) -> usize {
    (1 + (1 << 19) / text.len().max(1)).min(32)
}

/// Why a file is not read, and the byte before which spaces might help.
pub(super) struct Failure {
    pub error: ParseError,
    pub repair: Option<usize>,
}

impl From<ParseError> for Failure {
    fn from(error: ParseError) -> Self {
        Failure { error, repair: None }
    }
}

/// The text with the spaces that one reading missed.
pub(super) fn repair(text: &str, failure: &Failure) -> Option<String> {
    let (before, after) = text.split_at_checked(failure.repair?)?;
    if after.starts_with('#') && !before.ends_with(char::is_whitespace) {
        return Some(format!("{before} {after}"));
    }
    let (open, quote, width) = opening(text, failure.error.at)?;
    let inside = text.get(open + 1..)?;
    let close = open + 1 + closing(inside, quote)?;
    let start = before.rfind('\n')? + 1;
    // Otherwise it is another quoted text that is broken, and spaces would change what is not in it.
    if start <= open || close < before.len() {
        return None;
    }
    let lines = text.get(start..close)?.split_inclusive('\n');
    if lines.clone().count().saturating_mul(width) > text.len() {
        return None;
    }
    // Leading space is no part of a quoted text that goes on, so any width will do that is wide enough.
    let indent = " ".repeat(width);
    let inside: String = lines.flat_map(|line| [indent.as_str(), line]).collect();
    Some(format!("{}{inside}{}", text.get(..start)?, text.get(close..)?))
}

/// The byte of the quote at a position, the quote, and how many characters are before it in its line.
fn opening(text: &str, at: At) -> Option<(usize, char, usize)> {
    let above = at.line.checked_sub(1)? as usize;
    let width = at.column.checked_sub(1)? as usize;
    let mut lines = text.split_inclusive('\n');
    let start: usize = lines.by_ref().take(above).map(str::len).sum();
    let (byte, quote) = lines.next()?.char_indices().nth(width)?;
    matches!(quote, '"' | '\'').then_some((start + byte, quote, width))
}

/// The byte at which a quoted text ends that has begun before.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut letters = text.char_indices().peekable();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '\\' if quote == '"' => drop(letters.next()),
            '\'' if quote == '\'' && letters.next_if(|(_, next)| *next == '\'').is_some() => {}
            _ if letter == quote => return Some(at),
            _ => {}
        }
    }
    None
}
