//! Entries of mappings that are written as lists: `NAME=VALUE`.

use super::cut;

/// The name ends in white space.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name `{0}` ends in a space")]
pub(crate) struct ParseMappingError(String);

impl ParseMappingError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        format!("write `{}=`, without a space before the `=`", self.0.trim_end())
    }
}

/// The name, and the value after the first `=` if there is one.
///
/// # Errors
/// A name that ends in white space, which in an environment is one; labels may have such names.
pub(crate) fn parse(text: &str) -> Result<(&str, Option<&str>), ParseMappingError> {
    let (name, value) = split(text);
    if name.ends_with(char::is_whitespace) {
        return Err(ParseMappingError(cut(name)));
    }
    Ok((name, value))
}

/// As [`parse`], for names that may be anything.
pub(crate) fn split(text: &str) -> (&str, Option<&str>) {
    match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_equals_sign_separates() {
        for (text, want) in [
            ("A=1", ("A", Some("1"))),
            ("A=", ("A", Some(""))),
            ("A", ("A", None)),
            ("A=b=c", ("A", Some("b=c"))),
            ("A= 1 ", ("A", Some(" 1 "))),
            (" A=1", (" A", Some("1"))),
            ("=1", ("", Some("1"))),
            ("", ("", None)),
        ] {
            assert_eq!(parse(text), Ok(want), "{text:?}");
            assert_eq!(split(text), want);
        }
    }

    #[test]
    fn a_name_of_an_environment_does_not_end_in_a_space() {
        for text in ["A =1", "A\t", "A \n=1"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        let error = parse("A =secret").unwrap_err();
        assert_eq!(error.to_string(), "the name `A ` ends in a space");
        assert_eq!(error.hint(), "write `A=`, without a space before the `=`");
        assert_eq!(split("A =1"), ("A ", Some("1")));
    }
}
