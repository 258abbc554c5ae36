//! Image references with a transport, as skopeo and podman write them (containers-transports(5)).

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use model::types::{ImageName, ParseImageNameError};
use thiserror::Error;

/// A parsed `image:`. Paths are absolute; the model has resolved relative ones.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reference {
    /// `builtin:hello`: the demonstration image inside the binary.
    Hello,
    /// `rootfs:DIR`: the directory itself is the one layer, read-only.
    Rootfs(PathBuf),
    /// `oci:DIR[:TAG]`: an OCI image layout.
    Oci { path: PathBuf, tag: Option<String> },
    /// `oci-archive:FILE[:TAG]`: the same in a tar file.
    OciArchive { path: PathBuf, tag: Option<String> },
    /// `docker-archive:FILE[:REF]`: what `docker save` writes.
    DockerArchive { path: PathBuf, name: Option<String> },
    /// `dir:DIR`: manifest and blobs side by side, as `skopeo copy` writes them.
    Dir(PathBuf),
    /// `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`: from a registry.
    Registry(ImageName),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    #[error("image {0}: {1}; {hint}", hint = .1.hint())]
    Name(String, ParseImageNameError),
    #[error("image {0}: there is no such built-in image. The only one is builtin:hello")]
    Builtin(String),
    #[error("image {0}: the path is missing or not absolute. Write TRANSPORT:/absolute/path")]
    Path(String),
    #[error("image {0}: the tag is empty. Write a tag after the last colon, or leave the colon out")]
    Tag(String),
}

impl Reference {
    /// Where the image is read from; `None`: from no file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Reference::Hello | Reference::Registry(_) => None,
            Reference::Rootfs(path)
            | Reference::Dir(path)
            | Reference::Oci { path, .. }
            | Reference::OciArchive { path, .. }
            | Reference::DockerArchive { path, .. } => Some(path),
        }
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, ReferenceError> {
        let registry = || match text.parse() {
            Ok(name) => Ok(Reference::Registry(name)),
            Err(error) => Err(ReferenceError::Name(text.to_owned(), error)),
        };
        let Some((transport, rest)) = text.split_once(':') else {
            return registry();
        };
        match transport {
            "builtin" if rest == "hello" => Ok(Reference::Hello),
            "builtin" => Err(ReferenceError::Builtin(text.to_owned())),
            // A colon in a directory name stays: these two have no tag.
            "rootfs" => Ok(Reference::Rootfs(absolute(text, rest)?)),
            "dir" => Ok(Reference::Dir(absolute(text, rest)?)),
            "oci" | "oci-archive" | "docker-archive" => {
                // As in containers-transports(5): the path ends at the first colon.
                let (path, tag) = match rest.split_once(':') {
                    Some((_, "")) => return Err(ReferenceError::Tag(text.to_owned())),
                    Some((path, tag)) => (path, Some(tag.to_owned())),
                    None => (rest, None),
                };
                let path = absolute(text, path)?;
                Ok(match transport {
                    "oci" => Reference::Oci { path, tag },
                    "oci-archive" => Reference::OciArchive { path, tag },
                    _ => Reference::DockerArchive { path, name: tag },
                })
            }
            _ => registry(),
        }
    }
}

fn absolute(text: &str, path: &str) -> Result<PathBuf, ReferenceError> {
    match Path::new(path) {
        path if path.is_absolute() => Ok(path.to_owned()),
        _ => Err(ReferenceError::Path(text.to_owned())),
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, path, tag) = match self {
            Reference::Hello => return f.write_str("builtin:hello"),
            Reference::Rootfs(path) => ("rootfs", path, &None),
            Reference::Dir(path) => ("dir", path, &None),
            Reference::Oci { path, tag } => ("oci", path, tag),
            Reference::OciArchive { path, tag } => ("oci-archive", path, tag),
            Reference::DockerArchive { path, name } => ("docker-archive", path, name),
            Reference::Registry(name) => return name.fmt(f),
        };
        write!(f, "{transport}:{}", path.display())?;
        match tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_parse_and_print_as_written() {
        for text in [
            "builtin:hello",
            "rootfs:/",
            "rootfs:/srv/a:b",
            "dir:/srv/image",
            "oci:/srv/image",
            "oci:/srv/image:1.2",
            "oci-archive:/srv/a.tar:latest",
            "docker-archive:/srv/a.tar",
            "docker-archive:/srv/a.tar:docker.io/library/busybox:1.36",
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().to_string(), text);
        }
        assert_eq!(
            "docker-archive:/a.tar:b:c".parse(),
            Ok(Reference::DockerArchive {
                path: "/a.tar".into(),
                name: Some("b:c".into())
            })
        );
    }

    #[test]
    fn what_has_no_transport_is_in_a_registry() {
        for (text, name) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1"),
        ] {
            let reference = text.parse::<Reference>().unwrap();
            assert_eq!(reference, Reference::Registry(name.parse().unwrap()));
            assert_eq!(reference.to_string(), name);
        }
    }

    #[test]
    fn everything_else_says_what_to_write() {
        for (text, says) in [
            ("Nginx", "lower case"),
            ("nginx@sha256:abc", "64 lower-case"),
            ("builtin:bye", "builtin:hello"),
            ("rootfs:", "absolute"),
            ("rootfs:srv", "absolute"),
            ("oci::tag", "absolute"),
            ("oci:/srv/image:", "tag"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(text), "{error}");
        }
    }
}
