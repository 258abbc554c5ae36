//! Numbers of processors: `0.5`, `2`.

use super::cut;

/// The text is no number of processors.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a number of processors")]
pub(crate) struct ParseCpusError(String);

/// Processors, in the precision in which the reference loader keeps and prints them.
pub(crate) fn parse(text: &str) -> Result<f32, ParseCpusError> {
    super::float(text)
        .map(|value| value as f32)
        .filter(|value| value.is_finite())
        .ok_or_else(|| ParseCpusError(cut(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processors_are_decimal_numbers() {
        for (text, want) in [
            ("0", "0"),
            ("2", "2"),
            ("0.5", "0.5"),
            (".1", "0.1"),
            ("1e-1", "0.1"),
            ("0.123456789", "0.12345679"),
            ("-1", "-1"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), want, "{text}");
        }
        for text in ["", "half", "1 ", "inf", "nan", "1e99", "0.5 cpus"] {
            let error = parse(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("`{text}` is not a number of processors")
            );
        }
    }
}
