//! Sizes: `64m`, `1.5GiB`, `1024`.

/// The text is no size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size")]
pub(crate) struct ParseSizeError(String);

/// Bytes. Units `b k m g t p` with `b` or `ib` after them, any case, always 1024-based.
pub(crate) fn parse(text: &str) -> Result<u64, ParseSizeError> {
    let wrong = || ParseSizeError(text.to_owned());
    let lower = text.trim().to_ascii_lowercase();
    let stem = lower
        .strip_suffix("ib")
        .filter(|stem| stem.ends_with(['k', 'm', 'g', 't', 'p']));
    let stem = stem.unwrap_or_else(|| lower.strip_suffix('b').unwrap_or(&lower));
    let (number, shift) = match stem.chars().last() {
        Some('k') => (&stem[..stem.len() - 1], 10),
        Some('m') => (&stem[..stem.len() - 1], 20),
        Some('g') => (&stem[..stem.len() - 1], 30),
        Some('t') => (&stem[..stem.len() - 1], 40),
        Some('p') => (&stem[..stem.len() - 1], 50),
        _ => (stem, 0),
    };
    let number = number.trim_end();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(wrong);
    }
    if !number.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Err(wrong());
    }
    let value = number.parse::<f64>().map_err(|_| wrong())? * (1u64 << shift) as f64;
    // Below 2^63 the conversion is exact enough; above it no such memory exists.
    if value.is_finite() && (0.0..9.2e18).contains(&value) {
        Ok(value as u64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_1024_based() {
        for (text, want) in [
            ("0", 0),
            ("1024", 1024),
            ("10b", 10),
            ("1k", 1024),
            ("1kb", 1024),
            ("1KiB", 1024),
            ("64m", 64 << 20),
            ("64 MB", 64 << 20),
            ("1.5g", 3 << 29),
            ("2t", 2 << 40),
            ("1p", 1 << 50),
            ("1e3", 1000),
        ] {
            assert_eq!(parse(text), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in [
            "",
            "k",
            "5x",
            "-1",
            "1kk",
            "ib",
            "1ib",
            "inf",
            "nan",
            "1 2",
            "99999999p",
            "1e40",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
