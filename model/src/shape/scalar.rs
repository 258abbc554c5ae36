//! Scalars as the reference loader reads them into its fields and prints them.

use super::{
    Field, Zero, advice,
    path::{Path, cut},
};
use crate::{
    report::Report,
    syntax::{cpus, size},
    tree::{Node, Value},
    types::Duration,
};

/// Longer values are cut in messages.
const MAX_SHOWN: usize = 40;

/// A value that cannot be read: what it is not, and what to write.
#[derive(Debug, PartialEq)]
pub(super) struct Wrong {
    pub is_not: &'static str,
    pub hint: String,
}

impl Wrong {
    /// With the advice of the field, if it has some of its own.
    pub fn of(self, field: &Field) -> Wrong {
        match field.hint {
            "" => self,
            hint => Wrong {
                hint: hint.to_owned(),
                ..self
            },
        }
    }
}

fn wrong<T>(is_not: &'static str, hint: impl Into<String>) -> Result<T, Wrong> {
    let hint = hint.into();
    Err(Wrong { is_not, hint })
}

/// Tells that a scalar is not what it should be. Nothing else is told of this place: one repair is enough.
pub(super) fn tell(node: &Node, path: &Path, wrong: &Wrong, report: &mut Report) {
    let Wrong { is_not, hint } = wrong;
    let (message, hint) = match node.value.scalar() {
        Some(text) if text.is_empty() => (
            format!("`{path}`: an empty text is not {is_not}"),
            advice::with_default(hint),
        ),
        Some(text) => (
            format!("`{path}`: `{}` is not {is_not}", cut(&text, MAX_SHOWN)),
            hint.clone(),
        ),
        None => (
            format!("`{path}`: {} is not {is_not}", node.value.kind()),
            hint.clone(),
        ),
    };
    report.last_error(node.at, message, hint);
}

/// A boolean, also as text in the words of YAML 1.1, for which there is a warning.
pub(super) fn boolean(node: &Node, path: &Path, report: &mut Report) -> Result<bool, Wrong> {
    let text = match &node.value {
        Value::Bool(value) => return Ok(*value),
        Value::Text(text) => text,
        _ => return wrong("a boolean", "write `true` or `false`"),
    };
    let value = match text.to_lowercase().as_str() {
        "true" => return Ok(true),
        "false" => return Ok(false),
        "y" | "yes" | "on" => true,
        "n" | "no" | "off" => false,
        _ => return wrong("a boolean", "write `true` or `false`"),
    };
    report.warning(
        node.at,
        format!("`{path}`: `{text}` is a boolean in YAML 1.1 only"),
        format!("write `{value}`"),
    );
    Ok(value)
}

/// 64 bits with a sign; decimal places are dropped.
pub(super) fn int(node: &Node) -> Result<i64, Wrong> {
    let parsed = match &node.value {
        Value::Int(int) => i64::try_from(*int).ok(),
        Value::Float(float) if in_range(*float) => Some(float.trunc() as i64),
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    match parsed {
        Some(int) => Ok(int),
        None => wrong("a whole number", "write digits only, for example `10`"),
    }
}

/// A number without a sign. Text is none: the reference does not cast it here.
pub(super) fn uint(node: &Node, bits: u32) -> Result<i128, Wrong> {
    let parsed = match &node.value {
        Value::Int(int) => Some(*int),
        Value::Float(float) if in_range(*float) => Some(i128::from(float.trunc() as i64)),
        Value::Text(_) => return wrong("a number", "write digits without quotes"),
        _ => None,
    };
    match parsed.filter(|int| (0..1i128 << bits).contains(int)) {
        Some(int) => Ok(int),
        None => wrong(
            "a number that is allowed here",
            match bits {
                64 => "write a whole number from 0".to_owned(),
                bits => format!("write a whole number from 0 to {}", (1i128 << bits) - 1),
            },
        ),
    }
}

fn in_range(float: f64) -> bool {
    float.is_finite() && float.abs() < 9.2e18
}

/// A decimal number of single precision.
pub(super) fn float(node: &Node) -> Result<Value, Wrong> {
    let parsed = match &node.value {
        Value::Int(int) => Some(*int as f32),
        Value::Float(float) => Some(*float as f32),
        Value::Text(text) => cpus::parse(text).ok(),
        _ => None,
    };
    match parsed.filter(|float| float.is_finite()) {
        Some(float) => Ok(number(&float.to_string())),
        None => wrong("a number", "write a number like `0.5`"),
    }
}

/// A number as JSON knows it: without a decimal point where there is nothing behind it.
pub(super) fn number(text: &str) -> Value {
    match (text.parse::<i128>(), text.parse::<f64>()) {
        (Ok(int), _) => Value::Int(int),
        (_, Ok(float)) => Value::Float(float),
        _ => Value::Text(text.to_owned()),
    }
}

/// Bytes. A decimal number means nothing to the reference, which is told.
pub(super) fn bytes(node: &Node, path: &Path, report: &mut Report) -> Result<i64, Wrong> {
    const HINT: &str = "write bytes, or a number with a unit, like `64m`";
    match &node.value {
        Value::Int(int) => i64::try_from(*int).or_else(|_| wrong("a size", HINT)),
        Value::Text(text) => size::parse(text).or_else(|error| wrong("a size", error.hint())),
        Value::Float(_) => {
            report.warning(
                node.at,
                format!("`{path}`: a number with a decimal point or an exponent counts as 0 here"),
                "write a whole number, or text with a unit, for example `1.5g`",
            );
            Ok(0)
        }
        _ => wrong("a size", HINT),
    }
}

/// A duration as it is printed.
pub(super) fn duration(node: &Node) -> Result<String, Wrong> {
    let Some(text) = node.value.scalar() else {
        return wrong("a duration", "write numbers with units, like `1m30s` or `500ms`");
    };
    match Duration::nanoseconds(&text) {
        Ok(nanoseconds) => Ok(Duration::print(nanoseconds)),
        Err(error) => wrong("a duration", error.hint()),
    }
}

/// The permissions of a file: text is octal, a number is what it is (`0440` and `0o440` are octal in YAML).
pub(super) fn mode(node: &Node) -> Result<String, Wrong> {
    let parsed = match &node.value {
        Value::Int(int) => i64::try_from(*int).ok(),
        Value::Text(text) => i64::from_str_radix(text, 8).ok(),
        _ => None,
    };
    match parsed {
        Some(mode) if mode < 0 => Ok(format!("0-{:o}", mode.unsigned_abs())),
        Some(mode) => Ok(format!("0{mode:o}")),
        None => wrong("a file mode", "write octal digits, for example `0440`"),
    }
}

/// A number of devices; `all` is -1.
pub(super) fn count(node: &Node) -> Result<i64, Wrong> {
    match (&node.value, int(node)) {
        (Value::Text(text), _) if text.eq_ignore_ascii_case("all") => Ok(-1),
        (Value::Int(_) | Value::Text(_), Ok(count)) => Ok(count),
        _ => wrong("a number of devices", "write a whole number or `all`"),
    }
}

/// Text; a whole number is re-printed.
pub(super) fn text(node: &Node) -> Result<String, Wrong> {
    match &node.value {
        Value::Null => Ok(String::new()),
        Value::Text(text) => Ok(text.clone()),
        Value::Int(int) => Ok(int.to_string()),
        _ => wrong("text", "put it in quotes"),
    }
}

/// Any scalar as text; null is the empty text.
pub(super) fn printed(node: &Node) -> Result<String, Wrong> {
    match (&node.value, node.value.scalar()) {
        (_, Some(text)) => Ok(text),
        (Value::Null, None) => Ok(String::new()),
        _ => wrong("text", "write one text here"),
    }
}

/// Whether a value is the zero of its kind, which a field may leave out.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Bool(value) => !value,
        Value::Int(int) => *int == 0,
        Value::Float(float) => *float == 0.0,
        Value::Text(text) => text.is_empty(),
        _ => false,
    }
}

/// The value, unless it means "not set".
pub(super) fn keep(value: Value, zero: Zero) -> Option<Value> {
    (zero != Zero::Omit || !is_zero(&value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::At;

    fn node(value: Value) -> Node {
        Node::new(value, At::default())
    }

    fn words(text: &str) -> Node {
        node(Value::Text(text.to_owned()))
    }

    #[test]
    fn durations_are_printed_with_their_units_and_sign() {
        for (text, want) in [
            ("90s", Some("1m30s")),
            ("1d", Some("24h0m0s")),
            ("0", Some("0s")),
            ("-0s", Some("0s")),
            ("-1s", Some("-1s")),
            ("+1s", Some("1s")),
            ("-+1s", None),
            ("--1s", None),
            ("30", None),
            ("", None),
        ] {
            assert_eq!(duration(&words(text)).ok().as_deref(), want, "{text}");
        }
        assert!(duration(&words("30")).unwrap_err().hint.contains("`30s`"));
    }

    #[test]
    fn modes_are_octal_text() {
        for (value, want) in [
            (Value::Int(0o440), Some("0440")),
            (Value::Int(440), Some("0670")),
            (Value::Text("0440".into()), Some("0440")),
            (Value::Text("0o440".into()), None),
            (Value::Float(1.5), None),
        ] {
            assert_eq!(mode(&node(value.clone())).ok().as_deref(), want, "{value:?}");
        }
    }

    #[test]
    fn sizes_are_bytes_and_a_fraction_of_one_is_told() {
        let mut report = Report::default();
        for (value, want) in [
            (Value::Int(64), Some(64)),
            (Value::Text("64m".into()), Some(64 << 20)),
            (Value::Text("-1".into()), Some(-1)),
            (Value::Text("9e99".into()), None),
            (Value::Text(String::new()), None),
            (Value::Int(1 << 64), None),
        ] {
            let got = bytes(&node(value.clone()), &Path::Top, &mut report).ok();
            assert_eq!(got, want, "{value:?}");
        }
        assert_eq!(bytes(&node(Value::Float(1e9)), &Path::Top, &mut report), Ok(0));
        assert_eq!(report.finish().0.len(), 1);
    }

    #[test]
    fn numbers_have_the_range_of_their_fields() {
        assert_eq!(int(&node(Value::Float(2.9))), Ok(2));
        assert_eq!(int(&words("+7")), Ok(7));
        assert!(int(&node(Value::Int(1 << 63))).is_err());
        assert!(int(&words("1.5")).is_err());
        assert_eq!(uint(&node(Value::Int(65_535)), 16), Ok(65_535));
        assert!(uint(&node(Value::Int(65_536)), 16).is_err());
        assert!(uint(&node(Value::Int(-1)), 64).is_err());
        assert!(uint(&words("1"), 64).is_err());
        assert_eq!(count(&words("ALL")), Ok(-1));
    }

    #[test]
    fn decimal_numbers_have_single_precision_and_no_empty_places() {
        for (value, want) in [
            (Value::Text("0.50".into()), Value::Float(0.5)),
            (Value::Float(0.1), Value::Float(0.1)),
            (Value::Float(2.0), Value::Int(2)),
            (Value::Int(3), Value::Int(3)),
            (Value::Float(0.123_456_789), Value::Float(0.123_456_79)),
        ] {
            assert_eq!(float(&node(value.clone())), Ok(want), "{value:?}");
        }
        assert!(float(&words("inf")).is_err());
        assert!(float(&words("")).is_err());
    }
}
