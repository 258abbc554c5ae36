//! A Compose duration: `1h5m30s20ms`, `1.5s`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::syntax::cut;

/// Nanoseconds; serialised as Compose prints it (`1m30s`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(pub u64);

impl Duration {
    pub fn as_millis(self) -> u64 {
        self.0 / 1_000_000
    }
}

/// Why a text is no duration; the value is inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseDurationError {
    #[error("`{0}` is not a duration")]
    Malformed(String),
    #[error("`{0}` has no unit")]
    NoUnit(String),
    #[error("`{0}` is negative")]
    Negative(String),
    #[error("`{0}` is too long a time")]
    TooLong(String),
}

impl ParseDurationError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ParseDurationError::NoUnit(text) => format!("write `{text}s` for seconds"),
            ParseDurationError::Negative(_) => "write a duration from `0s`".to_owned(),
            ParseDurationError::Malformed(_) | ParseDurationError::TooLong(_) => {
                "write numbers with units, like `1m30s` or `500ms`".to_owned()
            }
        }
    }
}

const UNITS: [(&str, i64); 10] = [
    ("ns", 1),
    ("us", 1_000),
    // The micro sign, and the Greek letter.
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

impl Duration {
    /// Reads a duration as the reference loader does, to nanoseconds: one or more of number and unit
    /// (`ns us µs ms s m h d w`), decimals and a sign allowed; `0` alone is allowed. What runs has no use
    /// for a negative one, and `parse` refuses it.
    ///
    /// # Errors
    /// No duration, a missing unit, more than 292 years.
    pub fn nanoseconds(text: &str) -> Result<i64, ParseDurationError> {
        let malformed = || ParseDurationError::Malformed(cut(text));
        let too_long = || ParseDurationError::TooLong(cut(text));
        let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
        if rest == "0" {
            return Ok(0);
        }
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut total = 0i64;
        while !rest.is_empty() {
            let (whole, after) = split_where(rest, |c| !c.is_ascii_digit());
            let (fraction, after) = match after.strip_prefix('.') {
                Some(after) => split_where(after, |c| !c.is_ascii_digit()),
                None => ("", after),
            };
            if whole.is_empty() && fraction.is_empty() {
                return Err(malformed());
            }
            let (unit, after) = split_where(after, |c| c.is_ascii_digit() || c == '.');
            if unit.is_empty() {
                return Err(match after.is_empty() {
                    true => ParseDurationError::NoUnit(cut(text)),
                    // A second point.
                    false => malformed(),
                });
            }
            let (_, factor) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(malformed)?;
            let whole = match whole {
                "" => 0,
                whole => whole.parse::<i64>().map_err(|_| too_long())?,
            };
            total = whole
                .checked_mul(*factor)
                .and_then(|part| part.checked_add(share(fraction, *factor)))
                .and_then(|part| part.checked_add(total))
                .ok_or_else(too_long)?;
            rest = after;
        }
        Ok(if text.starts_with('-') { -total } else { total })
    }

    /// Nanoseconds as Go prints a `time.Duration`, which is what `docker compose config` prints.
    pub fn print(nanoseconds: i64) -> String {
        let sign = if nanoseconds < 0 { "-" } else { "" };
        format!("{sign}{}", Duration(nanoseconds.unsigned_abs()))
    }
}

/// The text before the first such character, and from it.
fn split_where(text: &str, end: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(end).unwrap_or(text.len()))
}

/// The decimals of a unit, less than one. In floating point, for the reference loader rounds so; digits
/// beyond an `i64` are dropped.
fn share(decimals: &str, unit: i64) -> i64 {
    let (mut digits, mut scale) = (0i64, 1f64);
    for digit in decimals.bytes().map(|c| i64::from(c - b'0')) {
        let Some(more) = digits
            .checked_mul(10)
            .and_then(|digits| digits.checked_add(digit))
        else {
            break;
        };
        digits = more;
        scale *= 10.0;
    }
    (digits as f64 * (unit as f64 / scale)) as i64
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nanoseconds = Duration::nanoseconds(text)?;
        let negative = |_| ParseDurationError::Negative(cut(text));
        u64::try_from(nanoseconds).map(Duration).map_err(negative)
    }
}

/// As Go prints a `time.Duration`, which is what `docker compose config` prints.
impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = self.0;
        let (unit, factor) = match ns {
            0 => return f.write_str("0s"),
            1..1_000 => ("ns", 1),
            1_000..1_000_000 => ("µs", 1_000),
            1_000_000..1_000_000_000 => ("ms", 1_000_000),
            _ => ("s", 1_000_000_000),
        };
        let (hours, minutes, rest) = if factor == 1_000_000_000 {
            (
                ns / 3_600_000_000_000,
                ns / 60_000_000_000 % 60,
                ns % 60_000_000_000,
            )
        } else {
            (0, 0, ns)
        };
        if hours > 0 {
            write!(f, "{hours}h")?;
        }
        if hours > 0 || minutes > 0 {
            write!(f, "{minutes}m")?;
        }
        write!(f, "{}", rest / factor)?;
        if rest % factor != 0 {
            let width = factor.ilog10() as usize;
            let fraction = format!("{:0width$}", rest % factor);
            write!(f, ".{}", fraction.trim_end_matches('0'))?;
        }
        f.write_str(unit)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn durations_are_read_as_compose_reads_them() {
        for (text, want) in [
            ("10s", 10 * S),
            ("1m30s", 90 * S),
            ("1h5m30s20ms", 3930 * S + 20_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("1.m", 60 * S),
            ("1d", 86_400 * S),
            ("1w2d", 9 * 86_400 * S),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("100\u{3bc}s", 100_000),
            ("0.5ns", 0),
            ("+5s", 5 * S),
            ("0.1h", 360 * S),
            ("1h1h", 7200 * S),
            ("1.25d0.5s", 108_000 * S + 500_000_000),
            ("0.3333333333333333333h", 1_200 * S),
            ("0.123456789012h", 444_444_440_443),
            ("0", 0),
            ("0s", 0),
        ] {
            assert_eq!(text.parse(), Ok(Duration(want)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_reason() {
        use ParseDurationError::*;
        for (text, want) in [
            ("", Malformed as fn(String) -> ParseDurationError),
            ("s", Malformed),
            ("1x", Malformed),
            ("1 s", Malformed),
            ("1..5s", Malformed),
            ("1.5.5s", Malformed),
            (".s", Malformed),
            ("-", Malformed),
            ("--1s", Malformed),
            (" 1s", Malformed),
            ("1S", Malformed),
            ("1s ", Malformed),
            ("10", NoUnit),
            ("1m30", NoUnit),
            ("-1s", Negative),
            ("-1ns", Negative),
            ("99999999999h", TooLong),
            ("9223372036s9999999999ns", TooLong),
            ("99999999999999999999s", TooLong),
        ] {
            let error = want(text.to_owned());
            assert!(!error.hint().is_empty());
            assert_eq!(text.parse::<Duration>(), Err(error), "{text}");
        }
    }

    #[test]
    fn negative_durations_are_read_and_printed_as_compose_does() {
        for (text, ns, printed) in [
            ("-1s", -1_000_000_000, "-1s"),
            ("-1m30s", -90_000_000_000, "-1m30s"),
            ("-0", 0, "0s"),
            ("-0s", 0, "0s"),
            ("-1.5ms", -1_500_000, "-1.5ms"),
            ("1w", 604_800_000_000_000, "168h0m0s"),
        ] {
            assert_eq!(Duration::nanoseconds(text), Ok(ns), "{text}");
            assert_eq!(Duration::print(ns), printed);
        }
        assert_eq!(Duration::print(i64::MIN), "-2562047h47m16.854775808s");
    }

    #[test]
    fn durations_are_printed_as_compose_prints_them() {
        for (ns, want) in [
            (0, "0s"),
            (20, "20ns"),
            (1_500, "1.5µs"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (10 * S, "10s"),
            (60 * S, "1m0s"),
            (90 * S, "1m30s"),
            (3600 * S, "1h0m0s"),
            (90 * S + 1, "1m30.000000001s"),
        ] {
            assert_eq!(Duration(ns).to_string(), want);
        }
    }

    proptest! {
        #[test]
        fn a_printed_duration_reads_back(ns in 0..=i64::MAX as u64) {
            prop_assert_eq!(Duration(ns).to_string().parse(), Ok(Duration(ns)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            let _ = text.parse::<Duration>();
        }
    }
}
