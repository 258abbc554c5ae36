//! Where a copy lands: the rules of `docker cp`. Pure.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::Found;

/// A directory that is there, and what is made in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Landing {
    pub directory: PathBuf,
    /// Empty: the contents of the source.
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no {0} to be copied")]
    NoSource(PathBuf),
    #[error("{0} is a directory, and {1} is none; name another destination")]
    OntoFile(PathBuf, PathBuf),
    #[error("{0} is no directory; write it without the slash at its end")]
    NotADirectory(PathBuf),
    #[error("there is no directory {0}; make it first")]
    NoDirectory(PathBuf),
}

/// # Errors
/// Docker refuses it as well.
pub fn land(source: &Path, from: Found, target: &Path, to: Found) -> Result<Landing, Refusal> {
    let (all, slash) = (contents(source), ends_with(target, b"/"));
    match (from, to) {
        (Found::Nothing, _) => Err(Refusal::NoSource(source.to_owned())),
        (Found::File, _) if ends_with(source, b"/") || all => Err(Refusal::NotADirectory(source.to_owned())),
        (Found::File, Found::Nothing) if slash => Err(Refusal::NoDirectory(target.to_owned())),
        (Found::File, Found::File) if slash => Err(Refusal::NotADirectory(target.to_owned())),
        (Found::Directory, Found::File) => Err(Refusal::OntoFile(source.to_owned(), target.to_owned())),
        (_, Found::Directory) => Ok(Landing {
            directory: target.to_owned(),
            name: if all { String::new() } else { name(source) },
        }),
        (_, Found::File | Found::Nothing) => {
            let clean = trimmed(target);
            let directory = match clean.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
                _ if clean.is_absolute() => PathBuf::from("/"),
                _ => PathBuf::from("."),
            };
            Ok(Landing {
                directory,
                name: name(&clean),
            })
        }
    }
}

fn ends_with(path: &Path, end: &[u8]) -> bool {
    path.as_os_str().as_bytes().ends_with(end)
}

/// `dir/.`: what is in it, not the directory itself.
fn contents(path: &Path) -> bool {
    ends_with(path, b"/.") || path.as_os_str() == "."
}

fn trimmed(path: &Path) -> PathBuf {
    path.components().collect()
}

/// The last name of a path; the root and `..` have none, so it is their contents that are meant.
pub fn name(path: &Path) -> String {
    let name = path.file_name().filter(|_| !contents(path));
    name.map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_lands_where_dockers_does() {
        use Found::{Directory, File, Nothing};
        let place = |directory: &str, name: &str| {
            Ok(Landing {
                directory: directory.into(),
                name: name.into(),
            })
        };
        for (source, from, target, to, want) in [
            ("a/f", File, "/d/new", Nothing, place("/d", "new")),
            (
                "a/f",
                File,
                "/d/new/",
                Nothing,
                Err("there is no directory /d/new/"),
            ),
            ("a/f", File, "/d/old", File, place("/d", "old")),
            ("a/f", File, "/d/old/", File, Err("/d/old/ is no directory")),
            ("a/f", File, "/d", Directory, place("/d", "f")),
            ("a/f/", File, "/d", Directory, Err("a/f/ is no directory")),
            ("a/dir", Directory, "/d/new", Nothing, place("/d", "new")),
            ("a/dir", Directory, "/d/new/", Nothing, place("/d", "new")),
            ("a/dir/.", Directory, "/d/new", Nothing, place("/d", "new")),
            ("a/dir", Directory, "/d/old", File, Err("a/dir is a directory")),
            ("a/dir", Directory, "/d", Directory, place("/d", "dir")),
            ("a/dir/", Directory, "/d", Directory, place("/d", "dir")),
            ("a/dir/.", Directory, "/d", Directory, place("/d", "")),
            (".", Directory, "/d", Directory, place("/d", "")),
            ("/", Directory, "/d", Directory, place("/d", "")),
            ("a/f", File, "new", Nothing, place(".", "new")),
            ("a/f", File, "/new", Nothing, place("/", "new")),
            ("a/f", Nothing, "/d", Directory, Err("there is no a/f")),
        ] {
            match (land(Path::new(source), from, Path::new(target), to), want) {
                (Ok(found), Ok(want)) => assert_eq!(found, want, "{source} {target}"),
                (Err(error), Err(part)) => {
                    assert!(error.to_string().contains(part), "{source} {target}: {error}")
                }
                (found, want) => panic!("{source} {target}: {found:?}, not {want:?}"),
            }
        }
    }
}
