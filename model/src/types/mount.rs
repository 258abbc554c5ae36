//! What is mounted into a service.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A mount in long form. `target` is absolute and cleaned. Serialised as `docker compose config` prints it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mount {
    /// `source` is a key of `Project::volumes`, or `None` for an anonymous volume.
    Volume {
        source: Option<String>,
        target: PathBuf,
        read_only: bool,
        nocopy: bool,
        /// Below the volume's root.
        subpath: Option<String>,
    },
    /// `source` is absolute; `create_host_path`: a missing source becomes a directory.
    Bind {
        source: PathBuf,
        target: PathBuf,
        read_only: bool,
        create_host_path: bool,
        /// `None`: `rprivate`.
        propagation: Option<Propagation>,
        recursive: Recursive,
    },
    /// `size` in bytes; `mode` as permission bits; ids as in the container.
    Tmpfs {
        target: PathBuf,
        size: Option<u64>,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        /// Programs on it may be run.
        exec: bool,
    },
}

/// What becomes of the mounts below the source of a bind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recursive {
    /// They are there, and read-only if the bind is.
    #[default]
    Enabled,
    /// They are not.
    Disabled,
    /// They are there, and can be written below a bind that cannot.
    Writable,
    /// They are there and read-only for sure. So they are with [`Recursive::Enabled`] here.
    Readonly,
}

impl Recursive {
    pub fn is_enabled(&self) -> bool {
        *self == Recursive::Enabled
    }
}

/// mount_namespaces(7); the recursive ones reach the mounts below.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    Private,
    #[default]
    RPrivate,
    Shared,
    RShared,
    Slave,
    RSlave,
}

impl Propagation {
    /// What is mounted in the container appears on the host.
    pub fn is_shared(self) -> bool {
        matches!(self, Propagation::Shared | Propagation::RShared)
    }

    /// What is mounted on the host later appears in the container.
    pub fn is_private(self) -> bool {
        matches!(self, Propagation::Private | Propagation::RPrivate)
    }
}

impl Mount {
    pub fn target(&self) -> &PathBuf {
        match self {
            Mount::Volume { target, .. } | Mount::Bind { target, .. } | Mount::Tmpfs { target, .. } => target,
        }
    }
}

/// The long form of the Compose Specification.
#[derive(Serialize, Deserialize)]
struct Long {
    r#type: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    target: PathBuf,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bind: Option<Bind>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    volume: Option<Volume>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tmpfs: Option<Tmpfs>,
}

#[derive(Serialize, Deserialize)]
struct Bind {
    create_host_path: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    propagation: Option<Propagation>,
    #[serde(default, skip_serializing_if = "Recursive::is_enabled")]
    recursive: Recursive,
}

#[derive(Default, Serialize, Deserialize)]
struct Volume {
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    nocopy: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subpath: Option<String>,
}

#[derive(Default, PartialEq, Serialize, Deserialize)]
struct Tmpfs {
    /// Text, as in the reference: the number may be larger than what JSON readers keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    exec: bool,
}

impl Serialize for Mount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let long = |kind: &str, target: &PathBuf| Long {
            r#type: kind.to_owned(),
            source: None,
            target: target.clone(),
            read_only: false,
            bind: None,
            volume: None,
            tmpfs: None,
        };
        match self {
            Mount::Volume {
                source,
                target,
                read_only,
                nocopy,
                subpath,
            } => Long {
                source: source.clone(),
                read_only: *read_only,
                volume: (*nocopy || subpath.is_some()).then(|| Volume {
                    nocopy: *nocopy,
                    subpath: subpath.clone(),
                }),
                ..long("volume", target)
            },
            Mount::Bind {
                source,
                target,
                read_only,
                create_host_path,
                propagation,
                recursive,
            } => Long {
                source: Some(source.to_string_lossy().into_owned()),
                read_only: *read_only,
                bind: Some(Bind {
                    create_host_path: *create_host_path,
                    propagation: *propagation,
                    recursive: *recursive,
                }),
                ..long("bind", target)
            },
            Mount::Tmpfs {
                target,
                size,
                mode,
                uid,
                gid,
                exec,
            } => {
                let options = Tmpfs {
                    size: size.map(|size| size.to_string()),
                    mode: *mode,
                    uid: *uid,
                    gid: *gid,
                    exec: *exec,
                };
                Long {
                    tmpfs: Some(options).filter(|options| *options != Tmpfs::default()),
                    ..long("tmpfs", target)
                }
            }
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Mount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let long = Long::deserialize(deserializer)?;
        let Long {
            source,
            target,
            read_only,
            ..
        } = long;
        match long.r#type.as_str() {
            "volume" => {
                let Volume { nocopy, subpath } = long.volume.unwrap_or_default();
                Ok(Mount::Volume {
                    source,
                    target,
                    read_only,
                    nocopy,
                    subpath,
                })
            }
            "bind" => {
                let source = source.ok_or_else(|| de::Error::missing_field("source"))?.into();
                let Bind {
                    create_host_path,
                    propagation,
                    recursive,
                } = long.bind.unwrap_or(Bind {
                    create_host_path: true,
                    propagation: None,
                    recursive: Recursive::Enabled,
                });
                Ok(Mount::Bind {
                    source,
                    target,
                    read_only,
                    create_host_path,
                    propagation,
                    recursive,
                })
            }
            "tmpfs" => {
                let Tmpfs {
                    size,
                    mode,
                    uid,
                    gid,
                    exec,
                } = long.tmpfs.unwrap_or_default();
                let size = size
                    .map(|size| size.parse().map_err(de::Error::custom))
                    .transpose()?;
                Ok(Mount::Tmpfs {
                    target,
                    size,
                    mode,
                    uid,
                    gid,
                    exec,
                })
            }
            other => Err(de::Error::unknown_variant(other, &["volume", "bind", "tmpfs"])),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mounts_serialise_in_the_long_form_and_read_back() {
        for (mount, want) in [
            (
                Mount::Volume {
                    source: Some("data".into()),
                    target: "/data".into(),
                    read_only: true,
                    nocopy: true,
                    subpath: None,
                },
                json!({"type": "volume", "source": "data", "target": "/data", "read_only": true, "volume": {"nocopy": true}}),
            ),
            (
                Mount::Volume {
                    source: None,
                    target: "/data".into(),
                    read_only: false,
                    nocopy: false,
                    subpath: Some("a/b".into()),
                },
                json!({"type": "volume", "target": "/data", "volume": {"subpath": "a/b"}}),
            ),
            (
                Mount::Bind {
                    source: "/a".into(),
                    target: "/b".into(),
                    read_only: false,
                    create_host_path: false,
                    propagation: Some(Propagation::RSlave),
                    recursive: Recursive::Disabled,
                },
                json!({"type": "bind", "source": "/a", "target": "/b",
                       "bind": {"create_host_path": false, "propagation": "rslave", "recursive": "disabled"}}),
            ),
            (
                Mount::Tmpfs {
                    target: "/t".into(),
                    size: Some(u64::MAX),
                    mode: Some(0o1777),
                    uid: Some(5),
                    gid: None,
                    exec: true,
                },
                json!({"type": "tmpfs", "target": "/t",
                       "tmpfs": {"size": "18446744073709551615", "mode": 1023, "uid": 5, "exec": true}}),
            ),
            (
                Mount::Tmpfs {
                    target: "/t".into(),
                    size: None,
                    mode: None,
                    uid: None,
                    gid: None,
                    exec: false,
                },
                json!({"type": "tmpfs", "target": "/t"}),
            ),
        ] {
            assert_eq!(serde_json::to_value(&mount).unwrap(), want);
            assert_eq!(serde_json::from_value::<Mount>(want).unwrap(), mount);
        }
    }
}
