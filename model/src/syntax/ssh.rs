//! Entries of `build.ssh`: `default`, or `ID=PATH`.

use super::{cut, mapping};

/// A key other than `default` has no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the SSH key `{0}` has no path")]
pub(crate) struct ParseSshError(String);

impl ParseSshError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        "write `ID=PATH`, or `default` for the SSH agent"
    }
}

/// The name of the key and its path; `default` needs none.
pub(crate) fn parse(text: &str) -> Result<(&str, Option<&str>), ParseSshError> {
    match mapping::split(text) {
        (id, None) if id != "default" => Err(ParseSshError(cut(id))),
        pair => Ok(pair),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_default_key_needs_no_path() {
        assert_eq!(parse("default"), Ok(("default", None)));
        assert_eq!(parse("default=/a"), Ok(("default", Some("/a"))));
        assert_eq!(parse("id=/a=b"), Ok(("id", Some("/a=b"))));
        let error = parse("id").unwrap_err();
        assert_eq!(error.to_string(), "the SSH key `id` has no path");
        assert!(error.hint().contains("ID=PATH"));
    }
}
