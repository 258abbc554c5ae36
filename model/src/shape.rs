//! What every attribute of a Compose file may be: one table, from which files are checked, texts become
//! numbers, values get the form in which they are printed, and editors get a JSON Schema.

mod advice;
mod cast;
mod check;
mod extensions;
mod mappings;
mod path;
mod scalar;
mod schema;
mod settle;
mod table;
#[cfg(test)]
mod tests;

pub use schema::json_schema;
pub(crate) use {
    advice::{as_item, unquoted},
    cast::cast,
    check::check,
    extensions::without_extensions,
    settle::settle,
};

use crate::tree::Value;

/// What may be written. The alternatives of [`Shape::OneOf`] differ by the kind of their value, so that the
/// kind alone tells which of them was meant.
#[derive(Debug, Clone, Copy)]
pub enum Shape {
    Any,
    Null,
    Text,
    Bool,
    /// Whole, also when written with a decimal point (`2.0`).
    Integer {
        min: Option<i64>,
        max: Option<i64>,
    },
    Number,
    Choice(&'static [&'static str]),
    Pattern(&'static Pattern),
    OneOf(&'static [Shape]),
    List {
        item: &'static Shape,
        unique: bool,
    },
    Map {
        keys: Keys,
        value: &'static Shape,
    },
    Object(&'static Object),
}

/// Text of a certain form, anywhere within the value: the Compose schema does not anchor its patterns.
#[derive(Debug)]
pub struct Pattern {
    /// ECMA 262, for the JSON Schema.
    pub regex: &'static str,
    pub(crate) holds: fn(&str) -> bool,
    pub(crate) hint: &'static str,
}

/// Which keys a mapping may have whose keys the user chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    Any,
    /// Any text with something in it but line breaks.
    NotEmpty,
    /// Any text of one line.
    Line,
    /// As [`Keys::Line`]; what is below other keys is not looked at.
    LooseLine,
    /// Letters, digits, `.`, `_` and `-`; others are an error.
    Names,
    /// As [`Keys::Names`]; what is below other keys is not looked at.
    LooseNames,
    /// Small letters; what is below other keys is not looked at.
    LooseSmall,
}

/// A mapping whose keys Compose defines.
#[derive(Debug)]
pub struct Object {
    pub fields: &'static [Field],
    pub required: &'static [&'static str],
    /// Keys that begin with `x-` are allowed.
    pub extensible: bool,
    /// Unknown keys are allowed, and mean nothing.
    pub open: bool,
}

/// One attribute.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    pub name: &'static str,
    pub shape: Shape,
    /// One line for people.
    pub doc: &'static str,
    pub(crate) form: Form,
    /// What to write instead of a wrong value; empty where the form tells.
    pub(crate) hint: &'static str,
    /// Text becomes a number or a boolean right after interpolation.
    pub(crate) cast: bool,
}

/// How the canonical form prints a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As its parts are printed.
    Parts,
    /// Not at all.
    Dropped,
    Text(Zero),
    /// Text, also from a boolean or a decimal number.
    Printed,
    Bool(Zero),
    /// A boolean that is printed when it is `false` only.
    OptOut,
    /// 64 bits with a sign.
    Int(Zero),
    /// This many bits without a sign.
    Uint(u32, Zero),
    /// A decimal number of single precision.
    Float,
    /// Bytes, as decimal text.
    Bytes(Zero),
    Duration(Zero),
    /// The permissions of a file: octal text.
    Mode,
    /// A number of devices; `all` is -1.
    Count,
    /// A list of texts; one text stands for a list of one.
    Texts,
    /// A command: null when absent, and `[]` is kept.
    Words,
    /// The test of a healthcheck.
    Test,
    /// A mapping to texts; null is kept.
    Variables,
    /// A mapping to texts; null is the empty text.
    Labels,
    /// As [`Form::Labels`], from texts and whole numbers only.
    Strings,
    /// A mapping to lists of texts.
    Lists,
    /// A sorted list of `HOST=ADDRESS`.
    Hosts,
    /// A list of `ID` or `ID=PATH`.
    Keys,
    /// A mapping to one limit or a pair.
    Ulimits,
}

/// What happens to zero, false and the empty text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zero {
    /// Means "not set": left out.
    Omit,
    /// Differs from "not set": kept.
    Keep,
    /// Stands also for "not set": always printed.
    Always,
}

impl Object {
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Whether the key is an extension that is allowed here.
    fn extends(&self, key: &str) -> bool {
        self.extensible && key.starts_with("x-")
    }
}

impl Shape {
    /// The shape that a value of this kind is meant for, below all alternatives; `None`: it is of a wrong kind.
    fn pick(&self, value: &Value) -> Option<&Shape> {
        let fits = match (self, value) {
            (Shape::OneOf(shapes), _) => return shapes.iter().find_map(|shape| shape.pick(value)),
            (Shape::Any, _)
            | (Shape::Null, Value::Null)
            | (Shape::Text | Shape::Choice(_) | Shape::Pattern(_), Value::Text(_))
            | (Shape::Bool, Value::Bool(_))
            | (Shape::Integer { .. }, Value::Int(_))
            | (Shape::Number, Value::Int(_) | Value::Float(_))
            | (Shape::List { .. }, Value::List(_))
            | (Shape::Map { .. } | Shape::Object(_), Value::Map(_)) => true,
            (Shape::Integer { .. }, Value::Float(float)) => float.fract() == 0.0 || !float.is_finite(),
            _ => false,
        };
        fits.then_some(self)
    }

    /// The shapes of which one applies; the shape itself where there is no choice.
    fn alternatives(&self) -> &[Shape] {
        match self {
            Shape::OneOf(shapes) => shapes,
            other => std::slice::from_ref(other),
        }
    }
}

impl Keys {
    fn holds(self, key: &str) -> bool {
        match self {
            Keys::Any => true,
            Keys::NotEmpty => key.chars().any(|c| c != '\n'),
            Keys::Line | Keys::LooseLine => !key.is_empty() && !key.contains('\n'),
            Keys::Names | Keys::LooseNames => {
                !key.is_empty()
                    && key
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
            }
            Keys::LooseSmall => !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase()),
        }
    }

    /// Whether keys of another form are allowed, with anything below them.
    fn loose(self) -> bool {
        matches!(self, Keys::LooseLine | Keys::LooseNames | Keys::LooseSmall)
    }
}

/// Every attribute with its path, where `*` stands for a name or a place in a list: `services.*.build.args`.
/// A path is there once, also where several forms of a value have it.
pub fn attributes() -> impl Iterator<Item = (String, &'static Field)> {
    let mut found = Vec::new();
    collect(&Shape::Object(&table::ROOT), "", &mut found);
    found.into_iter()
}

fn collect(shape: &Shape, path: &str, found: &mut Vec<(String, &'static Field)>) {
    let below = |step: &str| match path {
        "" => step.to_owned(),
        path => format!("{path}.{step}"),
    };
    match shape {
        Shape::OneOf(shapes) => shapes.iter().for_each(|shape| collect(shape, path, found)),
        Shape::List { item, .. } => collect(item, &below("*"), found),
        Shape::Map { value, .. } => collect(value, &below("*"), found),
        Shape::Object(object) => {
            for field in object.fields {
                let path = below(field.name);
                found.push((path.clone(), field));
                collect(&field.shape, &path, found);
            }
        }
        _ => {}
    }
}
