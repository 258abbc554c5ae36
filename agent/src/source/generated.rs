//! The small manifest that `apply` writes: it points at a source that stays where it is.
//!
//! ```yaml
//! # Written by `stead apply`; `stead down shop` removes it.
//! x-stead-source: /home/me/shop
//! ```
//!
//! One key, `x-stead-source`: the absolute path of a Compose file or a project directory. A manifest
//! with this key stands for that project, with its own project directory and `.env`. A Compose file
//! with other keys beside it is read as such, and the key means nothing.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// All that a generated manifest says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    #[serde(rename = "x-stead-source")]
    source: PathBuf,
}

/// A generated manifest is one path and a comment.
const MAX: u64 = 16 * 1024;

/// The source a manifest points at, if it is a generated one.
pub fn source_of(manifest: &Path) -> Option<PathBuf> {
    let metadata = std::fs::metadata(manifest).ok()?;
    if !metadata.is_file() || metadata.len() > MAX {
        return None;
    }
    parse(&std::fs::read_to_string(manifest).ok()?)
}

fn parse(text: &str) -> Option<PathBuf> {
    let manifest: Manifest = serde_yaml::from_str(text).ok()?;
    manifest.source.is_absolute().then_some(manifest.source)
}

/// What `apply` writes for a project.
///
/// # Errors
/// The path is not UTF-8.
pub fn text(project: &str, source: &Path) -> io::Result<String> {
    let wrong = |message: String| io::Error::new(io::ErrorKind::InvalidInput, message);
    if source.to_str().is_none() {
        return Err(wrong(format!("{} is not UTF-8; rename it", source.display())));
    }
    let source = source.to_owned();
    let manifest = serde_yaml::to_string(&Manifest { source }).map_err(|error| wrong(error.to_string()))?;
    Ok(format!(
        "# Written by `stead apply`; `stead down {project}` removes it.\n{manifest}"
    ))
}

/// Puts a file in place, whole or not at all.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    match path.parent() {
        Some(parent) => std::fs::File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for path in ["/home/me/shop", "/a b/\"quoted\"/ü", "/back\\slash"] {
            let written = text("shop", Path::new(path)).unwrap();
            assert_eq!(parse(&written), Some(PathBuf::from(path)), "{written}");
        }
        assert_eq!(parse("x-stead-source: /plain\n"), Some("/plain".into()));
    }

    #[test]
    fn a_compose_file_is_not_a_generated_manifest() {
        for text in [
            "services: {}\n",
            "",
            "x-stead-source: relative\n",
            "x-stead-source: /a\nservices: {}\n",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
