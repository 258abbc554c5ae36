//! The items of a document to its tree: aliases are copied in, `<<` is merged. Counts while it copies,
//! so that an alias bomb ends early.

use std::{collections::BTreeSet, vec};

use super::{
    MAX_DEPTH, MAX_TEXT, MAX_VALUES, ParseError,
    compose::{Item, Kind},
    explain::{nested, shorten, too_much},
    scalar::{Schema, resolve},
};
use crate::tree::{At, Entry, Node, Tag, Value};

/// What the documents of a file have taken so far of what they may have.
#[derive(Default)]
pub(super) struct Spent {
    values: usize,
    text: usize,
}

/// The tree of one document; its root is the first item.
pub(super) fn expand(items: &[Item<'_>], file: u16, spent: &mut Spent) -> Result<Node, ParseError> {
    let mut expansion = Expansion { items, file, spent };
    let mut open: Vec<Frame> = Vec::new();
    let mut next = Some(0);
    loop {
        // Either the next value is begun, or the innermost list or mapping is whole.
        let node = match next {
            Some(number) => match expansion.begin(number, open.len())? {
                Begun::Scalar(node) => node,
                Begun::Frame(frame) => {
                    open.push(frame);
                    next = open.last_mut().and_then(|frame| frame.next(items));
                    continue;
                }
            },
            None => match open.pop() {
                Some(frame) => frame.finish(),
                None => return Ok(Node::new(Value::Null, At::default())),
            },
        };
        let Some(parent) = open.last_mut() else {
            return Ok(node);
        };
        expansion.push(parent, node)?;
        next = parent.next(items);
    }
}

enum Begun {
    Scalar(Node),
    Frame(Frame),
}

/// A list or mapping that is being filled.
struct Frame {
    at: At,
    tag: Tag,
    content: Content,
}

enum Content {
    List {
        next: usize,
        end: usize,
        items: Vec<Node>,
    },
    Map {
        /// Numbers of keys and values.
        todo: vec::IntoIter<(u32, u32)>,
        key: usize,
        entries: Vec<Entry>,
    },
}

impl Frame {
    /// The number of the next value.
    fn next(&mut self, all: &[Item<'_>]) -> Option<usize> {
        match &mut self.content {
            Content::List { next, end, .. } => {
                let number = *next;
                if number >= *end {
                    return None;
                }
                *next = all.get(number)?.end as usize;
                Some(number)
            }
            Content::Map { todo, key, .. } => {
                let (next_key, value) = todo.next()?;
                *key = next_key as usize;
                Some(value as usize)
            }
        }
    }

    fn finish(self) -> Node {
        let value = match self.content {
            Content::List { items, .. } => Value::List(items),
            Content::Map { entries, .. } => Value::Map(entries),
        };
        Node {
            value,
            at: self.at,
            tag: self.tag,
        }
    }
}

struct Expansion<'i, 't, 's> {
    items: &'i [Item<'t>],
    file: u16,
    spent: &'s mut Spent,
}

impl<'i, 't> Expansion<'i, 't, '_> {
    /// An item, or what its alias stands for.
    fn item(&self, number: usize) -> Option<(usize, &'i Item<'t>)> {
        let item = self.items.get(number)?;
        match item.kind {
            Kind::Alias(target) => Some((target as usize, self.items.get(target as usize)?)),
            _ => Some((number, item)),
        }
    }

    fn begin(&mut self, number: usize, depth: usize) -> Result<Begun, ParseError> {
        let Some((number, item)) = self.item(number) else {
            return Ok(Begun::Scalar(Node::new(Value::Null, At::default())));
        };
        let at = item.at(self.file);
        self.charge(1, at)?;
        let (content, merged_tag) = match &item.kind {
            Kind::Scalar(text) => {
                self.charge_text(text.len(), at)?;
                let value = resolve(text, item.schema).map_err(|message| ParseError {
                    at,
                    message,
                    hint: "correct the value, or remove the tag (`!!…`)".to_owned(),
                })?;
                return Ok(Begun::Scalar(Node {
                    value,
                    at,
                    tag: item.tag,
                }));
            }
            _ if depth == MAX_DEPTH => return Err(nested(at)),
            Kind::List { count } => (
                Content::List {
                    next: number + 1,
                    end: item.end as usize,
                    items: Vec::with_capacity(*count as usize),
                },
                Tag::None,
            ),
            _ => {
                let (todo, tag) = self.entries(number, item)?;
                let content = Content::Map {
                    entries: Vec::with_capacity(todo.len()),
                    todo: todo.into_iter(),
                    key: 0,
                };
                (content, tag)
            }
        };
        Ok(Begun::Frame(Frame {
            at,
            tag: match item.tag {
                Tag::None => merged_tag,
                tag => tag,
            },
            content,
        }))
    }

    fn push(&mut self, frame: &mut Frame, node: Node) -> Result<(), ParseError> {
        match &mut frame.content {
            Content::List { items, .. } => items.push(node),
            Content::Map { entries, key, .. } => {
                if let Some(item) = self.items.get(*key)
                    && let Kind::Scalar(text) = &item.kind
                {
                    let at = item.at(self.file);
                    self.charge_text(text.len(), at)?;
                    entries.push(Entry {
                        key: text.to_string(),
                        at,
                        value: node,
                    });
                }
            }
        }
        Ok(())
    }

    /// The keys and values of a mapping, merged ones at the place of their `<<`: explicit keys win, then
    /// the first source. The tag is that of a merged mapping as a whole, which asks for this one.
    fn entries(&mut self, map: usize, item: &'i Item<'t>) -> Result<(Vec<(u32, u32)>, Tag), ParseError> {
        let Kind::Map { count, merges } = item.kind else {
            return Ok((Vec::new(), Tag::None));
        };
        let mut result = Vec::with_capacity(count as usize);
        if !merges {
            result.extend(self.pairs(map).map(|(key, value, _)| (key, value)));
            return Ok((result, Tag::None));
        }
        let mut seen: BTreeSet<&str> = self.pairs(map).filter_map(|(.., text)| text).collect();
        let mut tag = Tag::None;
        let pairs: Vec<_> = self.pairs(map).collect();
        for (key, value, text) in pairs {
            if text.is_some() {
                result.push((key, value));
                continue;
            }
            if let Some((_, Item { tag: asked, .. })) = self.item(value as usize) {
                tag = *asked;
            }
            // Depth first, and the first source on top.
            let mut sources = self.sources(value as usize)?;
            while let Some(source) = sources.pop() {
                let Some(item) = self.items.get(source) else {
                    continue;
                };
                let Kind::Map { count, .. } = item.kind else {
                    continue;
                };
                self.charge(1 + count as usize, item.at(self.file))?;
                let pairs: Vec<_> = self.pairs(source).collect();
                for (key, value, text) in pairs {
                    let Some(text) = text else {
                        sources.extend(self.sources(value as usize)?);
                        continue;
                    };
                    // Looking at a key costs its length, even when it is not taken.
                    self.charge_text(text.len(), item.at(self.file))?;
                    if seen.insert(text) {
                        result.push((key, value));
                    }
                }
            }
        }
        Ok((result, tag))
    }

    /// The entries of a mapping as it is written: key, value, and the key's text unless it is `<<`.
    fn pairs(&self, map: usize) -> impl Iterator<Item = (u32, u32, Option<&'i str>)> + use<'i, 't> {
        let items = self.items;
        let end = items.get(map).map_or(0, |item| item.end as usize);
        let mut next = map + 1;
        std::iter::from_fn(move || {
            if next >= end {
                return None;
            }
            let (key, number) = (items.get(next)?, next);
            next = items.get(number + 1)?.end as usize;
            let text = match &key.kind {
                Kind::Scalar(text) if key.schema != Schema::Merge => Some(text.as_ref()),
                _ => None,
            };
            let number = u32::try_from(number).ok()?;
            Some((number, number + 1, text))
        })
    }

    /// The mappings that the value of `<<` names, the first of them last.
    fn sources(&mut self, value: usize) -> Result<Vec<usize>, ParseError> {
        let mut found = Vec::new();
        match self.item(value) {
            Some((map, item)) if matches!(item.kind, Kind::Map { .. }) => found.push(map),
            Some((list, item)) if matches!(item.kind, Kind::List { .. }) => {
                let mut next = list + 1;
                while next < item.end as usize {
                    match self.item(next) {
                        Some((map, item)) if matches!(item.kind, Kind::Map { .. }) => found.push(map),
                        _ => return Err(self.no_mapping(next)),
                    }
                    self.charge(1, item.at(self.file))?;
                    next = self.items.get(next).map_or(usize::MAX, |item| item.end as usize);
                }
                found.reverse();
            }
            _ => return Err(self.no_mapping(value)),
        }
        Ok(found)
    }

    fn no_mapping(&self, value: usize) -> ParseError {
        let what = match self.item(value).map(|(_, item)| &item.kind) {
            Some(Kind::Scalar(text)) if text.is_empty() || text == "~" => "nothing".to_owned(),
            Some(Kind::Scalar(text)) => format!("`{}`", shorten(text)),
            Some(Kind::List { .. }) => "a list within a list".to_owned(),
            _ => "no mapping".to_owned(),
        };
        ParseError {
            at: self
                .items
                .get(value)
                .map(|item| item.at(self.file))
                .unwrap_or_default(),
            message: format!("`<<` merges a mapping or a list of mappings, and this is {what}"),
            hint: "name an anchor that stands at a mapping: `<<: *name`".to_owned(),
        }
    }

    fn charge(&mut self, values: usize, at: At) -> Result<(), ParseError> {
        self.spent.values += values;
        match self.spent.values > MAX_VALUES {
            true => Err(too_much(at)),
            false => Ok(()),
        }
    }

    fn charge_text(&mut self, bytes: usize, at: At) -> Result<(), ParseError> {
        self.spent.text += bytes;
        match self.spent.text > MAX_TEXT {
            true => Err(too_much(at)),
            false => Ok(()),
        }
    }
}
