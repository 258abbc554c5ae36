//! A YAML document as a tree in which every key and value knows its position.

/// The file, by its number in [`crate::report::Report`], line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct At {
    pub file: u16,
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub value: Value,
    pub at: At,
    pub tag: Tag,
}

/// What a node asks of the merge (Compose Specification, "Merge").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Tag {
    #[default]
    None,
    /// `!reset`: take this path out of the model.
    Reset,
    /// `!override`: replace this path instead of merging.
    Override,
}

/// What the YAML 1.2 core schema knows. Entries keep the file's order; keys are unique.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    pub key: String,
    pub at: At,
    pub value: Node,
}

impl Node {
    pub fn new(value: Value, at: At) -> Self {
        Node {
            value,
            at,
            tag: Tag::None,
        }
    }

    pub fn text(text: impl Into<String>, at: At) -> Self {
        Node::new(Value::Text(text.into()), at)
    }

    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The items of a list; empty for anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping; empty for anything else.
    pub fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    pub fn entries_mut(&mut self) -> &mut [Entry] {
        match &mut self.value {
            Value::Map(entries) => entries,
            _ => &mut [],
        }
    }

    /// One value of a mapping. Linear: for the few keys that Compose defines.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let entry = self.entries().iter().find(|entry| entry.key == key)?;
        Some(&entry.value)
    }

    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        let entry = self.entries_mut().iter_mut().find(|entry| entry.key == key)?;
        Some(&mut entry.value)
    }

    /// Sets a key of a mapping, at its old place or at the end. Nothing happens to what is no mapping.
    pub fn set(&mut self, key: &str, value: Node) {
        let Value::Map(entries) = &mut self.value else {
            return;
        };
        match entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => entry.value = value,
            None => entries.push(Entry {
                key: key.to_owned(),
                at: value.at,
                value,
            }),
        }
    }

    /// Takes a key out of a mapping.
    pub fn remove(&mut self, key: &str) -> Option<Node> {
        let Value::Map(entries) = &mut self.value else {
            return None;
        };
        let index = entries.iter().position(|entry| entry.key == key)?;
        Some(entries.remove(index).value)
    }
}

impl Value {
    /// What the value is, for messages: "a list", "a number".
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::Float(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// A scalar as Compose prints it in an environment: numbers are re-printed (`1.0` is `1`, `010`
    /// is `8`). `None` for null, lists and mappings.
    pub fn scalar(&self) -> Option<String> {
        match self {
            Value::Bool(value) => Some(value.to_string()),
            Value::Int(value) => Some(value.to_string()),
            Value::Float(value) => Some(print_float(*value)),
            Value::Text(text) => Some(text.clone()),
            Value::Null | Value::List(_) | Value::Map(_) => None,
        }
    }
}

/// As Go's `%v`, which is what Compose prints: shortest digits, an exponent below 1e-4 and from 1e21.
fn print_float(value: f64) -> String {
    let size = value.abs();
    if value != 0.0 && (!(1e-4..1e21).contains(&size)) && value.is_finite() {
        let text = format!("{value:e}");
        let Some((digits, exponent)) = text.split_once('e') else {
            return text;
        };
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    format!("{value}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_printed_as_compose_prints_them() {
        for (value, want) in [
            (Value::Float(1.0), "1"),
            (Value::Float(3.1), "3.1"),
            (Value::Float(1e3), "1000"),
            (Value::Float(1e21), "1e+21"),
            (Value::Float(2.5e-7), "2.5e-07"),
            (Value::Float(0.5), "0.5"),
            (Value::Float(0.0), "0"),
            (Value::Int(8), "8"),
            (Value::Bool(true), "true"),
        ] {
            assert_eq!(value.scalar().as_deref(), Some(want));
        }
    }
}
