//! Entries of `extra_hosts`: `NAME=ADDRESS[,ADDRESS…]`, or with a colon.

use super::cut;

/// Why a text is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseHostError {
    #[error("the host `{0}` has no address")]
    NoAddress(String),
    #[error("`{0}` is not a host name")]
    Name(String),
}

impl ParseHostError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ParseHostError::NoAddress(_) => "write `NAME=ADDRESS`, for example `db=10.0.0.2`",
            ParseHostError::Name(_) => "a host name is not empty and has neither `=` nor `:`",
        }
    }
}

/// The name and its addresses, of one entry of a list. The first `=` separates, and if there is none the
/// first `:`.
pub(crate) fn parse(text: &str) -> Result<(&str, Vec<&str>), ParseHostError> {
    let (name, addresses) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .ok_or_else(|| ParseHostError::NoAddress(cut(text)))?;
    Ok((self::name(name)?, addresses.split(',').map(address).collect()))
}

/// Checks a name, which is also the key of a mapping.
pub(crate) fn name(text: &str) -> Result<&str, ParseHostError> {
    if text.is_empty() || text.contains(['=', ':']) {
        return Err(ParseHostError::Name(cut(text)));
    }
    Ok(text)
}

/// An address without the brackets of IPv6; it may also be `host-gateway`.
pub(crate) fn address(text: &str) -> &str {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(bare) if !bare.is_empty() => bare,
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_a_name_and_addresses() {
        for (text, name, addresses) in [
            ("a=10.0.0.1", "a", &["10.0.0.1"][..]),
            ("a:10.0.0.1", "a", &["10.0.0.1"]),
            ("a=::1", "a", &["::1"]),
            ("a:::1", "a", &["::1"]),
            ("a=[::1]", "a", &["::1"]),
            ("a:[::1]", "a", &["::1"]),
            ("a=10.0.0.1,[::1],x", "a", &["10.0.0.1", "::1", "x"]),
            ("a=host-gateway", "a", &["host-gateway"]),
            ("a=b=c", "a", &["b=c"]),
            ("a=", "a", &[""]),
            ("a=[]", "a", &["[]"]),
        ] {
            assert_eq!(parse(text), Ok((name, addresses.to_vec())), "{text}");
        }
    }

    #[test]
    fn what_is_no_host_is_refused_with_its_reason() {
        for (text, want) in [
            ("a", "the host `a` has no address"),
            ("", "the host `` has no address"),
            ("=10.0.0.1", "`` is not a host name"),
            ("a:b=10.0.0.1", "`a:b` is not a host name"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.to_string(), want);
            assert!(!error.hint().is_empty());
        }
    }
}
