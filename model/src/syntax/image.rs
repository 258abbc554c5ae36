//! Image references: a registry reference, or one with a transport.

use std::path::{Path, PathBuf};

use super::absolute;
use crate::types::{ImageName, ParseImageNameError};

/// Why a text names no image that can be run today.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("the image reference is empty")]
    Empty,
    #[error("`{0}` names no path after its transport")]
    NoPath(String),
    #[error("there is no built-in image `{0}`")]
    NoBuiltin(String),
    #[error("the image transport of `{0}` is not supported yet")]
    Transport(String),
    #[error(transparent)]
    Malformed(#[from] ParseImageNameError),
    #[error("`{0}` starts with `~`, and there is no home directory for it here")]
    NoHome(String),
}

impl ImageError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        const TRANSPORTS: &str = "`[HOST[:PORT]/]NAME[:TAG]`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:REF]`, `dir:DIR`, `rootfs:DIR` and `builtin:hello`";
        match self {
            ImageError::Empty | ImageError::Transport(_) => format!("write one of {TRANSPORTS}"),
            ImageError::NoPath(_) => {
                "write the path of the image, absolute or relative to the project directory".into()
            }
            ImageError::NoBuiltin(_) => "the one built-in image is `builtin:hello`".into(),
            ImageError::Malformed(error) => format!(
                "{}; an image is `[HOST[:PORT]/]name[:tag][@sha256:…]`",
                error.hint()
            ),
            ImageError::NoHome(_) => "write the path out".into(),
        }
    }
}

/// The reference with its path made absolute.
pub(crate) fn resolve(text: &str, directory: &Path, home: Option<&Path>) -> Result<String, ImageError> {
    if text.trim().is_empty() {
        return Err(ImageError::Empty);
    }
    let path = |path: &str| -> Result<PathBuf, ImageError> {
        if path.is_empty() {
            return Err(ImageError::NoPath(text.to_owned()));
        }
        absolute(path, directory, home).ok_or_else(|| ImageError::NoHome(text.to_owned()))
    };
    match text.split_once(':') {
        Some(("builtin", "hello")) => Ok(text.to_owned()),
        Some(("builtin", name)) => Err(ImageError::NoBuiltin(name.to_owned())),
        Some((transport @ ("rootfs" | "dir"), rest)) => Ok(format!("{transport}:{}", path(rest)?.display())),
        Some((transport @ ("oci" | "oci-archive" | "docker-archive"), rest)) => {
            // The tag begins at the first colon, as in containers/image: such paths hold no colon.
            Ok(match rest.split_once(':') {
                Some((file, tag)) => format!("{transport}:{}:{tag}", path(file)?.display()),
                None => format!("{transport}:{}", path(rest)?.display()),
            })
        }
        Some((
            "docker" | "docker-daemon" | "containers-storage" | "ostree" | "sif" | "tarball" | "atomic",
            _,
        )) => Err(ImageError::Transport(text.to_owned())),
        // As written: what it is short for is the same everywhere.
        _ => Ok(text.parse::<ImageName>().map(|_| text.to_owned())?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(text: &str) -> Result<String, ImageError> {
        super::resolve(text, Path::new("/p"), Some(Path::new("/home/u")))
    }

    #[test]
    fn transports_are_kept_and_their_paths_made_absolute() {
        for (text, want) in [
            ("builtin:hello", "builtin:hello"),
            ("rootfs:./root", "rootfs:/p/root"),
            ("rootfs:/", "rootfs:/"),
            ("dir:image", "dir:/p/image"),
            ("rootfs:~/root", "rootfs:/home/u/root"),
            ("oci:./image", "oci:/p/image"),
            ("oci:../image:1.2", "oci:/image:1.2"),
            ("oci-archive:/a/i.tar:latest", "oci-archive:/a/i.tar:latest"),
            (
                "docker-archive:i.tar:docker.io/library/x:1",
                "docker-archive:/p/i.tar:docker.io/library/x:1",
            ),
        ] {
            assert_eq!(resolve(text), Ok(want.to_owned()), "{text}");
        }
    }

    #[test]
    fn names_in_registries_are_kept_as_they_are_written() {
        for text in ["nginx", "nginx:1.27", "localhost:5000/a/b"] {
            assert_eq!(resolve(text), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_no_image_is_refused_with_its_reason() {
        for (text, want) in [
            ("", "empty"),
            ("rootfs:", "no path"),
            ("oci::tag", "no path"),
            ("builtin:other", "no built-in image `other`"),
            ("dir:", "no path"),
            ("docker://nginx", "transport"),
            ("Nginx", "written in lower case"),
            ("nginx:", "no tag"),
            ("a b", "`a b` is no part"),
            ("nginx@sha256:12", "no digest"),
            ("/nginx", "`` is no part"),
        ] {
            let error = resolve(text).unwrap_err();
            assert!(error.to_string().contains(want), "{text}: {error}");
            assert!(!error.hint().is_empty());
        }
    }
}
