//! Parser events to a flat list of items per document: keys are checked, aliases point at their anchors.

use std::{borrow::Cow, collections::BTreeMap, mem};

use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, Span, StructureStyle, Tag as WrittenTag};

use super::{
    MAX_DEPTH, MAX_TEXT, MAX_VALUES, ParseError,
    explain::{explain, nested, shorten, syntax, too_much},
    repair::Failure,
    scalar::{Schema, resolve, special},
};
use crate::tree::{At, Tag, Value};

/// One node of a document as it is written. The items of a document are in the order of the text: the
/// items of a list follow it, and so do the keys and values of a mapping, in turns.
pub(super) struct Item<'t> {
    pub kind: Kind<'t>,
    pub line: u32,
    pub column: u32,
    /// The number of the item behind this one and all below it; 0 as long as it is open.
    pub end: u32,
    pub tag: Tag,
    /// What a scalar is to be taken for.
    pub schema: Schema,
}

pub(super) enum Kind<'t> {
    /// Keys, too; those are text, or `<<` with [`Schema::Merge`].
    Scalar(Cow<'t, str>),
    List {
        count: u32,
    },
    Map {
        count: u32,
        merges: bool,
    },
    /// The number of the anchored item, which is no alias itself.
    Alias(u32),
}

impl Item<'_> {
    pub fn at(&self, file: u16) -> At {
        At {
            file,
            line: self.line,
            column: self.column,
        }
    }
}

/// Calls `document` with the items of each document that is not empty.
pub(super) fn compose(
    text: &str,
    file: u16,
    mut document: impl FnMut(&[Item<'_>]) -> Result<(), ParseError>,
) -> Result<(), Failure> {
    let mut options = granit_parser::options! {
        emit_unresolved_aliases: true,
        // Checked again here, where the two kinds count together.
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let mut composer = Composer {
        text,
        file,
        items: Vec::new(),
        open: Vec::new(),
        anchors: BTreeMap::new(),
        values: 0,
        key_text: 0,
    };
    let mut read = At::default();
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.map_err(|error| {
            let flow = composer.open.iter().rev().find(|open| open.flow);
            let flow = flow.and_then(|open| composer.items.get(open.item as usize));
            Failure {
                error: explain(&error, text, file, flow, read),
                repair: match error.kind() {
                    ErrorKind::InvalidQuotedScalarIndent | ErrorKind::CommentNotSeparated => {
                        error.marker().byte_offset()
                    }
                    _ => None,
                },
            }
        })?;
        read = position(&span.end, file);
        if let Event::DocumentEnd = event {
            // Documents count, too: the empty ones are the cheapest way to keep a reader busy.
            composer.charge(position(&span.start, file))?;
            let items = composer.finish();
            // An empty document is one scalar of no length.
            if !items.is_empty() {
                document(&items)?;
            }
            continue;
        }
        composer.event(event, &span)?;
    }
    Ok(())
}

/// A list or mapping whose end has not come yet.
struct Open {
    item: u32,
    map: bool,
    flow: bool,
    merges: bool,
    /// Items of a list, or keys of a mapping.
    count: u32,
    /// In a mapping: the key whose value is next.
    key: Option<u32>,
}

struct Composer<'t> {
    text: &'t str,
    file: u16,
    items: Vec<Item<'t>>,
    open: Vec<Open>,
    /// Items by the parser's number of their anchor.
    anchors: BTreeMap<usize, u32>,
    /// Of all documents.
    values: usize,
    /// Bytes of keys that are aliases.
    key_text: usize,
}

impl<'t> Composer<'t> {
    fn event(&mut self, event: Event<'t>, span: &Span) -> Result<(), ParseError> {
        let at = position(&span.start, self.file);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let empty = style == ScalarStyle::Plain && span.start.index() == span.end.index();
                if self.open.is_empty() && empty && anchor == 0 && tag.is_none() {
                    return Ok(());
                }
                let text = self.last_line(text, style, span);
                let (tag, schema) = schema(tag.as_deref(), style);
                let item = self.add(Kind::Scalar(text), at, tag, schema)?;
                self.anchor(anchor, item);
                self.close(item);
            }
            Event::SequenceStart(style, anchor, tag) => {
                let (tag, schema) = schema(tag.as_deref(), ScalarStyle::Plain);
                let item = self.add(Kind::List { count: 0 }, at, tag, schema)?;
                self.anchor(anchor, item);
                self.enter(item, false, style, at)?;
            }
            Event::MappingStart(style, anchor, tag) => {
                let (tag, schema) = schema(tag.as_deref(), ScalarStyle::Plain);
                let kind = Kind::Map {
                    count: 0,
                    merges: false,
                };
                let item = self.add(kind, at, tag, schema)?;
                self.anchor(anchor, item);
                self.enter(item, true, style, at)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave()?,
            Event::Alias(anchor) => {
                let target = self.anchors.get(&anchor).copied();
                // The parser has checked the name, so it is there.
                let Some(target) = target else {
                    return Err(syntax(at, "this alias has no anchor"));
                };
                if self.open.iter().any(|open| open.item == target) {
                    return Err(ParseError {
                        at,
                        message: "this alias stands within its own anchor: a cycle".to_owned(),
                        hint: "end the anchored value before it is used".to_owned(),
                    });
                }
                let item = self.add(Kind::Alias(target), at, Tag::None, Schema::Plain)?;
                self.close(item);
            }
            Event::UnresolvedAlias(name) => {
                return Err(ParseError {
                    at,
                    message: format!("there is no anchor `{}` above", shorten(&name)),
                    hint: "define the anchor (`&name`) before it is used (`*name`), in the same document"
                        .to_owned(),
                });
            }
            // Ends of documents are the caller's, comments and anchors were not asked for.
            _ => {}
        }
        Ok(())
    }

    /// Adds one item as the next key, value, item or root.
    fn add(&mut self, kind: Kind<'t>, at: At, tag: Tag, schema: Schema) -> Result<u32, ParseError> {
        let number = u32::try_from(self.items.len()).map_err(|_| too_much(at))?;
        let is_key = match self.open.last_mut() {
            Some(open) if open.map && open.key.is_none() => {
                open.key = Some(number);
                open.count += 1;
                true
            }
            Some(open) => {
                open.count += u32::from(!open.map);
                false
            }
            None => false,
        };
        let mut item = Item {
            kind,
            line: at.line,
            column: at.column,
            end: 0,
            tag,
            schema,
        };
        if is_key {
            self.key(&mut item, at)?;
        } else {
            self.charge(at)?;
        }
        self.items.push(item);
        Ok(number)
    }

    fn charge(&mut self, at: At) -> Result<(), ParseError> {
        self.values += 1;
        match self.values > MAX_VALUES {
            true => Err(too_much(at)),
            false => Ok(()),
        }
    }

    /// Makes a key text, or refuses it.
    fn key(&mut self, item: &mut Item<'t>, at: At) -> Result<(), ParseError> {
        let (source, from_alias) = match item.kind {
            Kind::Alias(target) => (self.items.get(target as usize), true),
            _ => (Some(&*item), false),
        };
        let found = match source.map(|source| (&source.kind, source.schema)) {
            Some((Kind::Scalar(text), schema)) => {
                if schema == Schema::Plain && !from_alias {
                    if text == "<<" {
                        if let Some(open) = self.open.last_mut() {
                            open.merges = true;
                        }
                        item.schema = Schema::Merge;
                        return Ok(());
                    }
                    // Most keys: they stay parts of the text.
                    if special(text).is_none() {
                        item.schema = Schema::Text;
                        return Ok(());
                    }
                }
                if schema == Schema::Text && !from_alias {
                    return Ok(());
                }
                match resolve(text, schema) {
                    Ok(Value::Text(key)) => {
                        if from_alias {
                            self.key_text += key.len();
                            if self.key_text > MAX_TEXT {
                                return Err(too_much(at));
                            }
                        }
                        item.kind = Kind::Scalar(Cow::Owned(key));
                        item.schema = Schema::Text;
                        return Ok(());
                    }
                    Ok(Value::Null) => "null".to_owned(),
                    Ok(_) => shorten(text).into_owned(),
                    Err(message) => message,
                }
            }
            Some((Kind::List { .. }, _)) => "a list".to_owned(),
            _ => "a mapping".to_owned(),
        };
        if let Some(open) = self.open.last_mut() {
            open.key = None;
        }
        Err(ParseError {
            at,
            message: format!("{}a key must be text, and is {found}", self.path()),
            hint: "write the key as text, in quotes if it looks like a number or a boolean".to_owned(),
        })
    }

    fn anchor(&mut self, anchor: usize, item: u32) {
        if anchor != 0 {
            self.anchors.insert(anchor, item);
        }
    }

    fn enter(&mut self, item: u32, map: bool, style: StructureStyle, at: At) -> Result<(), ParseError> {
        if self.open.len() == MAX_DEPTH {
            return Err(nested(at));
        }
        self.open.push(Open {
            item,
            map,
            flow: style == StructureStyle::Flow,
            merges: false,
            count: 0,
            key: None,
        });
        Ok(())
    }

    fn leave(&mut self) -> Result<(), ParseError> {
        let Some(open) = self.open.last() else {
            return Ok(());
        };
        if open.map && open.count > 1 {
            self.refuse_twins(open.item)?;
        }
        if let Some(open) = self.open.pop() {
            if let Some(item) = self.items.get_mut(open.item as usize) {
                let count = open.count;
                item.kind = match open.map {
                    true => Kind::Map {
                        count,
                        merges: open.merges,
                    },
                    false => Kind::List { count },
                };
            }
            self.close(open.item);
        }
        Ok(())
    }

    /// Marks an item as whole. As a value it makes room for the next key.
    fn close(&mut self, number: u32) {
        let end = self.items.len();
        if let Some(item) = self.items.get_mut(number as usize) {
            item.end = u32::try_from(end).unwrap_or(u32::MAX);
        }
        if let Some(open) = self.open.last_mut()
            && open.key != Some(number)
        {
            open.key = None;
        }
    }

    /// Sorts the keys of a mapping instead of hashing them: no hash to attack, nothing kept.
    fn refuse_twins(&self, map: u32) -> Result<(), ParseError> {
        let mut keys = Vec::new();
        let mut next = map as usize + 1;
        while let (Some(key), Some(value)) = (self.items.get(next), self.items.get(next + 1)) {
            if let Kind::Scalar(text) = &key.kind {
                keys.push((text.as_ref(), next));
            }
            next = value.end as usize;
        }
        keys.sort_unstable();
        let twins = keys.windows(2).filter_map(|pair| match pair {
            [(first, before), (second, after)] if first == second => Some((*after, *before, *first)),
            _ => None,
        });
        let Some((after, before, text)) = twins.min() else {
            return Ok(());
        };
        let (Some(after), Some(before)) = (self.items.get(after), self.items.get(before)) else {
            return Ok(());
        };
        Err(ParseError {
            at: after.at(self.file),
            message: format!(
                "{}the key `{}` is there twice, first in line {}",
                self.path(),
                shorten(text),
                before.line
            ),
            hint: "remove one of the two".to_owned(),
        })
    }

    /// Where the innermost open mapping is, for messages: nothing, or "`services.web`: ".
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            let key = open.key.and_then(|key| self.items.get(key as usize));
            match key.map(|key| &key.kind) {
                Some(Kind::Scalar(text)) => {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path += &shorten(text);
                }
                _ if !open.map => path += &format!("[{}]", open.count.saturating_sub(1)),
                _ => {}
            }
        }
        match path.is_empty() {
            true => path,
            false => format!("`{}`: ", shorten(&path)),
        }
    }

    /// A block scalar that ends with the file, without a line break, has none either; the parser adds one.
    fn last_line(&self, text: Cow<'t, str>, style: ScalarStyle, span: &Span) -> Cow<'t, str> {
        let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
        if !block || span.end.byte_offset() != Some(self.text.len()) {
            return text;
        }
        let line = self.text.rsplit(['\n', '\r']).next().unwrap_or_default();
        match (line.trim().is_empty(), text.strip_suffix('\n')) {
            (false, Some(text)) => Cow::Owned(text.to_owned()),
            _ => text,
        }
    }

    /// The items of the document that has ended.
    fn finish(&mut self) -> Vec<Item<'t>> {
        self.open.clear();
        self.anchors.clear();
        mem::take(&mut self.items)
    }
}

/// What a tag asks for. A scalar with a tag of its own is text, as in Compose's own parser.
fn schema(tag: Option<&WrittenTag>, style: ScalarStyle) -> (Tag, Schema) {
    let untagged = match style {
        ScalarStyle::Plain => Schema::Plain,
        _ => Schema::Text,
    };
    let Some(tag) = tag else {
        return (Tag::None, untagged);
    };
    if let Some(name) = tag.suffix_in_namespace("tag:yaml.org,2002:") {
        let schema = match name.as_ref() {
            "null" => Schema::Null,
            "bool" => Schema::Bool,
            "int" => Schema::Int,
            "float" => Schema::Float,
            "binary" => Schema::Binary,
            "merge" => Schema::Plain,
            _ => Schema::Text,
        };
        return (Tag::None, schema);
    }
    match tag.parts() {
        // The value is dropped, so it may be anything.
        ("!", "reset") => (Tag::Reset, untagged),
        ("!", "override") => (Tag::Override, Schema::Text),
        ("!", "") | ("", "!") => (Tag::None, untagged),
        _ => (Tag::None, Schema::Text),
    }
}

/// Columns count characters, from 1.
pub(super) fn position(marker: &Marker, file: u16) -> At {
    At {
        file,
        line: u32::try_from(marker.line()).unwrap_or(0),
        column: u32::try_from(marker.col() + 1).unwrap_or(0),
    }
}
