//! A YAML document as a tree in which every key and value knows its position.

/// Line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct At {
    pub line: u32,
    pub column: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub value: Value,
    pub at: At,
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
