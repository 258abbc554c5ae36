//! YAML text to positioned trees. The only module that knows the YAML parser.
//!
//! The reader: `granit-parser` makes events, [`compose`] makes a flat list of items out of them (anchors
//! and aliases still apart), [`expand`] makes the tree (aliases and `<<` resolved), [`scalar`] says what
//! a plain scalar is. None of them recurses, so hostile nesting costs no stack. A value that comes from
//! an anchor has the position of its definition, because that is the text to edit.

mod compose;
mod expand;
mod explain;
mod scalar;
#[cfg(test)]
mod tests;

use crate::tree::{At, Node};

/// Values in one file, aliases expanded; keys are not counted. The reference loader counts so, too.
const MAX_VALUES: usize = 100_000;
/// Nesting of lists and mappings, aliases expanded. Compose itself needs nine.
const MAX_DEPTH: usize = 64;
/// Text in one file, aliases expanded, in bytes: twice the largest file.
const MAX_TEXT: usize = 8 << 20;

/// The text is not well-formed YAML with text keys. All positions name the file.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ParseError {
    pub at: At,
    pub message: String,
    pub hint: String,
}

/// Parses every document of a file; empty documents, and those with comments only, are left out.
///
/// Scalars follow the YAML 1.2 core schema with the extras of Compose's own parser: `010` is octal and
/// `1_000` is a number. `!reset` and `!override` stay with their node.
///
/// # Errors
/// Syntax errors, duplicate keys, keys that are not text, aliases without an anchor or within their own,
/// `<<` onto what is no mapping, too many or too deeply nested values.
pub(crate) fn parse(text: &str, file: u16) -> Result<Vec<Node>, ParseError> {
    // The parser takes a NUL for the end of the text, and would drop what follows.
    if let Some(at) = find_nul(text, file) {
        return Err(ParseError {
            at,
            message: "this is binary data, not YAML".to_owned(),
            hint: "write the file again as text".to_owned(),
        });
    }
    let mut documents = Vec::new();
    let mut spent = expand::Spent::default();
    compose::compose(text, file, |items| {
        documents.push(expand::expand(items, file, &mut spent)?);
        Ok(())
    })?;
    Ok(documents)
}

fn find_nul(text: &str, file: u16) -> Option<At> {
    let (before, _) = text.split_once('\0')?;
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Some(At {
        file,
        line: u32::try_from(line).ok()?,
        column: u32::try_from(column).ok()?,
    })
}
