//! What a scalar is: the YAML 1.2 core schema (section 10.3) with the extras that Compose files rely on.

use std::borrow::Cow;

use super::explain::shorten;
use crate::tree::Value;

/// How a scalar is to be read, by its style and tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schema {
    /// Not quoted: what it looks like.
    Plain,
    /// Quoted, `!!str`, or with a tag that YAML does not know.
    Text,
    Null,
    Bool,
    Int,
    Float,
    /// `!!binary`: text in base64.
    Binary,
    /// The key `<<`.
    Merge,
}

/// The value of a scalar, or why it is not what its tag says.
pub(super) fn resolve(text: &str, schema: Schema) -> Result<Value, String> {
    let (name, value) = match schema {
        Schema::Plain => return Ok(plain(text)),
        Schema::Text | Schema::Merge => return Ok(Value::Text(text.to_owned())),
        Schema::Binary => return base64(text).map(Value::Text),
        Schema::Null => ("null", plain(text)),
        Schema::Bool => ("bool", plain(text)),
        Schema::Int => ("int", plain(text)),
        Schema::Float => ("float", plain(text)),
    };
    match (schema, value) {
        (Schema::Null, Value::Null) => Ok(Value::Null),
        (Schema::Bool, value @ Value::Bool(_)) => Ok(value),
        (Schema::Int, value @ Value::Int(_)) => Ok(value),
        (Schema::Float, value @ Value::Float(_)) => Ok(value),
        #[expect(clippy::cast_precision_loss, reason = "it is what the tag asks for")]
        (Schema::Float, Value::Int(value)) => Ok(Value::Float(value as f64)),
        _ => Err(format!("`{}` is not a `!!{name}`", shorten(text))),
    }
}

fn plain(text: &str) -> Value {
    special(text).unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// A plain scalar without a tag that is not text. Dates are text, and so are `yes`, `on`, and `22:22`.
pub(super) fn special(text: &str) -> Option<Value> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Some(Value::Null),
        "true" | "True" | "TRUE" => Some(Value::Bool(true)),
        "false" | "False" | "FALSE" => Some(Value::Bool(false)),
        ".nan" | ".NaN" | ".NAN" => Some(Value::Float(f64::NAN)),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => Some(Value::Float(f64::INFINITY)),
        "-.inf" | "-.Inf" | "-.INF" => Some(Value::Float(f64::NEG_INFINITY)),
        "-0" => Some(Value::Float(-0.0)),
        _ => number(text),
    }
}

fn number(text: &str) -> Option<Value> {
    let first = text.bytes().next()?;
    if !matches!(first, b'0'..=b'9' | b'+' | b'-' | b'.') {
        return None;
    }
    let digits = match first != b'.' && text.contains('_') {
        true => Cow::Owned(text.replace('_', "")),
        false => Cow::Borrowed(text),
    };
    integer(&digits)
        .map(Value::Int)
        .or_else(|| float(&digits).map(Value::Float))
}

/// Decimal, `0x`, `0o` and `0b`, and a leading zero for octal; of at most 64 bits.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match digits.as_bytes() {
        [b'0', b'x' | b'X', ..] => (16, digits.get(2..)?),
        [b'0', b'o' | b'O', ..] => (8, digits.get(2..)?),
        [b'0', b'b' | b'B', ..] => (2, digits.get(2..)?),
        [b'0', _, ..] => (8, digits.get(1..)?),
        _ => (10, digits),
    };
    // A second sign is what `from_str_radix` would take.
    if !digits.bytes().next()?.is_ascii_alphanumeric() {
        return None;
    }
    let value = sign * i128::from(u64::from_str_radix(digits, radix).ok()?);
    (value >= i64::MIN.into()).then_some(value)
}

/// `[-+]? ( "." [0-9]+ | [0-9]+ ( "." [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`, where it fits 64 bits.
fn float(text: &str) -> Option<f64> {
    let digit = |byte: &u8| byte.is_ascii_digit();
    let rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (rest, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    let well_formed = whole.as_bytes().iter().all(digit)
        && fraction.as_bytes().iter().all(digit)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && exponent.as_bytes().iter().all(digit));
    let value: f64 = well_formed.then(|| text.parse().ok())??;
    // What is too large for a number is text, not infinity.
    value.is_finite().then_some(value)
}

/// Base64 (RFC 4648, section 4) with padding, in lines; what it holds must be text.
fn base64(text: &str) -> Result<String, String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [None; 256];
    for (value, letter) in (0_u32..).zip(ALPHABET) {
        if let Some(place) = values.get_mut(usize::from(*letter)) {
            *place = Some(value);
        }
    }
    let broken = || "`!!binary` stands before what is not base64".to_owned();
    let text: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return Err(broken());
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.chunks(4) {
        let mut group = 0;
        for letter in four {
            // Padding counts as zero here, and is an error anywhere but at the end.
            let value = values.get(usize::from(*letter)).copied().flatten();
            group = group << 6 | value.or((*letter == b'=').then_some(0)).ok_or_else(broken)?;
        }
        bytes.extend(group.to_be_bytes().into_iter().skip(1));
    }
    let letters = text.iter().filter(|byte| **byte != b'=').count();
    if letters + padding != text.len() {
        return Err(broken());
    }
    bytes.truncate(bytes.len() - padding);
    String::from_utf8(bytes).map_err(|_| "`!!binary` holds bytes that are not text".to_owned())
}
