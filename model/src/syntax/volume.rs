//! The short form of a service volume: `[SOURCE:]TARGET[:OPTION,…]`.

use super::cut;

/// What the short form says in words of the long form; what it does not say is absent there, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ShortVolume {
    pub kind: Kind,
    /// As written. `None`: an anonymous volume.
    pub source: Option<String>,
    /// As written; neither absolute nor clean for sure.
    pub target: String,
    pub read_only: bool,
    /// For a bind, and for anything that has an option of binds.
    pub bind: Option<Bind>,
    /// For a volume, and for anything that has an option of volumes.
    pub volume: Option<Volume>,
    /// Options that Compose does not know, and ignores.
    pub ignored: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bind,
    Volume,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bind {
    /// `[r]private`, `[r]shared`, `[r]slave`
    pub propagation: Option<String>,
    /// `z`, `Z`
    pub selinux: Option<String>,
    /// In the short form so for every bind.
    pub create_host_path: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Volume {
    pub nocopy: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParseVolumeError {
    #[error("the volume is empty")]
    Empty,
    #[error("`{0}` has an empty part between its colons")]
    EmptyPart(String),
    #[error("`{0}` has too many parts")]
    TooManyParts(String),
}

impl ParseVolumeError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ParseVolumeError::Empty | ParseVolumeError::EmptyPart(_) => {
                "write `SOURCE:TARGET[:OPTIONS]`; is a variable in it unset?"
            }
            ParseVolumeError::TooManyParts(_) => "write `SOURCE:TARGET[:OPTIONS]`, or the long form",
        }
    }
}

/// Reads a short form as the reference loader does: one or two bytes are always a target; a part of a
/// single letter takes its colon and the next part with it.
///
/// # Errors
/// Nothing at all, empty parts, more than three parts.
pub(crate) fn parse(text: &str) -> Result<ShortVolume, ParseVolumeError> {
    let mut short = ShortVolume {
        kind: Kind::Volume,
        source: None,
        target: String::new(),
        read_only: false,
        bind: None,
        volume: None,
        ignored: Vec::new(),
    };
    if text.is_empty() {
        return Err(ParseVolumeError::Empty);
    }
    if text.len() <= 2 {
        short.target = text.to_owned();
        return Ok(short);
    }
    let parts = parts(text);
    if parts.iter().any(|part| part.is_empty()) {
        return Err(ParseVolumeError::EmptyPart(cut(text)));
    }
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => return Err(ParseVolumeError::TooManyParts(cut(text))),
    };
    short.source = source.map(str::to_owned);
    short.target = target.to_owned();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => short.read_only = true,
            "rw" => short.read_only = false,
            "nocopy" => short.volume.get_or_insert_default().nocopy = true,
            "private" | "rprivate" | "shared" | "rshared" | "slave" | "rslave" => {
                short.bind.get_or_insert_default().propagation = Some(option.to_owned());
            }
            "z" | "Z" => short.bind.get_or_insert_default().selinux = Some(option.to_owned()),
            other => short.ignored.push(cut(other)),
        }
    }
    if source.is_some_and(is_path) {
        short.kind = Kind::Bind;
        short.bind.get_or_insert_default().create_host_path = true;
    } else {
        short.volume.get_or_insert_default();
    }
    Ok(short)
}

/// The text between colons, those of `${…}` (which were escaped) and of drives excepted.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut depth) = (0, 0usize);
    for (at, c) in text.char_indices() {
        match c {
            '$' if text[at + 1..].starts_with('{') => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ':' if depth == 0 && !is_letter(&text[start..at]) => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// Whether a source is a file of the host: it starts with `.`, `/` or `~`, or is one of Windows.
fn is_path(source: &str) -> bool {
    source.starts_with(['.', '/', '~']) || source.starts_with(r"\\") || has_drive(source)
}

fn has_drive(part: &str) -> bool {
    part.split_once(':').is_some_and(|(drive, _)| is_letter(drive))
}

fn is_letter(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(char::is_alphabetic) && chars.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(short: &ShortVolume) -> String {
        let mut words = vec![match short.kind {
            Kind::Bind => "bind".to_owned(),
            Kind::Volume => "volume".to_owned(),
        }];
        words.extend(short.source.as_ref().map(|source| format!("<{source}")));
        words.push(format!(">{}", short.target));
        words.extend(short.read_only.then(|| "ro".to_owned()));
        if let Some(bind) = &short.bind {
            words.push(
                if bind.create_host_path {
                    "bind+create"
                } else {
                    "bind"
                }
                .to_owned(),
            );
            words.extend(bind.propagation.clone());
            words.extend(bind.selinux.clone());
        }
        if let Some(volume) = short.volume {
            words.push(if volume.nocopy { "volume+nocopy" } else { "volume" }.to_owned());
        }
        words.extend(short.ignored.iter().map(|option| format!("-{option}")));
        words.join(" ")
    }

    #[test]
    fn the_short_form_is_read_as_compose_reads_it() {
        for (text, want) in [
            ("/data", "volume >/data volume"),
            ("data:/data", "volume <data >/data volume"),
            ("data:/data:ro", "volume <data >/data ro volume"),
            ("data:/data:ro,rw", "volume <data >/data volume"),
            ("data:/data:rw,nocopy", "volume <data >/data volume+nocopy"),
            ("data:/data:z", "volume <data >/data bind z volume"),
            ("./d:/data", "bind <./d >/data bind+create"),
            ("../d:/data", "bind <../d >/data bind+create"),
            (".:/data", "bind <. >/data bind+create"),
            ("/d:/data:ro,rprivate", "bind </d >/data ro bind+create rprivate"),
            ("~/d:/data", "bind <~/d >/data bind+create"),
            ("/d:/data:rshared,Z", "bind </d >/data bind+create rshared Z"),
            ("/d:/data:nocopy", "bind </d >/data bind+create volume+nocopy"),
            (
                "/d:/data:cached,,delegated",
                "bind </d >/data bind+create -cached -delegated",
            ),
            ("d/e:/data", "volume <d/e >/data volume"),
            (" :/data", "volume <  >/data volume"),
            // One or two bytes.
            ("/", "volume >/"),
            ("/a", "volume >/a"),
            (":a", "volume >:a"),
            // Drives.
            ("v:/v", "volume >v:/v volume"),
            (r"C:\d:/data", r"bind <C:\d >/data bind+create"),
            (r"C:\d:D:\e:ro", r"bind <C:\d >D:\e ro bind+create"),
            ("/d:v:ro", "bind </d >v:ro bind+create"),
            (
                r"\\.\pipe\x:\\.\pipe\x",
                r"bind <\\.\pipe\x >\\.\pipe\x bind+create",
            ),
            ("1:/v", "volume <1 >/v volume"),
            ("a::b", "bind <a: >b bind+create"),
            // What was `$${…}` in the file.
            ("${A:-b}:/data", "volume <${A:-b} >/data volume"),
            ("/d:/${A:-${B:-c}}:ro", "bind </d >/${A:-${B:-c}} ro bind+create"),
        ] {
            let short = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(show(&short), want, "{text}");
        }
    }

    #[test]
    fn a_wrong_volume_is_refused_with_its_reason() {
        for (text, want) in [
            ("", "is empty"),
            (":/data", "empty part"),
            ("data:", "empty part"),
            ("data::", "empty part"),
            ("/foo::rw", "empty part"),
            ("data:/data:", "empty part"),
            ("data:/data:ro:xy", "too many parts"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(want), "{text}: {error}");
            assert!(!error.hint().is_empty());
        }
    }
}
