//! Where in the model a value is, for messages.

use std::fmt;

use crate::tree::{At, Entry};

/// Longer keys are cut.
const MAX_KEY: usize = 64;

/// The way from the top to a value; shown as `services.web.ports[0]`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Path<'a> {
    Top,
    Key(&'a Path<'a>, &'a str, At),
    Item(&'a Path<'a>, usize, At),
}

impl<'a> Path<'a> {
    pub fn entry(&'a self, entry: &'a Entry) -> Path<'a> {
        Path::Key(self, &entry.key, entry.at)
    }

    /// Where the key or the list item is written.
    pub fn at(&self) -> At {
        match self {
            Path::Top => At::default(),
            Path::Key(_, _, at) | Path::Item(_, _, at) => *at,
        }
    }

    /// The way without its last step.
    pub fn up(&self) -> Path<'a> {
        match self {
            Path::Top => Path::Top,
            Path::Key(up, ..) | Path::Item(up, ..) => **up,
        }
    }

    /// The last key on the way.
    pub fn key(&self) -> &'a str {
        match self {
            Path::Top => "",
            Path::Key(_, key, _) => key,
            Path::Item(up, ..) => up.key(),
        }
    }

    /// Whether the value is an item of a list.
    pub fn is_item(&self) -> bool {
        matches!(self, Path::Item(..))
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Top => Ok(()),
            Path::Key(Path::Top, key, _) => f.write_str(&cut(key, MAX_KEY)),
            Path::Key(up, key, _) => write!(f, "{up}.{}", cut(key, MAX_KEY)),
            Path::Item(up, index, _) => write!(f, "{up}[{index}]"),
        }
    }
}

/// The beginning of a text that may be long.
pub(super) fn cut(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
