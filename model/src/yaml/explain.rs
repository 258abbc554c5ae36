//! What is wrong, and what to do about it: the parser's errors in the words of this project.

use std::borrow::Cow;

use granit_parser::{ErrorKind as Kind, ScanError};

use super::{
    ParseError,
    compose::{self, Item, position},
};
use crate::tree::At;

const SYNTAX_HINT: &str = "check the indentation, the quotes and the brackets here and in the line before";
const LIMIT_HINT: &str =
    "nest less and repeat fewer aliases: at most 64 levels, 100,000 values and 8 MiB of text";

/// Explains what the parser says. `flow` is the innermost `[` or `{` that was open then, `read` is where
/// the last event ended.
pub(super) fn explain(
    error: &ScanError,
    text: &str,
    file: u16,
    flow: Option<&Item<'_>>,
    read: At,
) -> ParseError {
    let at = position(error.marker(), file);
    match error.kind() {
        Kind::RecursionLimitExceeded => return nested(at),
        Kind::TabInBlockIndentation | Kind::TabInIndentation | Kind::TabNotAllowed => {
            return with_hint(at, "a tab where the indentation is", "indent with spaces");
        }
        Kind::UnclosedQuotedScalar | Kind::InvalidQuotedScalarIndent => {
            return with_hint(
                opening_quote(text, read, at).unwrap_or(at),
                match error.kind() {
                    Kind::UnclosedQuotedScalar => "a quoted text is not closed",
                    _ => "a quoted text is not closed, or goes on in a line that is not indented",
                },
                "close it with the quote it begins with, or indent the lines that go on with it",
            );
        }
        Kind::MappingValueNotAllowed => {
            return with_hint(
                at,
                "a `:` where no key can stand",
                "indent keys of one mapping alike, and put text that has `: ` in it into quotes",
            );
        }
        Kind::UnexpectedCharacter { character } => {
            return with_hint(
                at,
                &format!("no value can begin with `{}`", character.escape_debug()),
                "put the text into quotes",
            );
        }
        Kind::CommentNotSeparated => {
            return with_hint(at, "a `#` right behind a value", "put a space before the comment");
        }
        Kind::UnclosedFlowCollection { open } => return unclosed(at, *open),
        Kind::InvalidColonPlacement
        | Kind::ExpectedFlowMappingSeparator
        | Kind::ExpectedFlowSequenceSeparator
        | Kind::UnexpectedEof
        | Kind::UnexpectedEofFlowSequence
        | Kind::UnexpectedEofFlowMapping
        | Kind::UnexpectedEofImplicitFlowMapping
        | Kind::InvalidSimpleKey
        | Kind::SimpleKeyExpected => {
            // Noticed lines later, when something comes that cannot stand within brackets.
            if let Some(flow) = flow.filter(|flow| flow.line < at.line) {
                let open = match flow.kind {
                    compose::Kind::Map { .. } => '{',
                    _ => '[',
                };
                return unclosed(flow.at(file), open);
            }
        }
        _ => {}
    }
    if matches!(error.kind(), Kind::SimpleKeyExpected | Kind::InvalidSimpleKey) {
        return with_hint(
            at,
            "a key without its `:`",
            "write `key: value`, with a space behind the `:`, or indent the line below its key",
        );
    }
    let words = error.info();
    let words = words.lines().next().unwrap_or_default();
    // The end of the file is behind its last line.
    let last = u32::try_from(text.lines().count()).unwrap_or(u32::MAX).max(1);
    syntax(
        At {
            line: at.line.min(last),
            ..at
        },
        words,
    )
}

/// The first quote that can begin a text behind `read` and before `end`.
fn opening_quote(text: &str, read: At, end: At) -> Option<At> {
    let skip = read.line.saturating_sub(1);
    for (number, line) in (read.line.max(1)..=end.line).zip(text.lines().skip(skip as usize)) {
        let mut before = ' ';
        for (column, letter) in (1..).zip(line.chars()) {
            let space = before.is_whitespace();
            if number > read.line || column >= read.column {
                if matches!(letter, '"' | '\'') && (space || "[{,:".contains(before)) {
                    return Some(At {
                        line: number,
                        column,
                        ..end
                    });
                }
                if letter == '#' && space {
                    break;
                }
            }
            before = letter;
        }
    }
    None
}

fn unclosed(at: At, open: char) -> ParseError {
    let close = if open == '{' { '}' } else { ']' };
    with_hint(
        at,
        &format!("the `{open}` is not closed"),
        &format!("close it with `{close}`, and put `,` between what is in it"),
    )
}

/// Text that is no YAML.
pub(super) fn syntax(at: At, words: &str) -> ParseError {
    with_hint(at, words, SYNTAX_HINT)
}

fn with_hint(at: At, words: &str, hint: &str) -> ParseError {
    ParseError {
        at,
        message: format!("this is not valid YAML: {words}"),
        hint: hint.to_owned(),
    }
}

/// More values or text than a manifest can have.
pub(super) fn too_much(at: At) -> ParseError {
    ParseError {
        at,
        message: "too much YAML for one manifest".to_owned(),
        hint: LIMIT_HINT.to_owned(),
    }
}

/// Deeper than a manifest can be.
pub(super) fn nested(at: At) -> ParseError {
    ParseError {
        at,
        message: "too much YAML for one manifest: nested too deeply".to_owned(),
        hint: LIMIT_HINT.to_owned(),
    }
}

/// Text for a message: long ones are cut.
pub(super) fn shorten(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((cut, _)) => Cow::Owned(format!("{}…", text.get(..cut).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}
