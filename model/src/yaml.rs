//! YAML text to a positioned tree, and back to text. The only module that knows the YAML crate.
//!
//! Anchors, aliases and `<<` are resolved; a value that comes from an anchor has the position of its
//! definition, because that is the text to edit. YAML 1.2 booleans only; `010` is octal, as in Compose.

use std::fmt;

use serde::{Deserialize, Serialize, de};
use serde_yaml::{Location, Spanned, Tagged};

use crate::tree::{At, Entry, Node, Value};

/// Nodes in one file, aliases expanded: about 2,500 services.
const MAX_NODES: usize = 100_000;
/// Events copied out of aliases, in all: stops alias bombs early.
const MAX_ALIAS_EVENTS: usize = 50_000;
/// Nesting of lists and mappings, aliases expanded. The library recurses with up to 45 KB of stack a
/// level (unoptimised); this many fit into half of a thread's usual 2 MB. Compose itself needs nine.
const MAX_DEPTH: usize = 24;
const LIMIT_HINT: &str = "nest less and repeat fewer aliases: at most 24 levels and 100,000 values";

/// The text is not one well-formed YAML document with text keys.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ParseError {
    pub at: At,
    pub message: String,
    pub hint: String,
}

/// Parses one document.
///
/// # Errors
/// Syntax errors, duplicate keys, keys that are not text, too many or too deeply nested nodes, several
/// documents.
pub(crate) fn parse(text: &str) -> Result<Node, ParseError> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_nodes: MAX_NODES, max_depth: MAX_DEPTH },
        alias_limits: serde_yaml::alias_limits! { max_total_replayed_events: MAX_ALIAS_EVENTS },
        strict_booleans: true,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    let raw: RawNode = serde_yaml::from_str_with_options(text, options).map_err(explain)?;
    Ok(convert(raw))
}

/// Prints any value as block style YAML.
///
/// # Errors
/// What `serde_yaml` says; never for plain data.
pub(crate) fn print<T: Serialize>(value: &T) -> Result<String, String> {
    let mut text = String::new();
    serde_yaml::to_fmt_writer(&mut text, value).map_err(|error| error.to_string())?;
    Ok(text)
}

fn explain(error: serde_yaml::Error) -> ParseError {
    use serde_yaml::Error;
    let error = error.without_snippet();
    let at = error.location().map(position).unwrap_or_default();
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    // The library appends its own position; ours is in the diagnostic.
    let first = match first.find(" at line ") {
        Some(cut) => &first[..cut],
        None => first,
    };
    // Limits come as several variants, within aliases as text only.
    let limit = ["budget breached", "limit exceeded"]
        .iter()
        .any(|words| first.contains(words));
    let (message, hint) = match error {
        Error::DuplicateMappingKey { key, .. } => (
            match key {
                Some(key) => format!("the key `{key}` is there twice"),
                None => "the same key is there twice".to_owned(),
            },
            "remove one of the two",
        ),
        Error::MultipleDocuments { .. } => (
            "several documents in one file are not supported yet".to_owned(),
            "put everything into one document, without `---` between",
        ),
        _ if limit => ("too much YAML for one manifest".to_owned(), LIMIT_HINT),
        Error::UnknownAnchor { .. } => (
            first.to_owned(),
            "define the anchor (`&name`) before it is used (`*name`)",
        ),
        Error::Message { .. } if first.starts_with(KEY_ERROR) => (
            first.to_owned(),
            "write the key as text, in quotes if it looks like a number or `true`",
        ),
        _ => (
            format!("this is not valid YAML: {first}"),
            "check the indentation, the quotes and the brackets here and in the line before",
        ),
    };
    ParseError {
        at,
        message,
        hint: hint.to_owned(),
    }
}

fn position(location: Location) -> At {
    At {
        file: 0,
        line: u32::try_from(location.line()).unwrap_or(0),
        column: u32::try_from(location.column()).unwrap_or(0),
    }
}

type RawNode = Spanned<Tagged<RawValue>>;

enum RawValue {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<RawNode>),
    Map(Vec<(Spanned<Key>, RawNode)>),
}

/// A key that is text; anything else is refused where it stands.
struct Key(String);

const KEY_ERROR: &str = "a key must be text";

fn convert(raw: RawNode) -> Node {
    let at = position(raw.defined);
    let value = match raw.value.0 {
        RawValue::Null => Value::Null,
        RawValue::Bool(value) => Value::Bool(value),
        RawValue::Int(value) => Value::Int(value),
        RawValue::Float(value) => Value::Float(value),
        RawValue::Text(text) => Value::Text(text),
        RawValue::List(items) => Value::List(items.into_iter().map(convert).collect()),
        RawValue::Map(entries) => Value::Map(
            entries
                .into_iter()
                // `!reset` takes a key out of the model; `!override` replaces, which it does anyway
                // as long as there is one file.
                .filter(|(_, value)| value.value.1.as_deref() != Some("!reset"))
                .map(|(key, value)| Entry {
                    at: position(key.defined),
                    key: key.value.0,
                    value: convert(value),
                })
                .collect(),
        ),
    };
    Node::new(value, at)
}

impl<'de> Deserialize<'de> for RawValue {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> de::Visitor<'de> for AnyValue {
    type Value = RawValue;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }
    fn visit_unit<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }
    fn visit_none<E>(self) -> Result<RawValue, E> {
        Ok(RawValue::Null)
    }
    fn visit_some<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<RawValue, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
    fn visit_bool<E>(self, value: bool) -> Result<RawValue, E> {
        Ok(RawValue::Bool(value))
    }
    fn visit_i64<E>(self, value: i64) -> Result<RawValue, E> {
        Ok(RawValue::Int(value.into()))
    }
    fn visit_u64<E>(self, value: u64) -> Result<RawValue, E> {
        Ok(RawValue::Int(value.into()))
    }
    fn visit_i128<E>(self, value: i128) -> Result<RawValue, E> {
        Ok(RawValue::Int(value))
    }
    fn visit_f64<E>(self, value: f64) -> Result<RawValue, E> {
        Ok(RawValue::Float(value))
    }
    fn visit_str<E>(self, value: &str) -> Result<RawValue, E> {
        Ok(RawValue::Text(value.to_owned()))
    }
    fn visit_string<E>(self, value: String) -> Result<RawValue, E> {
        Ok(RawValue::Text(value))
    }
    fn visit_seq<A: de::SeqAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(RawValue::List(items))
    }
    fn visit_map<A: de::MapAccess<'de>>(self, mut access: A) -> Result<RawValue, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(RawValue::Map(entries))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let found = match RawValue::deserialize(deserializer)? {
            RawValue::Text(text) => return Ok(Key(text)),
            RawValue::Null => "null".to_owned(),
            RawValue::Bool(value) => value.to_string(),
            RawValue::Int(value) => value.to_string(),
            RawValue::Float(value) => value.to_string(),
            RawValue::List(_) => "a list".to_owned(),
            RawValue::Map(_) => "a mapping".to_owned(),
        };
        Err(de::Error::custom(format!("{KEY_ERROR}, and is {found}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Value {
        let Value::Map(mut entries) = parse(text).unwrap().value else {
            panic!("no mapping: {text}")
        };
        entries.remove(0).value.value
    }

    #[test]
    fn scalars_follow_yaml_1_2_with_the_octals_of_compose() {
        for (text, want) in [
            ("a: yes", Value::Text("yes".into())),
            ("a: on", Value::Text("on".into())),
            ("a: no", Value::Text("no".into())),
            ("a: true", Value::Bool(true)),
            ("a: 22:22", Value::Text("22:22".into())),
            ("a: 0o14", Value::Int(12)),
            ("a: 010", Value::Int(8)),
            ("a: 0x10", Value::Int(16)),
            ("a: 1e3", Value::Float(1000.0)),
            ("a: 3.10", Value::Float(3.1)),
            ("a: 2024-01-01", Value::Text("2024-01-01".into())),
            ("a: '1'", Value::Text("1".into())),
            ("a:", Value::Null),
            ("a: ~", Value::Null),
        ] {
            assert_eq!(value(text), want, "{text}");
        }
    }

    #[test]
    fn keys_and_values_have_positions_and_merged_ones_those_of_their_definition() {
        let Value::Map(entries) = parse("x-a: &a\n  restart: always\nweb:\n  <<: *a\n  image: b\n")
            .unwrap()
            .value
        else {
            panic!()
        };
        let Value::Map(web) = &entries[1].value.value else {
            panic!()
        };
        let restart = web.iter().find(|entry| entry.key == "restart").unwrap();
        assert_eq!((restart.value.at.line, restart.value.at.column), (2, 12));
        let image = web.iter().find(|entry| entry.key == "image").unwrap();
        assert_eq!((image.at.line, image.at.column), (5, 3));
        assert_eq!((image.value.at.line, image.value.at.column), (5, 10));
    }

    #[test]
    fn what_is_not_one_document_with_text_keys_is_refused_where_it_stands() {
        for (text, line, message) in [
            ("a: 1\na: 2\n", 2, "the key `a` is there twice"),
            ("a: [1\nb: 2\n", 0, "not valid YAML"),
            ("a:\n  1: x\n", 2, "must be text"),
            ("a:\n  true: x\n", 2, "must be text"),
            ("a: 1\n---\nb: 2\n", 0, "several documents"),
            ("a: *b\n", 1, "anchor"),
            ("a:\n\tb: 1\n", 2, "not valid YAML"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.message.contains(message), "{text:?}: {error}");
            assert!(
                line == 0 || error.at.line == line,
                "{text:?}: line {}",
                error.at.line
            );
        }
    }
}
