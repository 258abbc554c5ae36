//! A Compose duration: `1h5m30s20ms`, `1.5s`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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

/// Longest first, so that `ms` is not read as `m`.
const UNITS: [(&str, u64); 9] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
    ("w", 604_800_000_000_000),
];

/// One or more of number and unit (`ns us µs ms s m h d w`), decimals allowed; `0` alone is allowed.
impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseDurationError::Malformed(text.to_owned());
        let too_long = || ParseDurationError::TooLong(text.to_owned());
        if text.starts_with('-') {
            return Err(ParseDurationError::Negative(text.to_owned()));
        }
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if rest == "0" {
            return Ok(Duration(0));
        }
        if rest.is_empty() {
            return Err(malformed());
        }
        let mut total = 0u64;
        while !rest.is_empty() {
            let digits = rest.len()
                - rest
                    .trim_start_matches(|c: char| c.is_ascii_digit() || c == '.')
                    .len();
            let (number, after) = rest.split_at(digits);
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
                return Err(malformed());
            }
            let letters = after.len()
                - after
                    .trim_start_matches(|c: char| !c.is_ascii_digit() && c != '.')
                    .len();
            let (unit, after) = after.split_at(letters);
            if unit.is_empty() {
                return Err(ParseDurationError::NoUnit(text.to_owned()));
            }
            let (_, factor) = UNITS
                .iter()
                .find(|(name, _)| *name == unit)
                .ok_or_else(malformed)?;
            let whole = if whole.is_empty() {
                0
            } else {
                whole.parse::<u64>().map_err(|_| too_long())?
            };
            let mut part = whole.checked_mul(*factor).ok_or_else(too_long)?;
            let mut scale = *factor;
            for digit in fraction.bytes() {
                // Digits below a nanosecond are dropped, as Go's time.ParseDuration does.
                let step = u128::from(digit - b'0') * u128::from(scale);
                part = part.saturating_add(u64::try_from(step / 10).unwrap_or(u64::MAX));
                scale /= 10;
                if scale == 0 {
                    break;
                }
            }
            total = total.checked_add(part).ok_or_else(too_long)?;
            rest = after;
        }
        if total > i64::MAX as u64 {
            return Err(too_long());
        }
        Ok(Duration(total))
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
            ("0.5ns", 0),
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
            ("10", NoUnit),
            ("1m30", NoUnit),
            ("-1s", Negative),
            ("99999999999h", TooLong),
            ("99999999999999999999s", TooLong),
        ] {
            assert_eq!(text.parse::<Duration>(), Err(want(text.to_owned())), "{text}");
        }
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
