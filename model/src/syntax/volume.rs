//! The short form of a service volume: `[SOURCE:]TARGET[:OPTION,…]`.

/// The parts of a short form; paths are as written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Short<'a> {
    pub source: Source<'a>,
    pub target: &'a str,
    pub read_only: bool,
    pub nocopy: bool,
    /// Options that stead does not honour, but Compose does.
    pub unsupported: Vec<&'a str>,
    /// Options without an effect here.
    pub ignored: Vec<&'a str>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    Anonymous,
    Named(&'a str),
    /// Starts with `.`, `/` or `~`.
    Path(&'a str),
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseVolumeError {
    #[error("`{0}` has an empty part between its colons")]
    EmptyPart(String),
    #[error("`{0}` has too many parts")]
    TooManyParts(String),
    #[error("`{0}` is taken for a Windows drive by Compose")]
    Drive(String),
}

pub(crate) fn parse(text: &str) -> Result<Short<'_>, ParseVolumeError> {
    let parts: Vec<&str> = text.split(':').collect();
    if parts.iter().any(|part| part.trim().is_empty()) {
        return Err(ParseVolumeError::EmptyPart(text.to_owned()));
    }
    let (source, target, options) = match parts[..] {
        [target] => (Source::Anonymous, target, ""),
        [source, target] => (source_of(source, text)?, target, ""),
        [source, target, options] => (source_of(source, text)?, target, options),
        _ => return Err(ParseVolumeError::TooManyParts(text.to_owned())),
    };
    let mut short = Short {
        source,
        target,
        read_only: false,
        nocopy: false,
        unsupported: Vec::new(),
        ignored: Vec::new(),
    };
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => short.read_only = true,
            "rw" => short.read_only = false,
            "nocopy" => short.nocopy = true,
            // What every mount here is.
            "private" | "rprivate" => {}
            "shared" | "rshared" | "slave" | "rslave" => short.unsupported.push(option),
            other => short.ignored.push(other),
        }
    }
    Ok(short)
}

fn source_of<'a>(source: &'a str, text: &str) -> Result<Source<'a>, ParseVolumeError> {
    match source.as_bytes() {
        [b'.' | b'/' | b'~', ..] => Ok(Source::Path(source)),
        [drive] if drive.is_ascii_alphabetic() => Err(ParseVolumeError::Drive(text.to_owned())),
        _ => Ok(Source::Named(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_is_read_as_compose_reads_it() {
        for (text, source, target, flags) in [
            ("/data", Source::Anonymous, "/data", ""),
            ("data:/data", Source::Named("data"), "/data", ""),
            ("data:/data:ro", Source::Named("data"), "/data", "ro"),
            ("data:/data:rw,nocopy", Source::Named("data"), "/data", "nocopy"),
            ("./d:/data", Source::Path("./d"), "/data", ""),
            ("../d:/data", Source::Path("../d"), "/data", ""),
            ("/d:/data:ro,rprivate", Source::Path("/d"), "/data", "ro"),
            ("~/d:/data", Source::Path("~/d"), "/data", ""),
            ("/d:/data:z,cached", Source::Path("/d"), "/data", "-z -cached"),
            ("/d:/data:rshared", Source::Path("/d"), "/data", "!rshared"),
        ] {
            let short = parse(text).unwrap();
            let mut got = Vec::new();
            got.extend(short.read_only.then(|| "ro".to_owned()));
            got.extend(short.nocopy.then(|| "nocopy".to_owned()));
            got.extend(short.ignored.iter().map(|option| format!("-{option}")));
            got.extend(short.unsupported.iter().map(|option| format!("!{option}")));
            assert_eq!(
                (short.source, short.target, got.join(" ").as_str()),
                (source, target, flags),
                "{text}"
            );
        }
    }

    #[test]
    fn a_wrong_volume_is_refused_with_its_reason() {
        for (text, want) in [
            ("", "empty part"),
            (":/data", "empty part"),
            ("data:", "empty part"),
            ("a::b", "empty part"),
            ("v:/v", "Windows drive"),
            ("data:/data:ro:x", "too many parts"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
