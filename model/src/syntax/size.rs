//! Sizes: `64m`, `1.5GiB`, `1024`.

use super::cut;

/// Why a text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseSizeError {
    #[error("`{0}` is not a size")]
    Malformed(String),
    #[error("the size `{0}` is negative")]
    Negative(String),
    #[error("the size `{0}` is too large")]
    TooLarge(String),
}

impl ParseSizeError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ParseSizeError::Malformed(_) => "write bytes, or a number with a unit, like `64m`",
            ParseSizeError::Negative(_) => "write a size from 0",
            ParseSizeError::TooLarge(_) => "write a size below 8192p",
        }
    }
}

/// Bytes. Units `b k m g t p`, but for `b` with `b` or `ib` after them, any case, one space before them,
/// always 1024-based; fractions and exponents. A whole number alone may be negative: where a limit is
/// meant, `-1` is none.
pub(crate) fn parse(text: &str) -> Result<i64, ParseSizeError> {
    if let Ok(whole) = text.parse::<i64>() {
        return Ok(whole);
    }
    let malformed = || ParseSizeError::Malformed(cut(text));
    let end = text
        .rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))
        .ok_or_else(malformed)?;
    let (number, unit) = text.split_at(end + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let unit = unit.to_ascii_lowercase();
    let stem = match unit.as_str() {
        "" | "b" => "",
        unit => unit
            .strip_suffix("ib")
            .or_else(|| unit.strip_suffix('b'))
            .unwrap_or(unit),
    };
    let shift = match (stem, unit.is_empty() || unit == "b") {
        ("", true) => 0,
        ("k", _) => 10,
        ("m", _) => 20,
        ("g", _) => 30,
        ("t", _) => 40,
        ("p", _) => 50,
        _ => return Err(malformed()),
    };
    let value = super::float(number).ok_or_else(malformed)? * (1u64 << shift) as f64;
    if value < 0.0 {
        return Err(ParseSizeError::Negative(cut(text)));
    }
    // The first number that is no i64.
    if value >= i64::MAX as f64 {
        return Err(ParseSizeError::TooLarge(cut(text)));
    }
    Ok(value as i64)
}

/// As [`parse`] where nothing can be negative.
pub(crate) fn bytes(text: &str) -> Result<u64, ParseSizeError> {
    u64::try_from(parse(text)?).map_err(|_| ParseSizeError::Negative(cut(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_1024_based() {
        for (text, want) in [
            ("0", 0),
            ("1024", 1024),
            ("-1", -1),
            ("+5", 5),
            ("10b", 10),
            ("10 B", 10),
            ("1k", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("64m", 64 << 20),
            ("64 MB", 64 << 20),
            ("1.5g", 3 << 29),
            (".5g", 1 << 29),
            ("2.t", 2 << 40),
            ("1p", 1 << 50),
            ("1e3", 1000),
            ("1e3k", 1_024_000),
            ("0.1", 0),
            ("5 ", 5),
            ("9223372036854775807", i64::MAX),
            // Through a float of 53 bits, as in the reference loader.
            ("9007199254740993b", 9_007_199_254_740_992),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
        assert_eq!(bytes("1k"), Ok(1024));
        assert_eq!(bytes("-1"), Err(ParseSizeError::Negative("-1".to_owned())));
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "", "k", "5x", "-", " ", ".", "1kk", "ib", "1ib", "1i", "1bb", "1ki", "inf", "nan", "inf0",
            "1 2", "1  k", " 1k", "1k ", "1,5g", "1.2.3", "0x10k", "1_000k", "1 kib b", "٣k",
        ] {
            assert_eq!(parse(text), Err(ParseSizeError::Malformed(text.to_owned())));
        }
        for text in ["-1k", "-1.5"] {
            assert_eq!(parse(text), Err(ParseSizeError::Negative(text.to_owned())));
        }
        for text in ["99999999p", "1e40", "9223372036854775808", "8192p"] {
            assert_eq!(parse(text), Err(ParseSizeError::TooLarge(text.to_owned())));
        }
    }
}
