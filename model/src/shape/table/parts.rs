//! Shapes that many attributes share, and how rows of the table are written.

use crate::shape::{Field, Form, Keys, Object, Shape, Zero};

pub const INT: Shape = Shape::Integer { min: None, max: None };
pub const BOOL_OR_TEXT: Shape = Shape::OneOf(&[Shape::Bool, Shape::Text]);
pub const INT_OR_TEXT: Shape = Shape::OneOf(&[INT, Shape::Text]);
pub const NUMBER_OR_TEXT: Shape = Shape::OneOf(&[Shape::Number, Shape::Text]);
pub const TEXTS: Shape = list(&Shape::Text);
pub const UNIQUE_TEXTS: Shape = unique(&Shape::Text);
pub const TEXT_OR_TEXTS: Shape = Shape::OneOf(&[Shape::Text, UNIQUE_TEXTS]);
pub const COMMAND: Shape = Shape::OneOf(&[Shape::Null, Shape::Text, TEXTS]);
/// A mapping to text, numbers, booleans or nothing, or a list of `KEY=VALUE`.
pub const MAP_OR_TEXTS: Shape = Shape::OneOf(&[
    names(
        Keys::NotEmpty,
        &Shape::OneOf(&[Shape::Text, Shape::Number, Shape::Bool, Shape::Null]),
    ),
    UNIQUE_TEXTS,
]);
pub const OPTIONS: Shape = names(Keys::LooseLine, &NUMBER_OR_TEXT);
pub const HOSTS: Shape = Shape::OneOf(&[
    names(Keys::NotEmpty, &Shape::OneOf(&[Shape::Text, TEXTS])),
    UNIQUE_TEXTS,
]);
pub const ULIMITS: Shape = names(
    Keys::LooseSmall,
    &Shape::OneOf(&[INT, Shape::Text, Shape::Object(&LIMITS)]),
);

#[rustfmt::skip]
const LIMITS: Object = object(&[
    field("soft", INT_OR_TEXT, Form::Int(Zero::Omit), "Limit that is in force; a process may raise it up to the hard one"),
    field("hard", INT_OR_TEXT, Form::Int(Zero::Omit), "Limit that the soft one cannot exceed"),
])
.requires(&["soft", "hard"]);

pub const fn list(item: &'static Shape) -> Shape {
    Shape::List { item, unique: false }
}

pub const fn unique(item: &'static Shape) -> Shape {
    Shape::List { item, unique: true }
}

pub const fn names(keys: Keys, value: &'static Shape) -> Shape {
    Shape::Map { keys, value }
}

/// An object that may have `x-` keys.
pub const fn object(fields: &'static [Field]) -> Object {
    Object {
        fields,
        required: &[],
        extensible: true,
        open: false,
    }
}

/// An object that may have no `x-` keys.
pub const fn closed(fields: &'static [Field]) -> Object {
    Object {
        extensible: false,
        ..object(fields)
    }
}

/// An object in which unknown keys mean nothing.
pub const fn open(fields: &'static [Field]) -> Object {
    Object {
        open: true,
        ..object(fields)
    }
}

pub(super) const fn field(name: &'static str, shape: Shape, form: Form, doc: &'static str) -> Field {
    Field {
        name,
        shape,
        doc,
        form,
        hint: "",
        cast: false,
    }
}

pub const fn text(name: &'static str, doc: &'static str) -> Field {
    field(name, Shape::Text, Form::Text(Zero::Omit), doc)
}

pub const fn choice(name: &'static str, values: &'static [&'static str], doc: &'static str) -> Field {
    field(name, Shape::Choice(values), Form::Text(Zero::Omit), doc)
}

/// A list of different texts.
pub const fn texts(name: &'static str, doc: &'static str) -> Field {
    field(name, UNIQUE_TEXTS, Form::Texts, doc)
}

/// A boolean, or text that becomes one.
pub const fn switch(name: &'static str, doc: &'static str) -> Field {
    field(name, BOOL_OR_TEXT, Form::Bool(Zero::Omit), doc)
}

/// A duration as text that counts as not set when it is absent only.
pub const fn duration(name: &'static str, doc: &'static str) -> Field {
    field(name, Shape::Text, Form::Duration(Zero::Keep), doc)
}

/// A number of bytes, or text with a unit.
pub const fn bytes(name: &'static str, doc: &'static str) -> Field {
    field(name, NUMBER_OR_TEXT, Form::Bytes(Zero::Omit), doc)
}

/// A whole number, or text that becomes one.
pub const fn int(name: &'static str, doc: &'static str) -> Field {
    field(name, NUMBER_OR_TEXT, Form::Int(Zero::Omit), doc)
}

/// A mapping to text, or a list of `KEY=VALUE`, where null is the empty text.
pub const fn labels(name: &'static str, doc: &'static str) -> Field {
    field(name, MAP_OR_TEXTS, Form::Labels, doc)
}

/// A mapping to text, or a list of `KEY=VALUE`, where null means "from outside".
pub const fn variables(name: &'static str, doc: &'static str) -> Field {
    field(name, MAP_OR_TEXTS, Form::Variables, doc)
}

pub const fn section(name: &'static str, object: &'static Object, doc: &'static str) -> Field {
    field(name, Shape::Object(object), Form::Parts, doc)
}

impl Field {
    pub(super) const fn form(mut self, form: Form) -> Field {
        self.form = form;
        self
    }

    pub(super) const fn shape(mut self, shape: Shape) -> Field {
        self.shape = shape;
        self
    }

    /// What to write, where the form alone does not tell.
    pub(super) const fn hint(mut self, hint: &'static str) -> Field {
        self.hint = hint;
        self
    }

    /// Text is cast after interpolation.
    pub(super) const fn cast(mut self) -> Field {
        self.cast = true;
        self
    }
}

impl Object {
    pub(super) const fn requires(mut self, names: &'static [&'static str]) -> Object {
        self.required = names;
        self
    }
}
