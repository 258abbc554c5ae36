//! The small languages inside Compose values: pure functions from text to typed values.

pub(crate) mod cdi;
pub(crate) mod cpus;
pub(crate) mod device;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod mapping;
pub(crate) mod port;
pub(crate) mod seccomp;
pub(crate) mod size;
pub(crate) mod ssh;
pub(crate) mod sysctls;
pub(crate) mod volume;
pub(crate) mod words;

#[cfg(test)]
mod cases;

use std::path::{Component, Path, PathBuf};

/// A path without `.`, `..` and double slashes, decided on the text alone (as Go's `path.Clean`).
pub(crate) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir if clean.parent().is_some() && clean.file_name().is_some() => {
                clean.pop();
            }
            Component::ParentDir if clean.has_root() => {}
            other => clean.push(other),
        }
    }
    clean
}

/// As [`clean`] for a path inside a container, which may be relative: then it is never empty.
pub(crate) fn clean_text(path: &str) -> String {
    let cleaned = clean(Path::new(path));
    match cleaned.to_string_lossy() {
        cleaned if cleaned.is_empty() && !path.is_empty() => ".".to_owned(),
        cleaned => cleaned.into_owned(),
    }
}

/// A decimal number with an optional fraction and exponent; it may be too large, and infinite.
fn float(text: &str) -> Option<f64> {
    // `parse` alone would take names like `inf`.
    let number = |c: u8| c.is_ascii_digit() || matches!(c, b'.' | b'+' | b'-' | b'e' | b'E');
    text.parse().ok().filter(|_| text.bytes().all(number))
}

/// A value for a message, of which nobody reads more than the beginning.
pub(crate) fn cut(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A path of a manifest made absolute: `~` is `home`, everything relative is below `directory`.
/// `None`: it starts with `~` and there is no home, or names another user's.
pub(crate) fn absolute(path: &str, directory: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let path = match path.strip_prefix('~') {
        Some("") => home?.to_owned(),
        Some(rest) => home?.join(rest.strip_prefix('/')?),
        None => directory.join(path),
    };
    Some(clean(&path))
}

/// `2024-01-31`, alone or before a time: a date to readers of YAML 1.1.
pub(crate) fn is_date(text: &str) -> bool {
    let (date, _) = text.split_once(['T', 't', ' ']).unwrap_or((text, ""));
    let parts: Vec<&str> = date.split('-').collect();
    let [year, rest @ ..] = &parts[..] else {
        return false;
    };
    let digits = |part: &&str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
    year.len() == 4
        && digits(year)
        && rest.len() == 2
        && rest.iter().all(|part| part.len() <= 2 && digits(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_text() {
        for (path, want) in [
            ("/a/./b//c/", "/a/b/c"),
            ("/a/../b", "/b"),
            ("/../b", "/b"),
            ("/", "/"),
            ("a/../../b", "../b"),
        ] {
            assert_eq!(clean(Path::new(path)), Path::new(want), "{path}");
            assert_eq!(clean_text(path), want);
        }
        assert_eq!(clean_text("a/.."), ".");
        assert_eq!(clean_text(""), "");
    }

    #[test]
    fn relative_paths_are_below_the_project_directory_and_home_is_given() {
        let absolute = |path| absolute(path, Path::new("/p"), Some(Path::new("/home/u")));
        for (path, want) in [
            ("./a", Some("/p/a")),
            ("../a", Some("/a")),
            ("/a", Some("/a")),
            ("~", Some("/home/u")),
            ("~/a", Some("/home/u/a")),
            ("~other/a", None),
        ] {
            assert_eq!(absolute(path).as_deref(), want.map(Path::new), "{path}");
        }
    }
}
