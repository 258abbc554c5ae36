//! The small languages inside Compose values: pure functions from text to typed values.

pub(crate) mod image;
pub(crate) mod port;
pub(crate) mod size;
pub(crate) mod volume;
pub(crate) mod words;

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
        }
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
